"""What the tests' app ends with under a strategy, computed from its own functions and the stock strategy's.

FedAvg is upstream's own aggregation; that it gives what the stock server's run gave is checked against golden.json. The
strategies of plans are written out from their papers; that they are upstream's as well is checked in test_strategies.py.
"""

import functools
import math
import sys

import numpy as np
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

import harness

sys.path.insert(0, str(harness.APP))

from judged import client_app, content  # noqa: E402

WEIGHT = "num-examples"
TOLERANCE = 1e-6
# One step of the last place of a float16 between 2 and 4; upstream adds in float16, we add in double precision and round once.
TOLERANCES = {"float16": 2**-8}


def initial(config):
    return content.float_arrays(config["seed"], config["large_bytes"])


def rounds(config, nodes, strategy):
    """The arrays after the rounds that the configuration asks for."""
    arrays = initial(config)
    for round_no in range(1, config["rounds"] + 1):
        replies = [reply(config, arrays, round_no, partition) for partition in range(nodes)]
        arrays = strategy(arrays, replies)
    return arrays


def reply(config, arrays, round_no, partition):
    rng = content.generator(config["seed"], 10, round_no, partition)
    arrays = {name: content.shifted(array, rng, config.get("proximal_mu", 0.0)) for name, array in arrays.items()}
    is_far = (config.get("fault"), config.get("fault_partition")) == ("far", partition)
    return client_app.far(arrays) if is_far else arrays


def fedavg(_, replies):
    records = [
        RecordDict({"arrays": content.record_of(arrays), "metrics": MetricRecord({WEIGHT: client_app.examples_of(idx)})})
        for idx, arrays in enumerate(replies)
    ]
    return content.arrays_of(aggregate_arrayrecords(records, WEIGHT))


def of_plan(kind, clip=None, **parameters):
    """The strategy of a plan by its kind and parameters, each with the default that docs/plan.md gives it.

    A model is one vector in double precision here, and is rounded to the types of its arrays once a round.
    """
    fold = functools.partial(FOLDS[kind], **parameters) if kind in FOLDS else functools.partial(mean, **(clip or {}))
    step = functools.partial(STEPS[kind], **parameters) if kind in STEPS else last
    deltas = []

    def advance(arrays, replies):
        x = flat(arrays)
        deltas.append(fold(x, np.stack([flat(each) for each in replies])) - x)
        return shaped(x + step(deltas), arrays)

    return advance


def flat(arrays):
    return np.concatenate([np.asarray(array, np.float64).reshape(-1) for array in arrays.values()])


def shaped(values, like):
    ends = np.cumsum([array.size for array in like.values()])
    parts = zip(like.items(), np.split(values, ends[:-1]))
    return {name: part.reshape(array.shape).astype(array.dtype) for (name, array), part in parts}


def mean(x, rows, norm_ratio=None, norm_max=None):
    """McMahan 2017, algorithm 1; with a bound on the distance from `x` as in Sun 2019, norm thresholding."""
    weights = [client_app.examples_of(idx) for idx in range(len(rows))]
    norms = np.linalg.norm(rows - x, axis=1)
    bound = norm_max or (norm_ratio * np.median(norms) if norm_ratio else np.inf)
    scales = np.minimum(1, bound / norms)
    clipped = np.where(scales[:, None] < 1, x + scales[:, None] * (rows - x), rows)
    return np.average(clipped, axis=0, weights=weights)


def median(_, rows):
    """Yin 2018, definition 1."""
    return np.median(rows, axis=0)


def trimmed_mean(_, rows, trim_share=0.2):
    """Yin 2018, definition 2."""
    cut = math.floor(trim_share * len(rows))
    return np.mean(np.sort(rows, axis=0)[cut : len(rows) - cut], axis=0)


def krum(_, rows, byzantine=0, keep=1):
    """Blanchard 2017, Krum and Multi-Krum."""
    squares = np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows])
    scores = [np.sort(np.delete(squares[idx], idx))[: len(rows) - byzantine - 2].sum() for idx in range(len(rows))]
    ranked = np.argsort(scores)
    assert scores[ranked[keep]] > (1 + 1e-6) * scores[ranked[keep - 1]], "who is kept is no matter of rounding"
    return np.mean(rows[ranked[:keep]], axis=0)


def last(deltas):
    return deltas[-1]


def decayed(decay, history):
    """The sum over s of decay^(t - s) history[s], t being the last."""
    return sum(decay**age * value for age, value in enumerate(reversed(history)))


def fedavgm(deltas, server_learning_rate=1.0, server_momentum=0.9):
    """Hsu 2019."""
    return server_learning_rate * decayed(server_momentum, deltas)


def adaptive(deltas, rate, beta1, v, tau):
    """Reddi 2021, algorithm 2, with `v` beginning at 0."""
    return rate * (1 - beta1) * decayed(beta1, deltas) / (np.sqrt(v) + tau)


def fedadagrad(deltas, server_learning_rate=0.1, beta1=0.0, tau=0.001):
    return adaptive(deltas, server_learning_rate, beta1, sum(delta**2 for delta in deltas), tau)


def fedadam(deltas, server_learning_rate=0.1, beta1=0.9, beta2=0.99, tau=0.001):
    """With the learning rate that flwr 1.42's FedAdam corrects for bias, which the paper's does not."""
    exponent = len(deltas) + 1
    rate = server_learning_rate * math.sqrt(1 - beta2**exponent) / (1 - beta1**exponent)
    return adaptive(deltas, rate, beta1, (1 - beta2) * decayed(beta2, [delta**2 for delta in deltas]), tau)


def fedyogi(deltas, server_learning_rate=0.01, beta1=0.9, beta2=0.99, tau=0.001):
    v = np.zeros_like(deltas[0])
    for square in (delta**2 for delta in deltas):
        v = v - (1 - beta2) * square * np.sign(v - square)
    return adaptive(deltas, server_learning_rate, beta1, v, tau)


FOLDS = {"median": median, "trimmed-mean": trimmed_mean, "krum": krum}
STEPS = {"fedavgm": fedavgm, "fedadagrad": fedadagrad, "fedadam": fedadam, "fedyogi": fedyogi}


def assert_close(got, wanted, tolerances=TOLERANCES):
    assert list(got) == list(wanted), "names in order"
    for name, array in wanted.items():
        array = np.asarray(array)
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        tolerance = tolerances.get(array.dtype.name, TOLERANCE)
        np.testing.assert_allclose(got[name], array, rtol=tolerance, atol=tolerance, err_msg=name)
