#!/usr/bin/env python3
"""Load on one OpenFL aggregator, as N collaborators make it; prints one line of JSON. Started by openfl_vs_stock.py.

calls   every collaborator asks for its tasks again as soon as it was answered, over a connection of its own; nothing is handed
        in, so that there are always tasks. What is measured is the server's processor time for each call, from /proc.
rounds  collaborators that send back what they were told, with the calls and the client of the stock ones, each a process.
"""

import argparse
import asyncio
import json
import multiprocessing
import threading
import time
import urllib.parse

import grpc
import numpy as np
from openfl.protocols import aggregator_pb2, aggregator_pb2_grpc, base_pb2
from openfl.transport import AggregatorGRPCClient, AggregatorRESTClient

from proc import cpu_s, memory_bytes

VALIDATIONS = {"aggregated_model_validation": "validate_agg", "locally_tuned_model_validation": "validate_local"}
POLL_S = 0.05


def header(args, name):
    return aggregator_pb2.MessageHeader(sender=name, receiver=args.aggregator, federation_uuid=args.federation)


# Calls.


def ask_grpc(args, name, calls):
    channel = grpc.insecure_channel(f"{args.host}:{args.port}", options=[("grpc.use_local_subchannel_pool", 1)])
    with channel:
        ask = aggregator_pb2_grpc.AggregatorStub(channel).GetTasks
        request = aggregator_pb2.GetTasksRequest(header=header(args, name))
        for _ in range(calls):
            if not ask(request).tasks:
                raise RuntimeError("no tasks")


def grpc_calls(args):
    calls = args.calls // len(args.names)
    threads = [threading.Thread(target=ask_grpc, args=(args, name, calls)) for name in args.names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def ask_rest(args, name, calls):
    query = urllib.parse.urlencode({"collaborator_id": name, "federation_uuid": args.federation})
    lines = [
        f"GET /experimental/v1/tasks?{query} HTTP/1.1",
        f"Host: {args.host}:{args.port}",
        f"Sender: {name}",
        f"Receiver: {args.aggregator}",
        f"Federation-UUID: {args.federation}",
        "Single-Col-Cert-CN: ",
    ]
    request = "\r\n".join([*lines, "", ""]).encode()
    writer = None
    for _ in range(calls):
        if writer is None:
            reader, writer = await asyncio.open_connection(args.host, args.port)
        writer.write(request)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        if status != b"http/1.1 200 ok":
            raise RuntimeError(status.decode())
        (size,) = (int(field[15:]) for field in fields if field.startswith(b"content-length:"))
        await reader.readexactly(size)
        if b"connection: close" in fields:
            writer.close()
            writer = None
    if writer:
        writer.close()


async def rest_calls(args):
    await asyncio.gather(*(ask_rest(args, name, args.calls // len(args.names)) for name in args.names))


def calls(args):
    before_s, own_before_s, began_s = cpu_s(args.pid), time.process_time(), time.perf_counter()
    asyncio.run(rest_calls(args)) if args.transport == "rest" else grpc_calls(args)
    took_s = time.perf_counter() - began_s
    server_s, own_s = cpu_s(args.pid) - before_s, time.process_time() - own_before_s
    count = args.calls // len(args.names) * len(args.names)
    return {
        "calls_per_s": count / took_s,
        "calls_per_core_s": count / server_s,
        "server_cores": server_s / took_s,
        "load_cores": own_s / took_s,
    }


# Rounds.


def tensor(name, array, tags, number, *, report=False):
    return base_pb2.NamedTensor(
        name=name,
        round_number=number,
        lossless=True,
        report=report,
        tags=["compressed", *tags],
        transformer_metadata=[base_pb2.MetadataProto(int_list=array.shape)],
        data_bytes=array.tobytes(),
    )


def echo(args, name, told):
    """One collaborator, until it is told to go."""
    kind = AggregatorRESTClient if args.transport == "rest" else AggregatorGRPCClient
    client = kind(
        agg_addr=args.host,
        agg_port=args.port,
        aggregator_uuid=args.aggregator,
        federation_uuid=args.federation,
        collaborator_name=name,
        use_tls=False,
        require_client_auth=False,
    )
    value = np.array([0.5], np.float32)
    while True:
        tasks, number, _, is_over = client.get_tasks()
        if is_over:
            return told.put(None)
        if not tasks:
            time.sleep(POLL_S)
            continue
        began_s = time.monotonic()
        # The names of the tensors are those of the first model of openfl_vs_stock.py.
        model = [client.get_aggregated_tensor(f"layer.{idx}", number, False, ("model",), True) for idx in range(args.tensors)]
        for task in (task.name for task in tasks):
            if tag := VALIDATIONS.get(task):
                sent = [tensor("acc", value, ["metric", tag], number, report=True)]
            else:
                arrays = (np.frombuffer(each.data_bytes, np.float32) for each in model)
                sent = [tensor("loss", value, ["metric"], number, report=True)]
                sent += [tensor(f"layer.{idx}", array, ["trained"], number) for idx, array in enumerate(arrays)]
            client.send_local_task_results(number, task, 10, sent)
        told.put((number, began_s, time.monotonic()))


def rounds(args):
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    before_s = cpu_s(args.pid)
    collaborators = [context.Process(target=echo, args=(args, name, told)) for name in args.names]
    for collaborator in collaborators:
        collaborator.start()
    times, left, peak = {}, len(collaborators), None
    while left:
        heard = told.get()
        if heard is None:
            left -= 1
        else:
            number, began_s, ended_s = heard
            first_s, last_s = times.get(number, (began_s, ended_s))
            times[number] = (min(first_s, began_s), max(last_s, ended_s))
        # The server ends with the last collaborator, and its memory can be read no longer.
        server_s, peak = cpu_s(args.pid) - before_s, memory_bytes(args.pid, "VmHWM") or peak
    for collaborator in collaborators:
        collaborator.join()
    return {
        "server_cpu_s_per_round": server_s / len(times),
        "peak_rss_bytes": peak,
        "rounds_s": [last_s - first_s for first_s, last_s in times.values()],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("load", choices=["calls", "rounds"])
    parser.add_argument("--transport", choices=["grpc", "rest"], required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True, help="the aggregator's process")
    parser.add_argument("--aggregator", required=True, help="the aggregator's name")
    parser.add_argument("--federation", required=True, help="the federation's name")
    parser.add_argument("--names", type=lambda names: names.split(","), required=True, help="the collaborators that are played")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--tensors", type=int, default=100)
    args = parser.parse_args()
    print(json.dumps({"calls": calls, "rounds": rounds}[args.load](args)))


if __name__ == "__main__":
    main()
