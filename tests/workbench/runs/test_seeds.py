"""Global random state: set for a run, and put back after it."""

import random
from contextlib import nullcontext

import numpy
import pytest
import torch

from workbench import runs
from workbench.runs.seeds import seeded


@pytest.mark.parametrize("way", ["plain", "fail"])
def test_global_random_state_is_as_before_after_a_run(noise, way):
    before = (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist())
    with pytest.raises(ValueError) if way == "fail" else nullcontext():
        runs.record(noise.run, noise.Config(way=way))

    assert (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist()) == before


def test_libraries_draw_the_same_from_the_same_seed_and_go_on_as_before():
    # Not through a run: the type checker of the tests draws from Python's generator itself.
    def drawn() -> list[float]:
        return [random.random(), float(numpy.random.rand()), float(torch.rand(()))]

    def states() -> list:
        numpys = numpy.random.get_state()[1].tolist()
        return [random.getstate(), numpys, torch.get_rng_state().tolist()]

    before = states()
    with seeded(3):
        first = drawn()
    with pytest.raises(KeyError), seeded(3):
        assert drawn() == first
        raise KeyError
    with seeded(4):
        others = drawn()

    assert states() == before
    assert all(one != other for one, other in zip(first, others, strict=True))
