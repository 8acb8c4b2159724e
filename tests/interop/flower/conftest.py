"""A world for each test; its logs are shown when the test fails."""

import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness  # noqa: E402
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
        report = getattr(request.node, "report_call", None)
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
    config.addinivalue_line("markers", "stock_differs(reason): what the stock server is known to do otherwise")


def pytest_collection_modifyitems(items):
    """Against the stock server, what it is known to do otherwise is left out, with the reason; with
    SHEAF_INTEROP_DIFFERENCES=1 it must fail, which proves the tests that name it."""
    for item in items:
        mark = item.get_closest_marker("stock_differs")
        if mark and harness.STOCK:
            reason = f"stock: {mark.args[0]}"
            proven = os.environ.get("SHEAF_INTEROP_DIFFERENCES") == "1"
            item.add_marker(
                pytest.mark.xfail(reason=reason, strict=True) if proven else pytest.mark.skip(reason=reason)
            )


def pytest_terminal_summary(terminalreporter):
    """The table of stock peers, from the tests that ran."""
    rows = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for peer in getattr(report, "peers", []):
                rows.setdefault(peer, {"passed": 0, "failed": 0})[outcome] += 1
    if rows:
        terminalreporter.section(f"stock peers of {harness.SERVER}")
        terminalreporter.write_line("| peer | tests passed | tests failed |")
        terminalreporter.write_line("| --- | --- | --- |")
        for peer, counts in sorted(rows.items()):
            terminalreporter.write_line(f"| {peer} | {counts['passed']} | {counts['failed']} |")
