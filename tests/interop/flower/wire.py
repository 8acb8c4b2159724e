"""Raw calls to a SuperLink, in upstream's own messages: what no stock program would send, and cheap looks at a run.

A call is a POST of one protobuf message; the answer is that of the call or a refusal, and is given as it came.
"""

import base64
import dataclasses
import datetime
import hashlib
import http.client
import json
import ssl
import struct

from flwr.proto import control_pb2, fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, node_pb2, run_pb2, runtime_pb2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TYPE = "application/protobuf"
ANSWERS = {
    "fleet/register-node": fleet_pb2.RegisterNodeFleetResponse,
    "fleet/activate-node": fleet_pb2.ActivateNodeResponse,
    "fleet/deactivate-node": fleet_pb2.DeactivateNodeResponse,
    "fleet/unregister-node": fleet_pb2.UnregisterNodeFleetResponse,
    "fleet/send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatResponse,
    "fleet/pull-messages": fleet_pb2.PullMessagesResponse,
    "fleet/push-messages": fleet_pb2.PushMessagesResponse,
    "fleet/get-run": run_pb2.GetRunResponse,
    "fleet/get-fab": fab_pb2.GetFabResponse,
    "fleet/push-object": message_pb2.PushObjectResponse,
    "fleet/pull-object": message_pb2.PullObjectResponse,
    "fleet/confirm-message-received": message_pb2.ConfirmMessageReceivedResponse,
    "control/start-run": control_pb2.StartRunResponse,
    "control/stop-run": control_pb2.StopRunResponse,
    "control/list-runs": control_pb2.ListRunsResponse,
    "control/list-nodes": control_pb2.ListNodesResponse,
    "control/register-node": control_pb2.RegisterNodeResponse,
    "control/unregister-node": control_pb2.UnregisterNodeResponse,
    "runtime/acquire-task": runtime_pb2.AcquireTaskResponse,
    "runtime/pull-task-input": runtime_pb2.PullTaskInputResponse,
    "runtime/push-task-output": runtime_pb2.PushTaskOutputResponse,
    "runtime/send-task-heartbeat": runtime_pb2.SendTaskHeartbeatResponse,
    "runtime/get-nodes": runtime_pb2.GetNodesResponse,
    "runtime/push-messages": runtime_pb2.PushAppMessagesResponse,
    "runtime/pull-messages": runtime_pb2.PullAppMessagesResponse,
    "runtime/push-object": message_pb2.PushObjectResponse,
    "runtime/pull-object": message_pb2.PullObjectResponse,
    "runtime/confirm-message-received": message_pb2.ConfirmMessageReceivedResponse,
}


@dataclasses.dataclass
class Answer:
    """Status and body of one call; `message` of an accepted one, `code` of a refused one that carries a code."""

    status: int
    body: bytes
    content_type: str
    message: object = None

    @property
    def code(self):
        try:
            return json.loads(self.body).get("code")
        except ValueError:
            return None


def connection(address, ca=None, timeout_s=35, source=None):
    host, port = address.rsplit(":", 1)
    source = (source, 0) if source else None
    if ca is None:
        return http.client.HTTPConnection(host, int(port), timeout=timeout_s, source_address=source)
    context = ssl.create_default_context(cafile=str(ca))
    return http.client.HTTPSConnection(host, int(port), timeout=timeout_s, source_address=source, context=context)


def post(address, path, body, headers=None, ca=None, source=None):
    """One POST on a connection of its own."""
    link = connection(address, ca, source=source)
    try:
        link.request("POST", path, body=body, headers={"content-type": TYPE, "accept": TYPE} | (headers or {}))
        reply = link.getresponse()
        return Answer(reply.status, reply.read(), reply.getheader("content-type") or "")
    finally:
        link.close()


def call(server, name, message, headers=None):
    """Calls `name`, such as fleet/get-run, of a server with an `address` and, under TLS, a `ca`."""
    body = message.SerializeToString(deterministic=True)
    answer = post(server.address, f"/v1/{name}", body, headers, server.ca, getattr(server, "source", None))
    if answer.status == 200:
        answer.message = ANSWERS[name].FromString(answer.body)
    return answer


def healthy(server):
    link = connection(server.address, server.ca, timeout_s=5)
    try:
        link.request("GET", "/health")
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


def frames(server, run_id, timeout_s=35):
    """The messages of a run's log stream, until the server ends it."""
    link = connection(server.address, server.ca, timeout_s)
    try:
        body = control_pb2.StreamLogsRequest(run_id=run_id).SerializeToString()
        link.request("POST", "/v1/control/stream-logs", body=body, headers={"content-type": TYPE})
        reply = link.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"stream-logs: {reply.status} {reply.read()!r}")
        while head := reply.read(4):
            (size,) = struct.unpack(">I", head)
            yield control_pb2.StreamLogsResponse.FromString(reply.read(size))
    finally:
        link.close()


def run_of(server, run_id):
    """What list-runs says of one run; None while the server does not answer."""
    try:
        answer = call(server, "control/list-runs", control_pb2.ListRunsRequest(run_id=run_id))
    except (OSError, http.client.HTTPException):
        return None
    return answer.message.run_dict.get(run_id) if answer.message else None


def nodes_of(server):
    """Status of each node by its id; empty while the server does not answer."""
    try:
        answer = call(server, "control/list-nodes", control_pb2.ListNodesRequest())
    except (OSError, http.client.HTTPException):
        return {}
    return {node.node_id: node.status for node in answer.message.nodes_info} if answer.message else {}


def called(component):
    """By which a caller names itself; a Runtime call has to have them."""
    return {"flwr-package-name": "flwr", "flwr-package-version": "1.42.0", "flwr-component-name": component}


class Node:
    """A SuperNode by hand: it signs as the stock one does unless told otherwise."""

    def __init__(self, server, key=None):
        self.server = server
        self.key = key or ec.generate_private_key(ec.SECP384R1())
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.public = self.key.public_key().public_bytes(*form)
        self.node_id = 0

    @property
    def node(self):
        return node_pb2.Node(node_id=self.node_id)

    def headers(self, at=None):
        """A fresh signature of the time, or of another time."""
        stamp = (at or datetime.datetime.now(datetime.UTC)).isoformat()
        signature = self.key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": base64.b64encode(self.public).decode(),
            "flwr-timestamp": stamp,
            "flwr-signature": base64.b64encode(signature).decode(),
            **called("SuperNode"),
        }

    def call(self, name, message, headers=None):
        return call(self.server, f"fleet/{name}", message, self.headers() if headers is None else headers)

    def join(self):
        """Registers and activates; gives itself."""
        answer = self.call("register-node", fleet_pb2.RegisterNodeFleetRequest(public_key=self.public))
        assert answer.status == 200, answer
        return self.activate()

    def activate(self):
        message = fleet_pb2.ActivateNodeRequest(public_key=self.public, heartbeat_interval=30)
        answer = self.call("activate-node", message)
        assert answer.status == 200, answer
        self.node_id = answer.message.node_id
        return self

    def leave(self):
        self.call("deactivate-node", fleet_pb2.DeactivateNodeRequest(node_id=self.node_id))
        self.call("unregister-node", fleet_pb2.UnregisterNodeFleetRequest(node_id=self.node_id))

    def pull(self):
        """The next message with its tree, or None."""
        answer = self.call("pull-messages", fleet_pb2.PullMessagesRequest(node=self.node))
        assert answer.status == 200, answer
        if not answer.message.messages_list:
            return None
        return answer.message.messages_list[0], answer.message.message_object_trees[0]

    def pull_object(self, run_id, object_id):
        request = message_pb2.PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
        return self.call("pull-object", request)

    def push_object(self, run_id, object_id, content, session_id=""):
        request = message_pb2.PushObjectRequest(
            node=self.node, run_id=run_id, object_id=object_id, object_content=content, session_id=session_id
        )
        return self.call("push-object", request)

    def confirm(self, run_id, message_id):
        request = message_pb2.ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        return self.call("confirm-message-received", request)


class Task:
    """The process of a ServerApp by hand: it holds a task's token."""

    def __init__(self, server, kinds=("flwr-serverapp",)):
        self.server = server
        answer = call(server, "runtime/acquire-task", runtime_pb2.AcquireTaskRequest(supported_task_types=kinds))
        self.acquired = answer
        self.token = answer.message.token if answer.message else ""
        self.task_id = answer.message.task.task_id if answer.message else 0

    def call(self, name, message):
        headers = {"flwr-task-token": self.token, **called("flwr-serverapp")}
        return call(self.server, f"runtime/{name}", message, headers)


def object_of(kind, children, body):
    """The bytes of one object and its id."""
    content = f"{kind} {','.join(children)} {len(body)}\0".encode() + body
    return content, hashlib.sha256(content).hexdigest()


def ids_of(tree):
    """Every id of an object tree, children first, each once."""
    found = {}
    for child in tree.children:
        found |= dict.fromkeys(ids_of(child))
    return [*(found | {tree.object_id: None})]
