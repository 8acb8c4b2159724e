#!/usr/bin/env python3
"""Load of control calls on one SuperLink, as N SuperNodes make it; prints one line of JSON. Started by flower_vs_stock.py.

Each client is a registered node with its own key and its own connection, and asks again when it was answered. Requests are
made before the clock starts, with as many signatures as will be needed, so that the load costs little beside the server:
what is measured is the server's processor time for each call, from /proc.
"""

import argparse
import asyncio
import datetime
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/interop/flower"))

import wire  # noqa: E402
from flwr.proto import fleet_pb2, heartbeat_pb2  # noqa: E402

from proc import cpu_s  # noqa: E402

MICROSECOND = datetime.timedelta(microseconds=1)


class Target:
    """What wire.py calls a server."""

    ca = None

    def __init__(self, address, client_idx):
        self.address = address
        # From an address of its own: nodes of one address register at a bounded rate.
        self.source = f"127.0.{1 + client_idx // 250}.{1 + client_idx % 250}"


def request(node, address, op, headers):
    if op == "pull":
        path, body = "pull-messages", fleet_pb2.PullMessagesRequest(node=node.node)
    else:
        path, body = (
            "send-node-heartbeat",
            heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30),
        )
    body = body.SerializeToString()
    lines = {"host": address, "content-type": wire.TYPE, "accept": wire.TYPE, "content-length": len(body)} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /v1/fleet/{path} HTTP/1.1\r\n{head}\r\n".encode() + body


def requests(node, args):
    """The client's requests in turn: all alike, or each with a signature of its own."""
    count = args.calls // args.clients if args.fresh else 1
    now = datetime.datetime.now(datetime.UTC)
    return [request(node, args.address, args.op, node.headers(now - idx * MICROSECOND)) for idx in range(count)]


async def client(args, turns, latencies):
    host, port = args.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    for turn in range(args.calls // args.clients):
        began_s = time.perf_counter()
        writer.write(turns[turn % len(turns)])
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        size = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        await reader.readexactly(size)
        latencies.append(time.perf_counter() - began_s)
    writer.close()


async def load(args):
    nodes = [wire.Node(Target(args.address, idx)).join() for idx in range(args.clients)]
    prepared = [requests(node, args) for node in nodes]
    latencies = []
    before_s, own_before_s, began_s = cpu_s(args.pid), time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(args, turns, latencies) for turns in prepared))
    took_s = time.perf_counter() - began_s
    server_s, own_s = cpu_s(args.pid) - before_s, time.process_time() - own_before_s
    for node in nodes:
        node.leave()
    latencies.sort()
    return {
        "calls": len(latencies),
        "calls_per_s": len(latencies) / took_s,
        "calls_per_core_s": len(latencies) / server_s,
        "server_cores": server_s / took_s,
        "load_cores": own_s / took_s,
        "p50_ms": 1e3 * latencies[len(latencies) // 2],
        "p99_ms": 1e3 * latencies[len(latencies) * 99 // 100],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--pid", type=int, required=True, help="the server's process")
    parser.add_argument("--op", choices=["pull", "heartbeat"], required=True)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--fresh", action="store_true", help="a signature of its own for each call")
    print(json.dumps(asyncio.run(load(parser.parse_args()))))


if __name__ == "__main__":
    main()
