#!/usr/bin/env python3
"""Pairs `sheaf bench exchange` with a bare Python server under the same load, in one run, and prints the ratios.

    python3 -m venv .venv && .venv/bin/pip install -r benches/requirements.txt
    .venv/bin/python benches/exchange_vs_python.py --size 100MB --clients 10 --pairs 3

Both take the same bytes in pieces of 4 MiB over loopback from as many clients. Sheaf's side verifies, keeps durably, checks every value,
folds in double precision and publishes; Python's side verifies, keeps in memory and averages in single precision. The two alternate,
so that what else the machine does weighs on both; the ratio is the median of the pairs.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "kB": 10**3, "KiB": 2**10}


def bytes_of(text):
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    raise argparse.ArgumentTypeError(f"{text!r} is not like 100MB or 1GiB")


def sheaf(args):
    command = [args.sheaf, "bench", "exchange", "--json", "--size", f"{args.size}B"]
    command += ["--clients", str(args.clients), "--rounds", str(args.rounds), *args.more]
    command += [] if args.tls else ["--plain"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    cpu = {stage["stage"]: stage["server_cpu_seconds"] * args.rounds for stage in report["stages"]}
    moved_gb = args.size * args.clients * args.rounds / 1e9
    return {
        "ingest_gb_per_cpu_s": report["ingest_gb_per_cpu_s"],
        "accepted_gb_per_cpu_s": report["accepted_gb_per_cpu_s"],
        "folded_gb_per_cpu_s": moved_gb / (cpu["upload"] + cpu["gate"] + cpu["fold"]),
        "server_peak_rss_bytes": report["server_peak_rss_bytes"],
        "sealing": report["sealing"],
        "limit_gb_per_cpu_s": report["limit_gb_per_cpu_s"],
        "ratio_to_limit": report["ratio_to_limit"],
    }


def python(args):
    command = [sys.executable, HERE / "python_server.py", "--threads", "10"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(server.kill)
        port = server.stdout.readline().strip()
        load = [sys.executable, HERE / "python_load.py", f"127.0.0.1:{port}", "--bytes", str(args.size)]
        load += ["--clients", str(args.clients), "--rounds", str(args.rounds)]
        totals = json.loads(subprocess.run(load, check=True, stdout=subprocess.PIPE).stdout)
    moved_gb = args.size * args.clients * args.rounds / 1e9
    return {
        "ingest_gb_per_cpu_s": moved_gb / totals["ingest_cpu_seconds"],
        "folded_gb_per_cpu_s": moved_gb / (totals["ingest_cpu_seconds"] + totals["fold_cpu_seconds"]),
        "server_peak_rss_bytes": totals["server_peak_rss_bytes"],
        "sealing": "plain",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheaf", default="target/release/sheaf")
    parser.add_argument("--size", type=bytes_of, default="100MB")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tls", action="store_true", help="our side over TLS; theirs stays plain")
    parser.add_argument("more", nargs="*", help="further arguments of `sheaf bench exchange`, after --")
    args = parser.parse_args()
    args.size -= args.size % 4
    pairs = [{"sheaf": sheaf(args), "python": python(args)} for _ in range(args.pairs)]

    def ratio(figure):
        return statistics.median(pair["sheaf"][figure] / pair["python"][figure] for pair in pairs)

    report = {
        "size_bytes": args.size,
        "clients": args.clients,
        "rounds": args.rounds,
        "ratio_ingest_gb_per_cpu_s": ratio("ingest_gb_per_cpu_s"),
        "ratio_folded_gb_per_cpu_s": ratio("folded_gb_per_cpu_s"),
        "ratio_server_peak_rss": ratio("server_peak_rss_bytes"),
        "pairs": pairs,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
