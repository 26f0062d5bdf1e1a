"""Sweeps that are killed at any moment lose and repeat nothing that was finished."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from hooks.store import Shelf

# Forks the sweeps it is told to start, which is faster than loading everything for each. A sweep
# says which batch it begins, and which it has put on the shelf; its results go to a file.
_NURSERY = """
import torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from hooks import Site, edits, replay
from workbench import effects, metrics, models, tasks
from workbench.runs.messages import errors_as_sentences

exact = sys.modules["workbench.effects.exact"]
exact._CELLS_A_BATCH = 2
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the plan that each sweep prints
model = models.load("tiny")
task = tasks.ioi(model, prompts=3, seed=0)
cells = [
    {Site(stream, layer): edits.scale(factor)}
    for factor in (0.0, 0.5, 1.5, 2.0, 3.0)
    for stream in ("resid_pre", "z", "v", "neuron")
    for layer in (0, 1)
]

def told_of(batch):
    return "-".join(map(str, sorted(batch)))

def sweep(folder, values):
    real_run, real_write = replay.run, exact.Kept.write
    def run(plan, batch, *rest, **named):
        say("begins", told_of(batch))
        return real_run(plan, batch, *rest, **named)
    def write(kept, found):
        real_write(kept, found)
        say("put", told_of(found), *[kept.keys[cell] for cell in sorted(found)])
    replay.run, exact.Kept.write = run, write
    found = effects.exact(
        model, task, cells, metrics=[metrics.logit_diff, metrics.answer_logprob], keep=folder
    )
    save_file({"values": found.values, "baseline": found.baseline}, values)

with tempfile.TemporaryDirectory() as warm:  # what is loaded at the first call is loaded here
    effects.exact(model, task, cells[:1], metrics=[metrics.logit_diff], keep=warm + "/it")

say("ready")
for line in sys.stdin:
    told = json.loads(line)
    children = []
    for values in told["values"]:
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(DEADLINE, exit=True, file=sys.__stdout__)
            try:
                sys.stderr = open(values + ".said", "w")
                with errors_as_sentences(show="traceback"):
                    sweep(told["folder"], values)
                os._exit(0)
            except SystemExit as left:
                if left.code not in (130, 143):
                    say("broke", repr(open(values + ".said").read()).replace(" ", "_"))
                os._exit(left.code)
        children.append(child)
    say("started", *children)
    say("ended", *[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""

BATCHES = 20


class Moment(NamedTuple):
    """So many seconds after a sweep's n-th batch began (after its start, where n is 0)."""

    batches: int
    seconds: float


class Nursery:
    """Starts sweeps, kills them, and tells what they said before."""

    def __init__(self, program) -> None:
        self.program = program
        self.begun: list[str] = []
        self.put: dict[str, list[str]] = {}
        self._until("ready")

    def sweep(self, folder: Path, values: Path, *, kill: Moment | None = None) -> bool:
        """Whether a sweep came to its end, or was killed at that moment of it."""
        [child] = self._start(folder, values)
        if kill is not None:
            self._begin(kill.batches)
            time.sleep(kill.seconds)
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        [status] = self._until("ended")
        assert int(status) in (0, -signal.SIGKILL)
        return int(status) == 0

    def stop(self, folder: Path, values: Path, *, by: int, batches: int) -> int:
        """How a sweep ended that got a signal while it was in its n-th batch."""
        [child] = self._start(folder, values)
        self._begin(batches)
        os.kill(int(child), by)
        [status] = self._until("ended")
        return int(status)

    def together(self, folder: Path, *values: Path) -> list[int]:
        """How sweeps ended that ran at the same time."""
        self._start(folder, *values)
        return [int(status) for status in self._until("ended")]

    def _start(self, folder: Path, *values: Path) -> list[str]:
        self.program.tell(folder=str(folder), values=[str(path) for path in values])
        self.begun, self.put = [], {}
        return self._until("started")

    def _begin(self, batches: int) -> None:
        for _ in range(batches):
            self.begun += self._until("begins")

    def _until(self, word: str) -> list[str]:
        return self.program.until(word, self._heard)

    def _heard(self, line: list[str]) -> None:
        if line[0] == "begins":
            self.begun.append(line[1])
        elif line[0] == "put":
            self.put[line[1]] = line[2:]
        else:
            raise AssertionError(" ".join(line))


@pytest.fixture(scope="module")
def nursery(running) -> Iterator[Nursery]:
    with running(_NURSERY) as program:
        yield Nursery(program)


def check_killed(nursery: Nursery, folder: Path, kills: int, seed: int) -> None:
    """Kill sweeps at random moments until there were so many kills, each sweep to its end."""
    rng = random.Random(seed)
    began = time.monotonic()
    assert nursery.sweep(folder / "whole", folder / "whole.safetensors")
    a_batch = (time.monotonic() - began) / BATCHES
    batches = list(nursery.begun)
    assert len(batches) == BATCHES == len(nursery.put)
    whole = folder / "whole.safetensors"
    killed = rounds = 0
    while killed < kills:
        rounds += 1
        killed += killed_and_resumed(nursery, folder / str(rounds), batches, whole, rng, a_batch)
    assert killed >= kills


def killed_and_resumed(nursery, folder, batches, whole, rng, a_batch) -> int:
    """One sweep, killed again and again until it is done; how often it was killed."""
    folder.mkdir()
    shelf, values = folder / "kept", folder / "values.safetensors"
    acknowledged: dict[str, list[str]] = {}
    begun: list[str] = []
    killed, moment = 0, a_moment(rng, BATCHES, a_batch)
    while not nursery.sweep(shelf, values, kill=moment):
        killed += 1
        assert not values.exists()
        # What was finished in an earlier life is not begun again, and all goes on in order.
        assert not set(nursery.begun) & set(acknowledged)
        acknowledged |= nursery.put
        begun += nursery.begun
        assert len(begun) <= len(set(begun)) + killed  # at most one batch done again for a kill
        check_acknowledged(shelf, acknowledged)
        left = BATCHES - len(Shelf.open(shelf).keys()) // 2
        moment = a_moment(rng, left, a_batch) if left else None
    begun += nursery.begun
    acknowledged |= nursery.put
    assert set(begun) == set(batches)
    check_complete(Shelf.open(shelf))
    check_same(values, whole)
    return killed


def a_moment(rng: random.Random, left: int, a_batch: float) -> Moment:
    """A moment somewhere in the next few of the batches that are left.

    A moment in seconds alone would be before the first batch for ever on a machine that is busy.
    """
    return Moment(rng.randint(0, min(left, 6)), rng.uniform(0, min(2 * a_batch, 0.5)))


def check_acknowledged(path: Path, acknowledged: dict[str, list[str]]) -> None:
    """All that a sweep said it had put is there, undamaged."""
    keys = [key for of in acknowledged.values() for key in of]
    if keys:
        there = Shelf.open(path, missing="refuse").get(keys)
        assert len(there) == len(keys) == 2 * len(acknowledged)


def check_complete(shelf: Shelf) -> None:
    """Each cell is there once, in one blob for each batch, and nothing else is."""
    assert len(shelf.keys()) == 2 * BATCHES
    shelf.clean()
    assert len(list((shelf.path / "blobs").iterdir())) == BATCHES
    assert not list((shelf.path / "partial").iterdir())


def test_a_sweep_killed_at_random_goes_on_to_the_same_bits(nursery, tmp_path):
    check_killed(nursery, tmp_path, kills=3, seed=0)


@pytest.mark.parametrize(
    ("by", "status", "said"),
    [(signal.SIGINT, 130, "interrupted; what is"), (signal.SIGTERM, 143, "terminated; what is")],
)
def test_a_sweep_that_is_told_to_stop_says_so_and_goes_on_to_the_same_bits(
    nursery, tmp_path, by, status, said
):
    assert nursery.sweep(tmp_path / "whole", tmp_path / "whole.safetensors")
    shelf, values = tmp_path / "kept", tmp_path / "values.safetensors"
    put: list[str] = []
    for batches in (1, 4):
        assert nursery.stop(shelf, values, by=by, batches=batches) == status
        assert said in Path(f"{values}.said").read_text()
        assert not values.exists() and not set(nursery.begun) & set(put)
        put += nursery.put
        assert len(nursery.begun) - len(nursery.put) <= 1  # the one batch that is done again
    assert nursery.sweep(shelf, values)
    assert not set(nursery.begun) & set(put)
    check_complete(Shelf.open(shelf))
    check_same(values, tmp_path / "whole.safetensors")


def test_two_sweeps_that_keep_in_one_folder_at_once_end_with_the_same_numbers(nursery, tmp_path):
    assert nursery.sweep(tmp_path / "whole", tmp_path / "whole.safetensors")
    both = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    assert nursery.together(tmp_path / "kept", *both) == [0, 0]
    for values in both:
        check_same(values, tmp_path / "whole.safetensors")
    check_complete(Shelf.open(tmp_path / "kept"))


def check_same(one: Path, other: Path) -> None:
    """Two results are the same bits."""
    found, expected = load_file(one), load_file(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.slow
def test_sweeps_killed_sixty_times_at_random_go_on_to_the_same_bits(nursery, tmp_path):
    check_killed(nursery, tmp_path, kills=60, seed=1)
