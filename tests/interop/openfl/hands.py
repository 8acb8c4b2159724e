"""Collaborators by hand: the calls of the stock ones in any order, over gRPC or HTTP, for what no stock program does."""

import contextlib
import socket
import ssl
import struct

import grpc
import h2.connection
import h2.events
import numpy as np
import requests
from google.protobuf import json_format
from openfl.pipelines import NoCompressionPipeline
from openfl.protocols import aggregator_pb2, aggregator_pb2_grpc, base_pb2, utils
from openfl.utilities import TensorKey

import harness

RAW = NoCompressionPipeline()
CALL_S = 90
HELD_S = 3
PATHS = "/experimental/v1"
UPLOAD = {"Content-Type": "application/x-protobuf-stream"}
# Each hand has a connection of its own, so that none uses one to a server that is no more.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def named(name, array, tags, *, round_number=0, report=False):
    """A tensor as a collaborator sends it, without compression."""
    data, metadata = RAW.forward(np.asarray(array, np.float32))
    return utils.construct_named_tensor(TensorKey(name, "", round_number, report, tags), data, metadata, lossless=True)


def trained(name, array, *, round_number=0, delta=False):
    tags = ("compressed", "delta", "trained") if delta else ("compressed", "trained")
    return named(name, array, tags, round_number=round_number)


def metric(name, value, *tags, round_number=0):
    return named(name, value, ("compressed", "metric", *tags), round_number=round_number, report=True)


def score(value, round_number=0):
    return metric("acc", value, "validate_agg", round_number=round_number)


def array_of(tensor):
    """The array of an answer without compression."""
    (entry,) = tensor.transformer_metadata
    return np.frombuffer(tensor.data_bytes, np.float32).reshape(tuple(entry.int_list))


class Credentials:
    """What a collaborator presents: `name` names its certificate, none goes without."""

    def __init__(self, pki, name):
        self.chain, self.pair = pki / "cert_chain.crt", None
        if name:
            self.pair = (pki / "client" / f"col_{name}.crt", pki / "client" / f"col_{name}.key")

    def channel(self, address):
        certificate, key = (path.read_bytes() for path in self.pair) if self.pair else (None, None)
        credentials = grpc.ssl_channel_credentials(self.chain.read_bytes(), key, certificate)
        return grpc.secure_channel(address, credentials, options=OWN_CONNECTION)


class Hand:
    """A collaborator of a federation, or somebody who says so: `sender` and the rest go into the headers as they are."""

    def __init__(self, federation, name, *, certificate=None, sender=None, receiver=None, federation_uuid=None, common_name=""):
        self.aggregator, self.federation = harness.identity(federation.server.home)
        self.name, self.begun = name, None
        self.header = aggregator_pb2.MessageHeader(
            sender=sender or name,
            receiver=receiver or self.aggregator,
            federation_uuid=federation_uuid or self.federation,
            single_col_cert_common_name=common_name,
        )
        self.tls = federation.config["network"]["settings"]["use_tls"]
        self.address = federation.server.address
        self.credentials = Credentials(federation.pki, name if certificate is None else certificate) if self.tls else None
        federation.world.came("its messages by hand", self.transport, self.tls)

    def waits(self):
        """Whether there is nothing for it to do: the aggregator says so, or keeps it waiting for more."""
        try:
            answer = self.tasks(timeout_s=HELD_S)
        except requests.exceptions.ReadTimeout:
            return True
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        return not answer.tasks and not answer.quit and answer.sleep_time >= 1

    def begins(self, round_number):
        """Asks for the tasks of a round before it sends anything of it, as every collaborator does."""
        if self.begun != round_number:
            self.tasks()
            self.begun = round_number

    def results(self, task, tensors, *, round_number, data_size):
        return aggregator_pb2.TaskResults(
            header=self.header, round_number=round_number, task_name=task, data_size=data_size, tensors=tensors
        )


class Grpc(Hand):
    """Over gRPC."""

    transport = "grpc"

    def __init__(self, federation, name, *, channel=None, **claims):
        super().__init__(federation, name, **claims)
        if channel is None:
            channel = (
                self.credentials.channel(self.address)
                if self.tls
                else grpc.insecure_channel(self.address, options=OWN_CONNECTION)
            )
        self.stub = aggregator_pb2_grpc.AggregatorStub(channel)
        federation.world.closers.append(channel.close)

    def ping(self):
        return self.stub.Ping(aggregator_pb2.PingRequest(header=self.header), timeout=CALL_S)

    def tasks(self, timeout_s=CALL_S):
        return self.stub.GetTasks(aggregator_pb2.GetTasksRequest(header=self.header), timeout=timeout_s)

    def tensor(self, name, *tags, round_number=0, report=False, lossless=True):
        request = aggregator_pb2.GetAggregatedTensorRequest(
            header=self.header,
            tensor_name=name,
            round_number=round_number,
            report=report,
            tags=tags,
            require_lossless=lossless,
        )
        return self.stub.GetAggregatedTensor(request, timeout=CALL_S).tensor

    def send(self, task, *tensors, round_number=0, data_size=1, piece=2 * 1024 * 1024):
        made = self.results(task, tensors, round_number=round_number, data_size=data_size)
        return self.stream(*utils.proto_to_datastream(made, piece))

    def stream(self, *pieces):
        """Pieces as they are: bytes, or messages."""
        made = [each if isinstance(each, base_pb2.DataStream) else base_pb2.DataStream(npbytes=each) for each in pieces]
        return self.stub.SendLocalTaskResults(iter(made), timeout=CALL_S)


class Rest(Hand):
    """Over HTTP."""

    transport = "rest"

    def __init__(self, federation, name, **claims):
        super().__init__(federation, name, **claims)
        self.base = f"{'https' if self.tls else 'http'}://{self.address}{PATHS}"
        self.params = {"collaborator_id": self.header.sender, "federation_uuid": self.header.federation_uuid}

    def claims(self):
        return {
            "Sender": self.header.sender,
            "Receiver": self.header.receiver,
            "Federation-UUID": self.header.federation_uuid,
            "Single-Col-Cert-CN": self.header.single_col_cert_common_name,
        }

    def call(self, method, path, *, headers=(), timeout_s=CALL_S, **options):
        claims = self.claims()
        if self.tls:
            options |= {"verify": self.credentials.chain, "cert": self.credentials.pair}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.base + path, headers=claims | dict(headers), timeout=timeout_s, **options)

    def ping(self):
        return self.call("GET", "/ping", params=self.params)

    def tasks(self, timeout_s=CALL_S):
        answer = self.call("GET", "/tasks", params=self.params, timeout_s=timeout_s)
        answer.raise_for_status()
        return json_format.ParseDict(answer.json(), aggregator_pb2.GetTasksResponse())

    def get_tensor(self, name, *tags, round_number=0, report=False, lossless=True, **params):
        asked = {"tensor_name": name, "round_number": round_number, "report": report, "tags": tags, "require_lossless": lossless}
        about = {"sender": self.header.sender, "receiver": self.header.receiver}
        return self.call("GET", "/tensors/aggregated", params=self.params | about | asked | params)

    def tensor(self, name, *tags, **options):
        answer = self.get_tensor(name, *tags, **options)
        answer.raise_for_status()
        return json_format.ParseDict(answer.json(), aggregator_pb2.GetAggregatedTensorResponse()).tensor

    def send(self, task, *tensors, round_number=0, data_size=1):
        answer = self.post(framed(self.results(task, tensors, round_number=round_number, data_size=data_size)))
        answer.raise_for_status()
        return answer

    def post(self, body, headers=()):
        """Bytes go with their length; what gives pieces goes in chunks, a chunk for each of them."""
        return self.call("POST", "/tasks/results", data=body, headers=UPLOAD | dict(headers))


class Rest2(Rest):
    """Over HTTP/2; one connection for each upload, in frames of `piece` bytes. All other calls are those of HTTP/1.1."""

    transport = "rest on HTTP/2"
    piece = 1021

    def post(self, body, headers=()):
        connection = h2.connection.H2Connection()
        with contextlib.closing(self.connected()) as line:
            connection.initiate_connection()
            asked = {
                ":method": "POST",
                ":scheme": "https" if self.tls else "http",
                ":authority": self.address,
                ":path": f"{PATHS}/tasks/results",
            }
            claims = self.claims() | UPLOAD | dict(headers)
            connection.send_headers(1, [*asked.items(), *((name.lower(), value) for name, value in claims.items())])
            events, at = [], 0
            while not any(isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)) for event in events):
                while at < len(body) and (room := connection.local_flow_control_window(1)):
                    piece = body[at : at + min(self.piece, room)]
                    at += len(piece)
                    connection.send_data(1, piece, end_stream=at == len(body))
                line.sendall(connection.data_to_send())
                received = line.recv(1 << 16)
                assert received, "the server closed the connection"
                events += connection.receive_data(received)
        return Answer(events)

    def connected(self):
        line = socket.create_connection((harness.HOST, int(self.address.rpartition(":")[2])), timeout=CALL_S)
        if not self.tls:
            return line
        context = ssl.create_default_context(cafile=str(self.credentials.chain))
        context.load_cert_chain(*map(str, self.credentials.pair))
        context.set_alpn_protocols(["h2"])
        line = context.wrap_socket(line, server_hostname=harness.HOST)
        assert line.selected_alpn_protocol() == "h2"
        return line


class Answer:
    """What a server said over HTTP/2."""

    def __init__(self, events):
        (said,) = [event for event in events if isinstance(event, h2.events.ResponseReceived)]
        self.status_code = int({str(name, "ascii"): value for name, value in said.headers}[":status"])

    def raise_for_status(self):
        assert self.status_code == 200, self.status_code


def framed(results):
    """The body of an upload: one message with its length before it, and a zero."""
    return body_of(results.SerializeToString())


def body_of(content):
    message = base_pb2.DataStream(size=len(content), npbytes=content).SerializeToString()
    return struct.pack(">I", len(message)) + message + struct.pack(">I", 0)


@contextlib.contextmanager
def refused(*codes):
    """The call within is refused; gives the error, and checks the code where one is named."""
    box = []
    try:
        yield box
    except grpc.RpcError as error:
        box.append(error)
    assert box, "the call was not refused"
    assert not codes or box[0].code() in codes, box[0]
