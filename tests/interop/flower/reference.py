"""What the tests' app ends with under a strategy, computed from its own functions and the stock strategy's.

FedAvg is upstream's own aggregation; that it gives what the stock server's run gave is checked against golden.json.
"""

import sys

import numpy as np
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

import harness

sys.path.insert(0, str(harness.APP))

from judged import client_app, content  # noqa: E402

WEIGHT = "num-examples"
# One step of the last place of a float16 between 2 and 4; upstream adds in float16, we add in double precision and round once.
TOLERANCE = {"float16": 2**-8}


def initial(config):
    return content.float_arrays(config["seed"], config["large_bytes"])


def rounds(config, nodes, aggregate):
    """The arrays after the rounds that the configuration asks for."""
    arrays = initial(config)
    for round_no in range(1, config["rounds"] + 1):
        replies = [reply(config, arrays, round_no, partition) for partition in range(nodes)]
        arrays = aggregate(replies)
    return arrays


def reply(config, arrays, round_no, partition):
    rng = content.generator(config["seed"], 10, round_no, partition)
    return {name: content.shifted(array, rng) for name, array in arrays.items()}


def fedavg(replies):
    records = [
        RecordDict({"arrays": content.record_of(arrays), "metrics": MetricRecord({WEIGHT: client_app.examples_of(idx)})})
        for idx, arrays in enumerate(replies)
    ]
    return content.arrays_of(aggregate_arrayrecords(records, WEIGHT))


def median(replies):
    stacked = {name: np.stack([each[name] for each in replies]) for name in replies[0]}
    return {name: np.median(all_, axis=0).astype(all_.dtype) for name, all_ in stacked.items()}


def assert_close(got, wanted):
    assert list(got) == list(wanted), "names in order"
    for name, array in wanted.items():
        array = np.asarray(array)
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        tolerance = TOLERANCE.get(array.dtype.name, 1e-6)
        np.testing.assert_allclose(got[name], array, rtol=tolerance, atol=tolerance, err_msg=name)
