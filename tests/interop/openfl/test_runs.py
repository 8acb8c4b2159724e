"""What a result is held against its golden by: each kind of difference is found, and none is made up."""

import copy
import math

import pytest

import cells
import runs

KC = cells.LESSONS["kc"].tolerance
MODEL = {
    "sha256": "a",
    "round": 2,
    "arrays": {
        "conv.0.weight": {"shape": [2], "sum": 1.0, "first": [0.5, 0.5]},
        "norm.running_var": {"shape": [1], "sum": 2.0, "first": [2.0]},
    },
}
RESULT = {"last": MODEL, "best": None, "metrics": [{"round_number": 0, "loss": 0.5}], "collaborators": {"zeta": []}}
ARRAYS = ("last", "arrays")
CONV = (*ARRAYS, "conv.0.weight")
NORM = (*ARRAYS, "norm.running_var")
LOSS = ("metrics", 0, "loss")


def differing(place, value, tolerance, wanted=RESULT):
    """The places where a result differs that has another value in one."""
    got = copy.deepcopy(wanted)
    holder = got
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return [found for found, _, _ in runs.differences(wanted, got, tolerance, ())]


@pytest.mark.parametrize("tolerance", [None, 0, 1e-6, KC])
@pytest.mark.parametrize(
    "place, value",
    [
        (("last", "round"), 1),
        (("last",), None),
        (("best",), MODEL),
        ((*CONV, "shape"), [1, 2]),
        ((*CONV, "sum"), math.nan),
        ((*CONV, "first", 0), math.nan),
        ((*CONV, "first", 0), math.inf),
        ((*CONV, "first", 0), 5.0),
        ((*CONV, "sum"), 1.001),
        ((*NORM, "first", 0), 2.0001),
        (ARRAYS, {}),
        (LOSS, math.nan),
        (LOSS, 0.6),
        (("metrics",), []),
        (("metrics", 0), {"round_number": 0}),
        (("collaborators",), {}),
    ],
)
def test_a_difference_is_found(place, value, tolerance):
    assert differing(place, value, tolerance) == [place]


@pytest.mark.parametrize(
    "place, value, tolerance, alike",
    [
        (("last", "sha256"), "b", None, False),
        (("last", "sha256"), "b", 0, True),
        ((*CONV, "first", 0), 0.5 + 1e-7, 0, False),
        ((*CONV, "first", 0), 0.5 + 1e-7, 1e-6, True),
        ((*CONV, "sum"), 1 + 1e-5, 1e-6, True),
        ((*CONV, "first", 0), 2.0, KC, True),
        (LOSS, 0.52, KC, True),
    ],
)
def test_what_is_near_enough_depends_on_the_lesson(place, value, tolerance, alike):
    assert differing(place, value, tolerance) == ([] if alike else [place])


def test_what_is_no_number_in_both_is_alike():
    wanted = copy.deepcopy(RESULT)
    wanted["metrics"][0]["loss"] = math.nan
    assert not differing(LOSS, math.nan, 1e-6, wanted)
    assert differing(LOSS, 0.5, 1e-6, wanted) == [LOSS]
