"""Pairs of ours and the stock server, one after the other, and how many times better ours is."""

import json
import statistics


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
