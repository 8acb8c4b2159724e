"""The client: its reply is a function of the message and of the node's partition, and of nothing else."""

import math
import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from judged import content

app = ClientApp()


def partition_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def examples_of(partition):
    return 10 + 7 * partition


def pause(context: Context):
    """Waits as the run asks, so that a test meets the client at work."""
    time.sleep(float(context.run_config["train-pause-s"]))


@app.train()
def train(message: Message, context: Context) -> Message:
    pause(context)
    config = message.content["config"]
    round_no, mu = int(config["server-round"]), float(config.get("proximal-mu", 0.0))
    rng = content.generator(int(context.run_config["seed"]), 10, round_no, partition_of(context))
    arrays = content.arrays_of(message.content["arrays"])
    if context.run_config["mode"] == "echo":
        arrays = {name: array + array.dtype.type(partition_of(context) + 1) for name, array in arrays.items()}
    else:
        arrays = {name: content.shifted(array, rng, mu) for name, array in arrays.items()}
    loss = loss_of(arrays)
    if context.run_config["mode"] == "fault":
        arrays = faulty(arrays, context)
    return reply(message, context, arrays=content.record_of(arrays), loss=loss)


def faulty(arrays, context: Context):
    """What the run asks one of its partitions to answer instead."""
    if partition_of(context) != int(context.run_config["fault-partition"]):
        return arrays
    fault = context.run_config["fault"]
    if fault == "raise":
        raise ValueError("the data cannot be read")
    name = "matrix.float32"
    changed = {
        "nan": lambda array: np.where(np.arange(array.size).reshape(array.shape) == 7, np.float32(np.nan), array),
        "dtype": lambda array: array.astype(np.float64),
        "shape": lambda array: array.reshape(-1),
        "fortran": np.asfortranarray,
        "big-endian": lambda array: array.astype(">f4"),
    }
    if fault == "missing":
        return {other: array for other, array in arrays.items() if other != name}
    if fault == "reversed":
        return dict(reversed(arrays.items()))
    if fault == "far":
        return far(arrays)
    return arrays | {name: changed[fault](arrays[name])}


def far(arrays):
    """What no other partition is near to."""
    return {name: array + array.dtype.type(8) for name, array in arrays.items()}


@app.train("mixed")
def mixed(message: Message, context: Context) -> Message:
    pause(context)
    wrong = content.differences(message.content["config"])
    if wrong:
        raise ValueError(f"these values arrived changed: {wrong}")
    rng = content.generator(int(context.run_config["seed"]), 11, partition_of(context))
    arrays = content.arrays_of(message.content["arrays"])
    arrays = {name: content.shifted(array, rng) for name, array in arrays.items()}
    echoed = ConfigRecord(dict(message.content["config"]))
    return reply(message, context, arrays=content.record_of(arrays), config=echoed, series=[0.5, -1.25], count=2**53)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    arrays = content.arrays_of(message.content["arrays"])
    loss = loss_of(arrays) + partition_of(context)
    return reply(message, context, loss=loss, counts=[partition_of(context), 1])


def loss_of(arrays):
    """An exact sum over the first values of each array."""
    return math.fsum(float(value) for name in sorted(arrays) for value in arrays[name].reshape(-1)[:100])


def reply(message, context, *, arrays=None, config=None, **metrics):
    partition = partition_of(context)
    metrics = MetricRecord({"num-examples": examples_of(partition), "partition": partition, **metrics})
    records = {"arrays": arrays, "config": config, "metrics": metrics}
    records = RecordDict({name: record for name, record in records.items() if record is not None})
    return Message(content=records, reply_to=message)
