#!/usr/bin/env python3
"""Pairs `sheaf bench fold` with the same folds in NumPy, one thread each, in one run, and prints the ratios.

    .venv/bin/python benches/fold_vs_numpy.py --updates 10,25 --size 256MiB

NumPy's forms: the mean as a product and in-place sums, the median and the trimmed mean over a stack in blocks that stay in the cache,
Krum's distances by a loop over pairs and by a BLAS Gram matrix. Rates are bytes of all updates per second, as the program counts them.
"""

import argparse
import json
import os
import subprocess
import time

# Before NumPy is loaded: its BLAS reads them once.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy  # noqa: E402

from exchange_vs_python import bytes_of  # noqa: E402

BLOCK_ELEMENTS = 256 * 1024
TRIM_SHARE = 0.1


def mean(rows):
    total = rows[0] * numpy.float32(0.5)
    for row in rows[1:]:
        total += row * numpy.float32(0.5)
    return total


def blocks(rows):
    width = BLOCK_ELEMENTS // len(rows)
    return (rows[:, start : start + width] for start in range(0, rows.shape[1], width))


def median(rows):
    for block in blocks(rows):
        numpy.median(block, axis=0)


def trimmed_mean(order):
    def form(rows):
        cut = int(TRIM_SHARE * len(rows))
        for block in blocks(rows):
            order(block, cut)[cut : len(rows) - cut].mean(axis=0, dtype=numpy.float64)

    return form


def by_sort(block, _cut):
    return numpy.sort(block, axis=0)


def by_partition(block, cut):
    return numpy.partition(block, (cut, len(block) - cut - 1), axis=0)


def krum_pairs(rows):
    for idx, row in enumerate(rows):
        for other in rows[:idx]:
            difference = row - other
            numpy.dot(difference, difference)


def krum_gram(rows):
    gram = rows @ rows.T
    squares = numpy.diag(gram)
    return squares[:, None] + squares[None, :] - 2 * gram


FORMS = {
    "mean": {"numpy": mean},
    "median": {"numpy": median},
    "trimmed_mean": {"sort": trimmed_mean(by_sort), "partition": trimmed_mean(by_partition)},
    "krum_distances": {"pair_loop": krum_pairs, "blas_gram": krum_gram},
}


def rate(form, rows, passes):
    best = float("inf")
    for _ in range(passes):
        started = time.monotonic()
        form(rows)
        best = min(best, time.monotonic() - started)
    return rows.nbytes / best / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheaf", default="target/release/sheaf")
    parser.add_argument("--updates", default="10,25,50,100")
    parser.add_argument("--size", default="256MiB", type=str)
    parser.add_argument("--passes", type=int, default=2)
    args = parser.parse_args()
    command = [args.sheaf, "bench", "fold", "--json", "--threads", "1", "--updates", args.updates]
    command += ["--size", args.size, "--probe", "64MiB"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    ours = {(figure["kernel"], figure["updates"]): figure["gb_per_s"] for figure in report["memory"]}
    ratios = []
    for updates in map(int, args.updates.split(",")):
        length = bytes_of(args.size) // updates // 4
        rows = numpy.random.default_rng(0).standard_normal((updates, length), dtype=numpy.float32)
        for kernel, forms in FORMS.items():
            for name, form in forms.items():
                theirs, own = rate(form, rows, args.passes), ours[kernel, updates]
                ratios.append(
                    {
                        "kernel": kernel,
                        "updates": updates,
                        "against": name,
                        "gb_per_s": own,
                        "numpy_gb_per_s": theirs,
                        "ratio": own / theirs,
                    }
                )
    print(json.dumps({"load_average": os.getloadavg()[0], "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
