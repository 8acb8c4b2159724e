"""What the stock aggregator's federations end with, kept in golden.json; made anew by

    .venv-openfl/bin/python tests/interop/openfl/golden.py runs [LESSON…]

A result is that of a lesson, whatever it travelled with.
"""

import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import cells
import harness
import tables

FILE = pathlib.Path(__file__).with_name("golden.json")
SAMPLES = 4
AT_ONCE = 6


def load():
    return json.loads(FILE.read_text())


def outcome(federation):
    """All that is compared: model files, the aggregator's metrics, and those of each collaborator."""
    return {
        "last": summary(federation, "last"),
        "best": summary(federation, "best"),
        "metrics": federation.metrics(),
        "collaborators": {name: harness.metrics(federation.server.world.directory / name, name) for name in federation.names},
    }


def summary(federation, which):
    """A model file: its digest, and enough of each array to see where it differs."""
    content = federation.saved(which)
    if content is None:
        return None
    number, arrays = harness.arrays_of(content, harness.pipeline_of(federation.config))
    described = {
        name: {
            "shape": list(array.shape),
            "sum": math.fsum(map(float, array.ravel())),
            "first": [float(value) for value in array.ravel()[:SAMPLES]],
        }
        for name, array in arrays.items()
    }
    return {"sha256": hashlib.sha256(content).hexdigest(), "round": number, "arrays": described}


def assert_equal(got, name, *parts):
    """Equal to the golden of a lesson, as far as that lesson is reproducible; in these parts, if any are named."""
    wanted, tolerance = load()[name], cells.LESSONS[name].tolerance
    parts = parts or tuple(wanted)
    chosen = [{part: result[part] for part in parts} for result in (wanted, got)]
    differing = list(differences(*chosen, tolerance, ()))
    assert not differing, "\n".join(f"{'/'.join(map(str, place))}: {left} became {right}" for place, left, right in differing)


def differences(wanted, got, tolerance, place):
    """Where two results differ by more than is allowed; by anything at all without a tolerance."""
    if place and place[-1] == "sha256" and tolerance is not None:
        return
    if isinstance(wanted, dict) and isinstance(got, dict) and list(sorted(wanted)) == list(sorted(got)):
        for key in wanted:
            yield from differences(wanted[key], got[key], tolerance, (*place, key))
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for index, (left, right) in enumerate(zip(wanted, got)):
            yield from differences(left, right, tolerance, (*place, index))
    elif isinstance(wanted, float) and isinstance(got, float):
        # What is no number is alike to itself alone, and within no bound of anything.
        alike = wanted == got or (math.isnan(wanted) and math.isnan(got))
        if not alike and not abs(wanted - got) <= allowed(tolerance, place, wanted):
            yield place, wanted, got
    elif wanted != got:
        yield place, wanted, got


def allowed(tolerance, place, wanted):
    """How far from `wanted` is near enough at this place."""
    if isinstance(tolerance, cells.Clustered):
        which, *inner = place
        if which not in ("last", "best"):
            return tolerance.metrics
        if inner[1] not in tolerance.alike:
            return tolerance.sums if place[-1] == "sum" else tolerance.elements
        tolerance = 1e-6
    # A sum is as far off as its elements together.
    scale = 100 if place[-1] == "sum" else 1
    return (tolerance or 0) * scale * max(1.0, abs(wanted))


def stock_outcome(name):
    with tempfile.TemporaryDirectory() as directory, harness.World(pathlib.Path(directory)) as world:
        pki = harness.make_pki(world.directory / "pki")
        federation = cells.federation(world, pki, name, server="stock")
        try:
            cells.run(federation, name)
        except Exception as error:
            raise SystemExit(f"{error}\n{world.logs()}") from error
        return outcome(federation)


def record(*names):
    """Each in a process of its own, for a world takes every child of its process for its own."""
    golden = load() if FILE.exists() else {}

    def recorded(name):
        environ = os.environ | (tables.IN_ORDER if cells.LESSONS[name].ordered else {})
        done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True, env=environ)
        print(name, done.returncode, flush=True)
        return json.loads(done.stdout) if done.returncode == 0 else None

    names = names or tuple(cells.LESSONS)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        made = dict(zip(names, pool.map(recorded, names)))
    golden |= {name: result for name, result in made.items() if result}
    lines = [f"{json.dumps(name)}: {json.dumps(golden[name])}" for name in cells.LESSONS if name in golden]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    print(json.dumps(stock_outcome(sys.argv[1])))
