"""The stock commands around a federation: workspaces and certificates made by `fx`, its ping, and the aggregator under each of its
names.
"""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from openfl.interface.model import get_model

import cells
import hands
import harness
import runs
import test_hands

FX = harness.BIN / "fx"
ZETA, COL1, _ = harness.NAMES


def fx(directory, *arguments, check=True):
    done = subprocess.run(
        [FX, *arguments],
        cwd=directory,
        env=harness.environment(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * harness.DEADLINE_S,
    )
    assert not check or done.returncode == 0, f"fx {arguments}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.mark.seldom
def test_a_workspace_that_the_commands_made(world, pki):
    """Also holds the workspaces of all other tests against those that the commands make."""
    federation = cells.federation(world, pki, "conv")
    made = world.directory / "made"
    fx(world.directory, "workspace", "create", "--prefix", made, "--template", "no-op")
    shutil.copytree(harness.SOURCE / "src", made / "src", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "plan" / "plan.yaml").write_text(yaml.dump(federation.config))
    (made / "plan" / "data.yaml").write_text("")
    (made / "plan" / "cols.yaml").write_text("")
    fx(made, "workspace", "certify")
    fx(made, "aggregator", "generate-cert-request", "--fqdn", harness.HOST)
    fx(made, "aggregator", "certify", "--fqdn", harness.HOST, "--silent")
    for shard, name in enumerate(federation.names, 1):
        own = world.directory / name
        fx(made, "collaborator", "create", "-n", name, "-d", str(shard), "--silent")
        shutil.rmtree(own / "cert")
        fx(own, "collaborator", "generate-cert-request", "-n", name, "--silent")
        request = f"col_{name}_to_agg_cert_request.zip"
        shutil.copy(own / request, made)
        fx(made, "collaborator", "certify", "-n", name, "--request-pkg", request, "--silent")
        signed = f"agg_to_col_{name}_signed_cert.zip"
        shutil.copy(made / signed, own)
        fx(own, "collaborator", "certify", "--import", signed)
    fx(made, "plan", "initialize", "-a", harness.HOST)
    for file in ("plan/plan.yaml", "plan/cols.yaml", "plan/data.yaml", "save/init.pbuf"):
        assert (made / file).read_bytes() == (federation.server.home / file).read_bytes(), file
    federation.server.home = made
    cells.run(federation, "conv")
    runs.assert_equal(runs.outcome(federation), "conv")


@pytest.mark.parametrize(
    "transport, security",
    [("grpc", "mtls"), ("rest", "mtls"), pytest.param("rest", "plain", marks=pytest.mark.seldom)],
)
def test_ping(world, pki, transport, security):
    federation = harness.Federation(world, pki, transport=transport, security=security, runner=test_hands.RUNNER)
    federation.server.start()
    done = fx(world.directory / ZETA, "collaborator", "ping", "-n", ZETA)
    assert "is reachable" in done.stdout.replace("\n", " ")


def test_the_aggregator_called_as_fx(world, pki):
    federation = harness.Federation(world, pki, security="plain", runner=test_hands.RUNNER, rounds=1)
    program = FX
    if not harness.STOCK:
        program = world.directory / "fx"
        program.symlink_to(pathlib.Path(harness.SERVER).absolute())
    federation.server.command = [str(program), "aggregator", "start"]
    federation.server.start()
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    for hand in everybody:
        test_hands.complete(hand, 0, test_hands.drawn(1))
    test_hands.quits(federation, *everybody)


def test_a_saved_model_becomes_one_of_the_runners_own(world, pki):
    """The stock package reads what the aggregator saved, by its command and by its function, which gives the runner itself."""
    federation = harness.Federation(world, pki, security="plain", runner=test_hands.RUNNER, rounds=2)
    home = federation.server.start().home
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    updates = [test_hands.drawn(1), test_hands.drawn(2)]
    for number, value in enumerate((0.5, 0.25)):
        for hand, update in zip(everybody, updates):
            test_hands.complete(hand, number, update, value=value)
    test_hands.quits(federation, *everybody)
    models = {"best": test_hands.FIRST, "last": test_hands.moved(test_hands.FIRST, test_hands.mean(updates))}
    for which, wanted in models.items():
        fx(home, "model", "save", "-i", f"save/{which}.pbuf", "-o", f"{which}.npz")
        with np.load(home / f"{which}.npz") as native:
            test_hands.same(dict(native), wanted)
        files = [home / "plan" / file for file in ("plan.yaml", "cols.yaml", "data.yaml")]
        runner = get_model(*map(str, files), str(home / "save" / f"{which}.pbuf"), None)
        test_hands.same(runner.get_tensor_dict(False), wanted)


def test_a_collaborator_with_somebody_elses_certificate_asks_in_vain(world, pki):
    federation = harness.Federation(world, pki, runner=test_hands.RUNNER)
    federation.server.start()
    client = world.directory / ZETA / "cert" / "client"
    for suffix in ("crt", "key"):
        shutil.copy(pki / "client" / f"col_{COL1}.{suffix}", client / f"col_{ZETA}.{suffix}")
    collaborator = federation.collaborator(ZETA).start()
    collaborator.wait_log("UNAUTHENTICATED")
    assert collaborator.alive() and federation.server.alive()
    assert not federation.metrics()


@pytest.mark.parametrize("missing", ["plan/plan.yaml", "plan/cols.yaml", "save/init.pbuf", "cert/server/agg_localhost.key"])
def test_the_aggregator_ends_and_names_what_is_missing(world, pki, missing):
    federation = harness.Federation(world, pki, runner=test_hands.RUNNER)
    (federation.server.home / missing).unlink()
    with pytest.raises(RuntimeError):
        federation.server.start()
    assert federation.server.process.returncode != 0
    assert missing in federation.server.text()


def test_a_plan_with_secure_aggregation_is_refused_by_name(world, pki):
    # The stock aggregator ends too: what its own needs is not among the requirements.
    federation = harness.Federation(world, pki, runner=test_hands.RUNNER, aggregator={"secure_aggregation": True})
    with pytest.raises(RuntimeError):
        federation.server.start()
    assert federation.server.process.returncode != 0
    assert "secure_aggregation" in federation.server.text()
