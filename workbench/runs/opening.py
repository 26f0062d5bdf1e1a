"""Reading back what a run left behind, and checking that it is what was written."""

import hashlib
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.runs.folder import PARTIAL, read_json, root_folder
from workbench.runs.messages import UsageError

_KIND = re.compile(r"((?:workbench|experiments)(?:\.[A-Za-z_]\w*)+):([A-Za-z_]\w*)", re.ASCII)


@dataclass(frozen=True)
class Run:
    """One finished run: its config, how it was made, and what was found."""

    name: str
    id: str
    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)
    kind: type | None = field(default=None, repr=False, compare=False)

    @cached_property
    def result(self) -> Any:
        """What was found, read from disk and checked against its digest."""
        from workbench import results

        written = self.record["result"]
        kind = self.kind or _kind(written["kind"], self.folder)
        return results.load(kind, self.folder / "result.nc", sha256=written["sha256"])

    @property
    def report(self) -> Path:
        """The page about this run."""
        return self.folder / "report.html"

    @property
    def figure(self) -> Path:
        """The figure of the result."""
        return self.folder / "figure.png"


def open(path: Path | str, *, root: Path | str | None = None, kind: type | None = None) -> Run:
    """The run in a folder, or the run called NAME/ID, NAME/start-of-ID or NAME (its latest).

    Checks that `result.nc` is the file that the run wrote. `kind` is the type of the result; it
    is needed only for results that are defined neither in the workbench nor in experiments.
    """
    folder = _find(str(path), root_folder(root))
    found = read(folder, kind=kind)
    with (folder / "result.nc").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    expected = found.record["result"]["sha256"]
    if digest != expected:
        raise ValueError(
            f"{folder / 'result.nc'} has SHA-256 {digest[:12]}, and run.json says "
            f"{expected[:12]}: the file was changed or damaged. Delete the folder and run again"
        )
    return found


def read(folder: Path, *, kind: type | None = None) -> Run:
    """The run in a folder, its result unread; an error that says what is missing there."""
    missing = [file for file in ("config.json", "run.json", "result.nc") if not _has(folder, file)]
    if missing:
        raise ValueError(f"{folder} is no run: it has no {', no '.join(missing)}")
    config, record = read_json(folder / "config.json"), read_json(folder / "run.json")
    written = record.get("result")
    texts = written.values() if isinstance(written, dict) else [None]
    if (
        not isinstance(written, dict)
        or {"kind", "sha256"} - written.keys()
        or not all(isinstance(text, str) for text in texts)
    ):
        raise ValueError(f"{folder / 'run.json'} does not say what its result is: it is no run")
    name = str(record.get("experiment", folder.parent.name))
    return Run(name, folder.name, folder, config, record, kind)


def folders(root: Path, name: str) -> list[Path]:
    """Every folder that lies where the runs of an experiment lie."""
    place = root / name
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def _has(folder: Path, file: str) -> bool:
    return (folder / file).is_file()


def _find(text: str, root: Path) -> Path:
    given = Path(text).expanduser()
    if _has(given, "run.json") or (given.is_dir() and given.is_absolute()):
        return given
    name, _, start = text.strip("/").partition("/")
    there = [folder for folder in folders(root, name) if _has(folder, "run.json")]
    if name in ("", ".", "..", PARTIAL) or not there:
        raise UsageError(_unknown(text, root))
    fitting = [folder for folder in there if folder.name.startswith(start)]
    exact = [folder for folder in fitting if folder.name == start]
    if not start:
        return max(fitting, key=lambda folder: (folder / "run.json").stat().st_mtime)
    if exact or len(fitting) == 1:
        return (exact or fitting)[0]
    shown = ", ".join(folder.name for folder in (fitting or there)[:8])
    problem = "several runs begin so" if fitting else "no such run"
    raise UsageError(f"{text}: {problem}; there {'are' if fitting else 'is'} {shown}")


def _unknown(text: str, root: Path) -> str:
    names = (
        sorted(path.name for path in root.iterdir() if path.is_dir() and path.name != PARTIAL)
        if root.is_dir()
        else []
    )
    near = get_close_matches(text.partition("/")[0], names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join(names) if names else "none yet ('workbench run NAME' makes one)"
    return f"no run {text!r} in {root}; there are runs of: {known}.{hint}"


def _kind(text: str, folder: Path) -> type:
    """The type that a record names, if it is a result of the workbench or of an experiment."""
    from workbench.results import Result

    matched = _KIND.fullmatch(text)
    if matched:
        try:
            kind = getattr(importlib.import_module(matched[1]), matched[2], None)
        except ModuleNotFoundError:
            kind = None
        if isinstance(kind, type) and issubclass(kind, Result):
            return kind
    raise ValueError(
        f"{folder / 'run.json'} says that its result is a {text!r}, which is no result of the "
        "workbench or an experiment here: say what it is with runs.open(path, kind=...)"
    )
