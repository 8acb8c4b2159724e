"""Stock programs that fail or pry: a node killed at work, a ServerApp that reads what is not its own."""

import pytest

import certs
import golden
import harness


@pytest.mark.ours_alone("a node that comes back with its key is let in, and handed its message again")
def test_a_node_killed_at_work_does_it_again_when_it_is_back(world):
    authority = certs.Authority(world.directory / "tls")
    server = harness.Server(world, authority=authority, auth=True).start()
    cli = harness.Cli(world, server)
    keys = [certs.node_key(world.directory / f"node-{idx}") for idx in range(2)]
    for _, public in keys:
        cli("supernode", "register", public, "it")
    nodes = [harness.SuperNode(world, server, idx, key=key).start() for idx, (key, _) in enumerate(keys)]
    server.wait_nodes(2)
    run_id = cli.submit(**golden.load()["restarts"]["config"], train_pause_s=5.0)
    harness.wait_for("both clients at work", lambda: len(world.processes("flwr-clientapp")) == 2)
    for process in [*nodes[0].descendants(), nodes[0].process]:
        process.kill()
    nodes[0].process.wait()
    nodes[0].start()
    assert server.end(run_id) == "finished:completed"
    golden.assert_equal(cli.result(run_id), "restarts")


@pytest.mark.ours_alone("walls keep a ServerApp from keys and state")
@pytest.mark.skipif(not harness.has_landlock(), reason="this kernel has no Landlock, and no account is set up")
def test_a_serverapp_reads_no_key_and_no_state(world):
    server, _, cli = harness.federation(world, 1, tls=True, auth=True)
    secret = world.directory / "secret"
    secret.write_text("nothing for a ServerApp")
    paths = [
        server.authority.key,
        world.directory / "state.db",
        secret,
        world.directory / "node-0",
        f"/proc/{server.pid}/environ",
    ]
    run_id = cli.submit(mode="spy", spy=",".join(map(str, paths)))
    assert server.end(run_id) == "finished:completed"
    result = cli.result(run_id)
    assert result["read"] == [], result
    assert set(result["environment"]) <= {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "PYTHONUNBUFFERED",
        "FLWR_HOME",
        "FLWR_TELEMETRY_ENABLED",
        "FLWR_DISABLE_UPDATE_CHECK",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
        # Set by libraries that the stock ServerApp loads.
        "GRPC_VERBOSITY",
        "BROWSER_USE_SETUP_LOGGING",
    }, result
