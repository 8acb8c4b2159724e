"""Writes openfl_vectors.json: what OpenFL's own aggregation functions make of tensors.

    python3 make_openfl_vectors.py > openfl_vectors.json

Needs the Python package openfl, at the version README.md names. The functions are called as the aggregator calls them, with
float32 tensors and weights that sum to one.
"""

import json

import numpy as np
from openfl.interface.aggregation_functions import FedCurvWeightedAverage, GeometricMedian
from openfl.utilities import LocalTensor

rng = np.random.Generator(np.random.PCG64(19121344))


def case(what, rule, weights, rows):
    rows = [np.asarray(row, np.float32) for row in rows]
    total = sum(weights)
    local = [LocalTensor(col_name=f"col{at}", tensor=row, weight=weight / total) for at, (row, weight) in enumerate(zip(rows, weights))]
    name = "layer_w" if rule == "compatible_sum" else "layer"
    function = GeometricMedian() if rule == "geometric_median" else FedCurvWeightedAverage()
    expected = np.asarray(function(local, None, name, 3, ("trained",)))
    assert expected.dtype == (np.float64 if rule == "geometric_median" else np.float32)
    return {
        "name": f"{rule}, {len(rows)} rows, {what}",
        "rule": rule,
        "weights": [repr(float(weight)) for weight in weights],
        "rows": [row.tobytes().hex() for row in rows],
        "expected": [repr(float(value)) for value in expected.ravel()],
    }


def cases():
    for rule in ("geometric_median", "compatible_sum", "compatible_mean"):
        for k in (1, 2, 3, 5):
            weights = [int(weight) for weight in rng.integers(1, 900, k)]
            for shape in ((1,), (), (7,), (4, 5), (3, 2, 2, 11), *[(600,)][: k == 3]):
                base = rng.normal(0, 1, shape)
                yield case(f"{shape}", rule, weights, [base + rng.normal(0, 0.3, shape) for _ in range(k)])
        base = rng.normal(0, 1, (9,))
        near = [base + rng.normal(0, 1e-3, (9,)) for _ in range(4)]
        yield case("equal", rule, [3, 4, 6], [base, base, base])
        yield case("equal but for one", rule, [3, 4, 6, 2, 2], [base, base, base, base, base + 1])
        yield case("one far away", rule, [30, 40, 60, 20, 500], [*near, base + 1e4])
        yield case("nearer than the least distance", rule, [1, 2, 3], [base, base + 1e-6, base - 1e-6])
        yield case("one with next to no weight", rule, [1e-200, 2, 3], near[:3])
        yield case("large values", rule, [1, 2, 3], [1e15 * row for row in near[:3]])


print("[" + ",\n".join(json.dumps(case) for case in cases()) + "]")
