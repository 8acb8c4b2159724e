"""The ServerApp: the stock FedAvg, with replies put in the order of partitions so that sums do not depend on arrival.

Prints `PHASE …` as it goes, by which tests know how far it is, and at the end one line `RESULT {…}`.
"""

import json
import os
import pathlib
import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from judged import content

app = ServerApp()


def partition_of(reply: Message):
    return -1 if reply.has_error() else reply.content["metrics"]["partition"]


def phase(*words):
    print("PHASE", *words, flush=True)


class OrderedFedAvg(FedAvg):
    """The stock strategy; replies reach it sorted, and each round's wall time is kept."""

    def __init__(self, **options):
        super().__init__(**options)
        self.began_s = 0.0
        self.rounds_s = []

    def configure_train(self, server_round, arrays, config, grid):
        phase("train", server_round)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.began_s = time.monotonic()
        return messages

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.rounds_s.append(time.monotonic() - self.began_s)
        phase("replies", server_round, len(replies))
        return super().aggregate_train(server_round, sorted(replies, key=partition_of))

    def aggregate_evaluate(self, server_round, replies):
        return super().aggregate_evaluate(server_round, sorted(replies, key=partition_of))


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    phase("start", os.getpid())
    if config["mode"] == "spy":
        print("RESULT " + json.dumps({"read": readable(config["spy"]), "environment": sorted(os.environ)}), flush=True)
        return
    result = {}
    arrays = {}
    if config["mode"] in ("all", "mixed"):
        mixed = exchange(grid, config)
        arrays |= {f"mixed.{name}": array for name, array in mixed.items()}
    if config["mode"] != "mixed":
        averaged, result = average(grid, config)
        arrays |= averaged
    result["sha256"] = content.digest(arrays)
    result["arrays"] = content.summary(arrays)
    write(config["out"], result, arrays)
    phase("end")
    print("RESULT " + json.dumps(result), flush=True)


def readable(paths):
    """Those of the paths that this process can open and read from."""
    found = []
    for path in paths.split(","):
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError:
            continue
        found.append(path)
    return found


def exchange(grid, config):
    """Sends every dtype and value type to every node; gives each reply's arrays under the node's partition."""
    phase("mixed")
    nodes = wait_for_nodes(grid, int(config["min-nodes"]))
    arrays = content.record_of(content.mixed_arrays(int(config["seed"]), int(config["large-bytes"])))
    record = RecordDict({"arrays": arrays, "config": ConfigRecord(content.values())})
    messages = [Message(content=record, dst_node_id=node, message_type="train.mixed") for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=float(config["message-timeout-s"])))
    phase("mixed-replies", len(replies))
    merged = {}
    for reply in sorted(replies, key=partition_of):
        if reply.has_error():
            raise RuntimeError(f"node {reply.metadata.src_node_id}: {reply.error.code} {reply.error.reason}")
        wrong = content.differences(reply.content["config"])
        if wrong:
            raise ValueError(f"these values came back changed: {wrong}")
        arrays = content.arrays_of(reply.content["arrays"])
        merged |= {f"{partition_of(reply)}.{name}": array for name, array in arrays.items()}
    if len(replies) != len(messages):
        raise RuntimeError(f"{len(replies)} of {len(messages)} replies")
    return merged


def wait_for_nodes(grid, wanted):
    while len(nodes := list(grid.get_node_ids())) < wanted:
        time.sleep(0.5)
    return nodes


def average(grid, config):
    size = int(config["large-bytes"])
    echo = config["mode"] == "echo"
    if echo:
        initial = {"large.float32": content.large(int(config["seed"]), size)}
    else:
        initial = content.float_arrays(int(config["seed"]), size)
    nodes = int(config["min-nodes"])
    strategy = OrderedFedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0 if echo else 1.0,
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    began_s = time.monotonic()
    end = strategy.start(
        grid=grid,
        initial_arrays=content.record_of(initial),
        num_rounds=int(config["rounds"]),
        timeout=float(config["message-timeout-s"]),
    )
    metrics = {
        "train": by_round(end.train_metrics_clientapp),
        "evaluate": by_round(end.evaluate_metrics_clientapp),
        "total_s": time.monotonic() - began_s,
        "rounds_s": strategy.rounds_s,
    }
    return content.arrays_of(end.arrays), metrics


def by_round(metrics):
    return {str(round_no): dict(record) for round_no, record in metrics.items()}


def write(out, result, arrays):
    if not out:
        return
    directory = pathlib.Path(out)
    np.savez(directory / "final.npz", **{name.replace("/", "|"): array for name, array in arrays.items()})
    (directory / "result.json").write_text(json.dumps(result, indent=1))
