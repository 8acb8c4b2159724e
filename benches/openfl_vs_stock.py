#!/usr/bin/env python3
"""Pairs our OpenFL aggregator with the stock one in the same workspaces, in one run, and prints the ratios.

    tests/interop/openfl/install
    .venv-openfl/bin/python benches/openfl_vs_stock.py                    # everything; about a quarter of an hour
    .venv-openfl/bin/python benches/openfl_vs_stock.py calls --clients 1,8,64
    .venv-openfl/bin/python benches/openfl_vs_stock.py data --size 100MB --collaborators 4
    .venv-openfl/bin/python benches/openfl_vs_stock.py small --json

calls  GetTasks over gRPC and over REST: calls for each second of the server's processor time
data   rounds of a large model with collaborators that send back what they were told, over each transport: the server's processor
       time for each round and its peak memory
small  rounds of a small model with two stock collaborators from end to end, and how much of a round they work

Connections are plain: what TLS costs is the same on both sides. Each keeps what it keeps by default: ours its journal and the
results in files, the stock one its checkpoint. The two alternate, so that what else the machine does weighs on both; a ratio is the
median of the pairs. With --ours stock the stock aggregator stands on both sides, which says how much a ratio means on this machine.
"""

import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/interop/openfl")]

import harness  # noqa: E402
from exchange_vs_python import bytes_of  # noqa: E402
from pairs import arguments, compare  # noqa: E402

TRANSPORTS = ("grpc", "rest")


@contextlib.contextmanager
def world():
    with tempfile.TemporaryDirectory() as directory, harness.World(pathlib.Path(directory)) as made:
        yield made


def aggregator(made, which, names, arrays, *, transport, rounds):
    """An aggregator in a workspace of its own, started."""
    (port,) = harness.free_ports(1)
    config = harness.plan(port, transport=transport, security="plain", rounds=rounds, deltas=False)
    server = harness.Server(made, port, server=which)
    harness.make_workspace(server.home, config, names, arrays=arrays)
    return server.start()


def loaded(server, load, transport, names, **more):
    aggregator_name, federation_name = harness.identity(server.home)
    options = {
        "transport": transport,
        "host": harness.HOST,
        "port": server.port,
        "pid": server.pid,
        "aggregator": aggregator_name,
        "federation": federation_name,
        "names": ",".join(names),
        **more,
    }
    command = [sys.executable, HERE / "openfl_load.py", load]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    environment = harness.environment(server.home)
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def layers(count, size):
    return {f"layer.{idx}": harness.models.drawn(5, idx, shape=(size // count // 4,)) for idx in range(count)}


def calls(which, args):
    names = [f"col{idx}" for idx in range(max(args.clients))]
    figures = {}
    for transport in TRANSPORTS:
        with world() as made:
            server = aggregator(made, which, names, layers(10, 40_000), transport=transport, rounds=1)
            for clients in args.clients:
                count = args.calls_stock if which == "stock" else args.calls
                figures[f"{transport} {clients} clients"] = loaded(server, "calls", transport, names[:clients], calls=count)
    return figures


def data(which, args):
    names = [f"col{idx}" for idx in range(args.collaborators)]
    figures = {}
    for transport in TRANSPORTS:
        with world() as made:
            model = layers(args.tensors, args.size)
            server = aggregator(made, which, names, model, transport=transport, rounds=args.rounds)
            figures[transport] = loaded(server, "rounds", transport, names, tensors=args.tensors)
            figures[transport]["round_s"] = statistics.median(figures[transport]["rounds_s"])
    return figures


def small(which, args):
    with world() as made:
        options = {"security": "plain", "rounds": args.small_rounds + 1, "runner": {"model": "few"}, "server": which}
        federation = harness.Federation(made, None, **options)
        federation.start()
        name = federation.names[0]
        first_s, last_s = (told_s(federation, name, rounds) for rounds in (1, args.small_rounds + 1))
        federation.end()
        worked = [line["elapsed_seconds"] for line in harness.written(federation.collaborators[name].home, name)[1:]]
    round_s = (last_s - first_s) / args.small_rounds
    return {"round_s": round_s, "other_than_work_s": round_s - statistics.mean(worked)}


def told_s(federation, name, rounds):
    """When a collaborator had written down so many rounds."""
    home = federation.collaborators[name].home
    harness.wait_for(f"round {rounds}", lambda: len(harness.written(home, name)) >= rounds, look_every_s=0.005)
    return time.monotonic()


PARTS = {"calls": calls, "data": data, "small": small}


def ratios(part, ours, stock):
    if part == "calls":
        return {name: ours[name]["calls_per_core_s"] / stock[name]["calls_per_core_s"] for name in ours}
    if part == "data":
        measured = ("server_cpu_s_per_round", "peak_rss_bytes", "round_s")
        return {f"{name} {what}": stock[name][what] / ours[name][what] for name in ours for what in measured}
    return {"round_s": stock["round_s"] / ours["round_s"]}


def main():
    parser = arguments(__doc__.splitlines()[0], PARTS)
    numbers = lambda text: [int(number) for number in text.split(",")]  # noqa: E731
    parser.add_argument("--clients", type=numbers, default="1,8,64", help="calls: numbers of collaborators")
    parser.add_argument("--calls", type=int, default=16000, help="calls: how many in each measurement against ours")
    parser.add_argument("--calls-stock", type=int, default=3200, help="calls: the same against the stock aggregator")
    parser.add_argument("--size", type=bytes_of, default="100MB", help="data: bytes of the model")
    parser.add_argument("--tensors", type=int, default=100, help="data: tensors of the model")
    parser.add_argument("--collaborators", type=int, default=4, help="data: collaborators")
    parser.add_argument("--rounds", type=int, default=3, help="data: rounds")
    parser.add_argument("--small-rounds", type=int, default=6, help="small: rounds that are measured")
    compare(PARTS, ratios, parser.parse_args())


if __name__ == "__main__":
    main()
