"""What is trained and how it travels.

A lesson is what decides the result: model, deltas, pipeline, optimizer, groups, stragglers. A cell is a lesson, the transport
and the security that it travels with; `golden.json` has one result for each lesson.
"""

import dataclasses
import itertools

import harness
import tables


@dataclasses.dataclass(frozen=True)
class Clustered:
    """How far a result may be from its golden where k-means begins at random, by what it is; within 1e-6 of their size in the arrays
    `alike`, which have fewer elements than there are clusters."""

    sums: float
    elements: float
    metrics: float
    alike: tuple


@dataclasses.dataclass(frozen=True)
class Lesson:
    """`plan` are parameters of `harness.plan`, or a whole plan where it is `whole`. `tolerance` is relative; none stands for equal
    bytes and zero for equal values. Names, shapes and rounds are equal whatever it is."""

    plan: dict
    collaborators: int = 2
    tolerance: float | Clustered | None = None
    task_group: str | None = None
    first_round: int = 0
    # Collaborators that wait in the first round until the aggregator has ended the last one.
    late: tuple = ()
    whole: bool = False
    # Whether the stock aggregator's golden needs tables that come in their order.
    ordered: bool = False


SMALL = {"large_elements": 1000}
FEW = {"model": "few"}
CONV = {"model": "conv"}
ZETA, COL1, COL2 = harness.NAMES
VALIDATION = ["aggregated_model_validation"]


def lesson(
    *, runner=SMALL, collaborators=2, tolerance=None, task_group=None, first_round=0, late=(), ordered=False, **plan
):
    # Three are added up in an order that the stock aggregator draws anew for each round.
    if collaborators > 2 and tolerance is None:
        tolerance = 1e-6
    stalls = {"stalls": [harness.NAMES.index(name) + 1 for name in late]} if late else {}
    return Lesson(plan | {"runner": runner | stalls}, collaborators, tolerance, task_group, first_round, late, ordered=ordered)


LESSONS = {
    "printed": Lesson(harness.printed(), whole=True),
    # An array beyond the piece size of an upload, 2 MiB.
    "plain": lesson(runner={"large_elements": 600_000}),
    # Beyond the size that gRPC takes for one message unless it is told otherwise, 4 MiB.
    "large": lesson(runner={"large_elements": 1_600_000}, rounds=2),
    "atomic": lesson(network={"enable_atomic_connections": True}, rounds=2),
    "three": lesson(collaborators=3),
    "conv": lesson(runner=CONV),
    "whole": lesson(deltas=False),
    "whole-up": lesson(deltas=False, aggregator_deltas=True),
    "whole-down": lesson(deltas=True, aggregator_deltas=False),
    "local": lesson(opt_treatment="CONTINUE_LOCAL"),
    "global": lesson(opt_treatment="CONTINUE_GLOBAL", rounds=4),
    "global-whole": lesson(opt_treatment="CONTINUE_GLOBAL", deltas=False),
    "global-conv": lesson(opt_treatment="CONTINUE_GLOBAL", runner=CONV),
    # Shifts are drawn at random, and rounded with the values that they shift.
    "shift": lesson(pipeline=("RandomShiftPipeline", {}), runner=CONV, tolerance=2e-4),
    # What gzip writes tells the time.
    "stc": lesson(pipeline=("STCPipeline", {"p_sparsity": 0.3}), runner=CONV, tolerance=0),
    # A share that parts no values of one size: which of those upstream keeps is the business of the sort that its NumPy chose.
    "stc-global": lesson(
        pipeline=("STCPipeline", {"p_sparsity": 0.35}), runner=CONV, opt_treatment="CONTINUE_GLOBAL", tolerance=0
    ),
    # K-means finds all values of these, to the last bits of their double precision.
    "skc": lesson(pipeline=("SKCPipeline", {"p_sparsity": 0.1, "n_clusters": 6}), runner=FEW, tolerance=1e-6, ordered=True),
    # Where k-means ends depends on where it began; a centre is the mean of its cluster, though, and all steps are linear, so the sums
    # stay. Of a hundred courses drawn with stock's encoder no two came apart further than 1.6 in an element and 0.03 in a metric.
    "kc": lesson(
        pipeline=("KCPipeline", {"n_clusters": 6}),
        runner=CONV,
        tolerance=Clustered(sums=1e-4, elements=3.2, metrics=0.06, alike=("norm.running_var", "norm.num_batches")),
    ),
    "static": lesson(
        collaborators=3,
        assigner=harness.groups(
            "StaticGroupedAssigner", learning=(harness.TASKS, [ZETA, COL2]), watching=(VALIDATION, [COL1])
        ),
    ),
    "static-two": lesson(
        assigner=harness.groups("StaticGroupedAssigner", learning=(harness.TASKS, [COL1]), watching=(VALIDATION, [ZETA]))
    ),
    "audit": lesson(audit=True),
    "median": lesson(collaborators=3, aggregation=("Median", {})),
    "geometric-median": lesson(collaborators=3, aggregation=("GeometricMedian", {}), tolerance=1e-5),
    "fedcurv": lesson(
        runner={"model": "curved"}, opt_treatment="CONTINUE_GLOBAL", aggregation=("FedCurvWeightedAverage", {}), rounds=4
    ),
    "scalar": lesson(runner={"model": "scalar"}, rounds=4, tolerance=1e-6),
    "scalar-global": lesson(runner={"model": "scalar"}, opt_treatment="CONTINUE_GLOBAL", rounds=4, tolerance=1e-6),
    "resumed": lesson(first_round=1),
    "forgetful": lesson(deltas=False, aggregator={"db_store_rounds": 1, "persist_checkpoint": False}),
    "evaluation": lesson(task_group="evaluation", first_round=2),
    "evaluation-three": lesson(task_group="evaluation", collaborators=3),
    "cutoff": lesson(
        straggler=("CutoffTimePolicy", {"straggler_cutoff_time": 4, "minimum_reporting": 1}), rounds=2, late=(ZETA,)
    ),
    "percentage": lesson(
        straggler=("PercentagePolicy", {"percent_collaborators_needed": 0.5, "minimum_reporting": 1}), rounds=2, late=(COL1,)
    ),
    "percentage-three": lesson(
        straggler=("PercentagePolicy", {"percent_collaborators_needed": 0.66, "minimum_reporting": 2}),
        rounds=2,
        late=(COL2,),
        collaborators=3,
    ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    lesson: str
    transport: str = "grpc"
    security: str = "mtls"

    @property
    def name(self):
        return f"{self.lesson}-{self.transport}-{self.security}"


ROUTES = list(itertools.product(("grpc", "rest"), harness.SECURITY))
# Each lesson on the first route, a few on all of them and a few more over REST.
CELLS = (
    [Cell(name, *route) for name in ("plain", "evaluation") for route in ROUTES]
    + [Cell(name, "rest", "tls") for name in ("large", "three", "global", "stc", "static", "percentage", "conv")]
    + [Cell(name) for name in LESSONS if name not in ("plain", "evaluation")]
)
# What every run of the suite takes: each route, and each kind of lesson once.
ALWAYS = {
    *("plain-grpc-mtls", "plain-grpc-plain", "plain-rest-mtls", "evaluation-grpc-tls", "evaluation-rest-plain", "conv-rest-tls"),
    *("large-grpc-mtls", "three-grpc-mtls", "whole-grpc-mtls", "global-grpc-mtls", "local-grpc-mtls"),
    *("scalar-grpc-mtls", "shift-grpc-mtls", "stc-grpc-mtls", "skc-grpc-mtls", "kc-grpc-mtls"),
    *("static-two-grpc-mtls", "cutoff-grpc-mtls", "percentage-rest-tls"),
    *("printed-grpc-mtls", "fedcurv-grpc-mtls", "forgetful-grpc-mtls", "resumed-grpc-mtls"),
}


def federation(world, pki, name, *, transport="grpc", security="mtls", server=None):
    """The federation of a lesson, not started."""
    chosen = LESSONS[name]
    stock = (server or harness.SERVER) == "stock"
    plan = {"config": chosen.plan} if chosen.whole else {"transport": transport, "security": security, **chosen.plan}
    return harness.Federation(
        world,
        pki,
        count=chosen.collaborators,
        first_round=chosen.first_round,
        task_group=chosen.task_group,
        server=server,
        environ=tables.IN_ORDER if stock and chosen.ordered else {},
        **plan,
    )


def run(federation, name):
    """Runs a lesson to its end."""
    late = LESSONS[name].late
    federation.start(late)
    if late:
        rounds = LESSONS[name].plan["rounds"]
        harness.wait_for("the last round's end", lambda: len(federation.metrics()) == rounds, 2 * harness.DEADLINE_S)
        for each in late:
            federation.collaborators[each].go()
    federation.end()
