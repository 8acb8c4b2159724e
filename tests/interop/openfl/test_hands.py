"""What the aggregator does with calls that come in an order that no stock collaborator makes on its own, and the arithmetic of a
round, held against NumPy's bit for bit. Over gRPC and over HTTP alike.
"""

import time

import numpy as np
import pytest

import hands
import harness
from hands import metric, named, score, trained
from openfl.utilities.optimizers.numpy import NumPyAdagrad, NumPyAdam

ZETA, COL1, COL2 = harness.NAMES
TASKS = list(harness.TASKS)
RUNNER = {"model": "few"}
FIRST = {name: array.astype(np.float32) for name, array in harness.models.first("few", 0, 7).items()}
SIZES = {ZETA: (160, 37), COL1: (260, 67), COL2: (1, 2**30)}


@pytest.fixture(params=["grpc", "rest"])
def transport(request):
    return request.param


@pytest.fixture
def begin(world, pki, transport):
    """Starts an aggregator; gives its federation and a hand for each collaborator. They must end it well."""
    begun = []

    def begin(**parameters):
        federation = harness.Federation(
            world, pki, transport=transport, security="plain", runner=RUNNER, **{"rounds": 2} | parameters
        )
        federation.server.start()
        begun.append(federation)
        kind = hands.Grpc if transport == "grpc" else hands.Rest
        return federation, *(kind(federation, name) for name in federation.names)

    yield begin
    for federation in begun:
        assert federation.server.process.poll() in (None, 0)
        assert "panicked" not in federation.server.text()


def drawn(seed):
    """Arrays of the model's shapes."""
    return {name: harness.models.drawn(11, seed, index, shape=array.shape) for index, (name, array) in enumerate(FIRST.items())}


def validate(hand, round_number, value, task="aggregated_model_validation"):
    hand.begins(round_number)
    tag = "validate_local" if task.startswith("locally") else "validate_agg"
    hand.send(
        task, metric("acc", value, tag, round_number=round_number), round_number=round_number, data_size=SIZES[hand.name][1]
    )


def train(hand, round_number, arrays, *, base=None, loss=0.5, data_size=None):
    """Sends what was trained; as differences from `base` where there is one."""
    hand.begins(round_number)
    sent = {name: array - base[name] for name, array in arrays.items()} if base else arrays
    tensors = [trained(name, array, round_number=round_number, delta=base is not None) for name, array in sent.items()]
    data_size = SIZES[hand.name][0] if data_size is None else data_size
    hand.send("train", metric("loss", loss, round_number=round_number), *tensors, round_number=round_number, data_size=data_size)


def complete(hand, round_number, arrays, value=0.5, **options):
    validate(hand, round_number, value)
    train(hand, round_number, arrays, **options)
    validate(hand, round_number, value, "locally_tuned_model_validation")


def mean(updates, names=(ZETA, COL1), sizes=None):
    """The stock aggregator's average of two and more: float32 by float32, in order."""
    sizes = [SIZES[name][0] for name in names] if sizes is None else sizes
    weights = [size / sum(sizes) for size in sizes]
    return {
        name: np.asarray(sum(update[name] * weight for update, weight in zip(updates, weights)) / sum(weights))
        for name in updates[0]
    }


def moved(model, aggregate):
    """The next model, by way of the difference."""
    return {name: np.asarray(model[name] + (array - model[name])) for name, array in aggregate.items()}


def same(got, wanted):
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].shape == array.shape and got[name].tobytes() == array.astype(np.float32).tobytes(), name


def model_of(hand, round_number):
    return {name: hands.array_of(hand.tensor(name, "model", round_number=round_number)) for name in FIRST}


def quits(federation, *everybody):
    """Everybody is told to end, and so does the aggregator."""
    for hand in everybody:
        answer = hand.tasks()
        assert answer.quit and not answer.tasks
        assert answer.round_number == federation.config["aggregator"]["settings"]["rounds_to_train"]
    assert federation.server.end() == 0


def test_rounds_have_the_bits_of_the_recipe(begin):
    federation, zeta, col1 = begin(rounds=3)
    same(model_of(zeta, 0), FIRST)
    updates = [drawn(1), drawn(2)]
    complete(zeta, 0, updates[0], base=FIRST)
    complete(col1, 0, updates[1], base=FIRST)
    # An upload of a difference is the base and the difference, rounded.
    rebuilt = [{name: FIRST[name] + (array - FIRST[name]) for name, array in update.items()} for update in updates]
    aggregate = mean(rebuilt)
    second = moved(FIRST, aggregate)
    same(model_of(col1, 1), second)
    for name in FIRST:
        answer = zeta.tensor(name, "aggregated", "delta", "compressed", round_number=1, lossless=False)
        assert list(answer.tags) == ["aggregated", "compressed", "delta"] and answer.round_number == 1 and answer.lossless
        assert hands.array_of(answer).tobytes() == (aggregate[name] - FIRST[name]).tobytes(), name
    # One sends differences, and the other whole arrays.
    updates = [drawn(3), drawn(4)]
    complete(col1, 1, updates[1])
    complete(zeta, 1, updates[0], base=second)
    third = moved(second, mean([{name: second[name] + (array - second[name]) for name, array in updates[0].items()}, updates[1]]))
    same(model_of(zeta, 2), third)
    # The file follows the round.
    saved_of = lambda: harness.arrays_of(federation.saved("last"))  # noqa: E731
    harness.wait_for("the last model", lambda: saved_of()[0] == 1)
    same(saved_of()[1], second)
    complete(zeta, 2, drawn(5))
    complete(col1, 2, drawn(6))
    quits(federation, zeta, col1)
    number, saved = harness.arrays_of(federation.saved("last"))
    assert number == 2
    same(saved, third)


def test_three_are_averaged_in_whatever_order(begin):
    order = [COL2, ZETA, COL1]
    federation, *everybody = begin(count=3, assigner=harness.groups("StaticGroupedAssigner", learning=(TASKS, order)))
    sizes = [100, 200, 700]
    updates = {name: drawn(index) for index, name in enumerate(order)}
    for hand in everybody:
        complete(hand, 0, updates[hand.name], data_size=sizes[order.index(hand.name)])
    wanted = moved(FIRST, mean(list(updates.values()), sizes=sizes))
    for name, array in model_of(everybody[0], 1).items():
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=1e-6)
    for hand in everybody:
        complete(hand, 1, updates[hand.name])
    quits(federation, *everybody)


def test_without_deltas_the_model_is_the_aggregate_itself(begin):
    federation, zeta, col1 = begin(deltas=False)
    updates = [drawn(1), drawn(2)]
    for number in range(2):
        complete(zeta, number, updates[0])
        complete(col1, number, updates[1])
    quits(federation, zeta, col1)
    same(harness.arrays_of(federation.saved("last"))[1], mean(updates))


@pytest.mark.ours_alone("what is optimised is the model, and the plan names no parameters")
@pytest.mark.parametrize("deltas", [False, True])
@pytest.mark.parametrize(
    "name, optimiser, settings",
    [
        ("AdamAdaptiveAggregation", NumPyAdam, {"learning_rate": 0.3, "betas": [0.5, 0.9], "initial_accumulator_value": 0.25}),
        ("AdagradAdaptiveAggregation", NumPyAdagrad, {"learning_rate": 0.3}),
    ],
)
def test_an_optimiser_steps_the_model_by_the_recipe(begin, name, optimiser, settings, deltas):
    federation, zeta, col1 = begin(rounds=3, deltas=deltas, aggregation=(name, settings))
    optimiser = optimiser(params={name: array.copy() for name, array in FIRST.items()}, **settings)
    shares = [SIZES[name][0] / (SIZES[ZETA][0] + SIZES[COL1][0]) for name in (ZETA, COL1)]
    for number in range(3):
        model = model_of(zeta, number)
        for name, array in model.items():
            np.testing.assert_allclose(array, optimiser.params[name], rtol=1e-5, atol=1e-6)
        updates = [drawn(2 * number), drawn(2 * number + 1)]
        complete(zeta, number, updates[0], base=model)
        complete(col1, number, updates[1])
        gradient = lambda name: sum(share * (model[name] - update[name]) for share, update in zip(shares, updates))  # noqa: E731
        optimiser.step({name: gradient(name) for name in model})
    quits(federation, zeta, col1)


def test_tasks_come_in_the_plans_order_and_again_until_their_results_are_in(begin):
    federation, zeta, col1 = begin()
    for _ in range(2):
        answer = zeta.tasks()
        assert [task.name for task in answer.tasks] == TASKS
        assert (answer.round_number, answer.sleep_time, answer.quit) == (0, 0, False)
        assert {(task.function_name, task.task_type, task.apply_local) for task in answer.tasks} == {("", "", False)}
    train(zeta, 0, drawn(1))
    assert [task.name for task in zeta.tasks().tasks] == [TASKS[0], TASKS[2]]
    validate(zeta, 0, 0.5, TASKS[2])
    validate(zeta, 0, 0.5)
    assert zeta.waits()
    complete(col1, 0, drawn(2))
    assert [zeta.tasks().round_number, col1.tasks().round_number] == [1, 1]
    complete(zeta, 1, drawn(3))
    complete(col1, 1, drawn(4))
    assert zeta.tasks().quit
    quits(federation, zeta, col1)


def test_the_first_results_of_a_task_count_and_no_others(begin):
    federation, zeta, col1 = begin()
    updates = [drawn(1), drawn(2)]
    complete(zeta, 0, updates[0])
    complete(zeta, 0, drawn(9), value=0.9)
    train(col1, 0, updates[1])
    train(col1, 0, drawn(8), loss=7)
    complete(col1, 0, drawn(7))
    assert zeta.tasks().round_number == 1
    same(model_of(zeta, 1), moved(FIRST, mean(updates)))
    assert harness.wait_for("the metrics", federation.metrics)[0]["aggregator/train/loss"] == 0.5
    for hand in (zeta, col1):
        complete(hand, 1, updates[0])
    quits(federation, zeta, col1)


def test_results_of_other_rounds_and_after_the_end_are_taken_and_ignored(begin):
    federation, zeta, col1 = begin()
    # Of the next round one alone: it waits a while for that round to begin.
    validate(zeta, 1, 0.9)
    for number in (2, 7, -1):
        complete(zeta, number, drawn(9))
    assert [task.name for task in zeta.tasks().tasks] == TASKS
    updates = [drawn(1), drawn(2)]
    complete(zeta, 0, updates[0])
    complete(col1, 0, updates[1])
    complete(zeta, 0, drawn(9))
    same(model_of(zeta, 1), moved(FIRST, mean(updates)))
    complete(zeta, 1, updates[0])
    complete(col1, 1, updates[1])
    assert zeta.tasks().quit
    complete(zeta, 1, drawn(9))
    complete(zeta, 2, drawn(9))
    quits(federation, zeta, col1)
    same(harness.arrays_of(federation.saved("last"))[1], moved(FIRST, mean(updates)))


def test_results_of_a_task_that_the_plan_does_not_know_are_taken(begin):
    federation, zeta, col1 = begin()
    zeta.tasks()
    zeta.send("unknown", metric("acc", 1), data_size=5)
    for number in range(2):
        for hand in (zeta, col1):
            complete(hand, number, drawn(1))
    quits(federation, zeta, col1)


@pytest.mark.ours_alone("results of an unknown task count for nobody")
def test_an_unknown_task_does_not_stand_for_somebody_elses(begin):
    _, zeta, _ = begin()
    complete(zeta, 0, drawn(1))
    zeta.send("unknown", metric("acc", 1), data_size=5)
    assert zeta.waits()


def test_a_collaborator_that_began_anew_is_served_what_it_had_trained(begin):
    federation, zeta, col1 = begin()
    update = drawn(1)
    validate(col1, 0, 0.5)
    train(col1, 0, update, base=FIRST)
    assert [task.name for task in col1.tasks().tasks] == [TASKS[2]]
    answer = col1.tensor("square", COL1, "trained")
    assert list(answer.tags) == [COL1, "compressed", "trained"]
    assert hands.array_of(answer).tobytes() == (FIRST["square"] + (update["square"] - FIRST["square"])).tobytes()
    validate(col1, 0, 0.5, TASKS[2])
    complete(zeta, 0, update)
    for hand in (zeta, col1):
        complete(hand, 1, update)
    quits(federation, zeta, col1)


@pytest.mark.ours_alone("tags are looked up in any order")
def test_a_name_that_sorts_after_the_tags_is_served_too(begin):
    _, zeta, _ = begin()
    update = drawn(1)
    train(zeta, 0, update)
    assert hands.array_of(zeta.tensor("square", ZETA, "trained")).tobytes() == update["square"].tobytes()


def test_what_another_one_trained_is_not_served(begin):
    _, zeta, col1 = begin()
    train(col1, 0, drawn(1))
    for tags in ((COL1, "trained"), ("trained", COL1)):
        answer = zeta.tensor("square", *tags)
        assert not answer.data_bytes and not answer.name


@pytest.mark.ours_alone("the base of a difference is there whatever `db_store_rounds` says")
def test_differences_are_served_whatever_the_plan_keeps(begin):
    federation, zeta, col1 = begin(aggregator={"db_store_rounds": 1})
    for hand in (zeta, col1):
        complete(hand, 0, drawn(1))
    answer = zeta.tensor("square", "aggregated", "delta", "compressed", round_number=1, lossless=False)
    assert hands.array_of(answer).shape == (7, 7)
    for hand in (zeta, col1):
        complete(hand, 1, drawn(1))
    quits(federation, zeta, col1)


@pytest.mark.parametrize("values, best", [((0.5, 0.5, 0.25), 0), ((0.25, 0.75, 0.75), 1), ((-3.0, -2.0, -1.0), 2)])
def test_the_best_model_is_the_first_of_the_highest_score(begin, values, best):
    federation, zeta, col1 = begin(rounds=3)
    models = [FIRST]
    for number, value in enumerate(values):
        for hand in (zeta, col1):
            complete(hand, number, drawn(number), value=value)
        models.append(moved(models[-1], mean([drawn(number)] * 2)))
    quits(federation, zeta, col1)
    number, saved = harness.arrays_of(federation.saved("best"))
    assert number == best
    same(saved, models[best])


def test_metrics_are_averaged_by_the_data_of_their_task_and_written_down(begin):
    federation, zeta, col1 = begin(audit=True)
    for number in range(2):
        for value, hand in ((0.25, zeta), (0.75, col1)):
            validate(hand, number, value)
            train(hand, number, drawn(1), loss=value)
            validate(hand, number, value, TASKS[2])
            hidden = named("hidden", value, ("compressed", "metric"), round_number=number)
            hand.send("audit", metric("level", value, round_number=number), hidden, round_number=number, data_size=-1)
    quits(federation, zeta, col1)


    def by_size(index):
        values = [{"": np.float32(0.25)}, {"": np.float32(0.75)}]
        return float(mean(values, sizes=[SIZES[name][index] for name in (ZETA, COL1)])[""])

    wanted = {
        "aggregator/train/loss": by_size(0),
        "aggregator/aggregated_model_validation/acc": by_size(1),
        "aggregator/locally_tuned_model_validation/acc": by_size(1),
        "aggregator/audit/level": 0.5,
    }
    assert federation.metrics() == [{"round_number": number} | wanted for number in range(2)]
    board = {place: value for place, value in harness.board(federation.server.home, "aggregator").items() if place[0] in wanted}
    assert board == {(name, number): np.float32(value) for name, value in wanted.items() for number in range(2)}


def test_tensors_that_come_up_later_are_averaged_and_served_but_not_saved(begin):
    federation, zeta, col1 = begin(opt_treatment="CONTINUE_GLOBAL", rounds=3)
    late = "optimizer/rate"
    rate = lambda value: np.full((1,), value, np.float32)  # noqa: E731
    for value, hand in ((1, zeta), (2, col1)):
        complete(hand, 0, drawn(1) | {late: rate(value)})
    handed = hands.array_of(zeta.tensor(late, "model", round_number=1))
    wanted = mean([{late: rate(1)}, {late: rate(2)}])[late]
    assert handed.tobytes() == wanted.tobytes()
    # By now there is a base for differences.
    for value, hand in ((1, zeta), (2, col1)):
        validate(hand, 1, 0.5)
        step = trained(late, rate(value), round_number=1, delta=True)
        whole = [trained(name, array, round_number=1) for name, array in drawn(2).items()]
        hand.send("train", metric("loss", 0.5, round_number=1), *whole, step, round_number=1, data_size=SIZES[hand.name][0])
        validate(hand, 1, 0.5, TASKS[2])
    later = mean([{late: wanted + rate(1)}, {late: wanted + rate(2)}])
    answer = col1.tensor(late, "aggregated", "delta", "compressed", round_number=2, lossless=False)
    assert hands.array_of(answer).tobytes() == (later[late] - wanted).tobytes()
    for hand in (zeta, col1):
        complete(hand, 2, drawn(3))
    quits(federation, zeta, col1)
    assert list(harness.arrays_of(federation.saved("last"))[1]) == list(FIRST)


def test_random_groups_take_turns_and_use_everybody_up(begin):
    rounds = 6
    federation, zeta, col1 = begin(
        rounds=rounds,
        assigner=harness.groups("RandomGroupedAssigner", learning=(TASKS, None), watching=(TASKS[:1], None)),
    )
    for number in range(rounds):
        learner, watcher = sorted((zeta, col1), key=lambda hand: -len(hand.tasks().tasks))
        assert [task.name for task in learner.tasks().tasks] == TASKS
        assert [task.name for task in watcher.tasks().tasks] == TASKS[:1]
        update = drawn(number)
        complete(learner, number, update)
        assert learner.waits()
        validate(watcher, number, 0.5)
        if number + 1 < rounds:
            before = FIRST if number == 0 else after
            after = moved(before, mean([update], sizes=[1]))
            same(model_of(watcher, number + 1), after)
    quits(federation, zeta, col1)


@pytest.mark.ours_alone("a round without a score is committed")
def test_a_plan_without_a_score_trains_too(begin):
    federation, zeta, col1 = begin(assigner=harness.groups("RandomGroupedAssigner", learning=(["train"], None)))
    for number in range(2):
        for hand in (zeta, col1):
            train(hand, number, drawn(1))
    quits(federation, zeta, col1)
    assert federation.saved("last") and not federation.saved("best")


def test_an_evaluation_is_one_round_that_saves_nothing(begin):
    federation, zeta, col1 = begin(task_group="evaluation", first_round=4, rounds=3)
    for value, hand in ((0.25, zeta), (0.75, col1)):
        answer = hand.tasks()
        assert [task.name for task in answer.tasks] == TASKS[:1] and answer.round_number == 0
        assert hands.array_of(hand.tensor("square", "model")).tobytes() == FIRST["square"].tobytes()
        validate(hand, 0, value)
    for hand in (zeta, col1):
        answer = hand.tasks()
        assert answer.quit and answer.round_number == 1
    assert federation.server.end() == 0
    assert not federation.saved("last") and not federation.saved("best")
    assert [line["round_number"] for line in federation.metrics()] == [0]


def test_a_share_is_enough_and_who_comes_late_is_thanked(begin):
    federation, zeta, col1, col2 = begin(
        count=3,
        straggler=("PercentagePolicy", {"percent_collaborators_needed": 0.66, "minimum_reporting": 2}),
    )
    update = drawn(1)
    validate(col2, 0, 0.1)
    complete(zeta, 0, update)
    complete(col1, 0, update)
    assert zeta.tasks().round_number == 1
    # What it had sent already does not count: it was not done.
    assert harness.wait_for("the metrics", federation.metrics)[0]["aggregator/aggregated_model_validation/acc"] == 0.5
    train(col2, 0, drawn(9))
    answer = col2.tasks()
    assert [task.name for task in answer.tasks] == TASKS and answer.round_number == 1
    complete(col2, 1, update)
    complete(zeta, 1, update)
    quits(federation, zeta, col1, col2)


def test_the_time_ends_a_round_that_enough_have_done(begin):
    policy = ("CutoffTimePolicy", {"straggler_cutoff_time": 3, "minimum_reporting": 2})
    federation, zeta, col1, col2 = begin(count=3, straggler=policy)
    update = drawn(1)
    assert zeta.tasks().tasks
    for hand in (zeta, col1):
        complete(hand, 0, update)
    # Nobody sends anything: it is the time alone.
    harness.wait_for("the end of round 0", federation.metrics)
    assert col2.tasks().round_number == 1
    began_s = time.monotonic()
    complete(col2, 1, update)
    harness.wait_for("the time's end", lambda: time.monotonic() - began_s > 4)
    # One is not enough; the second ends the round as soon as it is done.
    assert col2.waits()
    complete(zeta, 1, update)
    quits(federation, zeta, col1, col2)


def test_integers_and_large_data_sizes(begin):
    federation, zeta, col1 = begin()
    updates = [drawn(1), drawn(2)]
    sizes = [2**31 - 1, 2**31 - 1]
    for number in range(2):
        for hand, update, size in zip((zeta, col1), updates, sizes):
            complete(hand, number, update, data_size=size)
    quits(federation, zeta, col1)
    same(harness.arrays_of(federation.saved("last"))[1], moved(FIRST, mean(updates, sizes=sizes)))
