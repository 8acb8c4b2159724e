"""A reverse proxy that knows the calls it forwards: it can act at the n-th call of a path, and keeps how long each took.

One thread runs it. A rule fires once, before a call is forwarded or after the server's answer is here and before it is
passed on; either way the caller then loses its connection, as it would if the server had died there. While the server is
away callers lose their connections too.
"""

import asyncio
import dataclasses
import ssl
import threading
import time


@dataclasses.dataclass
class Rule:
    """`action` runs at the `nth` call of `path` that `matches(request_body, answer_body)` accepts."""

    path: str
    when: str
    action: object
    nth: int = 1
    matches: object = lambda request, answer: True
    seen: int = 0
    fired: threading.Event = dataclasses.field(default_factory=threading.Event)

    def due(self, when, path, request, answer):
        if self.fired.is_set() or when != self.when or path != self.path or not self.matches(request, answer):
            return False
        self.seen += 1
        return self.seen == self.nth

    def fire(self):
        """Goes on to its end also when what it does ends the connection that it was due on."""
        self.action()
        self.fired.set()


@dataclasses.dataclass
class Call:
    """One call that went through."""

    path: str
    status: int
    began_s: float
    took_s: float
    request_bytes: int
    answer_bytes: int


class Proxy:
    """Listens on `port`; TLS towards callers and server when an authority is given."""

    def __init__(self, port, upstream_port, authority=None):
        self.address = f"127.0.0.1:{port}"
        self.port, self.upstream_port = port, upstream_port
        self.calls, self.rules = [], []
        self._server_side = self._client_side = None
        if authority:
            self._server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server_side.load_cert_chain(authority.certificate, authority.key)
            self._client_side = ssl.create_default_context(cafile=str(authority.ca))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self):
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._server_side, limit=2**20)

    def add(self, path, when, action, **more):
        rule = Rule(path, when, action, **more)
        self.rules.append(rule)
        return rule

    def close(self):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self):
        """Ends every connection, so that nothing is left to a loop that no longer runs."""
        self._listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        upstream = None
        try:
            while True:
                head, body = await read_message(reader)
                if upstream is None:
                    upstream = await asyncio.open_connection(
                        "127.0.0.1", self.upstream_port, ssl=self._client_side, limit=2**20
                    )
                if not await self._forward(head, body, upstream, writer):
                    return
        except (OSError, EOFError, ValueError, asyncio.CancelledError):
            pass  # One side went away, or the proxy ends.
        finally:
            writer.transport.abort()
            if upstream:
                upstream[1].transport.abort()

    async def _forward(self, head, body, upstream, writer):
        """Forwards one call; false when the caller is to lose its connection."""
        path = head.split(b" ", 2)[1].decode()
        if await self._act("before", path, body, b""):
            return False
        began_s = time.monotonic()
        upstream[1].write(head + body)
        await upstream[1].drain()
        answer_head = await upstream[0].readuntil(b"\r\n\r\n")
        if header(answer_head, "content-length") is None:
            await self._stream(answer_head, upstream[0], writer)
            return False
        answer = await upstream[0].readexactly(int(header(answer_head, "content-length")))
        took_s = time.monotonic() - began_s
        status = int(answer_head.split(b" ", 2)[1])
        self.calls.append(Call(path, status, began_s, took_s, len(body), len(answer)))
        if await self._act("after", path, body, answer):
            return False
        writer.write(answer_head + answer)
        await writer.drain()
        return True

    async def _stream(self, head, reader, writer):
        writer.write(head)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def _act(self, when, path, request, answer):
        for rule in self.rules:
            if rule.due(when, path, request, answer):
                await asyncio.to_thread(rule.fire)
                return True
        return False


def header(head, name):
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name.encode():
            return value.strip().decode()
    return None


async def read_message(reader):
    """One request: its head as it came, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    if header(head, "transfer-encoding"):
        raise ValueError("stock peers send a length")
    return head, await reader.readexactly(int(header(head, "content-length") or 0))
