"""Pairs of ours and the stock server, one after the other, and how many times better ours is."""

import argparse
import functools
import json
import statistics


def arguments(description, parts):
    """What every comparison is told; each adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("parts", nargs="*", default=[*parts], choices=[*parts, []])
    parser.add_argument("--ours", default="target/release/sheaf", help="our program, or stock")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser


def compare(parts, ratios, args):
    """Measures every part that was asked for, and tells what came out."""
    reports = {}
    for name in args.parts:
        part = functools.partial(parts[name], args=args)
        reports[name] = measure(part, args.ours, functools.partial(ratios, name), args.pairs)
    tell(reports, args.json)


def measure(part, ours, ratios, count):
    """`part(which)` measures one server, `ratios(ours, stock)` compares two measurements."""
    pairs = [{"ours": part(ours), "stock": part("stock")} for _ in range(count)]
    each = [ratios(**pair) for pair in pairs]
    return {"pairs": pairs, "ratios": {name: statistics.median(one[name] for one in each) for name in each[0]}}


def tell(reports, as_json):
    if as_json:
        return print(json.dumps(reports))
    for part, report in reports.items():
        print(f"{part}: median of {len(report['pairs'])} pairs; how many times better ours is")
        for name, ratio in report["ratios"].items():
            print(f"  {name:32} {ratio:8.2f}")
        for idx, pair in enumerate(report["pairs"]):
            for side, figures in pair.items():
                print(f"  pair {idx + 1} {side}: {json.dumps(rounded(figures))}")


def rounded(figures):
    if isinstance(figures, dict):
        return {name: rounded(value) for name, value in figures.items()}
    if isinstance(figures, list):
        return [rounded(value) for value in figures]
    return round(figures, 3) if isinstance(figures, float) else figures
