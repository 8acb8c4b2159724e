"""Nodes of two releases and two transports in one run; the golden history of the legacy protocol."""

import os

import pytest

import golden
import harness
import legacy


@pytest.mark.peer("flwr 1.39.0: SuperNode over gRPC")
@pytest.mark.peer("flwr 1.42.0: SuperNode over HTTP, ServerApp, command")
def test_an_old_node_over_grpc_beside_a_new_one_over_http(world):
    server = harness.Server(world, grpc=True).start()
    cli = harness.Cli(world, server)
    old = harness.SuperNode(world, server, 0, old=True, name="supernode-1.39").start()
    new = harness.SuperNode(world, server, 1).start()
    server.wait_nodes(2)
    run_id = cli.submit(**golden.load()["old"]["config"])
    assert server.end(run_id) == "finished:completed"
    golden.assert_equal(cli.result(run_id), "old")
    assert old.alive() and new.alive()
    assert [old.stop(), new.stop()] == [0, 0]
    assert server.stop() == 0


@pytest.mark.ours_alone("every address serves the gRPC adapter")
@pytest.mark.peer("flwr 1.39.0: SuperNode over the gRPC adapter")
def test_an_old_node_whose_calls_come_in_envelopes(world):
    server = harness.Server(world, grpc=True).start()
    cli = harness.Cli(world, server)
    adapted = harness.SuperNode(world, server, 0, old=True, name="supernode-adapter", options=["--grpc-adapter"]).start()
    new = harness.SuperNode(world, server, 1).start()
    server.wait_nodes(2)
    run_id = cli.submit(**golden.load()["old"]["config"])
    assert server.end(run_id) == "finished:completed"
    golden.assert_equal(cli.result(run_id), "old")
    assert [adapted.stop(), new.stop()] == [0, 0]


@pytest.mark.skipif(
    not harness.STOCK or os.environ.get("SHEAF_INTEROP_GOLDEN") != "1",
    reason="the golden history is the stock server's; asked for by SHEAF_INTEROP_GOLDEN=1",
)
def test_the_golden_history_of_the_legacy_protocol_is_what_the_stock_server_does(world):
    (port,) = harness.free_ports(1)
    address = f"127.0.0.1:{port}"
    server = legacy.server(world, address, rounds=2, clients=2).start()
    clients = [legacy.client(world, address, partition).start() for partition in range(2)]
    harness.wait_for("the end of every client", lambda: not any(client.alive() for client in clients))
    harness.wait_for("the server's end", lambda: not server.alive())
    assert [client.process.returncode for client in clients] == [0, 0]
    assert server.process.returncode == 0
    legacy.assert_equal(legacy.history_in(server.text()))
