"""Heads removed for real from "tiny-gqa", and the whole model with the same heads ablated."""

import pytest

from hooks import Site, edits
from workbench import heads, models, tasks

GONE = [(0, 1), (0, 2), (1, 0), (1, 1)]  # of "tiny-gqa": two of different groups, a whole group


@pytest.fixture(scope="session", name="GONE")
def _gone():
    return GONE


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def pruned(model):
    return heads.prune(model, GONE)


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0, corruption="third")


def _ablated(model, gone, value=edits.zero):
    by_layer: dict = {}
    for layer, head in gone:
        by_layer.setdefault(layer, []).append(head)
    return {Site("z", layer): value(layer, chosen) for layer, chosen in by_layer.items()}


@pytest.fixture(scope="session")
def ablated():
    """`ablated(model, gone, value)`: edits by layer, `value(layer, heads)` for each."""
    return _ablated


@pytest.fixture(scope="session")
def zeroed():
    """`zeroed(model, gone)`: edits that zero these heads."""
    return lambda model, gone: _ablated(model, gone, lambda layer, chosen: edits.zero(heads=chosen))


@pytest.fixture(scope="session")
def relative():
    """`relative(found, expected)`: the largest difference, as a part of the largest value."""
    return lambda found, expected: float((found - expected).abs().max() / expected.abs().max())
