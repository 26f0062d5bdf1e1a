"""A store survives killed writers, failing disks and changed bytes, and ends the same."""

import errno
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from hooks import Prompts, capture, sites, store
from hooks.store import Damaged, writing

KEYS = [f"b-{n}" for n in range(6)]


def corpus(batches=4):
    rng = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 5])
    return [Prompts(torch.randint(5, 200, (2, 7), generator=rng), lengths) for _ in range(batches)]


def write(model, path):
    return store.write(model, corpus(), sites.all(model, "resid_post"), path, key="test")


def on_disk(path):
    """Every key with the SHA-256 of its blob, and the bytes of all blobs."""
    shelf = store.Shelf.open(path, missing="refuse")
    blobs = {file.name: file.read_bytes() for file in (path / "blobs").iterdir()}
    return shelf._places(shelf.keys()), blobs


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("batch", range(4))
def test_an_interrupted_writer_goes_on_and_ends_with_the_same_bytes(
    tiny, tmp_path, monkeypatch, batch
):
    write(tiny, tmp_path / "whole")
    ran = 0

    def interrupted(*given, **how):
        nonlocal ran
        ran += 1
        if ran == batch + 1:
            raise BrokenError
        return capture(*given, **how)

    with monkeypatch.context() as patch, pytest.raises(BrokenError):
        patch.setattr(writing, "capture", interrupted)
        write(tiny, tmp_path / "it")
    with pytest.raises(ValueError, match=f"{4 - batch} of 4 batches .* missing.*store.write again"):
        store.open(tmp_path / "it")
    ran = 10
    monkeypatch.setattr(writing, "capture", interrupted)
    write(tiny, tmp_path / "it")
    assert ran == 10 + 4 - batch  # none that was finished is run again
    assert on_disk(tmp_path / "it") == on_disk(tmp_path / "whole")


def refuse(model, folder, failing_disk, steps):
    """Refuse each of these steps, each in a new place; gives whether the last was reached."""
    write(model, folder / "whole")
    expected = on_disk(folder / "whole")
    for nth in steps:
        path = folder / str(nth)
        with failing_disk(nth, errno.ENOSPC) as failing:
            try:
                write(model, path)
            except OSError:
                assert failing.refused
        if (path / "index.sqlite").exists():
            shelf = store.Shelf.open(path)
            shelf.check(shelf.keys())
        write(model, path)
        assert on_disk(path) == expected
    return failing.refused


def test_a_disk_that_refuses_a_step_leaves_what_was_written_and_it_goes_on(
    tiny, tmp_path, failing_disk
):
    assert refuse(tiny, tmp_path, failing_disk, steps=range(2, 45, 6))


@pytest.mark.slow
def test_whichever_step_the_disk_refuses_it_goes_on(tiny, tmp_path, failing_disk):
    assert not refuse(tiny, tmp_path, failing_disk, steps=range(1, 80))


def _flip(path, other):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _truncate(path, other):
    path.write_bytes(path.read_bytes()[:-1])


def _remove(path, other):
    path.unlink()


def _swap(path, other):
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


@pytest.mark.parametrize("harm", [_flip, _truncate, _remove, _swap])
def test_a_harmed_batch_is_found_named_and_computed_again_alone(tiny, tmp_path, monkeypatch, harm):
    held = write(tiny, tmp_path / "it")
    expected = on_disk(tmp_path / "it")
    keys = [held.content.key(2), held.content.key(3)]
    path, other = (held.shelf._place(blob) for blob in held.shelf._places(keys).values())
    harm(path, other)
    held = store.open(tmp_path / "it")
    harmed = set(keys) if harm is _swap else {keys[0]}
    for read in (
        lambda: held.document(5),
        lambda: held.read(documents=[5]),
        lambda: list(held.batches()),
        lambda: held.to_xarray("resid_post").values,
        held.check,
    ):
        with pytest.raises(Damaged, match=path.name):
            read()
    held.document(1)
    with pytest.raises(Damaged) as caught:
        held.check()
    assert caught.value.keys == harmed
    held.shelf.forget(caught.value.keys)
    ran = []
    monkeypatch.setattr(
        writing, "capture", lambda *given, **how: ran.append(1) or capture(*given, **how)
    )
    write(tiny, tmp_path / "it")
    assert len(ran) == len(harmed)
    assert on_disk(tmp_path / "it") == expected


def test_a_lost_description_is_written_again_without_running_the_batches(
    tiny, tmp_path, monkeypatch
):
    held = write(tiny, tmp_path / "it")
    expected = on_disk(tmp_path / "it")
    held.shelf.forget([f"{held.content.digest}/about"])
    monkeypatch.setattr(writing, "capture", None)
    write(tiny, tmp_path / "it")
    assert on_disk(tmp_path / "it") == expected


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, writers):
    """What writers of the same activations leave when nobody disturbs them."""
    path = tmp_path_factory.mktemp("uninterrupted") / "it"
    writers.start(path, KEYS)
    assert writers.wait() == ["begun", "done"]
    return on_disk(path)


def test_a_writer_killed_at_some_steps_ends_with_the_same_bytes(tmp_path, writers, uninterrupted):
    for nth in range(1, 60, 7):
        path = tmp_path / str(nth)
        writers.start(path, KEYS, dies=[nth, "after"])
        writers.wait()
        writers.start(path, KEYS)
        writers.wait()
        assert on_disk(path) == uninterrupted
        assert not list((path / "partial").iterdir())


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_writer_that_is_told_to_stop_does_and_the_next_one_goes_on(
    tmp_path, writers, uninterrupted, by
):
    rng, stopped = random.Random(1), 0
    for number in range(6):
        path = tmp_path / str(number)
        before, after = time.monotonic(), rng.uniform(0.0, 0.05)
        stopped += "done" not in writers.kill(path, KEYS, after=after, by=by)
        assert time.monotonic() - before < 5 + after
        writers.start(path, KEYS)
        writers.wait()
        assert on_disk(path) == uninterrupted
        assert not list((path / "partial").iterdir())
    assert stopped


@pytest.mark.slow
def test_fifty_writers_killed_at_random_end_with_the_same_bytes(tmp_path, writers, uninterrupted):
    rng, kills, number = random.Random(0), 0, 0
    while kills < 50:
        path, number, done = tmp_path / str(number), number + 1, False
        while not done:
            done = "done" in writers.kill(path, KEYS, after=rng.uniform(0.0, 0.2))
            kills += not done
            if (path / "index.sqlite").exists():
                shelf = store.Shelf.open(path)
                shelf.check(shelf.keys())
        assert on_disk(path) == uninterrupted


def test_four_writers_at_once_leave_what_one_leaves(tmp_path, writers, uninterrupted):
    writers.start(tmp_path / "it", KEYS, writers=4)
    writers.wait()
    assert writers.statuses == [0, 0, 0, 0]
    assert on_disk(tmp_path / "it") == uninterrupted


def test_what_is_being_read_may_be_made_anew(tiny, tmp_path):
    held = write(tiny, tmp_path / "it")
    expected = held.read()
    reader = held.shuffled(size=5, seed=0)
    parts = [next(reader)]
    held.shelf.forget(held.content.keys())
    held.shelf.clean()
    write(tiny, tmp_path / "it")
    parts += reader
    whole = {site: torch.cat([part[site] for part in parts]) for site in held.sites}
    order = torch.cat([part.document * 100 + part.position for part in parts]).argsort()
    for site in held.sites:
        assert torch.equal(whole[site][order], expected[site])


_GROWTH = """
import resource, sys, tempfile
import torch
from hooks import Prompts, sites, store
from workbench import models

class Corpus:
    def __iter__(self):
        for number in range(int(sys.argv[1])):
            rng = torch.Generator().manual_seed(number)
            yield Prompts.of(torch.randint(5, 200, (16, 125), generator=rng))

model = models.load("tiny")
with tempfile.TemporaryDirectory() as folder:
    held = store.write(model, Corpus(), sites.all(model, "neuron"), folder + "/it", key="test")
    for rows in held.batches():
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus():
    def peak(batches):
        command = [sys.executable, "-c", _GROWTH, str(batches)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak(100) <= 1.1 * peak(10)  # 200k tokens, 102 MB of activations; and 20k
