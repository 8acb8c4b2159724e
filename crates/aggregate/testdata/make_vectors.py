"""Writes vectors.json: folds computed by NumPy in float64, each by a formulation other than the one under test.

    python3 make_vectors.py > vectors.json

Needs NumPy; every value follows from the seeds below. Numbers are written with repr, which reads back exactly; tensor
bytes are hexadecimal, little-endian.
"""

import itertools
import json

import numpy as np

rng = np.random.Generator(np.random.PCG64(20170406))

DTYPES = ["f16", "bf16", "f32", "f64", "i32", "u8"]


def random_rows(dtype, k, n, spread=1.0):
    """k rows of n elements as little-endian bytes and as exact float64 values."""
    if dtype == "bf16":
        bits = (rng.normal(0, spread, (k, n)).astype("<f4").view("<u4") >> 16).astype("<u2")
        return bits, (bits.astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype == "i32":
        array = rng.integers(-1_000_000, 1_000_000, (k, n)).astype("<i4")
    elif dtype == "u8":
        array = rng.integers(0, 256, (k, n)).astype("u1")
    else:
        array = rng.normal(0, spread, (k, n)).astype({"f16": "<f2", "f32": "<f4", "f64": "<f8"}[dtype])
    return array, array.astype(np.float64)


def trimmed_mean(x, share):
    k = x.shape[0]
    cut = int(np.floor(share * k))
    return np.mean(np.sort(x, axis=0)[cut : k - cut], axis=0)


def clip(flat, base, weights, bound):
    """Clips each difference as a vector of its own, then averages."""
    differences = [row - base for row in flat]
    norms = [float(np.linalg.norm(d)) for d in differences]
    limit = bound["norm_ratio"] * float(np.median(norms)) if "norm_ratio" in bound else bound["norm_max"]
    scales = [1.0 if norm <= limit else limit / norm for norm in norms]
    clipped = [base + d * s for d, s in zip(differences, scales)]
    return np.average(clipped, axis=0, weights=weights), scales


def krum(flat, f, keep):
    """Tries every set of k - f - 2 neighbours and takes the cheapest, so nothing is sorted."""
    k = len(flat)
    scores = []
    for i in range(k):
        squares = [float(np.linalg.norm(flat[i] - flat[j]) ** 2) for j in range(k) if j != i]
        scores.append(min(sum(chosen) for chosen in itertools.combinations(squares, k - f - 2)))
    chosen = sorted(int(i) for i in np.argsort(scores, kind="stable")[:keep])
    return np.mean([flat[i] for i in chosen], axis=0), chosen


def fold(rule, flat, base, weights):
    k = len(flat)
    scales, selected = [1.0] * k, list(range(k))
    name = rule["rule"]
    if name == "weighted_mean":
        out = np.average(flat, axis=0, weights=weights)
    elif name == "norm_clipped_mean":
        out, scales = clip(flat, base, weights, rule["bound"])
    elif name == "median":
        out = np.median(flat, axis=0)
    elif name == "trimmed_mean":
        out = trimmed_mean(np.asarray(flat), rule["share"])
    else:
        out, selected = krum(flat, rule["byzantine"], rule["keep"])
    return out, scales, selected


def case(name, rule, dtypes, k, lens, outlier=None):
    tensors, values = [], []
    for dtype, n in zip(dtypes, lens):
        rows, exact = random_rows(dtype, k + 1, n)
        if outlier is not None and dtype in ("f32", "f64"):
            rows[-1] += outlier
            exact = rows.astype(np.float64)
        tensors.append({"dtype": dtype, "base": rows[0].tobytes().hex(), "rows": [r.tobytes().hex() for r in rows[1:]]})
        values.append(exact)
    whole = np.concatenate(values, axis=1)
    weights = [float(w) for w in rng.integers(1, 500, k)] if name.endswith("whole") else list(rng.uniform(0.1, 90.0, k))
    out, scales, selected = fold(rule, list(whole[1:]), whole[0], weights)
    at = 0
    for tensor, n in zip(tensors, lens):
        tensor["expected"] = [repr(float(v)) for v in out[at : at + n]]
        at += n
    return {
        "name": name,
        "rule": rule,
        "weights": [repr(float(w)) for w in weights],
        "tensors": tensors,
        "scales": [repr(float(s)) for s in scales],
        "selected": selected,
    }


def cases():
    plain = {
        "mean whole": {"rule": "weighted_mean"},
        "mean": {"rule": "weighted_mean"},
        "median": {"rule": "median"},
        "trimmed 0.2": {"rule": "trimmed_mean", "share": 0.2},
        "trimmed 0.34": {"rule": "trimmed_mean", "share": 0.34},
        "clip ratio": {"rule": "norm_clipped_mean", "bound": {"norm_ratio": 0.9}},
    }
    for label, rule in plain.items():
        for k in (1, 2, 3, 5, 10):
            suffix = " whole" if label.endswith("whole") else ""
            yield case(f"{label.removesuffix(' whole')} k={k}{suffix}", rule, DTYPES, k, [5, 6, 35, 9, 4, 3])
    for k in (2, 3, 5, 10):
        for label, bound in (("ratio", {"norm_ratio": 4.0}), ("max", {"norm_max": 2.5})):
            rule = {"rule": "norm_clipped_mean", "bound": bound}
            yield case(f"clip {label} k={k} with an outlier", rule, ["f32", "f64"], k, [34, 9], outlier=1e6)
    for k, f, keep in ((3, 0, 1), (5, 1, 1), (5, 1, 3), (10, 2, 1), (10, 3, 5), (10, 0, 10)):
        rule = {"rule": "krum", "byzantine": f, "keep": keep}
        yield case(f"krum k={k} f={f} keep={keep}", rule, ["f32", "f64", "bf16"], k, [34, 9, 3])
        yield case(f"krum k={k} f={f} keep={keep} with an outlier", rule, ["f32", "f64"], k, [34, 9], outlier=1e3)
        yield case(f"krum k={k} f={f} keep={keep} every dtype", rule, DTYPES, k, [5, 6, 9, 7, 1, 2])


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
