"""The server is killed as by `kill -9` and started again on the same data, in every phase of a run.

Nodes, SuperExec and ServerApp reach it through a proxy, which kills it at a chosen call: before the call is forwarded, or
after the server's answer arrived and before it is passed on, so that the caller never learns what was done. Whatever the
phase, no node exits, the ServerApp process lives on, and the run ends with the arrays of a run that nobody disturbed.
"""

import dataclasses
import os

import pytest

import certs
import golden
import harness
import proxy
import wire


def answered(_request, answer):
    return len(answer) > 0


@dataclasses.dataclass
class Kill:
    """Where the server dies."""

    path: str
    when: str
    nth: int = 1
    matches: object = lambda request, answer: True
    pause_s: float = 0.0

    @property
    def name(self):
        return f"{self.when}-{self.nth}-{self.path.removeprefix('/v1/').replace('/', '-')}"


KILLS = [
    Kill("/v1/runtime/acquire-task", "after", matches=answered),
    Kill("/v1/runtime/pull-task-input", "before"),
    Kill("/v1/runtime/pull-task-input", "after"),
    Kill("/v1/runtime/push-messages", "before"),
    Kill("/v1/runtime/push-messages", "after"),
    Kill("/v1/runtime/push-object", "before", nth=4),
    Kill("/v1/runtime/push-object", "after", nth=4),
    Kill("/v1/fleet/pull-messages", "after", matches=answered),
    Kill("/v1/fleet/get-fab", "after"),
    Kill("/v1/fleet/pull-object", "before", nth=3),
    Kill("/v1/fleet/confirm-message-received", "before"),
    Kill("/v1/fleet/confirm-message-received", "after", nth=2, pause_s=2.0),
    Kill("/v1/fleet/push-messages", "before"),
    Kill("/v1/fleet/push-messages", "after"),
    Kill("/v1/fleet/push-object", "before", nth=3),
    Kill("/v1/fleet/push-object", "after", nth=3),
    Kill("/v1/runtime/pull-messages", "after", matches=answered),
    Kill("/v1/runtime/pull-object", "before", nth=3),
    Kill("/v1/runtime/pull-object", "after", nth=3),
    Kill("/v1/runtime/confirm-message-received", "after"),
    Kill("/v1/runtime/push-task-output", "after"),
]
# What every run of the suite kills at; all of them with SHEAF_INTEROP_KILLS=all.
ALWAYS = {
    "before-1-runtime-push-messages",
    "after-4-runtime-push-object",
    "after-1-fleet-pull-messages",
    "after-3-fleet-push-object",
    "after-1-runtime-pull-messages",
}
# Kills after which ours alone is asked to go on, and what it does then.
OURS_ALONE = {
    "after-1-runtime-pull-task-input": "a task's input is given to its ServerApp again",
    "after-1-runtime-push-messages": "messages that are announced again are taken",
    "after-4-runtime-push-object": "an object that comes again is taken",
    "after-1-fleet-get-fab": "a message is handed out when all of it is there, and a bundle is given again",
    "after-1-fleet-pull-messages": "a message is handed out again until it is confirmed",
    "after-3-fleet-push-object": "an object that comes again is taken",
    "after-1-runtime-pull-messages": "replies are handed out again until they are confirmed",
}


def cases():
    every = os.environ.get("SHEAF_INTEROP_KILLS") == "all"
    for kill in (kill for kill in KILLS if every or kill.name in ALWAYS):
        reason = OURS_ALONE.get(kill.name)
        yield pytest.param(kill, id=kill.name, marks=[pytest.mark.ours_alone(reason)] if reason else [])


class Stack:
    """A server under TLS with node keys, two nodes and a SuperExec, all behind the proxy."""

    def __init__(self, world, isolation="process"):
        authority = certs.Authority(world.directory / "tls")
        self.world = world
        self.server = harness.Server(world, authority=authority, auth=True, isolation=isolation, durable=True).start()
        (port,) = harness.free_ports(1)
        self.proxy = proxy.Proxy(port, self.server.port, authority)
        world.closers.append(self.proxy.close)
        self.cli = harness.Cli(world, self.server)
        keys = [certs.node_key(world.directory / f"node-{idx}") for idx in range(2)]
        for _, public in keys:
            self.cli("supernode", "register", public, "it")
        self.nodes = [
            harness.SuperNode(world, self.server, idx, key=private, via=self.proxy.address).start()
            for idx, (private, _) in enumerate(keys)
        ]
        self.server.wait_nodes(2)

    def superexec(self):
        return harness.SuperExec(self.world, self.server, via=self.proxy.address).start()

    def submit(self, **config):
        return self.cli.submit(**(golden.load()["restarts"]["config"] | config))

    def kill_at(self, kill):
        return self.proxy.add(kill.path, kill.when, self.server.kill9, nth=kill.nth, matches=kill.matches)

    def serverapp(self):
        """The one ServerApp process."""
        return harness.wait_for("a ServerApp", lambda: self.world.processes("flwr-serverapp"))[0]

    def finish(self, run_id):
        assert self.server.end(run_id) == "finished:completed"
        golden.assert_equal(self.cli.result(run_id), "restarts")
        assert all(node.alive() for node in self.nodes)
        assert len(self.server.online()) == 2
        harness.wait_for("the ServerApp's end", lambda: not self.world.processes("flwr-serverapp"))


@pytest.mark.parametrize("kill", list(cases()))
def test_a_kill_loses_nothing(world, kill):
    stack = Stack(world)
    rule = stack.kill_at(kill)
    stack.superexec()
    run_id = stack.submit(train_pause_s=kill.pause_s)
    harness.wait_for(f"the call {kill.name}", rule.fired.is_set)
    apps = {app.pid for app in world.processes("flwr-serverapp")}
    stack.server.start()
    stack.finish(run_id)
    results = stack.cli("log", run_id, "it", "--show").count("PHASE start")
    assert results == 1, "the ServerApp was started anew"
    assert len(apps) <= 1


def test_a_serverapp_that_tells_its_end_to_nobody_fails_its_run_by_name(world):
    # Observed: it tells its end once and goes. A server that is away at that moment cannot know how the run ended.
    stack = Stack(world)
    rule = stack.kill_at(Kill("/v1/runtime/push-task-output", "before"))
    stack.superexec()
    run_id = stack.submit()
    harness.wait_for("the end", rule.fired.is_set)
    stack.server.start()
    assert stack.server.end(run_id) == "finished:failed"
    assert wire.run_of(stack.server, run_id).status.details == "No heartbeat received from the task"
    assert all(node.alive() for node in stack.nodes)
    # What it said before is kept, its result with it.
    golden.assert_equal(stack.cli.result(run_id), "restarts")


def test_a_kill_before_the_serverapp_starts(world):
    stack = Stack(world)
    run_id = stack.submit()
    stack.server.kill9()
    stack.server.start()
    assert wire.run_of(stack.server, run_id).status.status == "pending"
    stack.superexec()
    stack.finish(run_id)


def test_several_kills_in_one_run(world):
    stack = Stack(world)
    first = stack.kill_at(Kill("/v1/fleet/pull-object", "before", nth=2))
    stack.superexec()
    run_id = stack.submit()
    harness.wait_for("the first call", first.fired.is_set)
    stack.server.start()
    for kill in (
        Kill("/v1/fleet/confirm-message-received", "after"),
        Kill("/v1/runtime/pull-messages", "after", matches=answered),
    ):
        rule = stack.kill_at(kill)
        harness.wait_for(kill.name, rule.fired.is_set)
        stack.server.start()
    stack.finish(run_id)


@pytest.mark.ours_alone("a ServerApp outlives the server that started it")
def test_a_serverapp_that_the_server_started_outlives_it(world):
    stack = Stack(world, isolation="subprocess")
    rule = stack.kill_at(Kill("/v1/fleet/confirm-message-received", "after", nth=2))
    run_id = stack.submit(train_pause_s=3.0)
    app = stack.serverapp()
    harness.wait_for("the kill", rule.fired.is_set)
    assert app.is_running()
    stack.server.start()
    assert app.is_running()
    stack.finish(run_id)
    assert stack.cli("log", run_id, "it", "--show").count("PHASE start") == 1


@pytest.mark.ours_alone("a ServerApp that the server started is found again, or its run has failed")
def test_a_serverapp_that_died_while_the_server_was_away_fails_its_run(world):
    stack = Stack(world, isolation="subprocess")
    run_id = stack.submit(train_pause_s=600.0)
    harness.wait_for("a client at work", lambda: world.processes("flwr-clientapp"))
    app = stack.serverapp()
    stack.server.kill9()
    app.kill()
    stack.server.start()
    assert stack.server.end(run_id) == "finished:failed"
    assert all(node.alive() for node in stack.nodes)


def test_a_polite_end_and_a_new_start(world):
    """SIGINT instead of a kill, while nodes hold messages."""
    stack = Stack(world)
    stack.superexec()
    run_id = stack.submit(train_pause_s=3.0)
    harness.wait_for("a client at work", lambda: world.processes("flwr-clientapp"))
    assert stack.server.stop() == 0
    stack.server.start()
    stack.finish(run_id)
