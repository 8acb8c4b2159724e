"""A runner without any learning framework. What a collaborator sends follows from the seed, its shard, the round and what it was
handed: element by element in float32, without sums over arrays, so that the bits are those of every machine.
"""

import math
import pathlib
import time

import numpy as np
from openfl.federated.task.runner import TaskRunner
from openfl.utilities import TensorKey, change_tags
from openfl.utilities.split import split_tensor_dict_for_holdouts

from src import models

MOMENTUM, RATE, NOISE = np.float32(0.9), np.float32(0.75), np.float32(0.05)
# Sums are taken over no more than this many elements of an array.
LOOKED_AT = 64


def is_float(array):
    return np.issubdtype(array.dtype, np.floating)


class JudgedRunner(TaskRunner):
    """`stalls` names shards that wait in their training until there is a file `go` in their workspace."""

    def __init__(self, data_loader, seed=7, model="mixed", large_elements=600_000, stalls=(), **kwargs):
        super().__init__(data_loader, **kwargs)
        self.seed, self.stalls, self.shard = seed, stalls, getattr(data_loader, "shard", 0)
        self.arrays = models.first(model, large_elements, seed)
        self.target = {
            name: models.drawn(seed, 1, index, shape=array.shape) for index, (name, array) in enumerate(self.arrays.items())
        }
        self.reset_opt_vars()
        self.required = {}

    # What the framework's runners do with a model.

    def reset_opt_vars(self):
        momenta = {f"optimizer/{name}": array for name, array in self.arrays.items() if is_float(array) and name != "large"}
        self.optimizer = {name: np.zeros(array.shape, np.float32) for name, array in momenta.items()}
        self.optimizer["optimizer/step"] = np.zeros((), np.float32)

    def get_tensor_dict(self, with_opt_vars):
        return self.arrays | (self.optimizer if with_opt_vars else {})

    def set_tensor_dict(self, tensor_dict, with_opt_vars):
        for held in (self.arrays, self.optimizer) if with_opt_vars else (self.arrays,):
            for name, array in held.items():
                if name in tensor_dict:
                    held[name] = np.array(tensor_dict[name], dtype=array.dtype).reshape(array.shape)

    def rebuild(self, round_num, tensor_dict, validation):
        """As upstream's runners: what becomes of the optimizer is the plan's `opt_treatment`."""
        if self.opt_treatment == "RESET":
            self.reset_opt_vars()
        handed = round_num > 0 and self.opt_treatment == "CONTINUE_GLOBAL" and not validation
        self.set_tensor_dict(tensor_dict, with_opt_vars=handed)

    # Tasks.

    def train_task(self, col_name, round_num, input_tensor_dict, **_):
        self.rebuild(round_num, input_tensor_dict, validation=False)
        if self.shard in self.stalls:
            pathlib.Path("waits").touch()
            while not pathlib.Path("go").exists():
                time.sleep(0.1)
        for index, name in enumerate(self.arrays):
            self.arrays[name] = self.stepped(index, name, round_num)
        self.optimizer["optimizer/step"] = self.optimizer["optimizer/step"] + np.float32(self.shard)
        key = lambda name, report: TensorKey(name, col_name, round_num, report, ("metric",))  # noqa: E731
        # `spread` is sent and averaged, and reported by nobody.
        metrics = {key("loss", True): np.array(self.distance()), key("spread", False): np.array(float(self.shard))}
        sends_optimizer = self.opt_treatment == "CONTINUE_GLOBAL"
        sent, held = split_tensor_dict_for_holdouts(self.get_tensor_dict(sends_optimizer), **self.tensor_dict_split_fn_kwargs)
        trained = {TensorKey(name, col_name, round_num, False, ("trained",)): array for name, array in sent.items()}
        local = {TensorKey(name, col_name, round_num, False, ("trained",)): array for name, array in held.items()}
        if sends_optimizer:
            self.initialize_tensorkeys_for_functions(with_opt_vars=True)
        return {**metrics, **trained}, local

    def stepped(self, index, name, round_num):
        array = self.arrays[name]
        if not is_float(array):
            return np.asarray(array + np.asarray(self.shard, array.dtype))
        noise = models.drawn(self.seed, 2, self.shard, round_num, index, shape=array.shape)
        gradient = array.astype(np.float32) - self.target[name] + NOISE * noise
        momentum = self.optimizer.get(f"optimizer/{name}")
        if momentum is not None:
            gradient = MOMENTUM * momentum + gradient
            self.optimizer[f"optimizer/{name}"] = np.asarray(gradient)
        return np.asarray((array.astype(np.float32) - RATE * gradient).astype(array.dtype))

    def distance(self):
        """How far from the target; sums are exact, so independent of their order."""
        gaps = []
        for name, array in self.arrays.items():
            if is_float(array):
                head = array.astype(np.float64).ravel()[:LOOKED_AT]
                gaps += list(np.abs(head - self.target[name].astype(np.float64).ravel()[:LOOKED_AT]))
        return math.fsum(gaps) / len(gaps)

    def validate_task(self, col_name, round_num, input_tensor_dict, apply="global", **_):
        self.rebuild(round_num, input_tensor_dict, validation=True)
        tags = change_tags(("metric",), add_field="validate_local" if apply == "local" else "validate_agg")
        score = np.array(1 / (1 + self.distance() + 0.001 * self.shard))
        return {TensorKey("acc", col_name, round_num, True, tags): score}, {}

    def audit_task(self, col_name, round_num, input_tensor_dict, **_):
        """Neither a training nor a validation by its name, so that no data size goes with it."""
        level = np.array(float(10 * self.shard + round_num))
        return {TensorKey("level", col_name, round_num, True, ("metric",)): level}, {}

    # What each task is to be handed.

    def get_required_tensorkeys_for_function(self, func_name, **kwargs):
        required = self.required[func_name]
        return required[kwargs["apply"]] if func_name == "validate_task" else required

    def initialize_tensorkeys_for_functions(self, with_opt_vars=False):
        sent = lambda optimizer: split_tensor_dict_for_holdouts(  # noqa: E731
            self.get_tensor_dict(optimizer), **self.tensor_dict_split_fn_kwargs
        )[0]
        handed = [TensorKey(name, "GLOBAL", 0, False, ("model",)) for name in sent(with_opt_vars)]
        self.required = {
            "train_task": handed,
            "audit_task": [],
            "validate_task": {
                "global": handed,
                "local": [TensorKey(name, "LOCAL", 0, False, ("trained",)) for name in sent(False)],
            },
        }

    def initialize_globals(self):
        pass

    def load_native(self, filepath, **_):
        with np.load(filepath) as arrays:
            self.set_tensor_dict({name: arrays[name] for name in arrays.files}, with_opt_vars=False)

    def save_native(self, filepath, **_):
        np.savez(filepath, **self.arrays)
