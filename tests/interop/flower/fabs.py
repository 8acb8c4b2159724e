"""Flower App Bundles by hand: as the stock command makes them, and as it never would."""

import hashlib
import io
import stat
import zipfile

import harness

DAY = (2024, 10, 1, 0, 0, 0)


def app_files():
    """The tests' app, by path inside the bundle."""
    paths = [harness.APP / "pyproject.toml", *sorted((harness.APP / "judged").glob("*.py"))]
    return {str(path.relative_to(harness.APP)): path.read_bytes() for path in paths}


def bundle(files=None, method=zipfile.ZIP_STORED, listed=True, links=()):
    """A bundle of `files`, the tests' app when none are given, and the list of its contents; `links` are symbolic."""
    files = dict(app_files() if files is None else files)
    if listed:
        lines = [f"{name},{hashlib.sha256(body).hexdigest()},{8 * len(body)}" for name, body in sorted(files.items())]
        files[".info/CONTENT"] = "\n".join(lines).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, body in files.items():
            entry = zipfile.ZipInfo(name, DAY)
            entry.external_attr = (stat.S_IFLNK | 0o777 if name in links else stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, body, compress_type=method)
    return target.getvalue()


def start_request(content=None, **overrides):
    from flwr.proto import control_pb2, fab_pb2, transport_pb2

    content = bundle() if content is None else content
    kinds = {str: "string", float: "double", int: "sint64", bool: "bool"}
    scalars = {
        name.replace("_", "-"): transport_pb2.Scalar(**{kinds[type(value)]: value}) for name, value in overrides.items()
    }
    fab = fab_pb2.Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
    return control_pb2.StartRunRequest(fab=fab, override_config=scalars)
