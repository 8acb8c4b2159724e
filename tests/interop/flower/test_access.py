"""Who may do what: runs are started and claimed by those whose it is, and by nobody else."""

import grpc
import pytest
from flwr.proto import control_pb2, control_pb2_grpc, fleet_pb2, runtime_pb2

import certs
import fabs
import harness
import wire
from hands import claimed


def test_the_nodes_port_over_grpc_starts_nothing(world):
    server = harness.Server(world, grpc=True, isolation="process").start()
    with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as refusal:
        control_pb2_grpc.ControlStub(channel).StartRun(fabs.start_request())
    assert refusal.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED), refusal.value
    assert not wire.call(server, "control/list-runs", control_pb2.ListRunsRequest()).message.run_dict


@pytest.mark.ours_alone("calls that run code are served on loopback, or to those who prove who they are")
def test_beyond_loopback_neither_node_nor_stranger_starts_or_claims_anything(world):
    authority = certs.Authority(world.directory / "tls")
    server = harness.Server(world, authority=authority, isolation="process", host="0.0.0.0").start()
    node = wire.Node(server).join()
    for headers in ({}, node.headers()):
        for name, request in [
            ("control/start-run", fabs.start_request()),
            ("control/list-runs", control_pb2.ListRunsRequest()),
            ("control/list-nodes", control_pb2.ListNodesRequest()),
            ("runtime/acquire-task", runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])),
        ]:
            answer = wire.call(server, name, request, headers)
            assert answer.status in (401, 403, 404), (name, answer)
    assert node.pull() is None


def test_a_token_is_needed_and_only_the_right_one_serves(server):
    _, task = claimed(server)
    good = task.token
    assert len(good) == 256
    for token in ("", "0" * 256, good[:-1] + ("0" if good[-1] != "0" else "1"), good.upper() + "0"):
        task.token = token
        answer = task.call("get-nodes", runtime_pb2.GetNodesRequest())
        assert (answer.status, answer.code) == (401, 1008), (token, answer)
    task.token = good
    assert task.call("get-nodes", runtime_pb2.GetNodesRequest()).status == 200


@pytest.mark.ours_alone("registrations of one address have a rate")
def test_one_address_registers_nodes_at_a_bounded_rate_and_is_told_to_come_again(server):
    nodes = [wire.Node(server) for _ in range(25)]
    register = [fleet_pb2.RegisterNodeFleetRequest(public_key=node.public) for node in nodes]
    statuses = [node.call("register-node", request).status for node, request in zip(nodes, register, strict=True)]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 20, statuses
    # Who is in is not held up.
    assert nodes[0].call("register-node", register[0]).status == 200
    assert nodes[0].activate().node_id


def test_bytes_that_are_no_message_are_refused(server):
    node = wire.Node(server).join()
    for name in wire.ANSWERS:
        answer = wire.post(server.address, f"/v1/{name}", b"\xff" * 100, node.headers())
        assert 400 <= answer.status < 500, (name, answer)
        answer = wire.post(server.address, f"/v1/{name}", b"{}", node.headers() | {"content-type": "application/json"})
        assert (answer.status, answer.code) == (415, 1002), (name, answer)
    assert wire.post(server.address, "/v1/fleet/no-such-call", b"", node.headers()).status == 404
    assert server.online() == [node.node_id]
