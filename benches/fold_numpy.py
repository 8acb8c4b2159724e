"""The folds as NumPy code would do them, one thread: GB of updates taken in for every CPU-second.

    python3 benches/fold_numpy.py OUT.json

Needs NumPy. Each formulation is the plain one of the field: nothing is made slower than it need be. Rows are float32;
the best of several rounds counts.
"""

import json
import os
import sys
import time

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

COHORTS = [10, 11, 25, 50, 100]
STREAMED_BYTES = 512 << 20
COMPUTED_BYTES = 32 << 20
ROUNDS = 3


def best(work):
    seconds = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        work()
        seconds = min(seconds, time.process_time() - before)
    return seconds


def rows(k, size):
    rng = np.random.default_rng(1)
    n = size // 4 // k
    return [rng.standard_normal(n, dtype=np.float32) for _ in range(k)]


def mean_products(x, w):
    total = x[0] * w[0]
    for row, weight in zip(x[1:], w[1:]):
        total += row * weight
    return total / w.sum()


def mean_buffers(x, w):
    """Two buffers, no temporary: the best that stays NumPy."""
    total = np.multiply(x[0], w[0])
    product = np.empty_like(total)
    for row, weight in zip(x[1:], w[1:]):
        np.multiply(row, weight, out=product)
        np.add(total, product, out=total)
    np.divide(total, w.sum(), out=total)
    return total


def mean_f64(x, w):
    """Sums in float64, as the server's are."""
    total = np.zeros(len(x[0]))
    for row, weight in zip(x, w):
        total += row * np.float64(weight)
    return total / np.float64(w.sum())


def mean_average(x, w):
    return np.average(np.stack(x), axis=0, weights=w)


def median(x):
    return np.median(np.stack(x), axis=0)


def trimmed(x, share=0.1):
    stack = np.stack(x)
    k = len(x)
    cut = int(share * k)
    if cut == 0:
        return stack.mean(axis=0)
    stack.partition([cut, k - cut - 1], axis=0)
    return stack[cut : k - cut].mean(axis=0)


def pair_loop(x):
    k = len(x)
    out = np.zeros((k, k))
    for i in range(k):
        for j in range(i + 1, k):
            difference = x[i] - x[j]
            out[i, j] = out[j, i] = difference @ difference
    return out


def gram(stack):
    products = stack @ stack.T
    squares = np.diag(products)
    return squares[:, None] + squares[None, :] - 2 * products


def main():
    lines = []

    def note(rule, form, k, size, seconds):
        gb = size / seconds / 1e9
        print(f"{rule:8} {form:10} k={k:<4} {gb:7.2f} GB/s", flush=True)
        lines.append({"rule": rule, "form": form, "k": k, "gb_per_cpu_s": round(gb, 4)})

    for k in COHORTS:
        x, w = rows(k, STREAMED_BYTES), np.arange(1, k + 1, dtype=np.float32)
        size = sum(row.nbytes for row in x)
        forms = {"products": mean_products, "buffers": mean_buffers, "f64": mean_f64, "average": mean_average}
        for form, work in forms.items():
            note("mean", form, k, size, best(lambda: work(x, w)))
        x = rows(k, COMPUTED_BYTES)
        size = sum(row.nbytes for row in x)
        stack = np.stack(x)
        note("median", "median", k, size, best(lambda: median(x)))
        note("trimmed", "partition", k, size, best(lambda: trimmed(x)))
        note("krum", "pairs", k, size, best(lambda: pair_loop(x)))
        note("krum", "gram", k, size, best(lambda: gram(stack)))
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(lines, out)


if __name__ == "__main__":
    main()
