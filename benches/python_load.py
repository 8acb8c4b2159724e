"""The load for `python_server.py`: clients that send whole updates in pieces, as many and as long as `sheaf bench exchange` sends.

Every client has a connection of its own and sends one piece at a time. Pieces are made of one fixed block and a number of their own, so
no two are alike. Prints one JSON object: what the server used from the first piece to the last, and over the average.
"""

import argparse
import hashlib
import json
import threading
import time

import grpc
import numpy

PIECE_LEN = 4 << 20


def pieces(client, round_number, size):
    """Yields the pieces of one update."""
    block = numpy.random.default_rng(0).standard_normal(PIECE_LEN // 4, dtype="<f4") * numpy.float32(0.02)
    for idx, start in enumerate(range(0, size, PIECE_LEN)):
        piece = block[: min(PIECE_LEN, size - start) // 4].copy()
        piece[:3] = (client, round_number, idx)
        yield piece.tobytes()


def call(channel, name):
    return channel.unary_unary(f"/bench.Pieces/{name}")


def send(address, client, round_number, size, failures):
    try:
        with grpc.insecure_channel(address, [("grpc.max_send_message_length", 64 << 20)]) as channel:
            put = call(channel, "Put")
            for piece in pieces(client, round_number, size):
                digest = hashlib.sha256(piece).digest()
                put(client.to_bytes(4, "little") + digest + piece, timeout=600)
    except Exception as failure:  # told by the caller; a thread has nobody to tell
        failures.append(failure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    args = parser.parse_args()
    with grpc.insecure_channel(args.address) as channel:
        usage = lambda: json.loads(call(channel, "Usage")(b""))
        totals = {"ingest_seconds": 0.0, "ingest_cpu_seconds": 0.0, "fold_seconds": 0.0, "fold_cpu_seconds": 0.0}
        for round_number in range(args.rounds):
            before, started, failures = usage(), time.monotonic(), []
            threads = [
                threading.Thread(target=send, args=(args.address, client, round_number, args.bytes, failures))
                for client in range(args.clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise failures[0]
            received, arrived = usage(), time.monotonic()
            call(channel, "Average")(b"", timeout=600)
            folded, ended = usage(), time.monotonic()
            totals["ingest_seconds"] += arrived - started
            totals["ingest_cpu_seconds"] += received["cpu_seconds"] - before["cpu_seconds"]
            totals["fold_seconds"] += ended - arrived
            totals["fold_cpu_seconds"] += folded["cpu_seconds"] - received["cpu_seconds"]
        totals["server_peak_rss_bytes"] = usage()["peak_rss_bytes"]
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
