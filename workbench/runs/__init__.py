"""A config to a run folder; many configs to a study; tables and comparisons over runs.

The only door to clock, git, global seeds and the command line. Does not know what an experiment
means. A run leaves `runs/NAME/ID/`: config.json, run.json, result.nc, figure.png, report.html,
complete or absent.
"""

from typing import TYPE_CHECKING, Any

from workbench.runs.command import main
from workbench.runs.observed import EditDiscardedError
from workbench.runs.opening import Run, open
from workbench.runs.recording import Again, record
from workbench.runs.studies import Failure, Study, study

if TYPE_CHECKING:
    from workbench.runs.comparison import Comparison, compare
    from workbench.runs.tables import table

__all__ = [
    "Again",
    "Comparison",
    "EditDiscardedError",
    "Failure",
    "Run",
    "Study",
    "compare",
    "main",
    "open",
    "record",
    "study",
    "table",
]

_LATER = {"table": "tables", "compare": "comparison", "Comparison": "comparison"}


def __getattr__(name: str) -> Any:
    # pandas and scipy take half a second to import, which `workbench list` need not wait for.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
