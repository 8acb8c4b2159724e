"""What the stock `flwr` command shows and does: logs, lists, stop, and the nodes' register."""

import certs
import fabs
import harness
import wire

SMALL = {"mode": "fedavg", "rounds": 1, "min_nodes": 1, "large_bytes": 4000}


def test_logs_arrive_while_the_run_goes_on_and_can_be_shown_afterwards(world):
    server, _, cli = harness.federation(world, 1)
    run_id = cli.submit(**SMALL, train_pause_s=3.0)
    follower = cli.program("follower", "log", run_id, "it", "--stream").start()
    follower.wait_log(r"PHASE train 1")
    assert wire.run_of(server, run_id).status.status == "running", "the log came only at the end"
    assert server.end(run_id) == "finished:completed"
    harness.wait_for("the end of the stream", lambda: not follower.alive())
    assert follower.process.returncode == 0
    shown = cli("log", run_id, "it", "--show")
    marks = ["PHASE start", "PHASE train 1", "PHASE replies 1 1", "PHASE end", "RESULT {"]
    for text in (follower.text(), shown):
        places = [text.index(mark) for mark in marks]
        assert places == sorted(places), text


def test_runs_are_listed_with_their_states(world):
    server, nodes, cli = harness.federation(world, 1)
    done = cli.submit(**SMALL)
    assert server.end(done) == "finished:completed"
    waiting = cli.submit(**(SMALL | {"min_nodes": 2}))
    harness.wait_for("the second run", lambda: wire.run_of(server, waiting).status.status == "running")
    runs = {int(run["run-id"]): run for run in cli.json("ls", "it")["runs"]}
    assert {run_id: run["status"] for run_id, run in runs.items()} == {done: "finished:completed", waiting: "running"}
    assert all(run["federation-id"] == "@none/default" for run in runs.values()), runs
    assert all(run["fab-id"] == "sheaf/judged" and run["fab-version"] == "1.0.0" for run in runs.values()), runs
    one = cli.json("ls", "it", "--run-id", done)["runs"]
    assert [int(run["run-id"]) for run in one] == [done]
    newest = cli.json("ls", "it", "--limit", "1")["runs"]
    assert [int(run["run-id"]) for run in newest] == [waiting]
    assert (
        runs[done]["network-traffic"]["inbound-bytes"] > 4000 and runs[done]["network-traffic"]["outbound-bytes"] > 4000
    )
    assert runs[done]["compute-time"]["serverapp-seconds"] > 0 and runs[done]["compute-time"]["clientapp-seconds"] > 0
    assert all(run["pending-at"] and run["running-at"] for run in runs.values()), runs
    assert str(done) in cli("ls", "it")


def test_a_run_that_is_stopped_ends_and_its_serverapp_with_it(world):
    server, nodes, cli = harness.federation(world, 1)
    run_id = cli.submit(**SMALL, train_pause_s=600.0)
    harness.wait_for("a client at work", lambda: world.processes("flwr-clientapp"))
    assert cli.json("stop", run_id, "it")["success"] is True
    assert server.end(run_id) == "finished:stopped"
    harness.wait_for("the ServerApp's end", lambda: not world.processes("flwr-serverapp"))
    assert nodes[0].alive()
    again = cli.run("stop", run_id, "it")
    assert again.returncode != 0, again.stdout


def test_a_node_whose_run_was_stopped_takes_part_in_the_next(world):
    server, nodes, cli = harness.federation(world, 1)
    stopped = cli.submit(**SMALL, train_pause_s=4.0)
    harness.wait_for("a client at work", lambda: world.processes("flwr-clientapp"))
    cli("stop", stopped, "it")
    assert server.end(cli.submit(**SMALL)) == "finished:completed"
    assert nodes[0].alive()


def test_unknown_runs_and_wrong_overrides_are_refused_with_a_word(world):
    server = harness.Server(world).start()
    cli = harness.Cli(world, server)
    for arguments in (["log", 12345, "it", "--show"], ["stop", 12345, "it"], ["ls", "it", "--run-id", 12345]):
        refused = cli.run(*arguments)
        assert refused.returncode != 0, (arguments, refused.stdout)
        assert "Traceback" not in refused.stderr, refused.stderr
    override = cli.run("run", harness.APP, "it", "--run-config", "no-such-key=1")
    assert override.returncode != 0 and "Traceback" not in override.stderr, override
    raw = wire.call(server, "control/start-run", fabs.start_request(no_such_key=1))
    assert (raw.status, raw.code) == (412, 15), raw
    assert cli.json("ls", "it")["runs"] == []


def test_nodes_are_registered_listed_and_unregistered(world):
    authority = certs.Authority(world.directory / "tls")
    server = harness.Server(world, authority=authority, auth=True).start()
    cli = harness.Cli(world, server)
    private, public = certs.node_key(world.directory / "known")
    unknown, _ = certs.node_key(world.directory / "unknown")
    card = ("--name", "Ward 3", "--location", "37.4056,-122.0775")
    node_id = int(cli.json("supernode", "register", public, "it", *card)["node-id"])
    assert cli.run("supernode", "register", public, "it").returncode != 0, "one key, two nodes"
    listed = cli.json("supernode", "list", "it")["nodes"]
    assert [(int(node["node-id"]), node["status"]) for node in listed] == [(node_id, "registered")], listed
    (kept,) = wire.call(server, "control/list-nodes", wire.control_pb2.ListNodesRequest()).message.nodes_info
    assert (kept.name, kept.location) == ("Ward 3", "37.4056,-122.0775")

    stranger = harness.SuperNode(world, server, 1, key=unknown, name="stranger").start()
    keyless = harness.SuperNode(world, server, 2, name="keyless").start()
    known = harness.SuperNode(world, server, 0, key=private).start()
    assert server.wait_nodes(1) == [node_id]
    harness.wait_for("the refused nodes' end", lambda: not stranger.alive() and not keyless.alive())
    assert stranger.process.returncode != 0 and keyless.process.returncode != 0
    assert server.online() == [node_id]

    assert cli.json("supernode", "unregister", node_id, "it")["success"] is True
    harness.wait_for("the unregistered node's end", lambda: not known.alive())
    assert cli.run("supernode", "unregister", node_id, "it").returncode != 0
    listed = cli.json("supernode", "list", "it")["nodes"]
    assert [node["status"] for node in listed if int(node["node-id"]) == node_id] in ([], ["unregistered"]), listed
    assert cli.run("supernode", "register", public, "it").returncode != 0, (
        "a key is used once, even after its node left"
    )
