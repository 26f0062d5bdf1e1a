import functools

import pytest

from workbench import models, tasks
from workbench.models import planted


@functools.cache
def _loaded(name: str, prompts: int):
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=prompts, seed=1), planted.truth(model)


@pytest.fixture(scope="session")
def loaded():
    """`loaded(name)`: a planted model, prompts of its task, and what was planted."""
    return lambda name, *, prompts=6: _loaded(name, prompts)
