"""Runs of a stock ServerApp with stock SuperNodes end as they do under the stock server, to the bit."""

import os

import pytest

import golden
import harness


def finish(server, cli, name, **config):
    """Submits the golden run `name` with `--stream`; its result must be the golden one. Gives what was streamed."""
    config = golden.load()[name]["config"] | config
    streamed = cli("run", harness.APP, "it", "--stream", "--run-config", harness.run_config(**config))
    runs = cli.json("ls", "it")["runs"]
    assert [run["status"] for run in runs] == ["finished:completed"], runs
    golden.assert_equal(harness.result_in(streamed), name)
    return streamed


@pytest.mark.peer("flwr 1.42.0: SuperNode over HTTP, ServerApp, command")
@pytest.mark.parametrize(
    "tls,auth", [(False, False), (True, False), (True, True)], ids=["plain", "tls", "tls-and-node-keys"]
)
def test_two_nodes_end_as_under_the_stock_server(world, tls, auth):
    server, nodes, cli = harness.federation(world, 2, tls=tls, auth=auth)
    finish(server, cli, "two")
    assert all(node.alive() for node in nodes)
    assert [node.stop() for node in nodes] == [0, 0]
    # A node with a key of its own stays registered; one that made its key for the day unregisters as it leaves.
    harness.wait_for("no node online", lambda: not server.online())
    assert server.stop() == 0


def test_three_nodes_end_as_under_the_stock_server(world):
    server, _, cli = harness.federation(world, 3)
    finish(server, cli, "three")


def test_a_second_run_uses_the_nodes_again(world):
    """Two runs at once share nodes, and neither disturbs the other."""
    server, _, cli = harness.federation(world, 2)
    config = golden.load()["restarts"]["config"]
    first, second = cli.submit(**config), cli.submit(**config)
    for run_id in (first, second):
        assert server.end(run_id) == "finished:completed"
        golden.assert_equal(cli.result(run_id), "restarts")


@pytest.mark.skipif(
    os.environ.get("SHEAF_INTEROP_GOLDEN") != "1", reason="takes minutes; asked for by SHEAF_INTEROP_GOLDEN=1"
)
@pytest.mark.parametrize("name", golden.RUNS)
def test_the_golden_file_is_what_the_stock_server_does(name):
    assert golden.stock_result(golden.RUNS[name]) == golden.load()[name]["result"]
