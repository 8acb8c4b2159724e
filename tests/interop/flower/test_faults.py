"""What nobody honest sends: it is refused, nothing of it is kept, and the server goes on as before."""

import datetime
import hashlib
import json
import os
import time
import zipfile

import grpc
import pytest
from flwr.proto import control_pb2, control_pb2_grpc, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2, runtime_pb2

import certs
import fabs
import golden
import harness
import wire

SECOND = datetime.timedelta(seconds=1)
MIB = 2**20


@pytest.fixture
def server(world):
    """A server that leaves ServerApps to others, so that the test is the ServerApp."""
    server = harness.Server(world, isolation="process").start()
    yield server
    assert server.alive() and wire.healthy(server)
    assert "panicked" not in server.text()


def start_run(server, **overrides):
    answer = wire.call(server, "control/start-run", fabs.start_request(**overrides))
    assert answer.status == 200 and answer.message.run_id, answer
    return answer.message.run_id


def claimed(server):
    """A run whose ServerApp is this test: the run's id and the task."""
    run_id = start_run(server)
    task = wire.Task(server)
    answer = task.call("pull-task-input", runtime_pb2.PullTaskInputRequest())
    assert answer.status == 200 and answer.message.run.run_id == run_id, answer
    return run_id, task


def leaf(text):
    """An object without children, and its tree."""
    content, object_id = wire.object_of("ConfigRecord", [], text.encode())
    return content, message_pb2.ObjectTree(object_id=object_id)


def message(run_id, *, src, dst, text="a", reply_to="", task_id=0):
    """A message with two objects below it: its form, its tree, and the bytes of each object by id."""
    record, record_tree = leaf(text)
    content, content_id = wire.object_of("RecordDict", [record_tree.object_id], listing)
    form = message_pb2.Message()
    form.metadata.run_id, form.metadata.src_node_id, form.metadata.dst_node_id = run_id, src, dst
    # A reply may not outlive what it answers.
    form.metadata.group_id, form.metadata.ttl, form.metadata.message_type = "1", 300.0 if reply_to else 600.0, "train"
    form.metadata.created_at, form.metadata.reply_to_message_id = time.time(), reply_to
    form.metadata.src_task_id = task_id if not reply_to else 0
    form.metadata.dst_task_id = task_id if reply_to else 0
    body, message_id = wire.object_of("Message", [content_id], form.SerializeToString(deterministic=True))
    form.metadata.message_id = message_id
    # Present and empty on the wire, absent in the object.
    form.content.SetInParent()
    content_tree = message_pb2.ObjectTree(object_id=content_id, children=[record_tree])
    tree = message_pb2.ObjectTree(object_id=message_id, children=[content_tree])
    return form, tree, {record_tree.object_id: record, content_id: content, message_id: body}


def announce(task, form, tree):
    request = runtime_pb2.PushAppMessagesRequest(messages_list=[form], message_object_trees=[tree])
    return task.call("push-messages", request)


def not_taken(answer):
    """Whether an announced message was refused, as a call or by itself."""
    return answer.status >= 400 or not any(answer.message.message_ids)


def send(task, run_id, node, text="a"):
    """An instruction from the task to a node, with all its objects; gives its id and tree."""
    form, tree, objects = message(run_id, src=1, dst=node.node_id, text=text, task_id=task.task_id)
    answer = announce(task, form, tree)
    assert answer.status == 200 and list(answer.message.message_ids) == [form.metadata.message_id], answer
    for object_id in wire.ids_of(tree):
        pushed = push(task, run_id, object_id, objects[object_id], answer.message.session_id)
        assert pushed.message.stored, pushed
    return form.metadata.message_id, tree


def push(task, run_id, object_id, content, session_id):
    request = message_pb2.PushObjectRequest(
        run_id=run_id, object_id=object_id, object_content=content, session_id=session_id
    )
    request.node.node_id = 1
    return task.call("push-object", request)


def pulled(node):
    """The node's next message; a server may hold the call, or answer at once that there is none."""
    return harness.wait_for("a message", node.pull)


def announce_reply(node, run_id, message_id, text="reply", task_id=0):
    form, tree, objects = message(run_id, src=node.node_id, dst=1, text=text, reply_to=message_id, task_id=task_id)
    request = fleet_pb2.PushMessagesRequest(node=node.node, messages_list=[form], message_object_trees=[tree])
    return node.call("push-messages", request), tree, objects


# Signatures.


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
    # The stock server refuses a key that is online; one that answers again must name the same node.
    assert (activated.status, activated.code) == (412, 2004) or activated.message.node_id == first.node_id, activated
    assert server.online() == [first.node_id]


def test_a_heartbeat_interval_has_bounds(server):
    node = wire.Node(server).join()
    for interval_s in (0, 9, 1801, -1, float("nan"), float("inf")):
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=interval_s)
        answer = node.call("send-node-heartbeat", request)
        assert (answer.status, answer.code) == (400, 2003), (interval_s, answer)


# Messages and objects.


def test_a_message_goes_down_and_its_reply_comes_up(server):
    """The honest path, by hand; the tests below depart from it."""
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, tree = send(task, run_id, node)
    form, got = pulled(node)
    assert form.metadata.message_id == message_id and wire.ids_of(got) == wire.ids_of(tree)
    for object_id in wire.ids_of(tree):
        answer = node.pull_object(run_id, object_id)
        assert answer.message.object_found and answer.message.object_available, answer
    assert node.confirm(run_id, message_id).status == 200
    answer, reply_tree, objects = announce_reply(node, run_id, message_id, task_id=form.metadata.src_task_id)
    assert answer.status == 200 and set(answer.message.objects_to_push) == set(objects), answer
    for object_id in wire.ids_of(reply_tree):
        assert node.push_object(run_id, object_id, objects[object_id], answer.message.session_id).message.stored
    reply = task.call("pull-messages", runtime_pb2.PullAppMessagesRequest(message_ids=[message_id]))
    (got,) = reply.message.messages_list
    assert got.metadata.message_id == reply_tree.object_id and got.metadata.reply_to_message_id == message_id


def test_wrong_objects_are_not_stored(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    form, tree, objects = message(run_id, src=1, dst=node.node_id, task_id=task.task_id)
    session = announce(task, form, tree).message.session_id
    wanted = wire.ids_of(tree)[0]
    stray, stray_tree = leaf("stray")
    headless = b"ConfigRecord  3\0four"
    for what, object_id, content in [
        ("other bytes", wanted, objects[wanted] + b"x"),
        ("no bytes", wanted, b""),
        ("an id nobody announced", stray_tree.object_id, stray),
        ("not an id", "../../etc/passwd", stray),
        ("an empty id", "", stray),
        ("a length that is not the body's", hashlib.sha256(headless).hexdigest(), headless),
    ]:
        answer = push(task, run_id, object_id, content, session)
        assert answer.message is None or not answer.message.stored, (what, answer)
    for what, used in [
        ("no session of anybody", "8f7b9d3e-0000-4000-8000-000000000000"),
        ("not a session", "x" * 10000),
    ]:
        answer = push(task, run_id, wanted, objects[wanted], used)
        assert answer.message is None or not answer.message.stored, (what, answer)
    assert push(task, run_id, wanted, objects[wanted], session).message.stored


def test_a_session_is_of_one_run(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    other_run_id, other_task = claimed(server)
    form, tree, objects = message(run_id, src=1, dst=node.node_id, task_id=task.task_id)
    session = announce(task, form, tree).message.session_id
    object_id = wire.ids_of(tree)[0]
    answer = push(other_task, other_run_id, object_id, objects[object_id], session)
    assert answer.message is None or not answer.message.stored, answer
    assert push(task, run_id, object_id, objects[object_id], session).message.stored


def test_a_task_speaks_for_its_own_run_only(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    other_run_id, _ = claimed(server)
    form, tree, _ = message(other_run_id, src=1, dst=node.node_id)
    answer = announce(task, form, tree)
    assert not_taken(answer), answer
    assert node.pull() is None


def test_a_message_to_a_node_that_is_not_in_the_federation_is_not_taken(server):
    run_id, task = claimed(server)
    left = wire.Node(server).join()
    left.leave()
    for node_id in (12345, left.node_id, 0):
        form, tree, _ = message(run_id, src=1, dst=node_id, task_id=task.task_id)
        answer = announce(task, form, tree)
        assert not_taken(answer), (node_id, answer)


def test_malformed_messages_are_not_taken(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    task_id = task.task_id

    def changed(**fields):
        form, tree, _ = message(run_id, src=1, dst=node.node_id, task_id=task_id)
        for name, value in fields.items():
            setattr(form.metadata, name, value)
        return announce(task, form, tree)

    for fields in [
        {"ttl": 0.0},
        {"ttl": -1.0},
        {"message_type": ""},
        {"created_at": 0.0},
        {"message_id": ""},
        {"src_node_id": 7},
    ]:
        answer = changed(**fields)
        assert not_taken(answer), (fields, answer)
    assert node.pull() is None


def test_a_node_that_leaves_is_answered_for(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, _ = send(task, run_id, node)
    pulled(node)
    node.call("deactivate-node", fleet_pb2.DeactivateNodeRequest(node_id=node.node_id))
    request = runtime_pb2.PullAppMessagesRequest(message_ids=[message_id])
    (reply,) = harness.wait_for("a reply", lambda: task.call("pull-messages", request).message.messages_list)
    assert (reply.error.code, reply.metadata.reply_to_message_id) == (5, message_id)
    unknown = runtime_pb2.PullAppMessagesRequest(message_ids=["0" * 64])
    (reply,) = task.call("pull-messages", unknown).message.messages_list
    assert reply.error.code == 3


@pytest.mark.stock_differs("a message is handed out once, confirmed or not")
def test_an_unconfirmed_message_is_handed_out_again(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, _ = send(task, run_id, node)
    for _ in range(3):
        form, _ = pulled(node)
        assert form.metadata.message_id == message_id
    reborn = wire.Node(server, node.key).activate()
    assert reborn.node_id == node.node_id
    assert pulled(reborn)[0].metadata.message_id == message_id


@pytest.mark.stock_differs("an object that is there already is refused")
def test_repeated_calls_change_nothing(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, tree = send(task, run_id, node)
    form, _ = pulled(node)
    for _ in range(2):
        assert node.confirm(run_id, message_id).status == 200
    first, reply_tree, objects = announce_reply(node, run_id, message_id, task_id=form.metadata.src_task_id)
    session = first.message.session_id
    for object_id in wire.ids_of(reply_tree):
        for _ in range(2):
            assert node.push_object(run_id, object_id, objects[object_id], session).message.stored
    request = runtime_pb2.PullAppMessagesRequest(message_ids=[message_id])
    (reply,) = task.call("pull-messages", request).message.messages_list
    (again,) = task.call("pull-messages", request).message.messages_list
    assert reply == again


@pytest.mark.stock_differs("an object is given to whoever knows its id")
def test_objects_are_read_by_those_they_are_for(server):
    node, other = wire.Node(server).join(), wire.Node(server).join()
    run_id, task = claimed(server)
    other_run_id, _ = claimed(server)
    _, tree = send(task, run_id, node)
    pulled(node)
    for object_id in wire.ids_of(tree):
        unknown = other.pull_object(run_id, "0" * 64)
        answer = other.pull_object(run_id, object_id)
        assert answer.body == unknown.body and answer.status == unknown.status, "one can tell that it is there"
        assert not (answer.message and answer.message.object_found)
        elsewhere = node.pull_object(other_run_id, object_id)
        assert not (elsewhere.message and elsewhere.message.object_found)
        assert node.pull_object(run_id, object_id).message.object_available


@pytest.mark.stock_differs("a session serves any node of the run")
def test_a_session_is_of_one_node(server):
    node, other = wire.Node(server).join(), wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, _ = send(task, run_id, node)
    form, _ = pulled(node)
    answer, tree, objects = announce_reply(node, run_id, message_id, task_id=form.metadata.src_task_id)
    object_id = wire.ids_of(tree)[0]
    stolen = other.push_object(run_id, object_id, objects[object_id], answer.message.session_id)
    assert not (stolen.message and stolen.message.stored), stolen
    assert node.push_object(run_id, object_id, objects[object_id], answer.message.session_id).message.stored


@pytest.mark.stock_differs("a reply is taken from whoever knows the message's id")
def test_a_reply_is_of_the_node_that_was_asked(server):
    node, other = wire.Node(server).join(), wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, _ = send(task, run_id, node)
    form, _ = pulled(node)
    forged, _, _ = announce_reply(other, run_id, message_id, task_id=form.metadata.src_task_id)
    assert forged.status == 403 or not forged.message.objects_to_push, forged
    honest, _, objects = announce_reply(node, run_id, message_id, task_id=form.metadata.src_task_id)
    assert set(honest.message.objects_to_push) == set(objects)


def test_a_run_that_is_over_answers_403(server):
    node = wire.Node(server).join()
    run_id, task = claimed(server)
    message_id, tree = send(task, run_id, node)
    pulled(node)
    stopped = wire.call(server, "control/stop-run", control_pb2.StopRunRequest(run_id=run_id))
    assert stopped.message.success
    object_id = wire.ids_of(tree)[0]
    for answer in (
        node.pull_object(run_id, object_id),
        node.push_object(run_id, object_id, b"x"),
        node.confirm(run_id, message_id),
        node.call("get-run", run_pb2.GetRunRequest(node=node.node, run_id=run_id)),
        announce_reply(node, run_id, message_id)[0],
    ):
        assert (answer.status, answer.code) == (403, 2007), answer
    # The task's token ended with the run.
    assert task.call("get-nodes", runtime_pb2.GetNodesRequest()).status == 401
    assert node.pull() is None


# Bundles.


def with_config(text):
    """The tests' bundle with something added to the settings."""
    files = fabs.app_files()
    return fabs.bundle(files | {"pyproject.toml": files["pyproject.toml"] + text.encode()})


def refused(server, content):
    """Whether a bundle is refused: an answer without a run counts, for the stock server says so to one too large."""
    answer = wire.call(server, "control/start-run", fabs.start_request(content))
    runs = wire.call(server, "control/list-runs", control_pb2.ListRunsRequest()).message.run_dict
    return (answer.status >= 400 or not answer.message.run_id) and not runs


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: b"", id="empty"),
        pytest.param(lambda: b"not a zip", id="not-a-zip"),
        pytest.param(lambda: fabs.bundle()[:-30], id="cut"),
        pytest.param(lambda: fabs.bundle({"a.py": b""}), id="without-settings"),
        pytest.param(lambda: with_config("\n[[["), id="broken-settings"),
        pytest.param(lambda: fabs.bundle(fabs.app_files() | {"big.py": os.urandom(11 * MIB)}), id="over-size"),
    ],
)
def test_a_bundle_that_cannot_be_read_starts_nothing(server, content):
    assert refused(server, content())


@pytest.mark.stock_differs("only the settings are looked at; the rest is left to the nodes")
@pytest.mark.parametrize("name", ["../evil.py", "judged/../../evil.py", "/etc/evil.py", "a\\..\\..\\evil.py"])
def test_a_bundle_whose_paths_leave_it_starts_nothing(server, name):
    assert refused(server, fabs.bundle(fabs.app_files() | {name: b"print()"}))


@pytest.mark.stock_differs("only the settings are looked at; the rest is left to the nodes")
def test_a_bundle_with_a_link_starts_nothing(server):
    assert refused(server, fabs.bundle(fabs.app_files() | {"judged/link.py": b"/etc/passwd"}, links=["judged/link.py"]))


@pytest.mark.stock_differs("settings of any size are unpacked in memory")
@pytest.mark.parametrize("name", ["pyproject.toml", "judged/zeros.py"])
def test_a_bundle_that_unpacks_to_a_gigabyte_starts_nothing(server, name):
    before = peak_bytes(server)
    files = fabs.app_files()
    bomb = fabs.bundle(files | {name: files.get(name, b"") + b"\n" * (1024 * MIB)}, zipfile.ZIP_DEFLATED, listed=False)
    assert len(bomb) < 10 * MIB
    assert refused(server, bomb)
    assert peak_bytes(server) - before < 64 * MIB


def peak_bytes(server):
    with open(f"/proc/{server.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# Who may do what.


def test_the_nodes_port_over_grpc_starts_nothing(world):
    server = harness.Server(world, grpc=True, isolation="process").start()
    with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as refusal:
        control_pb2_grpc.ControlStub(channel).StartRun(fabs.start_request())
    assert refusal.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED), refusal.value
    assert not wire.call(server, "control/list-runs", control_pb2.ListRunsRequest()).message.run_dict


@pytest.mark.stock_differs("one port serves everybody")
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


def test_bytes_that_are_no_message_are_refused(server):
    node = wire.Node(server).join()
    for name in wire.ANSWERS:
        answer = wire.post(server.address, f"/v1/{name}", b"\xff" * 100, node.headers())
        assert 400 <= answer.status < 500, (name, answer)
        answer = wire.post(server.address, f"/v1/{name}", b"{}", node.headers() | {"content-type": "application/json"})
        assert (answer.status, answer.code) == (415, 1002), (name, answer)
    assert wire.post(server.address, "/v1/fleet/no-such-call", b"", node.headers()).status == 404
    assert server.online() == [node.node_id]


# Whole programs.


@pytest.mark.stock_differs(
    "the message is lost with the node that held it, and its key is refused while it counts as online"
)
def test_a_node_killed_at_work_does_it_again_when_it_is_back(world):
    authority = certs.Authority(world.directory / "tls")
    server = harness.Server(world, authority=authority, auth=True).start()
    cli = harness.Cli(world, server)
    keys = [certs.node_key(world.directory / f"node-{idx}") for idx in range(2)]
    for _, public in keys:
        cli("supernode", "register", public, "it")
    nodes = [harness.SuperNode(world, server, idx, key=key).start() for idx, (key, _) in enumerate(keys)]
    server.wait_nodes(2)
    run_id = cli.submit(**golden.load()["restarts"]["config"], train_pause_s=5.0)
    harness.wait_for("both clients at work", lambda: len(world.processes("flwr-clientapp")) == 2)
    for process in [*nodes[0].descendants(), nodes[0].process]:
        process.kill()
    nodes[0].process.wait()
    nodes[0].start()
    assert server.end(run_id) == "finished:completed"
    golden.assert_equal(cli.result(run_id), "restarts")


@pytest.mark.stock_differs("a ServerApp reads whatever its server may")
def test_a_serverapp_reads_no_key_and_no_state(world):
    server, _, cli = harness.federation(world, 1, tls=True, auth=True)
    secret = world.directory / "secret"
    secret.write_text("nothing for a ServerApp")
    paths = [
        server.authority.key,
        world.directory / "state.db",
        secret,
        world.directory / "node-0",
        f"/proc/{server.pid}/environ",
    ]
    run_id = cli.submit(mode="spy", spy=",".join(map(str, paths)))
    assert server.end(run_id) == "finished:completed"
    result = cli.result(run_id)
    assert result["read"] == [], result
    assert set(result["environment"]) <= {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "PYTHONUNBUFFERED",
        "FLWR_HOME",
        "FLWR_TELEMETRY_ENABLED",
        "FLWR_DISABLE_UPDATE_CHECK",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
    }, result
