"""Writes objects.txt: one object of each type and two empty ones, a line `<type> <id> <hex>`.

Needs `pip install flwr==1.42.0`.
"""
import numpy as np

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_type_from_object_content
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 42, 1, 1
arrays = ArrayRecord({"w": Array(np.arange(3, dtype=np.float32)), "b": Array(np.ones(2, dtype=np.float64))})
content = RecordDict({"arrays": arrays, "config": ConfigRecord({"lr": 0.5}), "metrics": MetricRecord({"loss": 1.5})})
message = Message(content=content, dst_node_id=7, message_type="train", ttl=3600.0, group_id="1")
things = list(get_all_nested_objects(message).values()) + [ConfigRecord({}), RecordDict()]
with open("objects.txt", "w") as out:
    for thing in things:
        raw = thing.deflate()
        out.write(f"{get_object_type_from_object_content(raw)} {thing.object_id} {raw.hex()}\n")
