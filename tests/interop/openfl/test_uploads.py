"""Uploads over HTTP in whatever framing a gateway between may choose, to the same bits: in chunks, and over HTTP/2."""

import pytest

import hands
import harness
import test_hands

ZETA, COL1, _ = harness.NAMES
# Beyond what HTTP/2 lets be sent before the server makes more room, 65535 bytes, and beyond the size of one frame.
LARGE = {"large_elements": 30_000}


class Chunked(hands.Rest):
    """In chunks of HTTP/1.1."""

    piece = 1021

    def post(self, body, headers=()):
        return super().post((body[at : at + self.piece] for at in range(0, len(body), self.piece)), headers)


class TinyChunks(Chunked):
    piece = 7


class TinyFrames(hands.Rest2):
    piece = 7


def ends_with_the_bits_of_the_recipe(federation, kinds, update_of):
    federation.server.start()
    everybody = [kind(federation, name) for kind, name in zip(kinds, federation.names)]
    updates = [update_of(1), update_of(2)]
    for number in range(2):
        for hand, update in zip(everybody, updates):
            test_hands.complete(hand, number, update)
    test_hands.quits(federation, *everybody)
    first = update_of(0)
    test_hands.same(harness.arrays_of(federation.saved("last"))[1], test_hands.moved(first, test_hands.mean(updates)))


def mixed(seed):
    """The first model where there is no seed; arrays of its shapes where there is one."""
    arrays = harness.models.first("mixed", LARGE["large_elements"], 7)
    if seed:
        arrays = {name: harness.models.drawn(seed, index, shape=array.shape) for index, (name, array) in enumerate(arrays.items())}
    return {name: array.astype("float32") for name, array in arrays.items()}


@pytest.mark.parametrize("security", ["mtls", "plain"])
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((Chunked, Chunked), id="chunks"),
        pytest.param((hands.Rest2, hands.Rest), marks=pytest.mark.ours_alone("an upload comes over HTTP/2"), id="http2"),
    ],
)
def test_an_upload_of_any_framing_counts(world, pki, security, kinds):
    federation = harness.Federation(world, pki, transport="rest", security=security, runner=LARGE, rounds=2)
    ends_with_the_bits_of_the_recipe(federation, kinds, mixed)


@pytest.mark.ours_alone("an upload comes over HTTP/2")
def test_pieces_of_a_few_bytes_count_too(world, pki):
    federation = harness.Federation(world, pki, transport="rest", runner=test_hands.RUNNER, rounds=2)
    few = lambda seed: test_hands.drawn(seed) if seed else test_hands.FIRST  # noqa: E731
    ends_with_the_bits_of_the_recipe(federation, (TinyChunks, TinyFrames), few)


@pytest.mark.parametrize(
    "kind", [Chunked, pytest.param(hands.Rest2, marks=pytest.mark.ours_alone("an upload comes over HTTP/2"))]
)
def test_an_upload_that_is_none_is_refused_in_any_framing(world, pki, kind):
    federation = harness.Federation(world, pki, transport="rest", runner=test_hands.RUNNER)
    federation.server.start()
    hand = kind(federation, ZETA)
    good = hands.framed(hand.results("train", [hands.metric("loss", 1.0)], round_number=9, data_size=3))
    assert hand.post(good[:-1]).status_code == 400
    assert hand.post(good + b"more").status_code == 400
    assert hand.post(good, {"Federation-UUID": "other"}).status_code in (400, 401)
    assert hand.post(good).status_code == 200
