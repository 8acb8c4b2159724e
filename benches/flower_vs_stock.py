#!/usr/bin/env python3
"""Pairs our SuperLink with the stock one under the same stock nodes, in one run, and prints the ratios.

    tests/interop/flower/install
    .venv-flower/bin/python benches/flower_vs_stock.py                    # everything; about half an hour
    .venv-flower/bin/python benches/flower_vs_stock.py control --clients 1,8,64
    .venv-flower/bin/python benches/flower_vs_stock.py data --size 100MB --nodes 4
    .venv-flower/bin/python benches/flower_vs_stock.py small --json

control  calls that a node makes again and again, over HTTP: calls for each second of the server's processor time, with a
         signature of its own for each call and with one used again
data     rounds of a large model, replies all different: the server's processor time for each round and its peak memory
small    rounds of 1 MB and one node from end to end, and how much of that was waiting for the server

Ours keeps its state in SQLite, the stock one in memory, which is its default and its faster way. The two alternate, so that
what else the machine does weighs on both; a ratio is the median of the pairs. With --ours stock the stock server stands on
both sides, which says how much a ratio means on this machine.
"""

import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/interop/flower")]

import harness  # noqa: E402
import proxy  # noqa: E402
from exchange_vs_python import bytes_of  # noqa: E402
from pairs import arguments, compare  # noqa: E402
from proc import cpu_s, memory_bytes  # noqa: E402

WAIT_S = 0.2
PULLS = {"/v1/fleet/pull-messages": "/v1/runtime/push-object", "/v1/runtime/pull-messages": "/v1/fleet/push-object"}


@contextlib.contextmanager
def world():
    with tempfile.TemporaryDirectory() as directory, harness.World(pathlib.Path(directory)) as made:
        try:
            yield made
        except BaseException:
            print(made.logs(), file=sys.stderr)
            raise


def options(which, args):
    return [] if which == "stock" else args.ours_options.split()


def control(which, args):
    """Every operation, number of clients and way of signing against one server."""
    figures = {}
    with world() as made:
        # Calls are counted, so none is held: the stock server answers at once as well.
        at_once = [] if which == "stock" else ["--hold-max", "0s"]
        flags = options(which, args) + at_once
        server = harness.Server(made, isolation="process", server=which, options=flags).start()
        for op in args.ops.split(","):
            for clients in map(int, args.clients.split(",")):
                for fresh in (True, False):
                    name = f"{op} {clients} clients {'fresh' if fresh else 'reused'}"
                    figures[name] = loaded(server, op, clients, fresh, args)
    return figures


def loaded(server, op, clients, fresh, args):
    command = [sys.executable, HERE / "flower_load.py", server.address, "--pid", server.pid, "--op", op]
    command += ["--clients", clients, "--calls", args.calls_stock if server.stock else args.calls]
    command += ["--fresh"] if fresh else []
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def data(which, args):
    with world() as made:
        server, _, cli = harness.federation(made, args.nodes, server=which, options=options(which, args))
        idle_bytes, before_s = memory_bytes(server.pid, "VmRSS"), cpu_s(server.pid)
        result = completed(server, cli, rounds=args.rounds, min_nodes=args.nodes, large_bytes=args.size)
        return {
            "server_cpu_s_per_round": (cpu_s(server.pid) - before_s) / args.rounds,
            "peak_rss_bytes": memory_bytes(server.pid, "VmHWM"),
            "idle_rss_bytes": idle_bytes,
            "round_s": statistics.median(result["rounds_s"]),
            "rounds_s": result["rounds_s"],
        }


def small(which, args):
    with world() as made:
        server = harness.Server(made, isolation="process", server=which, options=options(which, args)).start()
        (port,) = harness.free_ports(1)
        between = proxy.Proxy(port, server.port)
        made.closers.append(between.close)
        cli = harness.Cli(made, server)
        harness.SuperNode(made, server, 0, via=between.address).start()
        harness.SuperExec(made, server, via=between.address).start()
        server.wait_nodes(1)
        result = completed(server, cli, rounds=args.small_rounds, min_nodes=1, large_bytes=10**6)
        waits = waits_for_server(between.calls)
        return {
            "total_s": result["total_s"],
            "round_s": statistics.median(result["rounds_s"]),
            "server_waits_over_0.2s": len([wait for wait in waits if wait[1] > WAIT_S]),
            "longest_server_wait_s": max(wait for _, wait in waits),
            "longest_server_wait_at": max(waits, key=lambda wait: wait[1])[0],
        }


def waits_for_server(calls):
    """How long each call waited for the server. A poll may be held: it waits for the server only once there is something
    to give, which is when the last object was pushed before the answer, or from its beginning if that was earlier."""
    waits = []
    for call in calls:
        end_s = call.began_s + call.took_s
        since_s = call.began_s
        if call.path in PULLS:
            if not call.answer_bytes:
                continue
            pushes = [each.began_s + each.took_s for each in calls if each.path == PULLS[call.path]]
            since_s = max([since_s, *(pushed_s for pushed_s in pushes if pushed_s < end_s)])
        elif call.path.endswith("/acquire-task"):
            continue
        waits.append((call.path, end_s - since_s))
    return waits


def completed(server, cli, **config):
    run_id = cli.submit(mode="echo", **config)
    status = server.end(run_id, deadline_s=3600, look_every_s=5)
    if status != "finished:completed":
        raise RuntimeError(f"{status}\n{cli('log', run_id, 'it', '--show')}")
    return cli.result(run_id)


PARTS = {"control": control, "data": data, "small": small}
# Less is better of each.
COMPARED = {"data": ("server_cpu_s_per_round", "peak_rss_bytes", "round_s"), "small": ("total_s", "round_s")}


def ratios(part, ours, stock):
    if part == "control":
        return {name: ours[name]["calls_per_core_s"] / stock[name]["calls_per_core_s"] for name in ours}
    return {name: stock[name] / ours[name] for name in COMPARED[part]}


def main():
    parser = arguments(__doc__.splitlines()[0], PARTS)
    parser.add_argument("--ours-options", default="", help="further flags for ours")
    parser.add_argument("--clients", default="1,8,64", help="control: numbers of nodes")
    parser.add_argument(
        "--ops", default="heartbeat,pull", help="control: calls; a server that holds pulls is better left to heartbeat"
    )
    parser.add_argument("--calls", type=int, default=16000, help="control: calls of each measurement against ours")
    parser.add_argument("--calls-stock", type=int, default=1600, help="control: the same against the stock server")
    parser.add_argument("--size", type=bytes_of, default="100MB", help="data: bytes of the model")
    parser.add_argument("--nodes", type=int, default=4, help="data: nodes")
    parser.add_argument("--rounds", type=int, default=2, help="data: rounds")
    parser.add_argument("--small-rounds", type=int, default=6, help="small: rounds")
    compare(PARTS, ratios, parser.parse_args())


if __name__ == "__main__":
    main()
