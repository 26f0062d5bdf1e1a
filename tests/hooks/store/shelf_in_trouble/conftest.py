"""What a shelf promises when the disk fails, bytes change, and writers are killed."""

import random
import sqlite3

import pytest
import torch
from torch.testing import assert_close

from hooks.store import Shelf


def item(number, size=4096):
    return {"value": torch.full((size,), number)}


@pytest.fixture(scope="session", name="item")
def _item():
    return item


def filled(path, keys=3):
    shelf = Shelf.open(path)
    for number in range(keys):
        shelf.put({f"k-{number}": item(number)})
    return shelf


@pytest.fixture(scope="session", name="filled")
def _filled():
    return filled


def check_whole(shelf, at_least=()):
    """Every key gives its own value, once; all of `at_least` are there; gives the keys."""
    keys = shelf.keys()
    assert set(at_least) <= set(keys)
    for key, of in shelf.get(keys).items():
        assert_close(of["value"], item(int(key.split("-")[-1]))["value"])
    with sqlite3.connect(shelf.path / "index.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return keys


@pytest.fixture(scope="session", name="check_whole")
def _check_whole():
    return check_whole


def check_tidy(shelf):
    """After tidying there is one blob for each key, and nothing unfinished."""
    shelf.clean()
    blobs = {path.stem for path in (shelf.path / "blobs").iterdir()}
    assert blobs == set(shelf._places(shelf.keys()).values())
    assert not list((shelf.path / "partial").iterdir())


@pytest.fixture(scope="session", name="check_tidy")
def _check_tidy():
    return check_tidy


def kill_at_random(path, nursery, kills, seed):
    """Kill a writer again and again, each time a new one going on where the last one ended."""
    rng = random.Random(seed)
    keys = [f"k-{n}" for n in range(4000)]
    acknowledged: set[str] = set()
    shelf = Shelf.open(path)
    for _ in range(kills):
        there = shelf.has(keys)
        todo = [key for key in keys if key not in there]
        now = nursery.kill(path, todo, after=rng.uniform(0.0, 0.02))
        acknowledged |= set(now)
        there = set(check_whole(shelf, at_least=acknowledged))
        assert len(there - acknowledged) <= 1  # killed between commit and word of it
        acknowledged = there
    assert len(acknowledged) >= kills
    check_tidy(shelf)


@pytest.fixture(scope="session", name="kill_at_random")
def _kill_at_random():
    return kill_at_random
