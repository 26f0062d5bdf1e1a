import functools

import pytest
import torch

from workbench import models, tasks
from workbench.models import planted, tiny


@functools.cache
def _loaded(name: str, prompts: int):
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=prompts, seed=1), planted.truth(model)


@pytest.fixture(scope="session")
def loaded():
    """`loaded(name)`: a planted model, prompts of its task, and what was planted."""
    return lambda name, *, prompts=6: _loaded(name, prompts)


def _never_trained(name: str, seed: int) -> models.Model:
    like = models.load(name)
    with torch.random.fork_rng(devices=[]):
        fresh = type(like.original_model)(like.original_model.config)
    tiny.fill(fresh, torch.Generator().manual_seed(10_000 + seed))
    return models.wrap(fresh, like.tokenizer)


@pytest.fixture(scope="session")
def never_trained():
    """`never_trained("tiny", 3)`: a model of that shape with random weights of its own."""
    return _never_trained
