"""Blobs and indices that were harmed."""

import sqlite3

import pytest

from hooks.store import Damaged, Shelf


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
def test_a_blob_that_was_harmed_is_found_named_and_made_again_alone(
    tmp_path, harm, item, filled, check_whole, check_tidy
):
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


def test_swapped_blobs_are_found(tmp_path, filled):
    shelf = filled(tmp_path / "it")
    places = shelf._places(["k-0", "k-1"])
    one, two = map(shelf._place, places.values())
    aside = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(aside)
    with pytest.raises(Damaged) as caught:
        shelf.get(shelf.keys())
    assert caught.value.keys == {"k-0", "k-1"}


def test_rows_of_the_index_that_were_swapped_are_found(tmp_path, filled):
    shelf = filled(tmp_path / "it")
    with sqlite3.connect(shelf.path / "index.sqlite") as connection:
        other = connection.execute("SELECT blob FROM item WHERE key = 'k-1'").fetchone()
        connection.execute("UPDATE item SET blob = ? WHERE key = 'k-0'", other)
    with pytest.raises(Damaged, match="does not hold 1 keys \\(k-0\\): the index is wrong"):
        shelf.get(["k-0"])


@pytest.mark.parametrize("harm", [_empty, lambda path: path.write_bytes(b"x" * 5000)])
def test_a_harmed_index_is_an_error_that_says_how_it_is_made_again(
    tmp_path, harm, item, filled, check_whole
):
    shelf = filled(tmp_path / "it")
    harm(shelf.path / "index.sqlite")
    for ask in (shelf.keys, lambda: shelf.get(["k-0"]), lambda: shelf.put({"k-9": item(9)})):
        with pytest.raises(Damaged, match=r"index\.sqlite.*Remove this file and open"):
            ask()
    (shelf.path / "index.sqlite").unlink()
    with pytest.raises(FileNotFoundError, match="unable to open"):
        shelf.keys()
    assert check_whole(Shelf.open(shelf.path)) == ["k-0", "k-1", "k-2"]


def test_an_index_made_again_leaves_out_blobs_that_are_harmed(tmp_path, filled, check_whole):
    shelf = filled(tmp_path / "it")
    _flip(shelf._place(shelf._places(["k-1"])["k-1"]))
    (shelf.path / "index.sqlite").unlink()
    assert check_whole(Shelf.open(shelf.path)) == ["k-0", "k-2"]
