"""Makes the files of this directory with NumPy and the safetensors package.

Run from anywhere: python make.py. README.md says with which versions the files kept here were made.
"""

import io
import json
import pathlib
import struct
import warnings
import zipfile

import ml_dtypes
import numpy as np
import safetensors.numpy

HERE = pathlib.Path(__file__).parent
BAD = HERE / "bad"

DTYPES = {
    "f16": "<f2", "f32": "<f4", "f64": "<f8",
    "i8": "|i1", "i16": "<i2", "i32": "<i4", "i64": "<i8",
    "u8": "|u1", "u16": "<u2", "u32": "<u4", "u64": "<u8",
    "bool": "|b1",
}


def values(name, count):
    """Value i is (i - 2) / 2 for floats, i - 2 for signed integers, i for unsigned ones, i odd for booleans."""
    index = np.arange(count)
    if name.startswith(("f", "bf")):
        return (index - 2) / 2
    if name.startswith("i"):
        return index - 2
    return index % 2 == 1 if name == "bool" else index


def array(name, *shape):
    return values(name, int(np.prod(shape))).astype(DTYPES[name]).reshape(shape)


def npy_bytes(value, version=None, allow_pickle=False):
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(out, value, version=version, allow_pickle=allow_pickle)
    return out.getvalue()


def npy_with_header(text, data=b"", version=1):
    header = text.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def make_npy():
    for name, descr in DTYPES.items():
        c = array(name, 2, 3)
        (HERE / f"{name}_c.npy").write_bytes(npy_bytes(c))
        (HERE / f"{name}_fortran.npy").write_bytes(npy_bytes(np.asfortranarray(c)))
        if c.itemsize > 1:
            (HERE / f"{name}_big.npy").write_bytes(npy_bytes(c.astype(descr.replace("<", ">"))))
    cube = array("f64", 2, 3, 4)
    (HERE / "f64_fortran_big_3d.npy").write_bytes(npy_bytes(np.asfortranarray(cube.astype(">f8"))))
    (HERE / "f32_0d.npy").write_bytes(npy_bytes(np.array(-1.5, "<f4")))
    (HERE / "f32_empty.npy").write_bytes(npy_bytes(np.zeros((0, 3), "<f4")))
    (HERE / "i64_1d.npy").write_bytes(npy_bytes(array("i64", 5)))
    (HERE / "f32_version2.npy").write_bytes(npy_bytes(array("f32", 2, 3), version=(2, 0)))
    (HERE / "f32_version3.npy").write_bytes(npy_bytes(array("f32", 2, 3), version=(3, 0)))


def make_npz():
    arrays = {
        "layers/0/weight": array("f32", 2, 3),
        "layers/0/bias": array("f64", 3),
        "größe": array("i64", 2, 2),
        "mask": array("bool", 4),
    }
    np.savez(HERE / "stored.npz", **arrays)
    np.savez_compressed(HERE / "deflated.npz", **arrays)


def make_safetensors():
    tensors = {name: array(name, 2, 3) for name in DTYPES}
    tensors["bf16"] = values("bf16", 6).astype(ml_dtypes.bfloat16).reshape(2, 3)
    tensors["scalar"] = np.array(-1.5, "<f4")
    tensors["empty"] = np.zeros((0, 3), "<f4")
    (HERE / "all.safetensors").write_bytes(safetensors.numpy.save(tensors, {"format": "np"}))


def make_bad_npy():
    f32 = npy_bytes(array("f32", 2, 3))
    bad = {
        "object": npy_bytes(np.array([None, {"a": 1}], object), allow_pickle=True),
        "structured": npy_bytes(np.zeros(2, [("a", "<f4"), ("b", "<i4")])),
        "subarray": npy_with_header(
            "{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        "text": npy_bytes(np.array(["one", "two"])),
        "octets": npy_bytes(np.array([b"one", b"two"])),
        "datetime": npy_bytes(np.array(["2020-01-01"], "datetime64[D]")),
        "timedelta": npy_bytes(np.array([1], "timedelta64[s]")),
        "complex": npy_bytes(np.array([1j], "<c8")),
        "longdouble": npy_bytes(np.array([1], np.longdouble)),
        "void2": npy_with_header(
            "{'descr': '|V2', 'fortran_order': False, 'shape': (2,), }", bytes(4)),
        "truncated": f32[:-1],
        "header_truncated": f32[:40],
        "trailing": f32 + b"\0",
        "magic": b"\x92" + f32[1:],
        "version9": f32[:6] + b"\x09" + f32[7:],
        "shape_lies": npy_with_header(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }", bytes(24)),
        "shape_overflows": npy_with_header(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), }"),
        "shape_negative": npy_with_header(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        "header_length_lies": b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f4'",
        "header_too_long": b"\x93NUMPY\x02\x00" + struct.pack("<I", 70000) + b"{'descr': '<f4'",
        "code_in_header": npy_with_header(
            "{'descr': __import__('os').name, 'fortran_order': False, 'shape': (), }", bytes(4)),
        "no_byte_order": npy_with_header(
            "{'descr': '|f4', 'fortran_order': False, 'shape': (), }", bytes(4)),
        "native_byte_order": npy_with_header(
            "{'descr': '=f4', 'fortran_order': False, 'shape': (), }", bytes(4)),
        "bool_two": npy_with_header(
            "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", b"\0\1\2"),
    }
    for name, file in bad.items():
        (BAD / f"{name}.npy").write_bytes(file)


def zip_bytes(entries):
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def patched(file, signature, offset, value, which):
    """Overwrites a 16- or 32-bit field at `offset` from the occurrence `which` of `signature`."""
    at = -1
    for _ in range(which):
        at = file.index(signature, at + 1)
    return file[:at + offset] + value + file[at + offset + len(value):]


def make_bad_npz():
    f32, ones = npy_bytes(array("f32", 2, 3)), npy_bytes(np.ones((2, 3), "<f4"))
    good = zip_bytes([("a.npy", f32), ("b.npy", ones)])
    local, central = b"PK\3\4", b"PK\1\2"
    encrypted = patched(good, local, 6, b"\1\0", 1)
    bad = {
        "object": zip_bytes([("a.npy", npy_bytes(np.array([None], object), allow_pickle=True))]),
        "foreign_entry": zip_bytes([("a.npy", f32), ("notes.txt", b"hello")]),
        "duplicate": zip_bytes([("a.npy", f32), ("a.npy", f32)]),
        "no_name": zip_bytes([(".npy", f32)]),
        "control_name": zip_bytes([("a\nb.npy", f32)]),
        "truncated": good[:-1],
        "trailing": good + b"\0",
        "prepended": b"\0" * 8 + good,
        "checksum": good.replace(f32, f32[:-1] + b"\x7f"),
        "entry_truncated": zip_bytes([("a.npy", f32[:-1])]),
        "encrypted": patched(encrypted, central, 8, b"\1\0", 1),
        "overlap": patched(good, central, 42, struct.pack("<I", 0), 2),
        "size_lies": patched(patched(good, local, 22, struct.pack("<I", 2**31), 1),
                             central, 24, struct.pack("<I", 2**31), 1),
        "empty_file": b"",
    }
    for name, file in bad.items():
        (BAD / f"{name}.npz").write_bytes(file)


def make_bad_safetensors():
    def entry(begin, end, dtype="U8", shape=None):
        return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}

    def file(header, data=bytes(8)):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    good = file({"a": entry(0, 4), "b": entry(4, 8)})
    bad = {
        "gap": file({"a": entry(0, 3), "b": entry(4, 8)}),
        "gap_at_start": file({"a": entry(4, 8)}),
        "overlap": file({"a": entry(0, 5), "b": entry(4, 8)}),
        "backwards": file({"a": entry(0, 4), "b": entry(4, 2, shape=[4])}),
        "same_range": file({"a": entry(0, 8), "b": entry(0, 8)}),
        "duplicate_key": file(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
                              b'"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}'),
        "duplicate_field": file(b'{"a":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}}'),
        "duplicate_metadata": file(b'{"__metadata__":{"k":"1","k":"2"},'
                                   b'"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'),
        "unknown_field": file({"a": entry(0, 8) | {"strides": [1]}}),
        "unknown_dtype": file({"a": entry(0, 8, dtype="F8_E4M3")}),
        "list_entry": file(b'{"a":["U8",[8],[0,8]]}'),
        "metadata_number": file({"__metadata__": {"k": 1}, "a": entry(0, 8)}),
        "shape_lies": file({"a": entry(0, 8, shape=[9])}),
        "shape_overflows": file({"a": entry(0, 8, shape=[2**32, 2**32])}),
        "rank": file({"a": entry(0, 8, shape=[1] * 32 + [8])}),
        "negative": file(b'{"a":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}}'),
        "offset_too_large": file(
            b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,18446744073709551616]}}'),
        "truncated": good[:-1],
        "trailing": good + b"\0",
        "header_truncated": good[:20],
        "header_length_lies": struct.pack("<Q", 2**20) + good[8:],
        "header_too_long": struct.pack("<Q", 2**60) + good[8:],
        "leading_space": file(b' {"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'),
        "text_after_header": file(b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}x'),
        "bool_two": file({"a": entry(0, 1, dtype="BOOL")}, b"\2"),
        "no_name": file({"": entry(0, 8)}),
        "empty_file": b"",
    }
    for name, data in bad.items():
        (BAD / f"{name}.safetensors").write_bytes(data)


if __name__ == "__main__":
    BAD.mkdir(exist_ok=True)
    make_npy()
    make_npz()
    make_safetensors()
    make_bad_npy()
    make_bad_npz()
    make_bad_safetensors()
