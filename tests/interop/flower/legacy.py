"""Clients of the legacy protocol (`start_client` of the newest release), and what History the stock server makes.

    .venv-flower/bin/python tests/interop/flower/legacy.py client HOST:PORT PARTITION [--named] [--hang fit] [--ca FILE]
    .venv-flower/bin/python tests/interop/flower/legacy.py server HOST:PORT --rounds 2 --clients 2
    .venv-flower/bin/python tests/interop/flower/legacy.py record

The first joins any server of `flwr.proto.FlowerService`; the second is the stock `start_server`, which prints one line
`HISTORY {…}`; the third writes legacy_golden.json from the two. Floats pass the wire as single precision only in an
evaluation's loss; values here are exact in it.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import threading

import numpy as np

FILE = pathlib.Path(__file__).with_name("legacy_golden.json")
FIELDS = [
    "losses_distributed",
    "losses_centralized",
    "metrics_distributed_fit",
    "metrics_distributed",
    "metrics_centralized",
]


def initial():
    rng = np.random.Generator(np.random.PCG64(7))
    return [
        (rng.integers(-512, 512, size=shape) / 256).astype(dtype)
        for shape, dtype in [((3, 5), "float32"), ((4,), "float64"), ((), "float32"), ((0, 2), "float32")]
    ]


def moved(parameters, partition):
    return [array + array.dtype.type(partition + 1) / 8 for array in parameters]


def final(rounds, partitions):
    """What FedAvg comes to: sums in double precision, rounded once to the array's own."""
    arrays = initial()
    for _ in range(rounds):
        updates = [(8 + 8 * partition, moved(arrays, partition)) for partition in partitions]
        total = sum(examples for examples, _ in updates)
        columns = zip(*[[(examples, array) for array in update] for examples, update in updates], strict=True)
        means = [sum(examples * array.astype("float64") for examples, array in column) / total for column in columns]
        arrays = [np.asarray(mean, array.dtype) for mean, array in zip(means, arrays, strict=True)]
    return arrays


def hang():
    """Says so and stays, until it is killed."""
    print("HANGING", flush=True)
    threading.Event().wait()


def join(address, partition, named=False, hangs=None, ca=None):
    """One client until the server sends it away: its answers follow from the parameters and the partition."""
    from flwr.client import NumPyClient, start_client

    class Client(NumPyClient):
        def get_properties(self, config):
            name = f"site-{partition}" if named else "ß"
            return {"partition": partition, "half": 0.5, "name": name, "blob": b"\0\xff", "yes": True}

        def get_parameters(self, config):
            print("GET_PARAMETERS", flush=True)
            return initial()

        def fit(self, parameters, config):
            self.told("fit", config)
            return moved(parameters, partition), 8 + 8 * partition, {"partition": partition, "half": 0.5}

        def told(self, what, config):
            print("CONFIG " + json.dumps(dict(config), sort_keys=True), flush=True)
            if hangs == what:
                hang()

        def evaluate(self, parameters, config):
            self.told("evaluate", config)
            return float(parameters[0][0, 0]) + partition, 4 + 4 * partition, {"accuracy": 0.25 + partition / 4}

    roots = pathlib.Path(ca).read_bytes() if ca else None
    start_client(server_address=address, client=Client().to_client(), insecure=ca is None, root_certificates=roots)


def weighted(metrics):
    """The mean of each metric, weighted by examples, in the order of partitions."""
    total = sum(examples for examples, _ in metrics)
    metrics = sorted(metrics, key=lambda pair: pair[0])
    return {name: sum(examples * values[name] for examples, values in metrics) / total for name in metrics[0][1]}


def serve(address, rounds, clients):
    from flwr.server import ServerConfig, start_server
    from flwr.server.strategy import FedAvg

    strategy = FedAvg(
        min_fit_clients=clients,
        min_evaluate_clients=clients,
        min_available_clients=clients,
        fit_metrics_aggregation_fn=weighted,
        evaluate_metrics_aggregation_fn=weighted,
    )
    history = start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    print("HISTORY " + json.dumps({name: getattr(history, name) for name in FIELDS}), flush=True)


def history_in(text):
    """The one History that a server printed, with tuples as lists."""
    lines = [line.removeprefix("HISTORY ") for line in text.splitlines()]
    lines = [line for line in lines if line.startswith("{") and FIELDS[0] in line]
    assert len(lines) == 1, text[-4000:]
    return json.loads(lines[0])


def assert_equal(history):
    """Equal to the stock History to 1e-6.

    Stock sums run in the order of arrival, and its FedAvg rounds each product and each sum to the array's type, here single
    precision; ours rounds once. The losses are elements of those arrays.
    """
    wanted = json.loads(FILE.read_text())
    assert sorted(history) == sorted(wanted)
    for name in FIELDS:
        _assert_close(history[name], wanted[name], name)


def _assert_close(got, wanted, where):
    if isinstance(wanted, dict):
        assert sorted(got) == sorted(wanted), (where, got, wanted)
        for name in wanted:
            _assert_close(got[name], wanted[name], f"{where}.{name}")
    elif isinstance(wanted, list):
        assert len(got) == len(wanted), (where, got, wanted)
        for idx, pair in enumerate(zip(got, wanted, strict=True)):
            _assert_close(*pair, f"{where}[{idx}]")
    else:
        assert abs(got - wanted) <= 1e-6 * max(1, abs(wanted)), (where, got, wanted)


def server(world, address, rounds, clients, *options, name="legacy-server", table=False):
    """The server under test: `start_server` of the stock release, or ours, which prints the same History as JSON."""
    import harness

    if harness.STOCK:
        arguments = [sys.executable, __file__, "server", address, "--rounds", rounds, "--clients", clients]
    else:
        arguments = [pathlib.Path(harness.SERVER).absolute(), "start-server", "--address", address, *options]
        arguments += ["--rounds", rounds, "--min-clients", clients] if rounds else []
        arguments += [] if table else ["--json"]
    return harness.Program(world, name, arguments)


def client(world, address, partition, *, name=None, old=False, named=False, hang=None, ca=None):
    """A stock client; `old` of the older release, `hang` where it stays at work, `named` with a property that is its name."""
    import harness

    python = harness.OLD_BIN / "python" if old else sys.executable
    arguments = [python, __file__, "client", address, partition]
    arguments += ["--named"] if named else []
    arguments += ["--hang", hang] if hang else []
    arguments += ["--ca", ca] if ca else []
    return harness.Program(world, name or f"legacy-{partition}", arguments)


def record():
    import harness

    with tempfile.TemporaryDirectory() as directory, harness.World(pathlib.Path(directory)) as world:
        (port,) = harness.free_ports(1)
        address = f"127.0.0.1:{port}"
        stock = [sys.executable, __file__, "server", address]
        stock = harness.Program(world, "legacy-server", stock).start()
        for partition in range(2):
            client(world, address, partition).start()
        harness.wait_for("the stock server's end", lambda: not stock.alive())
        FILE.write_text(json.dumps(history_in(stock.text()), indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("client")
    part.add_argument("address")
    part.add_argument("partition", type=int)
    part.add_argument("--named", action="store_true")
    part.add_argument("--hang", choices=["fit", "evaluate"])
    part.add_argument("--ca")
    part = parts.add_parser("server")
    part.add_argument("address")
    part.add_argument("--rounds", type=int, default=2)
    part.add_argument("--clients", type=int, default=2)
    parts.add_parser("record")
    args = parser.parse_args()
    if args.part == "client":
        join(args.address, args.partition, args.named, args.hang, args.ca)
    elif args.part == "server":
        serve(args.address, args.rounds, args.clients)
    else:
        record()


if __name__ == "__main__":
    main()
