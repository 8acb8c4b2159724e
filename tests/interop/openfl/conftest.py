"""A world for each test, with its logs when the test fails; one set of certificates for all of them."""

import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

# An idle channel looks for what its server says every 5 s unless it is told otherwise: twice that is how long a server that ends waits for it.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100")

import tables  # noqa: E402

if os.environ.get("SHEAF_OPENFL_SERVER", "stock") == "stock":
    os.environ |= tables.IN_ORDER
# Before all others: it has openfl find its stand-in for torch.
import golden  # noqa: E402, F401, I001
import harness  # noqa: E402
import processes  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    setattr(item, f"report_{report.when}", report)
    if report.when == "call" and "world" in item.funcargs:
        report.peers = sorted(item.funcargs["world"].peers)
    return report


@pytest.fixture
def world(tmp_path, request):
    with harness.World(tmp_path) as world:
        yield world
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            print(world.logs())


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """The keys and certificates of an aggregator and three collaborators."""
    return harness.make_pki(tmp_path_factory.mktemp("pki") / "workspace")


def pytest_configure(config):
    # A runner that is told to end takes its processes with it, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "ours_alone(reason): what our aggregator does, and is asked of no other")
    config.addinivalue_line("markers", "seldom: runs with SHEAF_INTEROP_OPENFL=all only")


def pytest_terminal_summary(terminalreporter):
    processes.write_peers(terminalreporter, harness.SERVER)


def pytest_collection_modifyitems(config, items):
    """Against the stock aggregator, what is ours alone is left out, with what ours does as the reason; with
    SHEAF_INTEROP_DIFFERENCES=1 it must fail there, which proves the tests that are marked."""
    left_out = [item for item in items if item.get_closest_marker("seldom") and os.environ.get("SHEAF_INTEROP_OPENFL") != "all"]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        mark = item.get_closest_marker("ours_alone")
        if mark and harness.STOCK:
            reason = f"ours alone: {mark.args[0]}"
            proven = os.environ.get("SHEAF_INTEROP_DIFFERENCES") == "1"
            item.add_marker(
                pytest.mark.xfail(reason=reason, strict=True) if proven else pytest.mark.skip(reason=reason)
            )
