import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import jaxtyping
import pytest
import torch
from scipy import stats

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


DEADLINE = 100.0
"""Seconds after which a child of such a program says where it hangs, and ends."""

_PREAMBLE = """
import faulthandler, json, os, signal, sys, tempfile, traceback
sys.path.insert(0, sys.argv[1])
DEADLINE = float(sys.argv[2])
os.environ["TQDM_DISABLE"] = "1"
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's &

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


class Program:
    """A Python program with a process group of its own, told things and heard line by line."""

    def __init__(self, program: str) -> None:
        root = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PREAMBLE + program, root, str(DEADLINE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def tell(self, **told: object) -> None:
        """Give it a line of json."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def until(self, word: str, heard: Callable[[list[str]], object]) -> list[str]:
        """What follows `word` in the first line that begins with it; `heard` gets those before."""
        assert self.process.stdout is not None
        late = threading.Timer(2 * DEADLINE, self.end)
        late.start()
        try:
            while line := self.process.stdout.readline().split():
                if line[0] == word:
                    return line[1:]
                heard(line)
        finally:
            late.cancel()
        raise AssertionError(f"the program ended, or hung, before it said {word!r}")

    def end(self) -> None:
        """Kill everything that was started here and is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def _running(program: str) -> Iterator[Program]:
    started = Program(program)
    try:
        yield started
    finally:
        started.end()
        started.process.communicate()


@pytest.fixture(scope="session")
def running() -> Callable[[str], AbstractContextManager[Program]]:
    """`with running(program):` one that can `say` things; gone after, with all its children."""
    return _running


@pytest.fixture(scope="session")
def most_by_chance():
    """`most_by_chance(n)`: what of n tests at 5 % come out with a chance of 1 in 200 or more."""
    return lambda count, level=0.05: int(stats.binom.isf(0.005, count, level))
