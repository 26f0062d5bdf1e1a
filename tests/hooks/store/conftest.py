"""Writers that can be killed."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

# Forks the writers it is told to start, which is faster than starting Python for each.
_NURSERY = """
import torch
from hooks import store
from hooks.store import disk

torch.set_num_threads(1)

def die_at(nth, when):
    left, real = nth, disk.step
    def step(do, *given, **named):
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), 9)
        found = real(do, *given, **named)
        if left == 0:
            os.kill(os.getpid(), 9)
        return found
    disk.step = step

{work}

with tempfile.TemporaryDirectory() as warm:  # what is loaded at the first call is loaded here
    real, say = say, lambda *words: None
    work(0, warm + "/it", ["k-1"], None)
    say = real

for line in sys.stdin:
    told = json.loads(line)
    children = []
    for number in range(told["writers"]):
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(DEADLINE, exit=True)
            try:
                work(number, told["path"], told["keys"], told["dies"])
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    say("started", *children)
    say("ended", *[os.waitpid(child, 0)[1] for child in children])
"""

# Writer n of several begins with the n-th key. A value is its key's number, many times over.
_ITEMS = """
def work(number, path, keys, dies):
    shelf = store.Shelf.open(path)
    if dies:
        die_at(*dies)
    for key in keys[number:] + keys[:number]:
        value = torch.full((4096,), int(key.split("-")[-1]))
        shelf.put({key: {"value": value}})
        say("put", key)
"""

_ACTIVATIONS = """
from hooks import Prompts, sites
from workbench import models

model = models.load("tiny")

def work(number, path, keys, dies):
    if dies:
        die_at(*dies)
    lengths, numbers = torch.tensor([9, 4]), [int(key.split("-")[-1]) for key in keys]
    batches = [Prompts(torch.full((2, 9), number + 5), lengths) for number in numbers]
    say("put", "begun")
    store.write(model, batches, sites.all(model, "resid_post"), path, key="test", dtype="float16")
    say("put", "done")
"""


class Nursery:
    """Starts writers, and tells what they have acknowledged."""

    def __init__(self, program) -> None:
        self.program = program
        self.acknowledged: list[str] = []
        self.statuses: list[int] = []

    def start(self, path: Path, keys: list[str], *, writers: int = 1, dies=None) -> list[int]:
        """Start the writers; gives their process ids."""
        self.program.tell(path=str(path), keys=keys, writers=writers, dies=dies)
        self.acknowledged = []
        return [int(child) for child in self._until("started")]

    def wait(self, *, ends: int = signal.SIGKILL) -> list[str]:
        """The keys that were acknowledged, when all writers have ended, well or as they may."""
        self.statuses = [int(status) for status in self._until("ended")]
        assert set(self.statuses) <= {0, ends}
        return self.acknowledged

    def kill(
        self, path: Path, keys: list[str], *, after: float, by: int = signal.SIGKILL
    ) -> list[str]:
        """The keys that a writer acknowledged before a signal, a while after the first."""
        (child,) = self.start(path, keys)
        self.acknowledged += self._until("put")
        time.sleep(after)
        with suppress(ProcessLookupError):
            os.kill(child, by)
        # Python makes an exception of this one, and the writer leaves with status 1.
        return self.wait(ends=1 << 8 if by == signal.SIGINT else by)

    def _until(self, word: str) -> list[str]:
        return self.program.until(word, lambda line: self.acknowledged.append(line[1]))


@pytest.fixture(scope="session")
def nursery(running) -> Iterator[Nursery]:
    """Writers of items to a shelf, one by one."""
    with running(_NURSERY.replace("{work}", _ITEMS)) as program:
        yield Nursery(program)


@pytest.fixture(scope="session")
def writers(running) -> Iterator[Nursery]:
    """Writers of activations of the tiny model: a batch for each key."""
    with running(_NURSERY.replace("{work}", _ACTIVATIONS)) as program:
        yield Nursery(program)
