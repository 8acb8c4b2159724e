"""Runs of a Flower app that a plan drives: stock SuperNodes, our engine and strategies, and no ServerApp process."""

import subprocess

import pytest

import certs
import golden
import harness
import plans
import proxy
import reference

pytestmark = pytest.mark.skipif(harness.STOCK, reason="runs that a plan drives are ours")


def config_of(entry):
    return {"seed": plans.CONFIG["seed"], "large_bytes": 12_000_000} | entry["config"]


def test_the_reference_is_what_the_stock_server_does():
    for name in ("restarts", "three"):
        entry = golden.load()[name]
        arrays = reference.rounds(config_of(entry), entry["nodes"], reference.fedavg)
        assert reference.content.digest(arrays) == entry["result"]["sha256"], name


def finish(world, sheaf, run, nodes=2, strategy=reference.fedavg):
    status = sheaf.end(run)
    assert status["phase"] == "finished", status
    reference.assert_close(sheaf.model(run), reference.rounds(plans.CONFIG, nodes, strategy))
    assert not world.processes("flwr-serverapp")


@pytest.mark.peer("flwr 1.42.0: SuperNode over HTTP, coordinated run")
def test_fedavg_ends_as_the_stock_one(world):
    server, nodes, cli = harness.federation(world, 2)
    sheaf = plans.Sheaf(world, server)
    plan = plans.write(world)
    assert f"app       {harness.APP}, with " in sheaf("run", plan, "--dry-run")
    run = sheaf.start(plan)
    finish(world, sheaf, run)
    (listed,) = cli.json("ls", "it")["runs"]
    assert listed["status"] == "finished:completed", listed
    status = sheaf.status(run)
    assert len(status["sites"]) == 2, status
    assert [node.stop() for node in nodes] == [0, 0]
    assert server.stop() == 0


@pytest.mark.peer("flwr 1.39.0: SuperNode over gRPC, coordinated run")
def test_an_old_node_beside_a_new_one_under_tls(world):
    authority = certs.Authority(world.directory / "tls")
    server = harness.Server(world, authority=authority).start()
    old = harness.SuperNode(world, server, 0, old=True, name="supernode-1.39").start()
    new = harness.SuperNode(world, server, 1).start()
    server.wait_nodes(2)
    sheaf = plans.Sheaf(world, server)
    finish(world, sheaf, sheaf.start(plans.write(world)))
    assert old.alive() and new.alive()


def test_a_median_of_three_and_a_bundle_of_the_stock_command(world):
    server, _, _ = harness.federation(world, 3)
    sheaf = plans.Sheaf(world, server)
    build = [harness.BIN / "flwr", "build", "--app", harness.APP]
    subprocess.run(build, cwd=world.directory, env=harness.environment(world.directory), check=True, timeout=120)
    (bundle,) = world.directory.glob("*.fab")
    plan = plans.write(world, nodes=3, strategy="median", app=bundle.name)
    finish(world, sheaf, sheaf.start(plan), nodes=3, strategy=reference.of_plan("median"))


@pytest.mark.peer("flwr 1.42.0: SuperNode over HTTP, one model with a native site")
def test_a_node_and_a_native_site_train_one_model(world):
    server, _, _ = harness.federation(world, 1)
    sheaf = plans.Sheaf(world, server)
    site = plans.NativeSite(world, sheaf, 1).start()
    run = sheaf.start(plans.write(world, trainer="twin"))
    finish(world, sheaf, run)
    assert {site["site"].split("-")[0] for site in sheaf.status(run)["sites"]} == {"key", "native"}
    assert site.alive()


KILLS = [
    ("/v1/fleet/pull-messages", "after", 1),
    ("/v1/fleet/confirm-message-received", "after", 2),
    ("/v1/fleet/push-messages", "after", 1),
    ("/v1/fleet/push-object", "after", 3),
]


@pytest.mark.parametrize("path,when,nth", KILLS, ids=[path.rsplit("/", 1)[1] for path, _, _ in KILLS])
def test_a_kill_in_a_round_loses_nothing(world, path, when, nth):
    server = harness.Server(world).start()
    (port,) = harness.free_ports(1)
    between = proxy.Proxy(port, server.port)
    world.closers.append(between.close)
    nodes = [harness.SuperNode(world, server, idx, via=between.address).start() for idx in range(2)]
    server.wait_nodes(2)
    sheaf = plans.Sheaf(world, server)
    rule = between.add(path, when, server.kill9, nth=nth, matches=lambda request, answer: len(answer) > 0 or "confirm" in path)
    run = sheaf.start(plans.write(world))
    harness.wait_for(f"the call {path}", rule.fired.is_set)
    server.start()
    finish(world, sheaf, run)
    assert all(node.alive() for node in nodes)
    journal = sheaf.journal(run)
    assert journal.count("refused") == 0 and journal.count("failed") == 0, journal


def test_a_kill_while_clients_are_at_work(world):
    server, nodes, _ = harness.federation(world, 2)
    sheaf = plans.Sheaf(world, server)
    run = sheaf.start(plans.write(world, config={"train_pause_s": 3.0}))
    harness.wait_for("both clients at work", lambda: len(world.processes("flwr-clientapp")) == 2)
    server.kill9()
    server.start()
    finish(world, sheaf, run)
    assert all(node.alive() for node in nodes)


def test_a_node_that_is_killed_at_work_is_waited_for_by_name_and_replaced(world):
    server, nodes, _ = harness.federation(world, 2)
    sheaf = plans.Sheaf(world, server)
    run = sheaf.start(plans.write(world, config={"train_pause_s": 5.0}))
    harness.wait_for("both clients at work", lambda: len(world.processes("flwr-clientapp")) == 2)
    for process in [*nodes[1].descendants(), nodes[1].process]:
        process.kill()
    nodes[1].process.wait()

    def told():
        status = sheaf.status(run)
        return "its SuperNode is not online" in str(status)

    harness.wait_for("a reason for the wait", told)
    harness.SuperNode(world, server, 1, name="supernode-new").start()
    finish(world, sheaf, run)


@pytest.mark.parametrize(
    "fault,reason",
    [
        ("nan", 'tensor "matrix.float32" is not finite at index 7'),
        ("dtype", 'tensor "matrix.float32": it is f64, expected f32'),
        ("missing", 'tensor "matrix.float32" is missing'),
        ("raise", "the data cannot be read"),
    ],
)
def test_an_answer_that_cannot_count_ends_its_attempt_by_name(world, fault, reason):
    server, nodes, _ = harness.federation(world, 2)
    sheaf = plans.Sheaf(world, server)
    config = {"mode": "fault", "fault": fault, "fault_partition": 1}
    run = sheaf.start(plans.write(world, cohort="attempts = 2", config=config))
    status = sheaf.end(run)
    # Both answers are needed, and one of the two nodes cannot give its own: the run ends, saying who and why.
    assert status["phase"] == "failed", status
    assert reason in status["reason"], status
    assert all(node.alive() for node in nodes)


@pytest.mark.parametrize("fault", ["reversed", "fortran", "big-endian"])
def test_arrays_in_other_orders_are_the_same_arrays(world, fault):
    server, _, _ = harness.federation(world, 2)
    sheaf = plans.Sheaf(world, server)
    run = sheaf.start(plans.write(world, config={"mode": "fault", "fault": fault, "fault_partition": 1}))
    finish(world, sheaf, run)


def test_what_cannot_be_run_is_refused_by_name(world):
    server = harness.Server(world).start()
    sheaf = plans.Sheaf(world, server)
    done = sheaf.run("run", plans.write(world, config={"no_such_key": 1}))
    assert done.returncode != 0 and 'the app has no setting "no-such-key"' in done.stderr, done.stderr
    (world.directory / "empty").mkdir()
    done = sheaf.run("run", plans.write(world, app="empty"))
    assert done.returncode != 0 and "pyproject.toml" in done.stderr, done.stderr


def test_stopping_reaches_the_run_from_either_side(world):
    server, _, cli = harness.federation(world, 2)
    sheaf = plans.Sheaf(world, server)
    first = sheaf.start(plans.write(world, config={"train_pause_s": 600.0}, name="first"))
    number = int(first, 16)
    follower = cli.program("follower", "log", number, "it", "--stream").start()
    follower.wait_log("Starting logstream")
    assert [run["status"] for run in cli.json("ls", "it", "--run-id", number)["runs"]] == ["running"]
    assert cli.json("stop", number, "it")["success"] is True
    assert sheaf.end(first)["phase"] == "stopped"
    # There is no ServerApp that would have logged anything; the log ends with the run all the same.
    harness.wait_for("the end of the stream", lambda: not follower.alive())
    assert follower.process.returncode == 0 and "Starting logstream" in follower.text().splitlines()[-1], follower.text()
    shown = cli("log", number, "it", "--show")
    assert len(shown.splitlines()) == 1 and shown.startswith("Using SuperLink"), shown
    assert [run["status"] for run in cli.json("ls", "it", "--run-id", number)["runs"]] == ["finished:stopped"]
    assert cli.run("stop", number, "it").returncode != 0
    second = sheaf.start(plans.write(world, config={"train_pause_s": 600.0}, name="second"))
    sheaf("stop", second)
    assert server.end(int(second, 16)) == "finished:stopped"
