"""What the stock server's runs end with, kept in golden.json; made anew by

    SHEAF_FLOWER_SERVER=stock .venv-flower/bin/python tests/interop/flower/golden.py

Each entry has its run configuration and number of nodes, so that a test repeats exactly that.
"""

import json
import pathlib
import tempfile

import harness

FILE = pathlib.Path(__file__).with_name("golden.json")
RUNS = {
    "two": {"nodes": 2, "config": {"mode": "all", "rounds": 2, "min_nodes": 2}},
    "three": {"nodes": 3, "config": {"mode": "fedavg", "rounds": 2, "min_nodes": 3, "large_bytes": 400000}},
    "restarts": {"nodes": 2, "config": {"mode": "fedavg", "rounds": 2, "min_nodes": 2, "large_bytes": 6000000}},
    "old": {"nodes": 2, "config": {"mode": "all", "rounds": 1, "min_nodes": 2, "large_bytes": 400000}},
}
# Of one machine and one day, so not compared.
TIMES = ("total_s", "rounds_s")


def load():
    return json.loads(FILE.read_text())


def compared(result):
    return {name: value for name, value in result.items() if name not in TIMES}


def assert_equal(result, name):
    """The same digest; when it differs, says in which arrays."""
    wanted, got = load()[name]["result"], compared(result)
    if got["sha256"] != wanted["sha256"]:
        theirs, ours = wanted["arrays"], got["arrays"]
        names = sorted(theirs.keys() | ours.keys())
        differing = {each: (theirs.get(each), ours.get(each)) for each in names if theirs.get(each) != ours.get(each)}
        raise AssertionError(f"differs from the stock server's result of {name!r}: {json.dumps(differing, indent=1)}")
    assert got == wanted


def stock_result(entry):
    with tempfile.TemporaryDirectory() as directory, harness.World(pathlib.Path(directory)) as world:
        server, _, cli = harness.federation(world, entry["nodes"], server="stock")
        run_id = cli.submit(**entry["config"])
        status = server.end(run_id)
        result = cli.result(run_id) if status == "finished:completed" else None
        if result is None:
            raise SystemExit(f"{status}\n{cli('log', run_id, 'it', '--show')}\n{world.logs()}")
        return compared(result)


def main():
    FILE.write_text(
        json.dumps({name: entry | {"result": stock_result(entry)} for name, entry in RUNS.items()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
