"""The folds beside NumPy's and beside the memory of the same run: a table, then one line of JSON.

    python3 benches/fold.py [PYTHON]

Runs `cargo bench -p sheaf-aggregate --profile release --bench kernels`, then `fold_numpy.py` with PYTHON (one that has NumPy; default:
this one), then the first again; the better of its two figures counts. One thread each, CPU time, so other work on the
machine weighs on both alike.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def kernels(path):
    command = ["cargo", "bench", "-q", "-p", "sheaf-aggregate", "--profile", "release", "--bench", "kernels"]
    subprocess.run([*command, "--", "--json", str(path)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lines = json.loads(path.read_text(encoding="utf-8"))
    return {(l["rule"], l["pass"], l["dtype"], l["k"]): l["gb_per_cpu_s"] for l in lines}


def main():
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        ours = kernels(scratch / "kernels.json")
        numpy_json = scratch / "numpy.json"
        script = ROOT / "benches" / "fold_numpy.py"
        subprocess.run([python, str(script), str(numpy_json)], check=True, stdout=subprocess.DEVNULL)
        theirs = {}
        for l in json.loads(numpy_json.read_text(encoding="utf-8")):
            theirs.setdefault((l["rule"], l["k"]), {})[l["form"]] = l["gb_per_cpu_s"]
        for key, value in kernels(scratch / "kernels.json").items():
            ours[key] = max(ours[key], value)
    read = ours[("read", "read", "u64", 0)]
    cohorts = sorted({k for (rule, _, _, k) in ours if rule == "mean"})
    report = {"read_gb_per_cpu_s": read, "cohorts": []}
    print(f"read bandwidth of one core: {read:.1f} GB/s; the rest in GB of updates per CPU-second")
    print("   k |  mean  of read  of NumPy | median  x NumPy | trimmed x NumPy |  Krum  x pairs  x Gram | clip: prepass  fold")
    for k in cohorts:
        get = lambda rule, what, dtype="f32": ours[(rule, what, dtype, k)]
        mean, median, trimmed, krum = get("mean", "fold"), get("median", "fold"), get("trimmed", "fold"), get("krum", "prepass")
        row = {
            "k": k,
            "mean_gb_per_cpu_s": mean,
            "mean_of_read": mean / read,
            "mean_of_numpy": mean / max(theirs[("mean", k)].values()),
            "median_gb_per_cpu_s": median,
            "median_of_numpy": median / theirs[("median", k)]["median"],
            "trimmed_gb_per_cpu_s": trimmed,
            "trimmed_of_numpy": trimmed / theirs[("trimmed", k)]["partition"],
            "krum_gb_per_cpu_s": krum,
            "krum_of_pair_loop": krum / theirs[("krum", k)]["pairs"],
            "krum_of_gram": krum / theirs[("krum", k)]["gram"],
            "mean_f16": get("mean", "fold", "f16"),
            "mean_bf16": get("mean", "fold", "bf16"),
            "mean_f64": get("mean", "fold", "f64"),
            "mean_i32": get("mean", "fold", "i32"),
            "clipped_prepass": get("clipped", "prepass"),
            "clipped_fold": get("clipped", "fold"),
        }
        report["cohorts"].append(row)
        print(
            f"{k:4} | {mean:5.1f}  {row['mean_of_read']:6.0%}  {row['mean_of_numpy']:6.1f}x  "
            f"| {median:6.2f}  {row['median_of_numpy']:6.1f}x | {trimmed:6.2f}  {row['trimmed_of_numpy']:6.1f}x "
            f"| {krum:6.2f}  {row['krum_of_pair_loop']:5.1f}x  {row['krum_of_gram']:5.1f}x "
            f"| {row['clipped_prepass']:12.1f}  {row['clipped_fold']:5.1f}"
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
