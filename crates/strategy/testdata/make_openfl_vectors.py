"""Writes openfl_vectors.json: several rounds of OpenFL's own adaptive aggregations, on float64 arrays.

    python3 make_openfl_vectors.py > openfl_vectors.json

Needs the Python package openfl, at the version README.md names. The functions are called as the aggregator calls them: with weights
that sum to one, and a history in which they find the model of the round.
"""

import json

import numpy as np
from openfl.interface.aggregation_functions import AdagradAdaptiveAggregation, AdamAdaptiveAggregation
from openfl.utilities import LocalTensor
from openfl.utilities.types import SingletonABCMeta

rng = np.random.Generator(np.random.PCG64(20141222))

NUM_ELEMENTS = 7
NUM_ROUNDS = 5


def texts(values):
    return [repr(float(value)) for value in values]


def case(kind, k, settings, scale=0.2):
    SingletonABCMeta._instances.clear()
    x = rng.normal(0, 1, NUM_ELEMENTS)
    start, rounds = x.copy(), []
    function = {"adagrad": AdagradAdaptiveAggregation, "adam": AdamAdaptiveAggregation}[kind]
    function = function(params={"x": x.copy()}, **settings)
    for round_number in range(NUM_ROUNDS):
        updates = x + rng.normal(0.05 * scale, scale, (k, NUM_ELEMENTS))
        weights = [int(w) for w in rng.integers(1, 500, k)]
        if round_number == 2:
            updates[:] = x
        local = [LocalTensor(f"col{at}", u, w / sum(weights)) for at, (u, w) in enumerate(zip(updates, weights))]
        tag = "aggregated" if round_number else "model"
        history = iter([{"round": round_number, "tensor_name": "x", "tags": (tag,), "nparray": x}])
        x = function(local, history, "x", round_number, ("trained",)).copy()
        assert x.dtype == np.float64
        rounds.append({"weights": texts(weights), "updates": [texts(u) for u in updates], "expected": texts(x)})
    optimiser = function.optimizer
    ours = {"kind": kind, "learning_rate": optimiser.learning_rate, "start": optimiser.initial_accumulator_value}
    ours["epsilon"] = optimiser.epsilon
    if kind == "adam":
        ours |= {"beta1": optimiser.beta_1, "beta2": optimiser.beta_2}
        moments = {"m": texts(optimiser.grads_first_moment["x"]), "v": texts(optimiser.grads_second_moment["x"])}
    else:
        moments = {"v": texts(optimiser.grads_squared["x"])}
    step = {"step": "told", "as_difference": False, "codec": None, "optimiser": ours}
    name = f"{kind} of k={k}, {settings}"
    return {"name": name, "rule": {"rule": "weighted_mean"}, "step": step, "start": texts(start), "rounds": rounds, "moments": moments}


def cases():
    yield case("adagrad", 2, {})
    yield case("adagrad", 3, {"learning_rate": 0.3, "initial_accumulator_value": 0.0, "epsilon": 1e-6})
    yield case("adagrad", 5, {"learning_rate": 1.0, "epsilon": 1e-3}, scale=3.0)
    yield case("adam", 2, {})
    yield case("adam", 3, {"learning_rate": 0.3, "betas": (0.5, 0.9), "initial_accumulator_value": 0.25})
    yield case("adam", 5, {"learning_rate": 1.0, "betas": (0.0, 0.0), "epsilon": 1e-3}, scale=3.0)


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
