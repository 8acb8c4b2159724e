"""Writes vectors.json: several rounds of every strategy, computed by NumPy in float64.

    python3 make_vectors.py > vectors.json

Needs NumPy; every value follows from the seed below. The moments are not carried along as in the code under test: in
each round they are written out as sums over all rounds so far (Yogi's second moment, which has no such form, is carried).
"""

import json

import numpy as np

rng = np.random.Generator(np.random.PCG64(20200229))

NUM_ELEMENTS = 9
NUM_ROUNDS = 5


def geometric(decay, history):
    """sum over s <= t of decay^(t - s) history[s]"""
    return sum(decay ** (len(history) - 1 - s) * value for s, value in enumerate(history))


def yogi(beta2, deltas):
    v = np.zeros(NUM_ELEMENTS)
    for delta in deltas:
        square = delta**2
        v = np.where(v > square, v - (1 - beta2) * square, np.where(v < square, v + (1 - beta2) * square, v))
    return v


def next_model(step, x, folded, deltas):
    """The next model and the moments after it; the last of deltas is this round's."""
    if step["step"] == "replace":
        return folded, {}
    eta = step["learning_rate"]
    if step["step"] == "momentum":
        m = geometric(step["momentum"], deltas)
        return x + eta * m, {"m": m}
    beta1, beta2, tau = step["beta1"], step["beta2"], step["tau"]
    squares = [delta**2 for delta in deltas]
    m = (1 - beta1) * geometric(beta1, deltas)
    if step["kind"] == "adagrad":
        v = np.sum(squares, axis=0)
    elif step["kind"] == "adam":
        v = (1 - beta2) * geometric(beta2, squares)
        t = len(deltas)
        eta = eta * np.sqrt(1 - beta2 ** (t + 1)) / (1 - beta1 ** (t + 1))
    else:
        v = yogi(beta2, deltas)
    return x + eta * m / (np.sqrt(v) + tau), {"m": m, "v": v}


def krum(updates, f, keep):
    k = len(updates)
    squares = np.array([[np.sum((a - b) ** 2) for b in updates] for a in updates])
    scores = [np.sort(np.delete(squares[i], i))[: k - f - 2].sum() for i in range(k)]
    return np.mean(updates[np.sort(np.argsort(scores, kind="stable")[:keep])], axis=0)


def fold(rule, updates, base, weights):
    if rule["rule"] == "weighted_mean":
        return np.average(updates, axis=0, weights=weights)
    if rule["rule"] == "norm_clipped_mean":
        norms = np.linalg.norm(updates - base, axis=1)
        scales = np.minimum(1, rule["bound"]["norm_ratio"] * np.median(norms) / norms)
        return np.average(base + scales[:, None] * (updates - base), axis=0, weights=weights)
    if rule["rule"] == "median":
        return np.median(updates, axis=0)
    if rule["rule"] == "trimmed_mean":
        cut = int(np.floor(rule["share"] * len(updates)))
        return np.mean(np.sort(updates, axis=0)[cut : len(updates) - cut], axis=0)
    return krum(updates, rule["byzantine"], rule["keep"])


def texts(values):
    return [repr(float(value)) for value in values]


def case(name, rule, step, k):
    x = rng.normal(0, 1, NUM_ELEMENTS)
    x[0] = 0.5
    start, rounds, deltas, moments = x, [], [], {}
    for _ in range(NUM_ROUNDS):
        updates = x + rng.normal(0.05, 0.2, (k, NUM_ELEMENTS))
        # One coordinate no one changes, so short that no mean rounds it: its moments stay zero.
        updates[:, 0] = x[0]
        weights = rng.integers(1, 500, k).astype(np.float64)
        folded = fold(rule, updates, x, weights)
        assert folded[0] == x[0]
        deltas.append(folded - x)
        x, moments = next_model(step, x, folded, deltas)
        rounds.append({"weights": texts(weights), "updates": [texts(u) for u in updates], "expected": texts(x)})
    moments = {key: texts(value) for key, value in moments.items()}
    return {"name": name, "rule": rule, "step": step, "start": texts(start), "rounds": rounds, "moments": moments}


def adaptive(kind, **changes):
    step = {"step": "adaptive", "kind": kind, "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
    return {**step, **changes}


def cases():
    mean, replace = {"rule": "weighted_mean"}, {"step": "replace"}
    for k in (1, 2, 3, 5, 10):
        yield case(f"fedavg k={k}", mean, replace, k)
    for momentum in (0.0, 0.9):
        step = {"step": "momentum", "learning_rate": 0.7, "momentum": momentum}
        yield case(f"fedavgm momentum={momentum}", mean, step, 3)
    for kind in ("adagrad", "adam", "yogi"):
        yield case(f"fed{kind}", mean, adaptive(kind), 3)
        yield case(f"fed{kind} without decay", mean, adaptive(kind, beta1=0.0, beta2=0.0), 2)
        yield case(f"fed{kind} with a large tau", mean, adaptive(kind, tau=0.5, learning_rate=1.5), 4)
    clip = {"rule": "norm_clipped_mean", "bound": {"norm_ratio": 1.0}}
    yield case("fedadam with a clip", clip, adaptive("adam"), 5)
    yield case("median", {"rule": "median"}, replace, 4)
    yield case("trimmed-mean", {"rule": "trimmed_mean", "share": 0.2}, replace, 5)
    yield case("krum", {"rule": "krum", "byzantine": 1, "keep": 1}, replace, 5)
    yield case("multi-krum", {"rule": "krum", "byzantine": 1, "keep": 3}, replace, 6)


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
