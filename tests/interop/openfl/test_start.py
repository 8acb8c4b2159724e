"""What `sheaf openfl start` is told and what it leaves: both transports on one port, another identity, how long it waits for who does not
come back, an end that is one, and the model that all rounds came to.
"""

import pathlib
import shutil
import subprocess

import pytest

import hands
import harness
import test_hands

ZETA, COL1, _ = harness.NAMES
UPDATES = [test_hands.drawn(1), test_hands.drawn(2)]


def prepared(world, pki, *options, rounds=2, **parameters):
    federation = harness.Federation(world, pki, runner=test_hands.RUNNER, rounds=rounds, **parameters)
    federation.server.command += options
    return federation


def complete_all(everybody, rounds=2):
    for number in range(rounds):
        for hand, update in zip(everybody, UPDATES):
            test_hands.complete(hand, number, update)


@pytest.mark.ours_alone("a plan says `both`")
@pytest.mark.parametrize("security", harness.SECURITY)
def test_one_port_serves_both_transports(world, pki, security):
    federation = prepared(world, pki, transport="both", security=security)
    federation.server.start()
    everybody = [hands.Grpc(federation, ZETA), hands.Rest(federation, COL1)]
    complete_all(everybody)
    test_hands.quits(federation, *everybody)
    wanted = test_hands.moved(test_hands.FIRST, test_hands.mean(UPDATES))
    test_hands.same(harness.arrays_of(federation.saved("last"))[1], wanted)


@pytest.mark.ours_alone("a plan says `both`")
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_stock_collaborator_and_one_of_the_other_transport(world, pki, transport):
    """The stock one's plan names its transport, so the federation goes by that plan's identity."""
    federation = harness.Federation(world, pki, transport=transport, runner=test_hands.RUNNER, rounds=2)
    aggregator, uuid = harness.identity(federation.server.home)
    federation.server.command += ["--federation-uuid", uuid]
    plan = federation.server.home / "plan" / "plan.yaml"
    named = f"transport_protocol: {transport}\n"
    assert plan.read_text().count(named) == 1
    plan.write_text(plan.read_text().replace(named, "transport_protocol: both\n"))
    assert harness.identity(federation.server.home) != (aggregator, uuid)
    federation.server.start()
    collaborator = federation.collaborator(ZETA).start()
    kind = hands.Rest if transport == "grpc" else hands.Grpc
    hand = kind(federation, COL1, receiver=aggregator, federation_uuid=uuid)
    for number in range(2):
        harness.wait_for(f"round {number}", lambda: hand.tasks().round_number == number)
        test_hands.complete(hand, number, UPDATES[1])
    harness.wait_for("the end", lambda: hand.tasks().quit)
    assert collaborator.end() == 0 and federation.server.end() == 0
    assert [line["round_number"] for line in federation.metrics()] == [0, 1]


@pytest.mark.ours_alone("`sheaf status` says what a plan gives up")
@pytest.mark.parametrize("security", harness.SECURITY)
def test_what_is_given_up_shows_in_status(world, pki, security):
    federation = prepared(world, pki, security=security)
    server = federation.server.start()
    sheaf = pathlib.Path(harness.SERVER).resolve()
    command = [sheaf, "--operator", "local_state/tensor.db.sheaf/operator", "status"]
    shown = subprocess.run(
        command, cwd=server.home, env=server.environment(), capture_output=True, text=True, timeout=harness.DEADLINE_S
    )
    assert shown.returncode == 0 and "round 1 of 2" in shown.stdout, shown
    said = {"mtls": None, "tls": "notice: require_client_auth is false", "plain": "notice: use_tls is false"}[security]
    assert said in shown.stdout if said else "notice:" not in shown.stdout, shown.stdout


@pytest.mark.ours_alone("`--federation-uuid` takes another identity")
@pytest.mark.parametrize("kind", [hands.Grpc, hands.Rest])
def test_another_identity(world, pki, kind):
    transport = "grpc" if kind is hands.Grpc else "rest"
    federation = prepared(world, pki, "--federation-uuid", "ours", security="plain", transport=transport)
    federation.server.start()
    federation.server.wait_log("federation ours, aggregator aggregator_ours")
    of_the_plan = kind(federation, ZETA)
    if kind is hands.Grpc:
        with hands.refused():
            of_the_plan.ping()
    else:
        assert of_the_plan.ping().status_code == 401
    claims = {"receiver": "aggregator_ours", "federation_uuid": "ours"}
    everybody = [kind(federation, name, **claims) for name in federation.names]
    header = everybody[0].tasks().header
    assert (header.sender, header.receiver, header.federation_uuid) == ("aggregator_ours", ZETA, "ours")
    complete_all(everybody)
    test_hands.quits(federation, *everybody)


@pytest.mark.ours_alone("`--quit-grace` bounds the wait for who does not come back")
def test_who_never_came_back_is_named_and_the_federation_is_over_all_the_same(world, pki):
    federation = prepared(world, pki, "--quit-grace", "1s", security="plain")
    server = federation.server.start()
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    complete_all(everybody)
    assert everybody[0].tasks().quit
    assert server.end() == 0
    assert f"never told to quit, for they did not ask: {COL1}\n" in server.text()
    assert harness.final(federation).keys() == test_hands.FIRST.keys()


@pytest.mark.ours_alone("it waits for who did not come back yet")
def test_nobody_is_named_who_came_back_in_time(world, pki):
    federation = prepared(world, pki, "--quit-grace", "10m", security="plain")
    server = federation.server.start()
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    complete_all(everybody)
    assert everybody[0].tasks().quit
    # The one that is missing is waited for: the server answers it.
    server.wait_log("the federation is over")
    assert server.alive()
    test_hands.quits(federation, *everybody)
    assert "never told to quit" not in server.text()


@pytest.mark.ours_alone("what has ended is begun again only when its state is removed")
def test_a_federation_that_has_ended_is_not_begun_again_by_accident(world, pki):
    federation = prepared(world, pki, security="plain")
    server = federation.server.start()
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    complete_all(everybody)
    test_hands.quits(federation, *everybody)
    saved = {path.name: path.read_bytes() for path in (server.home / "save").iterdir()}
    assert saved.keys() == {"init.pbuf", "last.pbuf", "best.pbuf", "last.final.safetensors"}
    with pytest.raises(RuntimeError):
        server.start()
    state = server.home / "local_state" / "tensor.db.sheaf"
    assert server.process.returncode != 0
    assert f"the federation kept in {state.relative_to(server.home)} has ended" in server.text()
    assert {path.name: path.read_bytes() for path in (server.home / "save").iterdir()} == saved
    shutil.rmtree(state)
    server.start()
    again = [hands.Grpc(federation, name) for name in federation.names]
    assert [hand.tasks().round_number for hand in again] == [0, 0]
    test_hands.same(test_hands.model_of(again[0], 0), test_hands.FIRST)


@pytest.mark.ours_alone("the model of all rounds lies beside the last")
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("deltas", [True, False])
def test_the_final_model_is_what_the_last_round_came_to(world, pki, deltas, rounds):
    federation = prepared(world, pki, security="plain", deltas=deltas, rounds=rounds)
    federation.server.start()
    everybody = [hands.Grpc(federation, name) for name in federation.names]
    model = test_hands.FIRST
    for number in range(rounds):
        updates = [test_hands.drawn(2 * number + index) for index in range(2)]
        before = model
        for hand, update in zip(everybody, updates):
            test_hands.complete(hand, number, update)
        aggregate = test_hands.mean(updates)
        model = test_hands.moved(before, aggregate) if deltas else aggregate
    test_hands.quits(federation, *everybody)
    final = harness.final(federation)
    assert final.keys() == model.keys()
    test_hands.same({name: final[name] for name in model}, model)
    test_hands.same(harness.arrays_of(federation.saved("last"))[1], before)
