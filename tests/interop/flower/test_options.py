"""The options of upstream's server: each is taken or refused by its name with the reason, and none is unknown."""

import re
import subprocess

import pytest

import harness

pytestmark = pytest.mark.skipif(harness.STOCK, reason="it is about our options")

# Values for those of the refused that take one.
VALUES = {
    "--auth-list-public-keys": "keys.csv",
    "--log-file": "file.log",
    "--log-rotation-interval-hours": "24",
    "--log-rotation-backup-count": "7",
}
REFUSED = {
    "--auth-list-public-keys",
    "--allow-runtime-dependency-installation",
    "--log-file",
    "--log-rotation-interval-hours",
    "--log-rotation-backup-count",
    "--simulation",
}


def ours(directory, *arguments):
    command = [harness.SERVER] + ([] if harness.SERVER.endswith("flower-superlink") else ["superlink"])
    return subprocess.run(
        [*command, *arguments],
        cwd=directory,
        env=harness.environment(directory),
        capture_output=True,
        text=True,
        timeout=harness.DEADLINE_S,
    )


def options_of(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def test_every_option_of_the_stock_server_is_taken_or_refused_by_name(tmp_path):
    environ = harness.environment(tmp_path)
    stock = subprocess.run(
        [harness.BIN / "flower-superlink", "--help"], env=environ, capture_output=True, text=True, check=True
    )
    # The usage lists each once; the text below mentions others' as well.
    upstream = options_of(stock.stdout.partition("\n\n")[0]) | {"--help", "--version"}
    assert len(upstream) > 15, stock.stdout
    shown = options_of(ours(tmp_path, "--help").stdout)
    taken = upstream - REFUSED
    assert taken <= shown, f"unknown here: {taken - shown}"
    assert REFUSED <= upstream, "a refusal that upstream has no option for"
    for option in REFUSED:
        refusal = ours(tmp_path, "--insecure", option, *([VALUES[option]] if option in VALUES else []))
        assert refusal.returncode != 0, option
        assert f"{option} is not served" in refusal.stderr, (option, refusal.stderr)
        assert not re.search("unexpected argument|unrecognized", refusal.stderr), refusal.stderr


@pytest.mark.parametrize(
    "option", ["--fleet-api-address", "--control-api-address", "--health-server-address", "--host", "--port"]
)
def test_an_address_that_is_none_ends_with_option_and_value(tmp_path, option):
    for value in ["nowhere:port", "1.2.3.4.5:6", "[::1", ""] if option != "--port" else ["99999", "x", "-1"]:
        refusal = ours(tmp_path, "--insecure", f"{option}={value}")
        assert refusal.returncode not in (0, None), (option, value)
        assert option in refusal.stderr and value in refusal.stderr, (option, value, refusal.stderr)


def test_health_is_told_over_grpc_as_upstream_tells_it(world):
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    (port,) = harness.free_ports(1)
    server = harness.Server(world, options=["--health-server-address", f"127.0.0.1:{port}"]).start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=30)
        assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    assert server.stop() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_server_listens_on_addresses_of_every_form(world, host):
    if host == "::1" and not harness.has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    server = harness.Server(world, host=host)
    server.address = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    harness.Program.start(server)
    server.wait_log(r"listening")
    shown = {"::1": f"[::1]:{server.port}"}.get(host, f"127.0.0.1:{server.port}")
    assert shown in server.text(), server.text()
    assert server.stop() == 0
