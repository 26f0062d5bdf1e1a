from collections.abc import Callable
from functools import cache

import pytest
import torch

from hooks import Prompts
from workbench import models
from workbench.models import twins
from workbench.patching import Circuit, Graph
from workbench.tasks import Task


@pytest.fixture(scope="session")
def twin() -> Callable[[str], models.Model]:
    """The random twin of an architecture."""
    return cache(lambda architecture: twins.make(architecture)[0])


@pytest.fixture(scope="session")
def random_task() -> Callable[..., Task]:
    """Random tokens of several lengths, padded; each pair has its first token in common."""

    def make(prompts: int = 3, tokens: int = 7, *, seed: int = 0) -> Task:
        generator = torch.Generator().manual_seed(seed)
        clean, corrupt = torch.randint(5, 60, (2, prompts, tokens), generator=generator)
        corrupt[:, 0] = clean[:, 0]
        lengths = tokens - torch.arange(prompts) % 3
        answer, foil = torch.randint(5, 60, (2, prompts, 1), generator=generator)
        foil = torch.where(foil == answer, foil - 1, foil)
        pair = Prompts(clean, lengths), Prompts(corrupt, lengths)
        return Task("random", *pair, answer, foil, {}, torch.zeros(prompts).long())

    return make


@pytest.fixture(scope="session")
def half() -> Callable[..., Circuit]:
    """Half of a graph's edges, drawn at random."""

    def draw(graph: Graph, seed: int = 0) -> Circuit:
        generator = torch.Generator().manual_seed(seed)
        return Circuit.random(graph, graph.size // 2, generator=generator)

    return draw
