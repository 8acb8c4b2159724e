"""A ServerApp and nodes by hand: what they send in the right order, for tests to depart from."""

import json
import time

from flwr.proto import fleet_pb2, message_pb2, runtime_pb2

import fabs
import harness
import wire


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
    listing = json.dumps({"config": record_tree.object_id}).encode()
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
