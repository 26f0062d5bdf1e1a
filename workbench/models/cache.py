"""The user's cache of prepared models. An entry is complete or absent, whatever happens."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path


def root() -> Path:
    """Where prepared models are kept; the variable WORKBENCH_CACHE overrides it."""
    named = os.environ.get("WORKBENCH_CACHE")
    return Path(named).expanduser() if named else user_cache_path("interpretability-workbench")


def entry(name: str, prepare: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `prepare(folder)` if it is not there yet.

    `prepare` works in a folder beside the entry, which is moved into place in one step when
    it returns. Of two processes that start at once, one prepares and the other waits.
    """
    folder = root() / name
    if folder.is_dir():
        return folder
    with _alone(folder):
        if not folder.is_dir():
            _sweep(folder)
            _prepare(folder, prepare)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; where the lock cannot be made, the cache cannot be written."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}: the cache {root()} cannot be written; WORKBENCH_CACHE "
            "names another place",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _prepare(folder: Path, prepare: Callable[[Path], None]) -> None:
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    beside.mkdir()
    try:
        prepare(beside)
        _to_disk(beside)
        beside.rename(folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free / 1e9
        advice = (
            f"{folder} was not made and nothing half-written was left; {free:.1f} GB are free "
            "there, and WORKBENCH_CACHE names another place"
        )
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"{error.strerror or error}: {advice}") from error
        error.add_note(advice)
        raise


def _to_disk(folder: Path) -> None:
    """Every byte is on disk before the entry gets its name."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left beside the entry; the caller holds its lock."""
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
