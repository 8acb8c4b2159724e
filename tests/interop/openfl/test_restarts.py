"""The aggregator is killed as by `kill -9` and started again in the same workspace, in every phase of a run; and collaborators are.

Stock collaborators reach it through proxies, which kill it at a chosen call: before the call is forwarded, in the middle of an
upload, or when its answer is there and not yet passed on, so that the caller never learns what was done. Whatever the phase, no
collaborator ends early, and the run ends with the models and metrics of one that nobody disturbed.
"""

import dataclasses

import pytest

import cells
import hands
import harness
import proxy
import runs
import test_hands


@dataclasses.dataclass
class Kill:
    """Where the aggregator dies. Of two collaborators each sends three results a round: to the validation, the training, the local
    validation."""

    method: str
    when: str
    nth: int = 1

    @property
    def name(self):
        return f"{self.when}-{self.nth}-{self.method}"


KILLS = [
    Kill("GetTasks", "before"),
    Kill("GetTasks", "after"),
    Kill("GetTasks", "after", 4),
    Kill("GetAggregatedTensor", "before", 3),
    Kill("GetAggregatedTensor", "after", 3),
    Kill("GetAggregatedTensor", "after", 16),
    Kill("SendLocalTaskResults", "before", 2),
    Kill("SendLocalTaskResults", "within", 3),
    Kill("SendLocalTaskResults", "after", 1),
    Kill("SendLocalTaskResults", "after", 4),
    Kill("SendLocalTaskResults", "within", 6),
    Kill("SendLocalTaskResults", "after", 6),
    Kill("SendLocalTaskResults", "before", 9),
    Kill("SendLocalTaskResults", "after", 12),
    Kill("SendLocalTaskResults", "after", 18),
]
# What every run of the suite kills at.
ALWAYS = {"after-6-SendLocalTaskResults", "within-3-SendLocalTaskResults", "after-3-GetAggregatedTensor"}
# Kills in later rounds, which ours alone is asked to go on after.
OURS_ALONE = {
    "after-4-GetTasks",
    "after-16-GetAggregatedTensor",
    "after-6-SendLocalTaskResults",
    "before-9-SendLocalTaskResults",
    "after-12-SendLocalTaskResults",
}


def cases():
    for kill in KILLS:
        marks = [] if kill.name in ALWAYS else [pytest.mark.seldom]
        if kill.name in OURS_ALONE:
            marks.append(pytest.mark.ours_alone("differences from the model of the round before are served after a restart"))
        yield pytest.param(kill, id=kill.name, marks=marks)


def proxied(federation, rule):
    """Starts stock collaborators behind proxies with one rule for all of them, which waits until all of them are there: over HTTP
    they look at the aggregator's certificate when they start, and end when nobody shows one."""
    proxies, kill = [], rule.action

    def kill_when_all_are_there():
        harness.wait_for("every collaborator", lambda: all(each.calls for each in proxies))
        kill()

    rule.action = kill_when_all_are_there
    federation.server.start()
    proxies += [proxy.Proxy(federation, name, rules=[rule]) for name in federation.names]
    for name, each in zip(federation.names, proxies):
        federation.collaborator(name, proxy=each.port).start()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("kill", cases())
def test_a_killed_aggregator_goes_on_where_it_was(world, pki, kill, transport):
    federation = cells.federation(world, pki, "plain", transport=transport)
    rule = proxy.Rule(kill.method, kill.when, federation.server.kill9, nth=kill.nth)
    proxied(federation, rule)
    harness.wait_for(f"the kill {kill.name}", rule.fired.is_set, 2 * harness.DEADLINE_S)
    federation.server.start()
    federation.end()
    runs.assert_equal(runs.outcome(federation), "plain")


@pytest.mark.parametrize(
    "method, when, nth",
    [
        ("SendLocalTaskResults", "after", 7),
        pytest.param("SendLocalTaskResults", "before", 8, marks=pytest.mark.seldom),
        pytest.param("GetAggregatedTensor", "after", 14, marks=pytest.mark.seldom),
        pytest.param("GetTasks", "after", 3, marks=pytest.mark.seldom),
    ],
)
def test_a_killed_collaborator_begins_anew_in_the_middle_of_a_round(world, pki, method, when, nth):
    # Without deltas: who has no model of the round before sends differences again, to bits of its own.
    federation = cells.federation(world, pki, "whole")
    killed = federation.names[0]
    rule = proxy.Rule(method, when, lambda: federation.collaborators[killed].kill9(), nth=nth)
    through = proxy.Proxy(federation, killed, rules=[rule])
    federation.server.start()
    for name in federation.names:
        federation.collaborator(name, proxy=through.port if name == killed else None).start()
    harness.wait_for("the kill of the collaborator", rule.fired.is_set, 2 * harness.DEADLINE_S)
    federation.collaborators[killed].start()
    federation.end()
    # What the killed one had written down itself may be lost.
    runs.assert_equal(runs.outcome(federation), "whole", "last", "best", "metrics")


def test_killed_after_every_single_upload(world, pki):
    federation = harness.Federation(world, pki, security="plain", rounds=2, runner=test_hands.RUNNER)
    server = federation.server.start()
    model = test_hands.FIRST
    for number in range(2):
        updates = {name: test_hands.drawn(10 * number + index) for index, name in enumerate(federation.names)}
        for name in federation.names:
            tasks = list(test_hands.TASKS)
            while tasks:
                hand = hands.Grpc(federation, name)
                assert [task.name for task in hand.tasks().tasks] == tasks
                task = tasks.pop(0)
                if task == "train":
                    test_hands.train(hand, number, updates[name], base=model if number == 0 else None)
                else:
                    test_hands.validate(hand, number, 0.25 + number, task)
                server.kill9()
                server.start()
        rebuilt = [{key: model[key] + (array - model[key]) for key, array in each.items()} for each in updates.values()]
        model = test_hands.moved(model, test_hands.mean(rebuilt if number == 0 else list(updates.values())))
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    test_hands.quits(federation, *everybody)
    # What every round came to: no file of upstream's holds it.
    if not harness.STOCK:
        final = harness.final(federation)
        test_hands.same({name: final[name] for name in model}, model)
    number, best = harness.arrays_of(federation.saved("best"))
    assert number == 1
    number, saved = harness.arrays_of(federation.saved("last"))
    assert number == 1
    test_hands.same(best, saved)
    updates = [test_hands.drawn(0), test_hands.drawn(1)]
    base = test_hands.FIRST
    rebuilt = [{key: base[key] + (array - base[key]) for key, array in each.items()} for each in updates]
    test_hands.same(saved, test_hands.moved(base, test_hands.mean(rebuilt)))
