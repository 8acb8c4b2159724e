"""A trainer as a command: softmax regression in NumPy, all examples at once.

    command = ["python3", "train.py", "shard.csv"]

It computes what the built-in `softmax` trainer computes with `batch_size = 0`, in the same precision. The files it reads
and writes are described in docs/trainers.md. Needs NumPy and nothing else.

    train.py DATA.csv [--scale 0.0625] [--classes 10] [--test TEST.csv]
"""

import argparse
import json
import os
import struct
import sys

import numpy as np

DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1", "BOOL": "|b1"}


def read_safetensors(path):
    """The tensors of a file, by name, in the order of their bytes."""
    with open(path, "rb") as file:
        (header_len,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_len))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Writes arrays by name, in the order of the dictionary."""
    names = {np.dtype(dtype).str: name for name, dtype in DTYPES.items()}
    header, blobs, offset = {}, [], 0
    for name, values in tensors.items():
        values = np.asarray(values)
        values = values.astype(values.dtype.newbyteorder("<"))
        blob = values.tobytes()
        header[name] = {
            "dtype": names[values.dtype.str],
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_csv(path, scale):
    """Features, scaled, and labels: the last column."""
    rows = np.loadtxt(path, delimiter=",", ndmin=2)
    return rows[:, :-1] * scale, rows[:, -1].astype(int)


def losses_and_errors(x, y, weight, bias):
    """The cross-entropy of each example, and the gradient of its sum by the logits."""
    logits = x @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    exp = np.exp(logits)
    total = exp.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    losses = np.log(total[:, 0]) - logits[rows, y]
    errors = exp / total
    errors[rows, y] -= 1.0
    return losses, errors


def train(x, y, weight, bias, config):
    """Gradient descent over all examples; the same rule as the built-in trainer's, term by term."""
    rate = config.get("learning_rate", 0.1)
    momentum = config.get("momentum", 0.0)
    decay = config.get("weight_decay", 0.0)
    mu = config.get("proximal_mu", 0.0)
    start = [weight.copy(), bias.copy()]
    params = [weight.copy(), bias.copy()]
    velocity = [np.zeros_like(weight), np.zeros_like(bias)]
    loss = float("nan")
    for _ in range(config.get("epochs", 1)):
        losses, errors = losses_and_errors(x, y, *params)
        loss = losses.mean()
        gradient = [errors.T @ x / len(y), errors.mean(axis=0)]
        for param, first, v, g in zip(params, start, velocity, gradient):
            v *= momentum
            v += g + decay * param + mu * (param - first)
            param -= rate * v
    return params, float(loss)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--test")
    args = parser.parse_args()

    with open(os.environ["SHEAF_JOB"]) as file:
        job = json.load(file)
    config = job["config"]
    known = {"trainer", "epochs", "learning_rate", "momentum", "weight_decay", "proximal_mu", "batch_size", "num_classes"}
    unknown = sorted(set(config) - known)
    if unknown:
        sys.exit(f"unknown configuration: {', '.join(unknown)}")
    if config.get("batch_size", 0) != 0:
        sys.exit("this trainer takes all examples at once: batch_size must be 0 or left out")

    x, y = read_csv(args.data, args.scale)
    if job["stage"] == "init":
        classes = config.get("num_classes", args.classes or int(y.max()) + 1)
        weight, bias = np.zeros((classes, x.shape[1])), np.zeros(classes)
    else:
        model = read_safetensors(os.environ["SHEAF_MODEL_IN"])
        weight = model["layer0.weight"].astype(np.float64)
        bias = model["layer0.bias"].astype(np.float64)

    metrics = {}
    if job["stage"] == "evaluate":
        if args.test:
            x, y = read_csv(args.test, args.scale)
        losses, _ = losses_and_errors(x, y, weight, bias)
        right = (x @ weight.T + bias).argmax(axis=1) == y
        metrics = {"loss": float(losses.mean()), "accuracy": float(right.mean())}
    else:
        if job["stage"] != "init":
            (weight, bias), loss = train(x, y, weight, bias, config)
            metrics = {"loss": loss}
        tensors = {"layer0.weight": weight.astype(np.float32), "layer0.bias": bias.astype(np.float32)}
        write_safetensors(os.environ["SHEAF_MODEL_OUT"], tensors)

    print(f"{job['stage']} of round {job['round']} at {job['site']}: {len(y)} examples {metrics}")
    with open(os.environ["SHEAF_METRICS_OUT"], "w") as file:
        json.dump({"num_examples": len(y), "metrics": metrics}, file)


if __name__ == "__main__":
    main()
