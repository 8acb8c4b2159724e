"""Makes a trainer of plain Python functions.

    # my_trainer.py, at the site
    import sheaf_trainer

    def init(config):                      # optional; the first model
        return {"w": np.zeros(3, np.float32)}

    def train(weights, config):            # dict of arrays in, dict of arrays out
        ...
        return weights, num_examples, {"loss": loss}

    def evaluate(weights, config):         # optional
        return num_examples, {"accuracy": accuracy}

    if __name__ == "__main__":
        sheaf_trainer.run(train, init=init, evaluate=evaluate)

The functions see `config` as the plan wrote it, and with `job=True` in `run` a second argument: the whole job (round, site,
seed, …). Nothing is pickled: models travel as safetensors, everything else as JSON. Needs NumPy and nothing else.
"""

import json
import os
import struct
import sys

import numpy as np

_DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "|i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "|u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(dtype).str: name for name, dtype in _DTYPES.items()}


def read_safetensors(path):
    """The tensors of a file as writable arrays, by name, in the order of their bytes."""
    with open(path, "rb") as file:
        (header_len,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_len))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name!r}: NumPy has no type {entry['dtype']}")
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"]).copy()
    return tensors


def write_safetensors(path, tensors):
    """Writes arrays by name, in the order of the dictionary; under another name first, so that no half file is left."""
    header, blobs, offset = {}, [], 0
    for name, values in tensors.items():
        values = np.asarray(values)
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        if values.dtype.str not in _NAMES:
            raise TypeError(f"tensor {name!r} has type {values.dtype}, which a model cannot have")
        blob = values.tobytes()
        header[name] = {
            "dtype": _NAMES[values.dtype.str],
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)
    os.replace(path + ".part", path)


def run(train, init=None, evaluate=None, job=False):
    """Does the job this process was started for with the functions given."""
    with open(os.environ["SHEAF_JOB"]) as file:
        order = json.load(file)
    config, stage = order["config"], order["stage"]
    extra = (order,) if job else ()
    if stage == "init":
        if init is None:
            sys.exit("the plan asks the trainer for the first model, and there is no init function")
        weights, num_examples, metrics = init(config, *extra), 1, {}
    else:
        weights = read_safetensors(order["model_in"])
        if stage == "evaluate":
            if evaluate is None:
                sys.exit("the plan asks for an evaluation, and there is no evaluate function")
            num_examples, metrics = evaluate(weights, config, *extra)
            weights = None
        else:
            given = {name: (values.dtype, values.shape) for name, values in weights.items()}
            trained, num_examples, metrics = train(weights, config, *extra)
            # NumPy widens types easily; a model has those it was handed out with.
            weights = {
                name: np.asarray(values).astype(given[name][0], copy=False) if name in given else values
                for name, values in trained.items()
            }
    if weights is not None:
        write_safetensors(order["model_out"], weights)
    result = {
        "num_examples": float(num_examples),
        "metrics": {str(name): float(value) for name, value in metrics.items()},
    }
    with open(order["metrics_out"], "w") as file:
        json.dump(result, file, allow_nan=False)
