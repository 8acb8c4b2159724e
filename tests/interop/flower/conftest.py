"""A world for each test; its logs are shown when the test fails."""

import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness  # noqa: E402
import processes  # noqa: E402
import wire  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    setattr(item, f"report_{report.when}", report)
    if report.when == "call":
        report.peers = [mark.args[0] for mark in item.iter_markers("peer")]
    return report


@pytest.fixture
def world(tmp_path, request):
    with harness.World(tmp_path) as world:
        yield world
        show_if_failed(world, request.node)


def show_if_failed(world, item):
    report = getattr(item, "report_call", None)
    if report is not None and report.failed:
        print(world.logs())


@pytest.fixture
def server(world):
    """A server that leaves ServerApps to others, so that the test is the ServerApp."""
    server = harness.Server(world, isolation="process").start()
    yield server
    assert server.alive() and wire.healthy(server)
    assert "panicked" not in server.text()


def pytest_configure(config):
    # A runner that is told to end takes its processes with it, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "peer(name): the stock peer, its release and its transport, that the test proves"
    )
    config.addinivalue_line("markers", "ours_alone(reason): what our server does, and is asked of no other")


def pytest_collection_modifyitems(items):
    """Against the stock server, what is ours alone is left out, with what ours does as the reason; with
    SHEAF_INTEROP_DIFFERENCES=1 it must fail there, which proves the tests that are marked."""
    for item in items:
        mark = item.get_closest_marker("ours_alone")
        if mark and harness.STOCK:
            reason = f"ours alone: {mark.args[0]}"
            proven = os.environ.get("SHEAF_INTEROP_DIFFERENCES") == "1"
            item.add_marker(
                pytest.mark.xfail(reason=reason, strict=True) if proven else pytest.mark.skip(reason=reason)
            )


def pytest_terminal_summary(terminalreporter):
    processes.write_peers(terminalreporter, harness.SERVER)
