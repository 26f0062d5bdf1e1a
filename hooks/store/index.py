"""Which key lies in which blob: one SQLite file, safe for many processes at once."""

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from hooks.store import damage, disk

FORMAT = 1
PATIENCE = 30.0  # seconds to wait for another process's transaction

_AS_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.ENOENT,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}

_TABLES = """
CREATE TABLE item (key TEXT PRIMARY KEY, blob TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX item_blob ON item (blob);
"""


class Index:
    """Key -> SHA-256 of the blob that holds it.

    Every call opens the file anew: a connection survives neither a fork nor a change of threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, rows: Mapping[str, str]) -> None:
        """Make the file, holding `rows`, unless it is there; it appears complete or not at all."""
        with FileLock(self.path.with_suffix(".lock")), _explained(self.path):
            if self.path.exists():
                return
            beside = self.path.with_suffix(".new")
            # The log of an index that was lost would be replayed into the new one.
            for left in (beside, *self.path.parent.glob("*-wal"), *self.path.parent.glob("*-shm")):
                left.unlink(missing_ok=True)
            connection = sqlite3.connect(beside, isolation_level=None)
            try:
                disk.step(connection.executescript, _TABLES)
                connection.executemany("INSERT INTO item VALUES (?, ?)", rows.items())
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                disk.step(connection.execute, "PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            disk.flush(beside)
            disk.settle(beside, self.path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees what was committed before; other processes go on writing."""
        with _explained(self.path):
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of which nothing remains unless all of it succeeds; one at a time."""
        with self.reading() as connection:
            disk.step(connection.execute, "BEGIN IMMEDIATE")
            try:
                yield connection
                disk.step(connection.execute, "COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    connection.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path))}?mode=rw"  # a lost index is not replaced unseen
        connection = sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")  # also against loss of power
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found != FORMAT:
                why = f"its format is {found}, this version reads {FORMAT}"
                raise damage.of_index(self.path, why)
        except BaseException:
            connection.close()
            raise
        return connection


def places(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, str]:
    """The blob of each of these keys that is there."""
    asked = json.dumps(list(keys))
    rows = connection.execute(
        "SELECT key, blob FROM item WHERE key IN (SELECT value FROM json_each(?))", [asked]
    )
    return dict(rows.fetchall())


def everything(connection: sqlite3.Connection) -> dict[str, str]:
    """The blob of every key, in the order of the keys."""
    return dict(connection.execute("SELECT key, blob FROM item ORDER BY key").fetchall())


def record(connection: sqlite3.Connection, keys: Iterable[str], blob: str) -> None:
    """Note that `blob` holds these keys."""
    rows = [(key, blob) for key in keys]
    disk.step(connection.executemany, "INSERT INTO item VALUES (?, ?)", rows)


def strike(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Remove these keys."""
    rows = [(key,) for key in keys]
    disk.step(connection.executemany, "DELETE FROM item WHERE key = ?", rows)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors, told as what they are: no room, no access, or a damaged file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        if code not in _AS_ERRNO:
            raise damage.of_index(path, str(error)) from error
        raise OSError(_AS_ERRNO[code], f"the index: {error}", str(path)) from error
