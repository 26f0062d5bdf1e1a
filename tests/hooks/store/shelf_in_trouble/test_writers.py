"""Writers that are killed, and writers beside each other."""

import sqlite3
import time
from pathlib import Path

import pytest

from hooks.store import Shelf, disk


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_whichever_step_loses_nothing_it_acknowledged(
    tmp_path, nursery, when, filled, check_whole, check_tidy
):
    keys = [f"k-{n}" for n in range(3, 5)]
    nth, deaths = 0, 0
    while True:
        nth += 1
        shelf = filled(tmp_path / str(nth))
        nursery.start(shelf.path, keys, dies=[nth, when])
        acknowledged = nursery.wait()
        there = check_whole(shelf, at_least=["k-0", "k-1", "k-2", *acknowledged])
        assert len(there) <= 3 + len(acknowledged) + 1
        check_tidy(shelf)
        if nursery.statuses == [0]:
            break
        deaths += 1
    assert deaths >= 16  # eight steps for each of two keys


def test_writers_killed_at_random_lose_and_repeat_nothing(tmp_path, nursery, kill_at_random):
    kill_at_random(tmp_path / "it", nursery, kills=6, seed=0)


@pytest.mark.slow
def test_a_hundred_writers_killed_at_random_lose_and_repeat_nothing(
    tmp_path, nursery, kill_at_random
):
    kill_at_random(tmp_path / "it", nursery, kills=100, seed=1)


def test_four_writers_of_the_same_keys_put_each_once(tmp_path, nursery, check_whole):
    path, keys = tmp_path / "it", [f"k-{n}" for n in range(40)]
    nursery.start(path, keys, writers=4)  # the shelf itself is made by all four at once
    acknowledged = nursery.wait()
    assert nursery.statuses == [0, 0, 0, 0]
    assert sorted(acknowledged) == sorted(4 * keys)
    shelf = Shelf.open(path, missing="refuse")
    assert check_whole(shelf) == sorted(keys)
    assert len(list((path / "blobs").iterdir())) == len(keys)
    assert not list((path / "partial").iterdir())


def test_readers_and_tidiers_never_meet_half_a_blob(tmp_path, nursery, check_whole):
    path, keys = tmp_path / "it", [f"k-{n}" for n in range(60)]
    shelf = Shelf.open(path)
    children = nursery.start(path, keys, writers=2)
    seen = 0
    until = time.monotonic() + 60
    while seen < len(keys) and time.monotonic() < until:
        seen = len(check_whole(shelf))
        shelf.clean()
    nursery.wait()
    assert nursery.statuses == [0] * len(children)
    assert check_whole(shelf) == sorted(keys)


def test_a_blob_being_written_is_not_tidied_away(tmp_path, filled):
    shelf = filled(tmp_path / "it")
    with disk.unfinished(shelf.path / "partial") as (path, handle):
        handle.write(b"half")
        assert shelf.clean() == []
        assert path.exists()
    assert not path.exists()


def test_a_file_taken_for_an_orphan_before_it_was_locked_is_begun_again(tmp_path, monkeypatch):
    removed = []
    real = disk.fcntl.flock

    def late(handle, how):
        if not removed:
            removed.append(handle.name)
            Path(handle.name).unlink()
        return real(handle, how)

    monkeypatch.setattr(disk.fcntl, "flock", late)
    with disk.unfinished(tmp_path) as (path, _):
        assert path.exists()
        assert str(path) != str(removed[0])


def test_a_writer_waits_for_another_and_says_so_when_it_waited_in_vain(
    tmp_path, monkeypatch, item, filled, check_whole
):
    shelf = filled(tmp_path / "it")
    monkeypatch.setattr("hooks.store.index.PATIENCE", 0.05)
    other = sqlite3.connect(shelf.path / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(OSError, match="database is locked"):
            shelf.put({"k-3": item(3)})
        assert check_whole(shelf) == ["k-0", "k-1", "k-2"]
    finally:
        other.close()
    shelf.put({"k-3": item(3)})
