import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import jaxtyping
import pytest
import torch

from hooks import Prompts
from hooks.conformance.check import attached
from hooks.store import disk
from workbench import models
from workbench.models.bridge import digest

os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars hide what failed


@pytest.fixture(scope="session")
def tiny() -> models.Model:
    return models.load("tiny")


@pytest.fixture(scope="session")
def tiny_gqa() -> models.Model:
    return models.load("tiny-gqa")


@pytest.fixture(scope="session")
def default_model() -> models.Model:
    return models.load("smollm2-135m")


@pytest.fixture(params=["tiny", "tiny-gqa"])
def small(request, tiny, tiny_gqa) -> models.Model:
    """Each of the two small models in turn."""
    return tiny if request.param == "tiny" else tiny_gqa


@pytest.fixture
def prompts() -> Prompts:
    """Three prompts of different lengths, padded."""
    tokens = torch.randint(5, 200, (3, 7), generator=torch.Generator().manual_seed(1))
    return Prompts(tokens, torch.tensor([7, 5, 3]))


@pytest.fixture
def others() -> Prompts:
    """Three other prompts of the same lengths."""
    tokens = torch.randint(5, 200, (3, 7), generator=torch.Generator().manual_seed(2))
    return Prompts(tokens, torch.tensor([7, 5, 3]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets beside the repository; not part of it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public data sets that this test reads are not beside the repository")
    return folder


@contextmanager
def _unharmed(model) -> Iterator[None]:
    model(torch.tensor([[3, 4, 5]]))  # transformers installs hooks of its own on first use
    hooks, weights, state = attached(model), digest(model.original_model), torch.get_rng_state()
    yield
    assert attached(model) == hooks
    assert digest(model.original_model) == weights
    assert torch.get_rng_state().equal(state)


@pytest.fixture(scope="session")
def unharmed() -> Callable[..., AbstractContextManager[None]]:
    """`with unharmed(model):` no hook, no other weight, no drawn number is left behind."""
    return _unharmed


@pytest.fixture
def unchecked_types():
    """Calls with wrong types, which the tests' type checker would refuse before our own checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


class FailingDisk:
    """Refuses the n-th thing it is asked; a write is refused half way through."""

    def __init__(self, nth: int, code: int) -> None:
        self.left = nth
        self.code = code

    @property
    def refused(self) -> bool:
        """Whether it has come to that."""
        return self.left <= 0

    def step(self, do, *given, **named):
        self.left -= 1
        if self.left != 0:
            return do(*given, **named)
        if isinstance(getattr(do, "__self__", None), sqlite3.Connection):
            raise sqlite3.OperationalError("database or disk is full")
        if getattr(do, "__name__", "") == "write":
            do(given[0][: len(given[0]) // 2])
        raise OSError(self.code, os.strerror(self.code))


@pytest.fixture
def failing_disk(monkeypatch) -> Callable[[int, int], AbstractContextManager[FailingDisk]]:
    """`with failing_disk(n, errno):` the n-th step inside is refused."""

    @contextmanager
    def failing(nth: int, code: int) -> Iterator[FailingDisk]:
        disk_that_fails = FailingDisk(nth, code)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "step", disk_that_fails.step)
            yield disk_that_fails

    return failing
