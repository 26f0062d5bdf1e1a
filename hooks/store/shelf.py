"""Named tensors on disk: written whole or not at all, kept once, and checked when read.

A shelf is a folder:
    index.sqlite    which key lies in which blob; a row is written last, when its blob is on disk
    blobs/          safetensors files, each named after the SHA-256 of its bytes
    partial/        what is being written now, or was when a process was killed

Knows keys, names and tensors; not what they mean. Any number of processes may read and write the
same shelf on one machine (SQLite's log does not work over a network file system).
"""

import errno
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from torch import Tensor

from hooks.store import blobs, damage, disk, index
from hooks.store.blobs import Items
from hooks.store.damage import Damaged, listed
from hooks.store.index import Index

Read = Callable[[Path, list[str]], dict[str, dict[str, Tensor]]]


class Shelf:
    """Keys, each with named tensors, in a folder that survives whatever happens to its writers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs = path / "blobs"
        self._partial = path / "partial"
        self._index = Index(path / "index.sqlite")
        self._checked: dict[Path, tuple[int, ...]] = {}

    @classmethod
    def open(cls, path: Path | str, *, missing: Literal["create", "refuse"] = "create") -> "Shelf":
        """The shelf at `path`; an empty one is made where there is none, unless told to refuse.

        A lost index is made again from the blobs that are whole.
        """
        shelf = cls(Path(path))
        if shelf._index.path.is_file():
            return shelf
        there = [p.name for p in shelf.path.iterdir()] if shelf.path.is_dir() else []
        if foreign := [name for name in there if not _ours(name)]:
            raise ValueError(f"{path} holds {foreign[0]!r} and no shelf: name a folder of its own")
        if missing == "refuse" and "blobs" not in there:
            raise FileNotFoundError(errno.ENOENT, "there is no shelf; write one first", str(path))
        for folder in (shelf.path, shelf._blobs, shelf._partial):
            folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, str] = {}
        for blob in sorted(shelf._blobs.iterdir()):
            found |= blobs.whole(blob)
        shelf._index.create(found)
        return shelf

    def keys(self) -> list[str]:
        """All keys, sorted."""
        with self._index.reading() as connection:
            return list(index.everything(connection))

    def has(self, keys: Iterable[str]) -> set[str]:
        """Those of these keys that are there."""
        with self._index.reading() as connection:
            return set(index.places(connection, keys))

    def put(self, items: Items) -> None:
        """Keep these items, in one blob, all of them or none; they are on disk on return.

        A key that is there already keeps what it has, so that putting twice, or from several
        processes at once, is putting once. When the disk refuses, the error says how much was
        asked for and is free, and all that was there before can still be read.
        """
        blobs.check(items)
        there = self.has(items)
        new = {key: tensors for key, tensors in items.items() if key not in there}
        if not new:
            return
        content = blobs.packed(new)
        blob = blobs.digest(content)
        try:
            self._write(content, blob, new)
        except OSError as error:
            self._discard(blob)
            raise OSError(
                error.errno,
                f"{len(new)} keys of {len(content):,} bytes were not put on {self.path}: "
                f"{error.strerror}. {disk.free(self.path):,} bytes are free there. "
                "All that was there before is kept: make room and put them again",
            ) from error

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
        """What was put under these keys, in their order; every byte is checked as it is read.

        Raises `KeyError` for keys that are not there, `Damaged` when a blob was changed, cut or
        lost: then nothing is given, and the error names every such blob and key.
        """
        return self._fetch(keys, blobs.read)

    def mapped(self, keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
        """The same, memory-mapped: a tensor takes memory only where, and while, it is used.

        Every byte of a blob is checked before its first use by this object, and again when the
        file was changed since.
        """
        return self._fetch(keys, self._map)

    def check(self, keys: Iterable[str]) -> None:
        """Read every byte of what was put under these keys; raises what `get` would."""
        self._fetch(keys, _verified)

    def _map(self, path: Path, keys: list[str]) -> dict[str, dict[str, Tensor]]:
        state = blobs.state(path)
        if not state or self._checked.get(path) != state:
            blobs.verify(path)
            self._checked[path] = state
        return blobs.mapped(path, keys)

    def _fetch(self, keys: Iterable[str], read: Read) -> dict[str, dict[str, Tensor]]:
        keys = list(dict.fromkeys(keys))
        places = self._places(keys)
        items: dict[str, dict[str, Tensor]] = {}
        wrong: dict[Path, str] = {}
        for blob in dict.fromkeys(places.values()):
            path = self._place(blob)
            try:
                items |= read(path, [key for key in keys if places[key] == blob])
            except ValueError as why:
                wrong[path] = str(why)
        if not wrong:
            return {key: items[key] for key in keys}
        if self._places(keys) != places:  # put anew by another process since we looked
            return self._fetch(keys, read)
        raise damage.of_blobs(wrong, [key for key in keys if self._place(places[key]) in wrong])

    def forget(self, keys: Iterable[str]) -> None:
        """Let these keys be put again. What they held lies there until `clean`."""
        with self._index.writing() as connection:
            index.strike(connection, keys)

    def clean(self) -> list[Path]:
        """Remove blobs that no key names and what killed writers left; gives what was removed.

        Safe while others read and write: a blob gets its name and its rows in one transaction,
        and unfinished files are locked as long as their writers live.
        """
        with self._index.writing() as connection:
            needed = {self._place(blob) for blob in index.everything(connection).values()}
            removed = [p for p in sorted(self._partial.iterdir()) if disk.remove_if_abandoned(p)]
            for path in sorted(set(self._blobs.iterdir()) - needed):
                disk.step(path.unlink)
                removed.append(path)
        return removed

    def _write(self, content: bytes, blob: str, new: Items) -> None:
        """The whole blob, then its name, then its rows; the last two in one transaction."""
        if disk.free(self.path) < len(content):
            raise OSError(errno.ENOSPC, "no room is left on the disk")
        with disk.unfinished(self._partial) as (path, handle):
            disk.fill(handle, content)
            with self._index.writing() as connection:
                mine = new.keys() - index.places(connection, new).keys()
                if mine:
                    disk.settle(path, self._place(blob))
                    index.record(connection, sorted(mine), blob)

    def _discard(self, blob: str) -> None:
        """Give back the room of a blob that got its name and no rows, now rather than later."""
        with suppress(OSError, Damaged), self._index.writing() as connection:
            if blob not in index.everything(connection).values():
                self._place(blob).unlink(missing_ok=True)

    def _places(self, keys: list[str]) -> dict[str, str]:
        with self._index.reading() as connection:
            places = index.places(connection, keys)
        if absent := set(keys) - set(places):
            raise KeyError(
                f"{listed(absent)} of {len(keys)} asked for are not on the shelf {self.path}: "
                "shelf.has(keys) tells which are there"
            )
        return places

    def _place(self, blob: str) -> Path:
        return self._blobs / f"{blob}.safetensors"


def _ours(name: str) -> bool:
    return name in ("blobs", "partial") or name.startswith("index.")


def _verified(path: Path, keys: list[str]) -> dict[str, dict[str, Tensor]]:
    blobs.verify(path)
    return blobs.mapped(path, keys)
