"""A native site's trainer that does what a partition of the tests' app does: so that both can train one model.

    python tests/interop/flower/twin.py PARTITION SEED      # as the command of an `exec` trainer

Reads and writes safetensors itself, with NumPy alone.
"""

import json
import os
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "app"))

from judged import client_app, content  # noqa: E402

DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
NAMES = {np.dtype(text): name for name, text in DTYPES.items()}


def read(path):
    file = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header.pop("__metadata__", None)

    def array(about):
        begin, end = (start + offset for offset in about["data_offsets"])
        return np.frombuffer(file[begin:end], DTYPES[about["dtype"]]).reshape(about["shape"])

    return {name: array(about) for name, about in header.items()}


def write(path, arrays):
    header, body = {}, b""
    for name, array in arrays.items():
        array = np.asarray(array)
        begin, body = len(body), body + array.tobytes()
        about = {"dtype": NAMES[array.dtype], "shape": array.shape, "data_offsets": [begin, len(body)]}
        header[name] = about
    head = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(len(head).to_bytes(8, "little") + head + body)


def main(partition, seed):
    job = json.loads(pathlib.Path(os.environ["SHEAF_JOB"]).read_text())
    arrays = read(job["model_in"])
    if job["stage"] == "train":
        rng = content.generator(seed, 10, job["round"], partition)
        # The order in which the app draws for them is the model's, whatever that of a file is.
        names = content.float_arrays(seed, 4)
        arrays = {name: content.shifted(arrays[name], rng) for name in names}
        write(job["model_out"], arrays)
    metrics = {"loss": client_app.loss_of(arrays) + partition}
    answer = {"num_examples": client_app.examples_of(partition), "metrics": metrics}
    pathlib.Path(job["metrics_out"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
