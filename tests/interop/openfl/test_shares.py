"""What one collaborator does is in nobody else's way: results in another's name, uploads that stand still, tensors that unfold."""

import contextlib
import gzip
import http.client
import socket

import numpy as np
import pytest
from openfl.protocols import base_pb2

import hands
import harness
import test_hands

ZETA, COL1, _ = harness.NAMES
MIB = 1024 * 1024
# Of 4 MiB each, as many as the server's budget for uploads has room for, and more.
STALLED = 40


@pytest.fixture
def federation(world, pki):
    federation = harness.Federation(
        world, pki, runner=test_hands.RUNNER, rounds=1, transport="rest", security="plain",
        pipeline=("STCPipeline", {"p_sparsity": 0.3}),
    )  # fmt: skip
    federation.server.start()
    return federation


def stalled(hand, results):
    """An upload of which all but the end was sent."""
    body = hands.framed(results)
    line = socket.create_connection((harness.HOST, int(hand.address.rpartition(":")[2])), timeout=hands.CALL_S)
    headers = {**hand.claims(), **hands.UPLOAD, "Host": hand.address, "Content-Length": len(body)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.sendall(f"POST {hands.PATHS}/tasks/results HTTP/1.1\r\n{head}\r\n".encode() + body[:-1])
    return line


def answered(line):
    """Whether the server has said anything on a connection, or ended it."""
    line.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        line.recv(1, socket.MSG_PEEK)
        return True
    return False


def test_uploads_that_stand_still_keep_nobody_else_waiting(federation):
    zeta, col1 = (hands.Rest(federation, name) for name in (ZETA, COL1))
    zeta.tasks(), col1.tasks()
    large = hands.trained("square", np.ones(MIB), round_number=0)
    with contextlib.ExitStack() as stack:
        results = zeta.results("train", [large], round_number=0, data_size=1)
        lines = [stack.enter_context(stalled(zeta, results)) for _ in range(STALLED)]
        test_hands.complete(col1, 0, test_hands.drawn(1))
        assert not all(answered(line) for line in lines), "it was answered only when nothing stood still any more"
        federation.server.wait_log(rf'sender="{COL1}".*task="train".*outcome=accepted')


def test_results_in_anothers_name_do_not_count(federation):
    zeta, col1 = (hands.Rest(federation, name) for name in (ZETA, COL1))
    zeta.tasks(), col1.tasks()
    task = "aggregated_model_validation"
    body = hands.framed(col1.results(task, [hands.score(0.25)], round_number=0, data_size=3))
    assert zeta.post(body).status_code == http.client.BAD_REQUEST
    # Had it counted, nobody would wait for this one.
    test_hands.complete(col1, 0, test_hands.drawn(2))
    federation.server.wait_log(rf'sender="{COL1}".*task="{task}".*outcome=accepted')
    assert "outcome=ignored" not in federation.server.text()


def test_what_unfolds_is_bounded_by_the_models_tensors(federation):
    zeta = hands.Rest(federation, ZETA)
    zeta.tasks()
    length = 64 * MIB
    extra = base_pb2.NamedTensor(
        name="beside", round_number=0, lossless=False, tags=["lossy_compressed", "trained"], data_bytes=gzip.compress(bytes(4 * length))
    )
    extra.transformer_metadata.add(int_list=[length])
    extra.transformer_metadata.add(int_to_float={0: 0.0})
    extra.transformer_metadata.add()
    answer = zeta.post(hands.framed(zeta.results("train", [extra], round_number=0, data_size=1)))
    assert answer.status_code == http.client.BAD_REQUEST and "beside" in answer.text, answer.text
