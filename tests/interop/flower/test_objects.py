"""Messages and objects that nobody honest sends: they are refused, nothing of them is kept, and the server goes on."""

import hashlib

import pytest
from flwr.proto import control_pb2, fleet_pb2, run_pb2, runtime_pb2

import harness
import wire
from hands import announce, announce_reply, claimed, leaf, message, not_taken, pulled, push, send


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


@pytest.mark.ours_alone("a message is handed out again until it is confirmed")
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


@pytest.mark.ours_alone("a call that comes again changes nothing and is answered as before")
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


@pytest.mark.ours_alone("an object is given to those it is for")
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


@pytest.mark.ours_alone("a session is of the node that it was given to")
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


@pytest.mark.peer("flwr 1.42.0: SuperNode and ServerApp with chunks of 80 MB")
def test_chunks_of_any_size_that_upstream_makes_pass(world):
    server = harness.Server(world, isolation="process").start()
    cli = harness.Cli(world, server)
    large = {"FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(80 << 20)}
    command = [harness.BIN / "flower-superexec", "--runtime-api-address", server.address, "--insecure"]
    harness.Program(world, "superexec", command, **large).start()
    node = harness.SuperNode(world, server, 0)
    node.environ |= large
    node.start()
    server.wait_nodes(1)
    run_id = cli.submit(mode="fedavg", rounds=1, min_nodes=1, large_bytes=70_000_000)
    assert server.end(run_id) == "finished:completed"
    assert node.alive()
