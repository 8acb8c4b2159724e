"""What travels: arrays of every kind and records of every value type, made from a seed, and digests over them.

Only operations whose result IEEE 754 fixes are used (no sums whose order depends on the processor, no library
functions), so that two machines make the same bytes.
"""

import hashlib
import io
import json
import math

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord

DTYPES = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]
FLOATS = ["float16", "float32", "float64"]


def generator(*key):
    return np.random.Generator(np.random.PCG64(list(key)))


def some(rng, dtype, shape):
    """Values of `dtype`, exact in it: multiples of a power of two for floats, the dtype's full range for the others."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.integers(-512, 512, size=shape) / 256).astype(kind)
    if kind.kind == "b":
        return np.asarray(rng.integers(0, 2, size=shape), dtype=kind)
    bounds = np.iinfo(kind)
    return np.asarray(rng.integers(bounds.min, bounds.max, size=shape, dtype=kind, endpoint=True))


def large(seed, size_bytes):
    """One float32 array of about `size_bytes`: past 5 MiB it travels in several chunks."""
    return some(generator(seed, 1), "float32", (size_bytes // 4,))


def mixed_arrays(seed, size_bytes):
    rng = generator(seed, 2)
    arrays = {f"matrix.{dtype}": some(rng, dtype, (3, 5)) for dtype in DTYPES}
    arrays |= {f"scalar.{dtype}": some(rng, dtype, ()) for dtype in ("float16", "float64", "int64", "bool")}
    arrays |= {f"empty.{dtype}": some(rng, dtype, (0, 4)) for dtype in ("float32", "uint8")}
    arrays["fortran.float32"] = np.asfortranarray(some(rng, "float32", (4, 6)))
    arrays["fortran.int64"] = np.asfortranarray(some(rng, "int64", (2, 3, 4)))
    arrays["big-endian.float64"] = some(rng, "float64", (7,)).astype(">f8")
    arrays["special.float32"] = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45], np.float32)
    arrays["name with spaces, ünïcode and / \\ \" 'quotes'"] = some(rng, "int32", (2,))
    arrays["large.float32"] = large(seed, size_bytes)
    # Equal halves: two chunks of one content, so fewer objects than chunks.
    arrays["repeated.float32"] = np.zeros(4_000_000, np.float32)
    return arrays


def float_arrays(seed, size_bytes):
    rng = generator(seed, 3)
    arrays = {f"matrix.{dtype}": some(rng, dtype, (3, 5)) for dtype in FLOATS}
    arrays |= {f"scalar.{dtype}": some(rng, dtype, ()) for dtype in FLOATS}
    arrays["empty.float32"] = some(rng, "float32", (0, 4))
    arrays["fortran.float32"] = np.asfortranarray(some(rng, "float32", (4, 6)))
    arrays["large.float32"] = large(seed, size_bytes)
    return arrays


def values():
    """One value of each type a ConfigRecord holds, and lists of them, with the edges of each."""
    return {
        "double": 0.1,
        "double-edge": 5e-324,
        "infinite": math.inf,
        "int": -(2**63),
        "int-edge": 2**63 - 1,
        "true": True,
        "false": False,
        "string": "grüße, 世界\n\0end",
        "string-empty": "",
        "bytes": bytes(range(256)),
        "bytes-empty": b"",
        "doubles": [0.5, -0.0, 1e308, math.inf],
        "ints": [0, -1, 2**63 - 1, -(2**63)],
        "bools": [True, False, True],
        "strings": ["", "a", "ß\n"],
        "byteses": [b"", b"\0", bytes(range(256))],
    }


def differences(record: ConfigRecord):
    """Names of the values that did not arrive as sent, by type and by value."""
    sent = values()
    lost = [name for name in sent if name not in record]
    return lost + [name for name in sent if name in record and not same(sent[name], record[name])]


def same(sent, got):
    if isinstance(sent, list):
        return isinstance(got, list) and len(sent) == len(got) and all(map(same, sent, got))
    return type(sent) is type(got) and repr(sent) == repr(got)


def shifted(array, rng, mu=0.0):
    """A reply to `array`: floats moved by multiples of 2^-8, integers and booleans by exclusive or.

    A float `x` that would move by `s` moves by `s / (1 + mu)`, which is where `(w - x - s)^2 + mu (w - x)^2` is least.
    """
    if array.dtype.kind == "f":
        step = (rng.integers(-256, 257, size=array.shape, dtype=np.int16) / 256 / (1.0 + mu)).astype(array.dtype)
        out = array + step
    else:
        mask = some(rng, array.dtype.newbyteorder("="), array.shape)
        out = np.bitwise_xor(array, mask.astype(array.dtype))
    out = np.asarray(out, dtype=array.dtype)
    return np.asfortranarray(out) if array.flags.f_contiguous and not array.flags.c_contiguous else out


def serialised(array):
    """The array as a .npy file: dtype, order, shape and bytes in one."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def digest(arrays):
    """One SHA-256 over names, dtypes, shapes, orders and bytes, in the order of names."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        body = serialised(arrays[name])
        whole.update(json.dumps([name, len(body)]).encode() + b"\n")
        whole.update(body)
    return whole.hexdigest()


def summary(arrays):
    """What tells two results apart when their digests differ: for each array its form, its digest and some values."""
    return {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(serialised(array)).hexdigest(),
            "sample": sample(array),
        }
        for name, array in sorted(arrays.items())
    }


def sample(array):
    flat = np.asarray(array).reshape(-1)
    return [repr(value) for value in flat[:: max(1, len(flat) // 16)][:16].tolist()]


def arrays_of(record: ArrayRecord):
    return {name: array.numpy() for name, array in record.items()}


def record_of(arrays):
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
