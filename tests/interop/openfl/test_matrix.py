"""Whole federations: stock collaborators against the aggregator, by lesson, transport and security.

Every collaborator and the aggregator end with 0. What the aggregator saved, what it wrote down of each round, and what each
collaborator made of what it was handed are those of the stock aggregator, kept in golden.json.
"""

import pytest

import cells
import runs


def cases():
    for cell in cells.CELLS:
        yield pytest.param(cell, id=cell.name, marks=[] if cell.name in cells.ALWAYS else [pytest.mark.seldom])


@pytest.mark.parametrize("cell", cases())
def test_federation_ends_as_with_the_stock_aggregator(world, pki, cell):
    federation = cells.federation(world, pki, cell.lesson, transport=cell.transport, security=cell.security)
    cells.run(federation, cell.lesson)
    runs.assert_equal(runs.outcome(federation), cell.lesson)
