"""Operators on other machines: the stock `flwr login`, and what is served to whom beyond loopback."""

import http.client
import json
import re
import ssl

import pytest

import certs
import fabs
import harness
import wire
from flwr.proto import control_pb2, runtime_pb2

pytestmark = pytest.mark.ours_alone("operators log in, and nobody else is served the command")

LOGIN = ["--operator-login"]


def logged_in(cli, server, name):
    """Logs a stock command in; gives what it printed."""
    login = cli.program(f"login-{name}-{len(cli.world.programs)}", "login", "it").start()
    code = login.wait_log(r"/login/([A-Z]{4}-[A-Z]{4})").group(1)
    assert login.alive(), login.text()
    harness.sheaf(server, "login", "approve", code, name)
    harness.wait_for("the end of the login", lambda: not login.alive())
    assert login.process.returncode == 0, login.text()
    return login.text()


@pytest.fixture
def server(world):
    authority = certs.Authority(world.directory / "tls")
    return harness.Server(world, authority=authority, host="0.0.0.0", isolation="process", options=LOGIN).start()


@pytest.mark.peer("flwr 1.42.0: command over HTTP, with a login")
def test_the_stock_command_logs_in_and_works_from_anywhere_until_its_login_ends(world, server):
    cli = harness.Cli(world, server)
    refused = cli.run("ls", "it")
    assert refused.returncode != 0 and "Traceback" not in refused.stderr, refused.stderr
    text = logged_in(cli, server, "alice")
    assert "Login successful" in text
    run_id = cli.submit(mode="fedavg", rounds=1, min_nodes=1, large_bytes=4000)
    assert [int(run["run-id"]) for run in cli.json("ls", "it")["runs"]] == [run_id]
    assert cli.json("stop", run_id, "it")["success"] is True
    logins = json.loads(harness.sheaf(server, "login", "ls").stdout)
    assert [login["name"] for login in logins] == ["alice"]
    # A login outlives the server.
    server.kill9()
    server.start()
    assert len(cli.json("ls", "it")["runs"]) == 1
    harness.sheaf(server, "login", "end", "alice")
    ended = cli.run("ls", "it")
    assert ended.returncode != 0 and "Traceback" not in ended.stderr, ended.stderr
    logged_in(cli, server, "alice")
    assert len(cli.json("ls", "it")["runs"]) == 1
    credentials = (cli.home / "flwr" / "credentials.yaml").read_text()
    tokens = set(re.findall(r"access-token: (\S+)", credentials))
    assert len(tokens) == 1 and tokens.pop() not in server.text(), "a token is in no log"


@pytest.mark.peer("flwr 1.39.0: command over HTTP, with a login")
def test_an_earlier_command_logs_in_as_well(world, server):
    cli = harness.Cli(world, server, old=True)
    assert cli.run("ls", "it").returncode != 0
    logged_in(cli, server, "bob")
    assert cli.json("ls", "it")["runs"] == []


def test_nobody_else_is_served_the_command_or_a_claim(world, server):
    node = wire.Node(server).join()
    for headers in ({}, node.headers(), {"authorization": "Bearer " + "0" * 256}, {"flwr-oidc-access-token": "x"}):
        for name, request in [
            ("control/start-run", fabs.start_request()),
            ("control/list-runs", control_pb2.ListRunsRequest()),
            ("control/list-nodes", control_pb2.ListNodesRequest()),
        ]:
            answer = wire.call(server, name, request, headers)
            assert (answer.status, answer.code) == (401, 36), (name, answer)
        acquire = runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
        assert wire.call(server, "runtime/acquire-task", acquire, headers).status == 404


def test_an_operators_certificate_needs_no_login(world, server):
    files = world.directory / "state.db" / "operator"
    context = ssl.create_default_context(cafile=str(server.ca))
    context.load_cert_chain(files / "operator.pem", files / "operator.key")
    host, port = server.address.rsplit(":", 1)
    link = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
    link.request("POST", "/v1/control/list-runs", body=b"", headers={"content-type": wire.TYPE})
    assert link.getresponse().status == 200
    link.close()


def test_a_login_needs_tls(world):
    server = harness.Server(world, options=LOGIN)
    harness.Program.start(server)
    harness.wait_for("the refusal", lambda: not server.alive())
    assert server.process.returncode != 0 and "--operator-login needs TLS" in server.text()


def test_a_superexec_that_proves_the_secret_is_served_beyond_loopback(world, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    authority = certs.Authority(world.directory / "tls")
    options = [*LOGIN, "--superexec-auth-secret-file", secret]
    server = harness.Server(
        world, authority=authority, host="0.0.0.0", isolation="process", options=options
    ).start()
    acquire = runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    assert wire.call(server, "runtime/acquire-task", acquire).status == 401
    cli = harness.Cli(world, server)
    logged_in(cli, server, "alice")
    command = [harness.BIN / "flower-superexec", "--runtime-api-address", server.address]
    command += ["--root-certificates", server.ca, "--superexec-auth-secret-file", secret]
    harness.Program(world, "superexec", command).start()
    run_id = cli.submit(mode="fedavg", rounds=1, min_nodes=1, large_bytes=4000)
    harness.SuperNode(world, server, 0).start()
    harness.wait_for(
        "the end of the run",
        lambda: cli.json("ls", "it", "--run-id", run_id)["runs"][0]["status"] == "finished:completed",
        look_every_s=2,
    )
