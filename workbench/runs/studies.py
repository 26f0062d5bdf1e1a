"""One experiment, many configs: what is complete is skipped, what fails is listed."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from workbench.runs.folder import BusyError, id_of
from workbench.runs.held import holding
from workbench.runs.messages import sentence
from workbench.runs.opening import Run
from workbench.runs.recording import Again, record

if TYPE_CHECKING:
    from pandas import DataFrame

Config = TypeVar("Config")


@dataclass(frozen=True)
class Failure:
    """A cell of a study that gave no result, and why."""

    config: Any
    error: str
    traceback: str = field(repr=False)


@dataclass(frozen=True)
class Study:
    """The runs of a study in the order of its configs, and the cells that failed."""

    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]

    def table(self) -> "DataFrame":
        """One row per run: its config, its headline with bounds, its seconds."""
        from workbench.runs.tables import frame_of

        return frame_of(self.runs)

    def __str__(self) -> str:
        lines = [f"{len(self.runs)} runs are complete, {len(self.failures)} failed"]
        return "\n".join(
            [*lines, *(f"  {cell.config}\n    {cell.error}" for cell in self.failures)]
        )


def study(
    run: Callable[[Config], Any],
    configs: Iterable[Config],
    *,
    root: Path | str | None = None,
    again: Again = "changed",
) -> Study:
    """Make a run of every config; start it again after an interrupt and it goes on from there.

    Runs that are complete are opened, as `record` does. A model that several cells load is
    loaded once: cells with equal `model` follow each other. A cell that fails does not stop the
    others. Several processes may work on one study: each takes cells that no other is making.
    """
    cells = {id_of(config): config for config in configs}
    make = partial(record, run, root=root, again=again)
    done: dict[str, Run | Failure] = {}
    with holding() as held, tqdm(total=len(cells), desc="runs", unit="run") as bar:
        for waiting in (0.0, None):  # first what no other process is making, then the rest
            left = {ident: config for ident, config in cells.items() if ident not in done}
            for group in _by_model(left):
                for ident in group:
                    outcome = _attempt(partial(make, waiting=waiting), cells[ident])
                    if outcome is not None:
                        done[ident] = outcome
                        bar.update()
                    if isinstance(outcome, Failure):
                        held.forget()  # it may have left anything in the model
                held.forget()
    outcomes = [done[ident] for ident in cells]
    return Study(
        tuple(cell for cell in outcomes if isinstance(cell, Run)),
        tuple(cell for cell in outcomes if isinstance(cell, Failure)),
    )


def _attempt(make: Callable[[Any], Run], config: Any) -> Run | Failure | None:
    """A run, or why there is none; None while another process is making it."""
    try:
        return make(config)
    except BusyError:
        return None
    except Exception as error:
        return Failure(config, sentence(error), traceback.format_exc())


def _by_model(cells: Mapping[str, Any]) -> list[list[str]]:
    """The names of the cells, those of one model together, otherwise in their order."""
    groups: dict[str, list[str]] = {}
    for ident, config in cells.items():
        groups.setdefault(str(getattr(config, "model", "")), []).append(ident)
    return list(groups.values())
