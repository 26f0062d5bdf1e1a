"""What a shelf promises when the disk fails, bytes change, and writers are killed."""

import errno
import random
import resource
import signal
import sqlite3
import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from hooks.store import Damaged, Shelf, disk


def item(number, size=4096):
    return {"value": torch.full((size,), number)}


def filled(path, keys=3):
    shelf = Shelf.open(path)
    for number in range(keys):
        shelf.put({f"k-{number}": item(number)})
    return shelf


def check_whole(shelf, at_least=()):
    """Every key gives its own value, once; all of `at_least` are there; gives the keys."""
    keys = shelf.keys()
    assert set(at_least) <= set(keys)
    for key, of in shelf.get(keys).items():
        assert_close(of["value"], item(int(key.split("-")[-1]))["value"])
    with sqlite3.connect(shelf.path / "index.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return keys


def check_tidy(shelf):
    """After tidying there is one blob for each key, and nothing unfinished."""
    shelf.clean()
    blobs = {path.stem for path in (shelf.path / "blobs").iterdir()}
    assert blobs == set(shelf._places(shelf.keys()).values())
    assert not list((shelf.path / "partial").iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_whichever_step_the_disk_refuses_the_old_stays_and_the_new_can_be_put_later(
    tmp_path, failing_disk, code
):
    nth, refused = 0, 0
    while True:
        nth += 1
        shelf = filled(tmp_path / str(nth))
        new = {"k-7": item(7), "k-8": item(8)}
        with failing_disk(nth, code) as failing:
            try:
                shelf.put(new)
            except OSError as error:
                refused += 1
                told = str(error)
                assert "2 keys of 65," in told and "bytes are free there" in told
                assert "make room and put them again" in told
        if not failing.refused:
            break
        assert check_whole(Shelf.open(shelf.path)) in (
            ["k-0", "k-1", "k-2"],
            ["k-0", "k-1", "k-2", "k-7", "k-8"],
        )
        assert not list((shelf.path / "partial").iterdir())
        if "k-7" not in shelf.keys():  # the room it took is given back at once
            assert len(list((shelf.path / "blobs").iterdir())) == 3
        shelf.put(new)
        check_whole(shelf, at_least=["k-0", "k-1", "k-2", "k-7", "k-8"])
        shelf.clean()
        assert len(list((shelf.path / "blobs").iterdir())) == 4
    assert refused >= 8  # open, write, fsync, begin, rename, fsync, insert, commit


def test_whichever_step_fails_while_a_shelf_is_made_it_can_be_made_later(tmp_path, failing_disk):
    nth = 0
    while True:
        nth += 1
        with failing_disk(nth, errno.ENOSPC) as failing:
            try:
                Shelf.open(tmp_path / str(nth))
            except OSError:
                pass
        shelf = filled(tmp_path / str(nth))
        assert check_whole(shelf) == ["k-0", "k-1", "k-2"]
        if not failing.refused:
            break
    assert nth > 4


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    shelf = filled(tmp_path / "it")
    monkeypatch.setattr(disk, "free", lambda folder: 1000)
    with pytest.raises(OSError, match=r"1 keys of 32,\d+ bytes .* 1,000 bytes are free") as caught:
        shelf.put({"k-3": item(3)})
    assert caught.value.errno == errno.ENOSPC
    assert check_whole(shelf) == ["k-0", "k-1", "k-2"]


def test_what_a_full_disk_cut_short_is_not_there_and_the_rest_is(tmp_path):
    """A real limit on the size of files, which refuses half-way through a real write."""
    shelf = filled(tmp_path / "it")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="make room and put them again"):
            shelf.put({"k-3": item(3, size=50_000)})
        assert check_whole(shelf) == ["k-0", "k-1", "k-2"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (33_500, limits[1]))
        refused = 0
        for number in range(3, 400):  # until the index itself cannot grow
            try:
                shelf.put({f"k-{number}": item(number)})
            except OSError:
                refused += 1
                break
        assert refused
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(check_whole(shelf)) >= 3
    check_tidy(shelf)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _flip_header(path):
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _extend(path):
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path):
    path.write_bytes(b"")


def _remove(path):
    path.unlink()


@pytest.mark.parametrize("harm", [_flip, _flip_header, _truncate, _extend, _empty, _remove])
def test_a_blob_that_was_harmed_is_found_named_and_made_again_alone(tmp_path, harm):
    shelf = filled(tmp_path / "it")
    path = shelf._place(shelf._places(["k-1"])["k-1"])
    whole = path.read_bytes()
    shelf.mapped(["k-1"])  # checked once, and once more when the file has changed
    harm(path)
    with pytest.raises(Damaged, match=path.name) as caught:
        shelf.get(["k-0", "k-1", "k-2"])
    assert caught.value.keys == {"k-1"}
    assert caught.value.files == (path,)
    with pytest.raises(Damaged, match=path.name):
        shelf.mapped(["k-1"])
    assert list(shelf.get(["k-0", "k-2"])) == ["k-0", "k-2"]
    shelf.forget(caught.value.keys)
    assert shelf.has(["k-0", "k-1", "k-2"]) == {"k-0", "k-2"}
    shelf.put({"k-1": item(1)})
    assert path.read_bytes() == whole
    check_whole(shelf, at_least=["k-0", "k-1", "k-2"])
    check_tidy(shelf)


def test_swapped_blobs_are_found(tmp_path):
    shelf = filled(tmp_path / "it")
    places = shelf._places(["k-0", "k-1"])
    one, two = map(shelf._place, places.values())
    aside = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(aside)
    with pytest.raises(Damaged) as caught:
        shelf.get(shelf.keys())
    assert caught.value.keys == {"k-0", "k-1"}


def test_rows_of_the_index_that_were_swapped_are_found(tmp_path):
    shelf = filled(tmp_path / "it")
    with sqlite3.connect(shelf.path / "index.sqlite") as connection:
        other = connection.execute("SELECT blob FROM item WHERE key = 'k-1'").fetchone()
        connection.execute("UPDATE item SET blob = ? WHERE key = 'k-0'", other)
    with pytest.raises(Damaged, match="does not hold 1 keys \\(k-0\\): the index is wrong"):
        shelf.get(["k-0"])


@pytest.mark.parametrize("harm", [_empty, lambda path: path.write_bytes(b"x" * 5000)])
def test_a_harmed_index_is_an_error_that_says_how_it_is_made_again(tmp_path, harm):
    shelf = filled(tmp_path / "it")
    harm(shelf.path / "index.sqlite")
    for ask in (shelf.keys, lambda: shelf.get(["k-0"]), lambda: shelf.put({"k-9": item(9)})):
        with pytest.raises(Damaged, match=r"index\.sqlite.*Remove this file and open"):
            ask()
    (shelf.path / "index.sqlite").unlink()
    with pytest.raises(FileNotFoundError, match="unable to open"):
        shelf.keys()
    assert check_whole(Shelf.open(shelf.path)) == ["k-0", "k-1", "k-2"]


def test_an_index_made_again_leaves_out_blobs_that_are_harmed(tmp_path):
    shelf = filled(tmp_path / "it")
    _flip(shelf._place(shelf._places(["k-1"])["k-1"]))
    (shelf.path / "index.sqlite").unlink()
    assert check_whole(Shelf.open(shelf.path)) == ["k-0", "k-2"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_whichever_step_loses_nothing_it_acknowledged(tmp_path, nursery, when):
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


def test_writers_killed_at_random_lose_and_repeat_nothing(tmp_path, nursery):
    kill_at_random(tmp_path / "it", nursery, kills=6, seed=0)


@pytest.mark.slow
def test_a_hundred_writers_killed_at_random_lose_and_repeat_nothing(tmp_path, nursery):
    kill_at_random(tmp_path / "it", nursery, kills=100, seed=1)


def test_four_writers_of_the_same_keys_put_each_once(tmp_path, nursery):
    path, keys = tmp_path / "it", [f"k-{n}" for n in range(40)]
    nursery.start(path, keys, writers=4)  # the shelf itself is made by all four at once
    acknowledged = nursery.wait()
    assert nursery.statuses == [0, 0, 0, 0]
    assert sorted(acknowledged) == sorted(4 * keys)
    shelf = Shelf.open(path, missing="refuse")
    assert check_whole(shelf) == sorted(keys)
    assert len(list((path / "blobs").iterdir())) == len(keys)
    assert not list((path / "partial").iterdir())


def test_readers_and_tidiers_never_meet_half_a_blob(tmp_path, nursery):
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


def test_a_blob_being_written_is_not_tidied_away(tmp_path):
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


def test_a_writer_waits_for_another_and_says_so_when_it_waited_in_vain(tmp_path, monkeypatch):
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
