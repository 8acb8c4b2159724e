"""Keys that are remembered on connections of our own TLS: for whom, until when, and for nobody else."""

import base64
import datetime

import pytest
from flwr.proto import fleet_pb2, heartbeat_pb2

import certs
import harness
import wire

pytestmark = pytest.mark.ours_alone("a key that was verified is remembered on its connection, where asked for")

DIRECT = ["--direct-connections"]


class Link:
    """One connection, over which any node's calls go."""

    def __init__(self, server):
        self.link = wire.connection(server.address, server.ca)

    def beat(self, node, *, signature=None, at=None, more=None):
        """The status of a heartbeat: honestly signed, or with another signature."""
        headers = node.headers(at) | (more or {})
        if signature is not None:
            headers["flwr-signature"] = base64.b64encode(signature).decode()
        body = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30).SerializeToString()
        self.link.request("POST", "/v1/fleet/send-node-heartbeat", body=body, headers={"content-type": wire.TYPE} | headers)
        reply = self.link.getresponse()
        reply.read()
        return reply.status


@pytest.fixture
def secure(world):
    def start(*options):
        authority = certs.Authority(world.directory / "tls")
        return harness.Server(world, authority=authority, isolation="process", options=options).start()

    return start


def minutes_ago(minutes):
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)


def test_a_key_is_remembered_on_its_connection_and_its_timestamps_are_checked(secure):
    server = secure(*DIRECT)
    node, other = wire.Node(server).join(), wire.Node(server).join()
    link = Link(server)
    assert link.beat(node, signature=b"x") == 401, "nothing was verified on this connection yet"
    assert link.beat(node) == 200
    assert link.beat(node, signature=b"x") == 200, "the key is remembered"
    for at in (minutes_ago(6), minutes_ago(-1)):
        assert link.beat(node, signature=b"x", at=at) == 401, "no timestamp is out of its window"
        assert link.beat(node, at=at) == 401
    # Another key on the same connection is verified in full, each time.
    assert link.beat(other, signature=b"x") == 401
    assert link.beat(other) == 200
    assert link.beat(other, signature=b"x") == 401
    # And another connection knows nothing of it.
    assert Link(server).beat(node, signature=b"x") == 401


def test_a_key_is_forgotten_when_a_node_unregisters_and_where_calls_are_passed_on(secure):
    server = secure(*DIRECT)
    node, leaving, passed = (wire.Node(server).join() for _ in range(3))
    link, behind = Link(server), Link(server)
    assert link.beat(node) == 200 and link.beat(node, signature=b"x") == 200
    assert behind.beat(passed) == 200
    assert behind.beat(passed, more={"x-forwarded-for": "192.0.2.1"}) == 200
    assert behind.beat(passed) == 200
    assert behind.beat(passed, signature=b"x") == 401
    leaving.leave()
    assert link.beat(node, signature=b"x") == 401
    assert link.beat(node) == 200 and link.beat(node, signature=b"x") == 200
    # Its own end, too.
    unregister = fleet_pb2.UnregisterNodeFleetRequest(node_id=node.node_id)
    assert node.call("unregister-node", unregister).status == 200
    assert link.beat(node) == 401 and link.beat(node, signature=b"x") == 401


def test_nothing_is_remembered_unless_asked_for(secure):
    server = secure()
    node = wire.Node(server).join()
    link = Link(server)
    assert link.beat(node) == 200 and link.beat(node, signature=b"x") == 401


def test_nothing_is_remembered_without_tls(world):
    server = harness.Server(world, isolation="process", options=DIRECT).start()
    node = wire.Node(server).join()
    link = Link(server)
    assert link.beat(node) == 200 and link.beat(node, signature=b"x") == 401


@pytest.mark.peer("flwr 1.42.0: SuperNode over HTTP, keys remembered on its connections")
def test_a_run_with_node_authentication_and_remembered_keys_completes(world):
    server, nodes, cli = harness.federation(world, 2, tls=True, auth=True, options=DIRECT)
    run_id = cli.submit(mode="fedavg", rounds=1, min_nodes=2, large_bytes=4000)
    assert server.end(run_id) == "finished:completed"
    assert [node.alive() for node in nodes] == [True, True]
