"""A bare gRPC server in Python: takes in pieces, verifies and keeps them, and averages when it is told to.

What a federated server in Python cannot do less of. It has no identities, no journal, no durability, no checks of names, shapes or
finite values, and no protobuf: a message is its bytes, so nothing is spent on decoding. It keeps every update in memory and averages with
NumPy, in place, tensor by tensor of the update's length, as the common frameworks do.

Speaks three calls of the service `bench.Pieces` (request and reply are plain bytes):

    Put      client (4 bytes, little-endian), SHA-256 (32 bytes), piece  ->  empty; refused when the digest is wrong
    Average  empty  ->  SHA-256 of the average; forgets the updates
    Usage    empty  ->  JSON: cpu_seconds, peak_rss_bytes
"""

import argparse
import hashlib
import json
import resource
import sys
import threading
from concurrent import futures

import grpc
import numpy

HEADER_LEN = 4 + 32


class Pieces(grpc.GenericRpcHandler):
    """The service."""

    def __init__(self):
        self.updates = {}
        self.lock = threading.Lock()
        self.calls = {"Put": self.put, "Average": self.average, "Usage": self.usage}

    def service(self, call_details):
        call = self.calls.get(call_details.method.removeprefix("/bench.Pieces/"))
        return call and grpc.unary_unary_rpc_method_handler(call)

    def put(self, request, context):
        client = int.from_bytes(request[:4], "little")
        digest = request[4:HEADER_LEN]
        piece = memoryview(request)[HEADER_LEN:]
        # hashlib lets other threads run while it hashes.
        if hashlib.sha256(piece).digest() != digest:
            context.abort(grpc.StatusCode.DATA_LOSS, "the piece is not what its digest says")
        with self.lock:
            self.updates.setdefault(client, []).append(piece)
        return b""

    def average(self, _request, _context):
        with self.lock:
            updates, self.updates = list(self.updates.values()), {}
        share = numpy.float32(1.0 / len(updates))
        digest = hashlib.sha256()
        for pieces in zip(*updates, strict=True):
            first, *others = (numpy.frombuffer(piece, dtype="<f4") for piece in pieces)
            mean = first * share
            for other in others:
                mean += other * share
            digest.update(mean)
        return digest.digest()

    def usage(self, _request, _context):
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures = {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_rss_bytes": used.ru_maxrss * 1024}
        return json.dumps(figures).encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=10)
    args = parser.parse_args()
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(args.threads), options=options)
    server.add_generic_rpc_handlers((Pieces(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # It ends with whoever started it.
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
