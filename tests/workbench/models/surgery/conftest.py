"""Twins, which of their heads are kept, and the same with the others held at zero."""

import pytest
import torch

from hooks import Prompts, Site, edits
from workbench.models import twins

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]
OTHERS = ["Mistral", "Qwen 2", "Gemma 2", "GPT-NeoX, sequential"]
ALL = range(4)
KEPT = {
    "a head of each layer gone": [[0, 1, 3], [0, 2, 3], [1, 2, 3]],
    "whole groups gone": [[0, 1], [2, 3], [0, 1]],
    "uneven groups": [[0, 2, 3], [0, 1, 2], [0, 1, 3]],
    "the first layer gone": [[], [1, 3], [0]],
    "the last layer gone": [[3], [0, 1, 2], []],
    "nearly all gone": [[], [2], []],
}


@pytest.fixture(scope="session", name="KEPT")
def _kept():
    return KEPT


@pytest.fixture(scope="module")
def made():
    """Each twin once; float64 ones are made of the same weights."""
    return {name: twins.make(name)[0] for name in FIVE + OTHERS}


@pytest.fixture(scope="module")
def ragged() -> Prompts:
    tokens = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    return Prompts(tokens, torch.tensor([9, 6, 4]))


def kept_in(model, name: str) -> list[list[int]]:
    return KEPT[name][: model.cfg.n_layers]


@pytest.fixture(scope="session", name="kept_in")
def _kept_in():
    return kept_in


def ablated(kept) -> dict:
    gone = {layer: [head for head in ALL if head not in there] for layer, there in enumerate(kept)}
    return {Site("z", layer): edits.zero(heads=heads) for layer, heads in gone.items() if heads}


@pytest.fixture(scope="session", name="ablated")
def _ablated():
    return ablated


def relative(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="session", name="relative")
def _relative():
    return relative


def random_sets(layers: int, width: int, *, seed: int, whole, groups) -> list[list[int]]:
    """What is left of a third of all heads at random, of whole layers, of groups of layers."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(layers * width, generator=generator)[: layers * width // 3].tolist()
    gone = {divmod(index, width) for index in order}
    gone |= {(layer, head) for layer in whole for head in range(width)}
    gone |= {(layer, head) for layer, some in groups for head in some}
    return [[head for head in range(width) if (layer, head) not in gone] for layer in range(layers)]


@pytest.fixture(scope="session", name="random_sets")
def _random_sets():
    return random_sets
