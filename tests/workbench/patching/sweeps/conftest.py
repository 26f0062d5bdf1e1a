"""Prompts with roles."""

import pytest
import torch

from hooks import Prompts
from workbench import tasks


@pytest.fixture(scope="module")
def task() -> tasks.Task:
    """Three pairs of 6, 4 and 5 tokens with roles, alike in their first token alone."""
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = torch.randint(5, 60, (2, 3, 6), generator=generator)
    corrupt[:, 0] = clean[:, 0]
    lengths = torch.tensor([6, 4, 5])
    answer, foil = torch.tensor([[7], [8], [9]]), torch.full((3, 1), 11)
    roles = {"END": lengths - 1, "HERE": torch.tensor([3, 1, 2])}
    pair = Prompts(clean, lengths), Prompts(corrupt, lengths)
    return tasks.Task("mine", *pair, answer, foil, roles, torch.zeros(3).long())


@pytest.fixture(scope="module")
def ioi(tiny_gqa) -> tasks.Task:
    return tasks.ioi(tiny_gqa, prompts=6, seed=0)
