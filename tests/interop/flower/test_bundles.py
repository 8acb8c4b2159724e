"""App bundles that cannot be read, that leave their directory or that do not fit: none starts a run."""

import os
import zipfile

import pytest
from flwr.proto import control_pb2

import fabs
import wire


MIB = 2**20


def with_config(text):
    """The tests' bundle with something added to the settings."""
    files = fabs.app_files()
    return fabs.bundle(files | {"pyproject.toml": files["pyproject.toml"] + text.encode()})


def refused(server, content):
    """Whether a bundle is refused: by a status, or by an answer without a run."""
    answer = wire.call(server, "control/start-run", fabs.start_request(content))
    runs = wire.call(server, "control/list-runs", control_pb2.ListRunsRequest()).message.run_dict
    return (answer.status >= 400 or not answer.message.run_id) and not runs


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: b"", id="empty"),
        pytest.param(lambda: b"not a zip", id="not-a-zip"),
        pytest.param(lambda: fabs.bundle()[:-30], id="cut"),
        pytest.param(lambda: fabs.bundle({"a.py": b""}), id="without-settings"),
        pytest.param(lambda: with_config("\n[[["), id="broken-settings"),
        pytest.param(lambda: fabs.bundle(fabs.app_files() | {"big.py": os.urandom(11 * MIB)}), id="over-size"),
    ],
)
def test_a_bundle_that_cannot_be_read_starts_nothing(server, content):
    assert refused(server, content())


@pytest.mark.ours_alone("every path of a bundle is checked before a run starts")
@pytest.mark.parametrize("name", ["../evil.py", "judged/../../evil.py", "/etc/evil.py", "a\\..\\..\\evil.py"])
def test_a_bundle_whose_paths_leave_it_starts_nothing(server, name):
    assert refused(server, fabs.bundle(fabs.app_files() | {name: b"print()"}))


@pytest.mark.ours_alone("a bundle with links is refused before a run starts")
def test_a_bundle_with_a_link_starts_nothing(server):
    assert refused(server, fabs.bundle(fabs.app_files() | {"judged/link.py": b"/etc/passwd"}, links=["judged/link.py"]))


@pytest.mark.ours_alone("what a bundle unpacks to is bounded")
@pytest.mark.parametrize("name", ["pyproject.toml", "judged/zeros.py"])
def test_a_bundle_that_unpacks_to_a_gigabyte_starts_nothing(server, name):
    before = peak_bytes(server)
    files = fabs.app_files()
    bomb = fabs.bundle(files | {name: files.get(name, b"") + b"\n" * (1024 * MIB)}, zipfile.ZIP_DEFLATED, listed=False)
    assert len(bomb) < 10 * MIB
    assert refused(server, bomb)
    assert peak_bytes(server) - before < 64 * MIB


def peak_bytes(server):
    with open(f"/proc/{server.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
