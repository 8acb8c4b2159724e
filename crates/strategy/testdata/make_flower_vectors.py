"""Writes flower_vectors.json: several rounds of Flower's own strategies, on float64 arrays.

    python3 make_flower_vectors.py > flower_vectors.json

Needs the Python package flwr, at the version README.md names. The strategies are called as the server app calls them: the
global model is set as `configure_train` sets it, and the replies go through `aggregate_train`.
"""

import json
import logging

import numpy as np

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
logging.disable(logging.CRITICAL)
rng = np.random.Generator(np.random.PCG64(20230701))

NUM_ELEMENTS = 7
NUM_ROUNDS = 5


def reply(values, num_examples):
    ask = Message(content=RecordDict({}), dst_node_id=1, message_type="train")
    content = {"arrays": ArrayRecord({"x": Array(values)}), "metrics": MetricRecord({"num-examples": num_examples})}
    return Message(content=RecordDict(content), reply_to=ask)


def texts(values):
    return [repr(float(value)) for value in values]


def moments(strategy):
    if isinstance(strategy, FedAvgM):
        # A pseudo-gradient, so of the opposite sign; not kept without momentum.
        return {"m": texts(-strategy.momentum_vector[0])} if strategy.server_momentum > 0 else {}
    if isinstance(strategy, (FedAdagrad, FedAdam, FedYogi)):
        return {"m": texts(strategy.m_t["x"]), "v": texts(strategy.v_t["x"])}
    return {}


def case(name, strategy, step, k):
    x = rng.normal(0, 1, NUM_ELEMENTS)
    start, rounds = x, []
    for round_number in range(1, NUM_ROUNDS + 1):
        updates = x + rng.normal(0.05, 0.2, (k, NUM_ELEMENTS))
        weights = [int(w) for w in rng.integers(1, 500, k)]
        arrays = ArrayRecord({"x": Array(x)})
        strategy.current_arrays = arrays if isinstance(strategy, FedAvgM) else {"x": x}
        new, _ = strategy.aggregate_train(round_number, [reply(u, w) for u, w in zip(updates, weights)])
        x = new["x"].numpy()
        assert x.dtype == np.float64
        rounds.append({"weights": texts(weights), "updates": [texts(u) for u in updates], "expected": texts(x)})
    rule = {"rule": "weighted_mean"}
    return {"name": name, "rule": rule, "step": step, "start": texts(start), "rounds": rounds, "moments": moments(strategy)}


def adaptive(kind, strategy, eta, beta1, beta2, tau, k):
    step = {"step": "adaptive", "kind": kind, "learning_rate": eta, "beta1": beta1, "beta2": beta2, "tau": tau}
    return case(f"{strategy.__name__} of k={k}", strategy(eta=eta, beta_1=beta1, beta_2=beta2, tau=tau), step, k)


def cases():
    yield case("FedAvg of k=3", FedAvg(), {"step": "replace"}, 3)
    for rate, momentum in ((1.0, 0.9), (0.7, 0.5), (0.7, 0.0)):
        strategy = FedAvgM(server_learning_rate=rate, server_momentum=momentum)
        step = {"step": "momentum", "learning_rate": rate, "momentum": momentum}
        yield case(f"FedAvgM rate={rate} momentum={momentum}", strategy, step, 3)
    yield adaptive("adam", FedAdam, 0.1, 0.9, 0.99, 1e-3, 3)
    yield adaptive("adam", FedAdam, 0.01, 0.5, 0.9, 1e-9, 2)
    yield adaptive("yogi", FedYogi, 0.01, 0.9, 0.99, 1e-3, 3)
    yield adaptive("yogi", FedYogi, 0.1, 0.5, 0.9, 0.1, 1)
    adagrad = {"step": "adaptive", "kind": "adagrad", "learning_rate": 0.1, "beta1": 0.0, "beta2": 0.0, "tau": 1e-9}
    yield case("FedAdagrad of k=3", FedAdagrad(eta=0.1, tau=1e-9), adagrad, 3)


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
