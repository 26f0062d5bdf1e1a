"""Every analysis of heads, of a model some of whose heads are gone.

What a head that is left is found to do is what the whole model gives while the others are zeroed.
"""

import contextlib
import functools
import itertools

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import heads, models, tasks
from workbench.models import twins

GONE = {
    "Llama": [(0, 1), (1, 0), (1, 1)],  # one of a group, and a whole group
    "GPT-2": [(0, 0), (0, 2), (1, 3)],
    "tiny-gqa": [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1)],  # a whole layer, and one of a group
    "planted/duplicate-gpt2": [(0, 1), (0, 5), (1, 0), (1, 4)],
    "planted/duplicate-gqa-llama": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 5)],
}


PLANTED = [name for name in GONE if name.startswith("planted/")]


@pytest.fixture(scope="session", name="PLANTED")
def _planted():
    return PLANTED


class Case:
    """A model, the same without some heads, and prompts."""

    def __init__(self, name: str) -> None:
        made = twins.make(name, seed=1)[0] if name in twins.ARCHITECTURES else models.load(name)
        self.model, self.gone = made, GONE[name]
        self.pruned = heads.prune(made, self.gone)
        if name.startswith("planted/"):
            self.task = tasks.planted(made, prompts=12, seed=1)
        elif name == "tiny-gqa":
            self.task = tasks.ioi(made, prompts=12, seed=0, corruption="third")
        else:
            self.task = tasks.induction(made, prompts=12, seed=0, period=(5, 8))

    @functools.cached_property
    def left(self) -> list[tuple[int, int]]:
        every = itertools.product(range(self.model.cfg.n_layers), range(self.model.cfg.n_heads))
        return [head for head in every if head not in self.gone]

    @functools.cached_property
    def missing(self) -> torch.Tensor:
        """True for the heads that are gone."""
        found = torch.zeros(self.model.cfg.n_layers, self.model.cfg.n_heads, dtype=torch.bool)
        found[tuple(zip(*self.gone, strict=True))] = True
        return found

    @contextlib.contextmanager
    def zeroed(self):
        """The whole model, the heads that are gone held at zero."""
        by_layer: dict = {}
        for layer, head in self.gone:
            by_layer.setdefault(layer, []).append(head)
        held = {Site("z", layer): edits.zero(heads=some) for layer, some in by_layer.items()}
        with intervening(self.model, held):
            self.model(self.task.clean)  # what reads patterns alone ends before the last z
            yield

    def nan_where_gone(self, values: torch.Tensor) -> None:
        """`values` end in layer and head."""
        assert values.isnan().equal(self.missing.expand(values.shape))

    def same(self, found: torch.Tensor, expected: torch.Tensor, *, atol: float = 1e-4) -> None:
        """`found` is `expected` where heads are left, and NaN elsewhere."""
        self.nan_where_gone(found)
        assert_close(found[..., ~self.missing], expected[..., ~self.missing], rtol=1e-3, atol=atol)


@pytest.fixture(params=list(GONE))
def name(request) -> str:
    return request.param


@functools.cache
def made(name: str) -> Case:
    return Case(name)


@pytest.fixture(scope="session", name="made")
def _made():
    return made


@pytest.fixture(params=list(GONE))
def case(request) -> Case:
    return made(request.param)


def types_of(model, task):
    return heads.types(model, task, prompts=8, period=(5, 8), seed=0)


@pytest.fixture(scope="module")
def types():
    return functools.cache(lambda name: types_of(made(name).pruned, made(name).task))
