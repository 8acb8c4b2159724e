"""A forwarding proxy between one stock collaborator and its aggregator, which knows the calls that go through it.

The collaborator is told of it by its environment, as of any proxy, so the plan stays as it is. Under TLS the proxy stands for
both: it shows the aggregator's certificate to the collaborator, and the collaborator's to the aggregator. Of gRPC it reads the
frames, as far as a call's method and its end; calls over HTTP it keeps whole, and passes on in chunks of its own.

A rule fires once: before a call is forwarded, in the middle of an upload, or when the aggregator's answer is here and not yet
passed on. The collaborator then loses its connection, as it would if the aggregator had died there.
"""

import asyncio
import dataclasses
import ssl
import threading

import harness

PREFACE = 24
DATA, HEADERS = 0, 1
END_STREAM, PADDED, PRIORITY = 1, 8, 32
STATIC_ENTRIES = 61
STATIC_PATHS = (4, 5)
CHUNK = 1021
# Calls over HTTP are known by the names that they have over gRPC.
PATHS = {
    "/experimental/v1/ping": "Ping",
    "/experimental/v1/tasks": "GetTasks",
    "/experimental/v1/tensors/aggregated": "GetAggregatedTensor",
    "/experimental/v1/tasks/results": "SendLocalTaskResults",
}


@dataclasses.dataclass
class Rule:
    """`action` runs at the `nth` call of `method`. A rule may serve several proxies, and then counts the calls of all of them."""

    method: str
    when: str
    action: object
    nth: int = 1
    seen: int = 0
    fired: threading.Event = dataclasses.field(default_factory=threading.Event)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def due(self, when, method):
        if when != self.when or method != self.method:
            return False
        with self.lock:
            self.seen += 1
            return self.seen == self.nth

    def fire(self):
        """Goes on to its end also when what it does ends the connection that it was due on."""
        self.action()
        self.fired.set()


class Paths:
    """The `:path` of each request on a connection, from its compressed headers (RFC 7541). Strings are read as they stand:
    gRPC's clients do not compress them."""

    LIMIT = 4096

    def __init__(self):
        self.table = []

    def read(self, block):
        path, at = None, 0
        while at < len(block):
            byte = block[at]
            if byte & 0x80:
                index, at = integer(block, at, 7)
                name, value = self.entry(index)
            elif byte & 0xE0 == 0x20:
                _, at = integer(block, at, 5)
                continue
            else:
                kept = bool(byte & 0x40)
                index, at = integer(block, at, 6 if kept else 4)
                name, at = (self.entry(index)[0], at) if index else string(block, at)
                value, at = string(block, at)
                if kept:
                    self.keep(name, value)
            if name == b":path":
                path = value
        return path.decode()

    def entry(self, index):
        if index <= STATIC_ENTRIES:
            return (b":path" if index in STATIC_PATHS else b"", b"/")
        return self.table[index - STATIC_ENTRIES - 1]

    def keep(self, name, value):
        self.table.insert(0, (name, value))
        while sum(len(a) + len(b) + 32 for a, b in self.table) > self.LIMIT:
            self.table.pop()


def integer(block, at, bits):
    mask = (1 << bits) - 1
    value, at = block[at] & mask, at + 1
    shift = 0
    while value >= mask and (shift == 0 or block[at - 1] & 0x80):
        value, shift, at = value + ((block[at] & 0x7F) << shift), shift + 7, at + 1
    return value, at


def string(block, at):
    length, at = integer(block, at, 7)
    return bytes(block[at : at + length]), at + length


class Proxy:
    """For one collaborator of a federation; `port` is where it listens."""

    def __init__(self, federation, name, *, rules=()):
        (self.port,) = harness.free_ports(1)
        self.upstream = (harness.HOST, federation.server.port)
        self.rules, self.calls = list(rules), []
        network = federation.config["network"]["settings"]
        self.serve = self.serve_http if network["transport_protocol"] == "rest" else self.serve_frames
        self.towards = self.within = None
        if network["use_tls"]:
            self.within, self.towards = contexts(federation.pki, name, network["transport_protocol"])
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result()
        federation.world.closers.append(self.close)

    async def listen(self):
        self.inner = await asyncio.start_server(self.guarded(self.serve), "127.0.0.1", 0, ssl=self.within, limit=2**26)
        self.inner_port = self.inner.sockets[0].getsockname()[1]
        self.outer = await asyncio.start_server(self.guarded(self.serve_proxied), "127.0.0.1", self.port, limit=2**26)

    def close(self):
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def end(self):
        self.outer.close()
        self.inner.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def guarded(self, serve):
        async def served(reader, writer):
            try:
                await serve(reader, writer)
            except (OSError, EOFError, asyncio.CancelledError):
                pass  # One side went away, or the proxy ends.
            finally:
                writer.transport.abort()

        return served

    async def connect(self):
        return await asyncio.open_connection(*self.upstream, ssl=self.towards, limit=2**26)

    async def act(self, when, method):
        """True when a rule fired, and the connection is to go."""
        for rule in self.rules:
            if rule.due(when, method):
                await asyncio.to_thread(rule.fire)
                return True
        return False

    # What a proxy does.

    async def serve_proxied(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"CONNECT "):
            return await self.serve_http(reader, writer, head)
        inner = await asyncio.open_connection("127.0.0.1", self.inner_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await both(copied(reader, inner[1]), copied(inner[0], writer))

    # gRPC.

    async def serve_frames(self, reader, writer):
        upstream = await self.connect()
        try:
            methods, answered = {}, set()
            await both(
                self.requests(reader, upstream[1], methods),
                self.answers(upstream[0], writer, methods, answered),
            )
        finally:
            upstream[1].transport.abort()

    async def requests(self, reader, writer, methods):
        writer.write(await reader.readexactly(PREFACE))
        paths, uploading = Paths(), set()
        while True:
            kind, flags, stream, frame = await read_frame(reader)
            if kind == HEADERS:
                methods[stream] = paths.read(block_of(flags, frame)).rpartition("/")[2]
                self.calls.append(methods[stream])
                if await self.act("before", methods[stream]):
                    return
            writer.write(frame)
            await writer.drain()
            if kind == DATA and stream not in uploading:
                uploading.add(stream)
                if await self.act("within", methods[stream]):
                    return

    async def answers(self, reader, writer, methods, answered):
        while True:
            kind, flags, stream, frame = await read_frame(reader)
            if kind == DATA:
                answered.add(stream)
            ends = kind == HEADERS and flags & END_STREAM and stream in answered
            if ends and await self.act("after", methods[stream]):
                return
            writer.write(frame)
            await writer.drain()

    # HTTP.

    async def serve_http(self, reader, writer, head=None):
        while True:
            head = head or await reader.readuntil(b"\r\n\r\n")
            line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
            verb, target, version = line.split(b" ")
            if target.startswith(b"http://"):
                target = b"/" + target.split(b"/", 3)[3]
            body = await read_body(reader, fields, closes=False)
            method = PATHS[target.partition(b"?")[0].decode()]
            self.calls.append(method)
            if await self.act("before", method):
                return
            upstream = await self.connect()
            try:
                request = b" ".join((verb, target, version))
                request = chunked(request, [*without_framing(fields), b"Connection: close"], body)
                if body:
                    upstream[1].write(request[: -len(body) // 2])
                    await upstream[1].drain()
                    if await self.act("within", method):
                        return
                    request = request[-len(body) // 2 :]
                upstream[1].write(request)
                answer_head = await upstream[0].readuntil(b"\r\n\r\n")
                status, *fields = answer_head.removesuffix(b"\r\n\r\n").split(b"\r\n")
                answer = await read_body(upstream[0], fields, closes=True)
            finally:
                upstream[1].transport.abort()
            if await self.act("after", method):
                return
            writer.write(chunked(b"HTTP/1.1 " + status.split(b" ", 1)[1], without_framing(fields), answer))
            await writer.drain()
            head = None


def contexts(pki, name, transport):
    """The TLS of both sides: as the aggregator, and as the collaborator."""
    within = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    within.load_cert_chain(pki / "server" / f"agg_{harness.HOST}.crt", pki / "server" / f"agg_{harness.HOST}.key")
    towards = ssl.create_default_context(cafile=str(pki / "cert_chain.crt"))
    towards.load_cert_chain(pki / "client" / f"col_{name}.crt", pki / "client" / f"col_{name}.key")
    if transport == "grpc":
        within.set_alpn_protocols(["h2"])
        towards.set_alpn_protocols(["h2"])
    return within, towards


async def both(*pumps):
    """Until one of them ends."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def copied(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def read_frame(reader):
    """The kind, flags and stream of a frame, and the whole of it."""
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, head + payload


def block_of(flags, frame):
    """The compressed headers of a frame."""
    block, padding = frame[9:], 0
    if flags & PADDED:
        padding, block = block[0], block[1:]
    if flags & PRIORITY:
        block = block[5:]
    return block[: len(block) - padding]


def field(fields, name):
    for each in fields:
        key, _, value = each.partition(b":")
        if key.strip().lower() == name:
            return value.strip().lower()
    return None


async def read_body(reader, fields, *, closes):
    if field(fields, b"transfer-encoding") == b"chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    length = field(fields, b"content-length")
    if length is not None:
        return await reader.readexactly(int(length))
    return await reader.read() if closes else b""


def without_framing(fields):
    own = (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection")
    return [each for each in fields if each.partition(b":")[0].strip().lower() not in own]


def chunked(line, fields, body):
    pieces = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return b"\r\n".join([line, *fields, b"Transfer-Encoding: chunked", b"", b""]) + b"".join(chunks) + b"0\r\n\r\n"
