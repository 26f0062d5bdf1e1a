"""Where a run lies, and how it gets there: complete or absent.

A run is built in `.partial/NAME/ID` inside the runs folder, under a lock, and moved to `NAME/ID` by
one rename. A process that is killed leaves its lock open and its half-built folder behind; whoever
holds that lock next may sweep it away.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

PARTIAL = ".partial"
CELLS = ".cells"  # beneath it
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
_SHOWN = 60  # characters of the fields in an id; the digest tells the rest


class BusyError(Exception):
    """Another process is making this run now."""


def root_folder(root: Path | str | None = None) -> Path:
    """The folder of all runs: what is given, else `WORKBENCH_RUNS`, else `./runs`."""
    chosen = root if root is not None else os.environ.get("WORKBENCH_RUNS") or "runs"
    return Path(chosen).expanduser().resolve()


def place_of(root: Path, name: str, ident: str) -> Path:
    """Where this run belongs; refuses names that would lead out of the runs folder."""
    folder = root / checked(name)
    place = folder / checked(ident)
    for step in (root / PARTIAL, root / PARTIAL / name, folder, place):
        if step.is_symlink():
            raise ValueError(
                f"{step} is a symbolic link, which could lead out of the runs folder: "
                "remove it, or choose another runs folder with --runs or WORKBENCH_RUNS"
            )
    return place


def checked(name: str) -> str:
    """The name itself, if it can name a folder inside the runs folder."""
    if _NAME.fullmatch(name) and ".." not in name:
        return name
    raise ValueError(
        f"{name[:120]!r} cannot name a run: use 1 to 100 letters, digits, '_', '-' and single "
        "dots, and begin with a letter, a digit or '_'"
    )


def id_of(config: Any) -> str:
    """A readable name for a config: the fields that differ from the defaults, and a digest of all.

    Two configs have the same id exactly when all their fields are equal.
    """
    given = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if getattr(config, field.name) != field.default or field.default is MISSING
    }
    shown = "_".join(f"{name}-{_plain(value)}" for name, value in given.items())[:_SHOWN]
    return f"{shown.strip('-_.') or 'default'}_{digest_of(config)[:12]}"


def digest_of(config: Any) -> str:
    """SHA-256 of all fields of a config."""
    return hashlib.sha256(written(asdict(config)).encode()).hexdigest()


def written(content: Mapping[str, Any]) -> str:
    """The mapping as JSON, in the order of its keys, so that equal content is equal text."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping that a JSON file of a run holds."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping: it was not written by a run")
    return content


@contextmanager
def building(place: Path, *, waiting: float | None = None) -> Iterator[Path]:
    """An empty folder to build a run in, for this process alone.

    What is in it when the block ends is discarded, unless `publish` moved it to its place.
    Waits for another process that makes the same run; at most `waiting` seconds where they are
    given, then raises `BusyError`.
    """
    scratch = place.parent.parent / PARTIAL / place.parent.name / place.name
    scratch.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_of(scratch))
    try:
        lock.acquire(timeout=-1 if waiting is None else waiting)
    except Timeout as error:
        raise BusyError(f"another process is making {place}") from error
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def publish(scratch: Path, place: Path) -> None:
    """Move what was built to its place, in one rename; what lay there before is replaced."""
    for file in scratch.iterdir():
        _to_disk(file)
    _to_disk(scratch)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        old = scratch.with_name(f"{scratch.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        scratch.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        scratch.rename(place)
    _to_disk(place.parent)


def cells_of(place: Path) -> Path:
    """Where the cells of a run's sweeps are kept until it is complete."""
    return place.parent.parent / PARTIAL / CELLS / place.parent.name / place.name


def sweep(root: Path) -> None:
    """Remove what killed processes left half-built; what another process builds now stays."""
    for scratch in sorted((root / PARTIAL).glob("*/*")):
        if scratch.parent.name == CELLS:  # what an interrupted run will go on with
            continue
        if scratch.is_symlink() or not scratch.is_dir():
            continue
        lock = FileLock(_lock_of(scratch.with_name(scratch.name.removesuffix(".old"))))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(scratch, ignore_errors=True)
        except Timeout:
            continue


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.+]+", "-", str(value))[:24].replace("..", ".").strip("-.") or "x"


def _lock_of(scratch: Path) -> str:
    return str(scratch.with_name(f"{scratch.name}.lock"))


def _to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
