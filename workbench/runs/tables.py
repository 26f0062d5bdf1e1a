"""Many runs at one glance: a row for each."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pandas import DataFrame

from workbench.runs.folder import checked, root_folder
from workbench.runs.headlines import headlines
from workbench.runs.opening import Run, folders, read


def table(name: str, *, root: Path | str | None = None) -> DataFrame:
    """One row per complete run of an experiment: its config, headline with bounds, seconds, id.

    Folders that are no complete run are named in a warning and in `.attrs["broken"]`, with what is
    wrong with them. The numbers come from run.json; `runs.open` checks the result behind them.
    """
    home = root_folder(root)
    whole, broken = [], {}
    for folder in folders(home, checked(name)):
        try:
            whole.append(read(folder))
        except (ValueError, OSError) as error:
            broken[folder.name] = str(error)
    if not whole and not broken:
        raise ValueError(f"no runs of {name!r} in {home}: 'workbench run {name}' makes one")
    frame = frame_of(whole)
    frame.attrs["broken"] = broken
    if broken:
        warnings.warn(f"left out of the table: {'; '.join(broken.values())}", stacklevel=2)
    return frame


def frame_of(found: Iterable[Run]) -> DataFrame:
    """One row per run, in their order."""
    return DataFrame([_row(run) for run in found])


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"id": run.id, **run.config}
    for name, headline in headlines(run.record).items():
        column = name if name not in row else f"found_{name}"
        row[column] = headline.value
        if headline.low is not None or headline.high is not None:
            row |= {f"{column}_low": headline.low, f"{column}_high": headline.high}
    return row | {"seconds": run.record.get("seconds"), "started": run.record.get("started")}
