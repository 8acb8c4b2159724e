"""Who a node is: signatures that are late, early, another's, repeated; keys that are used twice."""

import datetime

from flwr.proto import fleet_pb2, heartbeat_pb2

import wire


SECOND = datetime.timedelta(seconds=1)


def test_a_signature_holds_from_five_seconds_ahead_to_five_minutes_late(server):
    node = wire.Node(server).join()
    now = datetime.datetime.now(datetime.UTC)
    beat = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    for shift_s, status in [(0, 200), (-280, 200), (-330, 401), (-86400, 401), (60, 401), (86400, 401)]:
        answer = node.call("send-node-heartbeat", beat, node.headers(now + shift_s * SECOND))
        assert answer.status == status, (shift_s, answer)


def test_a_signature_is_of_the_key_the_time_and_the_node(server):
    node, other = wire.Node(server).join(), wire.Node(server).join()
    beat = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    good = node.headers()
    later = node.headers(datetime.datetime.now(datetime.UTC) + SECOND)
    wrong = {
        "no headers": {},
        "another node's": other.headers(),
        "another time": good | {"flwr-timestamp": later["flwr-timestamp"]},
        "another key": good | {"flwr-public-key": other.headers()["flwr-public-key"]},
        "no signature": {name: value for name, value in good.items() if name != "flwr-signature"},
        "not base64": good | {"flwr-signature": "§§§".encode().decode("latin-1")},
        "not a key": good | {"flwr-public-key": "AAAA"},
        "not a time": good | {"flwr-timestamp": "yesterday"},
        "time without zone": good | {"flwr-timestamp": good["flwr-timestamp"].removesuffix("+00:00")},
    }
    for what, headers in wrong.items():
        assert node.call("send-node-heartbeat", beat, headers).status in (401, 400), what
        assert node.call("pull-messages", fleet_pb2.PullMessagesRequest(node=node.node), headers).status in (
            401,
            400,
        ), what
    assert node.call("send-node-heartbeat", beat, good).status == 200


def test_a_replayed_signature_serves_its_own_node_only(server):
    """Retries repeat a signature, so a repetition alone is no fault; it never opens what is another's."""
    node, other = wire.Node(server).join(), wire.Node(server).join()
    recorded = node.headers()
    for _ in range(3):
        beat = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
        assert node.call("send-node-heartbeat", beat, recorded).status == 200
    for name, request in [
        ("send-node-heartbeat", heartbeat_pb2.SendNodeHeartbeatRequest(node=other.node, heartbeat_interval=30)),
        ("pull-messages", fleet_pb2.PullMessagesRequest(node=other.node)),
        ("deactivate-node", fleet_pb2.DeactivateNodeRequest(node_id=other.node_id)),
        ("unregister-node", fleet_pb2.UnregisterNodeFleetRequest(node_id=other.node_id)),
        ("activate-node", fleet_pb2.ActivateNodeRequest(public_key=other.public, heartbeat_interval=30)),
    ]:
        assert node.call(name, request, recorded).status == 401, name
    assert set(server.online()) == {node.node_id, other.node_id}


def test_one_key_is_one_node(server):
    first = wire.Node(server).join()
    second = wire.Node(server, first.key)
    again = second.call("register-node", fleet_pb2.RegisterNodeFleetRequest(public_key=second.public))
    assert (again.status, again.code) == (412, 23) or again.message.node_id == first.node_id, again
    activated = second.call(
        "activate-node", fleet_pb2.ActivateNodeRequest(public_key=second.public, heartbeat_interval=30)
    )
    # A key that is online is refused, or answered with the same node.
    assert (activated.status, activated.code) == (412, 2004) or activated.message.node_id == first.node_id, activated
    assert server.online() == [first.node_id]


def test_a_heartbeat_interval_has_bounds(server):
    node = wire.Node(server).join()
    for interval_s in (0, 9, 1801, -1, float("nan"), float("inf")):
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=interval_s)
        answer = node.call("send-node-heartbeat", request)
        assert (answer.status, answer.code) == (400, 2003), (interval_s, answer)
