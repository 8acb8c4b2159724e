"""Clients of the legacy protocol on `sheaf start-server`: the golden History, and what goes wrong."""

import json
import re

import numpy as np
import pytest

import harness
import legacy
import legacy_wire

pytestmark = pytest.mark.skipif(harness.STOCK, reason="start-server is ours")
PEER = "flwr 1.42.0: start_client"
OLD_PEER = "flwr 1.39.0: start_client"


@pytest.fixture
def place(world):
    """An address, and a maker of servers there."""
    (port,) = harness.free_ports(1)
    address = f"127.0.0.1:{port}"

    def make(rounds=2, clients=2, *options, **more):
        server = legacy.server(world, address, rounds, clients, *options, **more).start()
        # The words of start-up: the port itself must not be tried, for a connection is a client.
        server.wait_log("waiting for clients at")
        return server

    make.address = address
    return make


def ended(server, *clients):
    for program in (server, *clients):
        harness.wait_for(f"the end of {program.name}", lambda program=program: not program.alive())
    assert [program.process.returncode for program in (server, *clients)] == [0] * (1 + len(clients))


@pytest.mark.peer(PEER)
@pytest.mark.parametrize(
    "old", [False, pytest.param(True, marks=pytest.mark.peer(OLD_PEER))], ids=["1.42", "1.42 and 1.39"]
)
def test_two_stock_clients_give_the_golden_history_and_leave(world, place, tmp_path, old):
    model = tmp_path / "model.npz"
    server = place(2, 2, "--output", model)
    clients = [
        legacy.client(world, place.address, 0).start(),
        legacy.client(world, place.address, 1, old=old).start(),
    ]
    ended(server, *clients)
    legacy.assert_equal(legacy.history_in(server.text()))
    assert all("Disconnect and shut down" in client.text() for client in clients)
    with np.load(model) as archive:
        arrays = [archive[name] for name in archive.files]
    wanted = legacy.final(rounds=2, partitions=[0, 1])
    assert [(array.dtype, array.shape) for array in arrays] == [(array.dtype, array.shape) for array in wanted]
    for array, exact in zip(arrays, wanted, strict=True):
        np.testing.assert_allclose(array, exact, rtol=2 * np.finfo(exact.dtype).eps, atol=0)


@pytest.mark.peer(PEER)
def test_the_table_is_for_people(world, place):
    server = place(1, 1, table=True)
    client = legacy.client(world, place.address, 0).start()
    ended(server, client)
    assert re.search(r"^ROUND +STAGE +CLIENTS +LOSS +METRICS$", server.text(), re.MULTILINE)
    assert re.search(r"^1 +fit +1 of 1 +half 0.500000, partition 0.000000$", server.text(), re.MULTILINE)
    assert re.search(r"^1 +evaluate +1 of 1 +\d\.\d{6} +accuracy 0.250000$", server.text(), re.MULTILINE)


@pytest.mark.peer(PEER)
def test_a_client_killed_at_work_is_replaced_by_one_that_came_late(world, place):
    server = place(2, 2)
    first = legacy.client(world, place.address, 0).start()
    slow = legacy.client(world, place.address, 1, hang="fit").start()
    slow.wait_log("HANGING")
    late = legacy.client(world, place.address, 1, name="late").start()
    server.wait_log("client-3 is present")
    slow.kill9()
    server.wait_log("client-[12] is lost: it left")
    ended(server, first, late)
    legacy.assert_equal(legacy.history_in(server.text()))


@pytest.mark.peer(PEER)
def test_a_broken_client_is_named_and_dropped_and_the_run_goes_on(world, place):
    server = place(1, 1, "--grpc-max-message-length", 1 << 20)
    for answer, words in [
        (legacy_wire.WRONG_KIND, "answered with evaluate_res, not get_parameters_res"),
        (legacy_wire.OVERSIZE, "1048576"),
    ]:
        code, details = legacy_wire.answer_first(place.address, answer)
        assert code == "INVALID_ARGUMENT" and words in details, (code, details)
        assert words in server.text()
    client = legacy.client(world, place.address, 0).start()
    ended(server, client)


@pytest.mark.peer(PEER)
def test_a_killed_server_goes_on_with_the_clients_that_come_back(world, place, tmp_path):
    options = ("--data-dir", tmp_path / "data", "--output", tmp_path / "model.npz", "--name-property", "name")
    server = place(2, 2, *options)
    named = [legacy.client(world, place.address, partition, named=True, hang="evaluate") for partition in range(2)]
    for client in named:
        client.start()
    for client in named:
        client.wait_log("HANGING")
    server.kill9()
    # A start_client process ends with its connection: who comes back is a new one.
    for client in named:
        client.kill9()
    server = place(2, 2, *options, name="again")
    server.wait_log("going on with run")
    again = [
        legacy.client(world, place.address, partition, named=True, name=f"again-{partition}").start()
        for partition in range(2)
    ]
    ended(server, *again)
    legacy.assert_equal(legacy.history_in(server.text()))
    # Once more: the run is over, and its History is told again.
    server = legacy.server(world, place.address, 2, 2, *options, name="told-again").start()
    ended(server)
    legacy.assert_equal(legacy.history_in(server.text()))
    server = legacy.server(world, place.address, 3, 2, *options, name="other-plan").start()
    harness.wait_for("the refusal", lambda: not server.alive())
    assert server.process.returncode == 6 and "another plan" in server.text()


@pytest.mark.peer(PEER)
def test_an_interrupted_server_tells_clients_when_to_come_back(world, place, tmp_path):
    server = place(5, 2, "--data-dir", tmp_path / "data")
    client = legacy.client(world, place.address, 0).start()
    server.wait_log("folded into model")
    assert server.stop() == 0
    client.wait_log(r"re-establish connection after 30 second")


@pytest.mark.peer(PEER)
def test_clients_connect_over_tls_and_take_the_settings_of_a_plan(world, place, tmp_path):
    import certs

    authority = certs.Authority(tmp_path / "tls")
    np.savez(tmp_path / "first.npz", *legacy.initial())
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[run]\nname = "settings"\nrounds = 1\n[model]\ninit = "first.npz"\n[strategy]\nkind = "median"\n'
        '[cohort]\nmin = 1\n[task.train]\nepochs = 2\nrate = 0.5\nname = "ß"\nshuffle = true\n'
        '[task.evaluate]\nmetric = "loss"\nbatch = 8\n'
    )
    tls = ("--ssl-certfile", authority.certificate, "--ssl-keyfile", authority.key)
    server = place(None, None, "--plan", plan, *tls)
    client = legacy.client(world, place.address, 0, ca=authority.ca).start()
    ended(server, client)
    told = [json.loads(line.removeprefix("CONFIG ")) for line in client.text().splitlines() if line.startswith("CONFIG ")]
    assert told == [{"epochs": 2, "rate": 0.5, "name": "ß", "shuffle": True}, {"batch": 8}]
    assert "GET_PARAMETERS" not in client.text(), "the first model was a file"
