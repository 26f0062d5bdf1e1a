"""Disks that refuse a step, or are full."""

import errno
import resource
import signal
from contextlib import suppress

import pytest

from hooks.store import Shelf, disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_whichever_step_the_disk_refuses_the_old_stays_and_the_new_can_be_put_later(
    tmp_path, failing_disk, code, item, filled, check_whole
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


def test_whichever_step_fails_while_a_shelf_is_made_it_can_be_made_later(
    tmp_path, failing_disk, filled, check_whole
):
    nth = 0
    while True:
        nth += 1
        with failing_disk(nth, errno.ENOSPC) as failing:
            with suppress(OSError):  # the last one does not fail
                Shelf.open(tmp_path / str(nth))
        shelf = filled(tmp_path / str(nth))
        assert check_whole(shelf) == ["k-0", "k-1", "k-2"]
        if not failing.refused:
            break
    assert nth > 4


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, item, filled, check_whole
):
    shelf = filled(tmp_path / "it")
    monkeypatch.setattr(disk, "free", lambda folder: 1000)
    with pytest.raises(OSError, match=r"1 keys of 32,\d+ bytes .* 1,000 bytes are free") as caught:
        shelf.put({"k-3": item(3)})
    assert caught.value.errno == errno.ENOSPC
    assert check_whole(shelf) == ["k-0", "k-1", "k-2"]


def test_what_a_full_disk_cut_short_is_not_there_and_the_rest_is(
    tmp_path, item, filled, check_whole, check_tidy
):
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
