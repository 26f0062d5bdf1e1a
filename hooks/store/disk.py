"""The steps by which bytes reach the disk. Each of them can fail, and each may be the last.

A new file is locked while it is being written, so that whoever tidies up can tell what a living
process is working on from what a killed one left behind.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

try:
    import fcntl
except ImportError:  # Windows removes no file that is open, which tells as much
    fcntl = None

Given = ParamSpec("Given")
Found = TypeVar("Found")

CHUNK = 1 << 26  # bytes; a single write of more than 2 GB is cut short by Linux


def step(do: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
    """Do one thing that the disk may refuse. Tests put a disk that fails in its place."""
    return do(*given, **named)


@contextmanager
def unfinished(folder: Path) -> Iterator[tuple[Path, FileIO]]:
    """A new file that nobody else touches; it is gone afterwards, unless it was moved away."""
    path, handle = _claim(folder)
    try:
        yield path, handle
    finally:
        handle.close()
        path.unlink(missing_ok=True)


def _claim(folder: Path) -> tuple[Path, FileIO]:
    while True:
        path = folder / f"{uuid.uuid4().hex}.partial"
        handle = step(path.open, "xb", buffering=0)
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Somebody tidying up may have taken it for an orphan before it was locked.
        if os.fstat(handle.fileno()).st_nlink:
            return path, handle
        handle.close()


def fill(handle: FileIO, content: bytes) -> None:
    """Write all of `content` and wait until the disk has it."""
    rest = memoryview(content)
    while rest:
        rest = rest[step(handle.write, rest[:CHUNK]) :]
    step(os.fsync, handle.fileno())
    if fcntl is None:  # Windows moves no file that is open
        handle.close()


def settle(path: Path, place: Path) -> None:
    """Give a finished file its name in one step, and wait until the disk has the name."""
    step(path.replace, place)
    flush(place.parent)


def flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        step(os.fsync, handle)
    finally:
        os.close(handle)


def remove_if_abandoned(path: Path) -> bool:
    """Remove an unfinished file whose writer is gone; whether it was removed."""
    try:
        with path.open("rb") as handle:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                step(path.unlink)
                return True
        step(path.unlink)
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False
    return True


def free(folder: Path) -> int:
    """Bytes that may still be written there."""
    return shutil.disk_usage(folder).free
