"""Every strategy of a plan, worked on by stock SuperNodes: the arrays a run ends with are those of the strategy's formula.

One server and its nodes serve the runs of all, one after another.
"""

import logging
import re

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as stock
from flwr.supercore.task_identity import TaskIdentity

import conftest
import harness
import plans
import reference

pytestmark = pytest.mark.skipif(harness.STOCK, reason="runs that a plan drives are ours")

# One of five nodes answers what is far from the others.
FAR = {"mode": "fault", "fault": "far", "fault_partition": 4}
# A strategy with parameters of the plan, how many nodes there are and how the app is configured. How moments are carried on
# shows in the third round.
CASES = {
    "fedavg": ("fedavg", {}, 2, {}),
    "fedavg-clipped-by-distance": ("fedavg", {"clip": {"norm_max": 100.0}}, 2, {}),
    "fedprox": ("fedprox", {"proximal_mu": 0.5}, 2, {}),
    "fedavgm": ("fedavgm", {}, 2, {"rounds": 3}),
    "fedadagrad": ("fedadagrad", {"beta1": 0.5}, 2, {"rounds": 3}),
    "fedadam": ("fedadam", {}, 2, {"rounds": 3}),
    "fedyogi": ("fedyogi", {"server_learning_rate": 0.5, "beta2": 0.9, "tau": 0.1}, 2, {"rounds": 3}),
    "fedavg-clipped-by-ratio": ("fedavg", {"clip": {"norm_ratio": 1.5}}, 5, FAR),
    "median": ("median", {}, 5, FAR),
    "trimmed-mean": ("trimmed-mean", {}, 5, FAR),
    "krum": ("krum", {"byzantine": 1}, 5, FAR),
    "multi-krum": ("krum", {"byzantine": 1, "keep": 3}, 5, FAR),
}


class Federation:
    """One server with as many nodes as a test asks for: those of the test before stay."""

    def __init__(self, world):
        self.world = world
        self.server = harness.Server(world).start()
        self.nodes = []

    def have(self, count):
        while len(self.nodes) > count:
            self.nodes.pop().stop()
        while len(self.nodes) < count:
            self.nodes.append(harness.SuperNode(self.world, self.server, len(self.nodes)).start())
        self.server.wait_nodes(count)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with harness.World(tmp_path_factory.mktemp("federation")) as world:
        yield Federation(world)


@pytest.fixture
def sheaf(federation, request):
    yield plans.Sheaf(federation.world, federation.server)
    conftest.show_if_failed(federation.world, request.node)
    assert federation.server.alive() and all(node.alive() for node in federation.nodes)


# The same in upstream's words. Multi-Krum is left out: what is kept has equal weights here, and those of the examples there.
UPSTREAM = {
    "fedavg": ({}, stock.FedAvg, {}),
    "fedavgm": ({}, stock.FedAvgM, {"server_momentum": 0.9}),
    "fedadagrad": ({}, stock.FedAdagrad, {}),
    "fedadam": ({}, stock.FedAdam, {}),
    "fedyogi": ({}, stock.FedYogi, {}),
    "median": ({}, stock.FedMedian, {}),
    "trimmed-mean": ({}, stock.FedTrimmedAvg, {"beta": 0.2}),
    "krum": ({"byzantine": 1}, stock.Krum, {"num_malicious_nodes": 1}),
}


@pytest.mark.parametrize("kind", UPSTREAM)
def test_the_formulas_are_the_stock_strategies_in_double_precision(monkeypatch, kind):
    logging.getLogger("flwr").setLevel(logging.ERROR)
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    parameters, strategy, options = UPSTREAM[kind]
    config = plans.CONFIG | FAR
    ours, theirs = reference.of_plan(kind, **parameters), strategy(**options)
    arrays = {"matrix": reference.initial(config)["matrix.float64"]}
    for round_no in (1, 2, 3):
        replies = [reference.reply(config, arrays, round_no, partition) for partition in range(5)]
        theirs.current_arrays = reference.content.record_of(arrays) if kind == "fedavgm" else arrays
        messages = [message_of(partition, reply) for partition, reply in enumerate(replies)]
        record, _ = theirs.aggregate_train(round_no, messages)
        arrays = ours(arrays, replies)
        np.testing.assert_allclose(arrays["matrix"], record["matrix"].numpy(), rtol=1e-12, atol=1e-12)


def message_of(partition, arrays):
    metrics = MetricRecord({reference.WEIGHT: reference.client_app.examples_of(partition)})
    content = RecordDict({"arrays": reference.content.record_of(arrays), "metrics": metrics})
    asked = Message(content=RecordDict(), dst_node_id=1, message_type="train")
    return Message(content=content, reply_to=asked)


@pytest.mark.peer("flwr 1.42.0: SuperNode over HTTP, coordinated run")
@pytest.mark.parametrize("case", CASES)
def test_a_run_ends_as_its_strategy_says(federation, sheaf, case):
    kind, parameters, nodes, config = CASES[case]
    federation.have(nodes)
    plan = plans.write(
        federation.world,
        nodes=nodes,
        strategy=kind,
        parameters="\n".join(f"{key} = {text_of(value)}" for key, value in parameters.items()),
        config=config,
        name=case,
        evaluates=False,
    )
    run = sheaf.start(plan)
    status = sheaf.end(run)
    assert status["phase"] == "finished", status
    # Both compute in double precision and round once a round, so float16 as well is the same to its last place.
    reference.assert_close(sheaf.model(run), expected(case), tolerances={})


def expected(case):
    kind, parameters, nodes, config = CASES[case]
    proximal = {"proximal_mu": parameters["proximal_mu"]} if kind == "fedprox" else {}
    return reference.rounds(plans.CONFIG | config | proximal, nodes, reference.of_plan(kind, **parameters))


def text_of(value):
    if not isinstance(value, dict):
        return repr(value)
    return "{ " + ", ".join(f"{key} = {text_of(each)}" for key, each in value.items()) + " }"


def test_there_is_no_strategy_beside_these(federation, sheaf):
    refused = sheaf.run("run", plans.write(federation.world, strategy="nonesuch-of-all", name="nonesuch"))
    assert refused.returncode != 0
    (listed,) = re.findall(r'there is no strategy "nonesuch-of-all"; there is (.*)', refused.stderr)
    names = set(re.findall(r"[a-z][a-z-]+[a-z]", listed)) - {"and", "or"}
    assert names == {kind for kind, *_ in CASES.values()}, refused.stderr
