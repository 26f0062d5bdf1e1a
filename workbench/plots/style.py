"""How every figure looks: its settings, its colours, and what a mark means.

Settings hold only inside `styled()`. Nothing global is changed, and pyplot is never imported, so
no figure stays behind in its registry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, RED, INK, QUIET, LINES = "#2166ac", "#b2182b", "#222222", "#6b6b6b", "#e3e3e3"
"""The ends of the diverging map, what is written, what stays in the background, and its lines."""

OCHRE, GREY = "#d08c2e", "#7a7a7a"
"""Two kinds that have no sign, side by side."""

LEVEL = 0.05
"""Corrected p-values up to this are marked as significant."""

DPI = 150

_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "interpretability-workbench",
}

# Dates and versions of the drawing library would make equal figures differ as files.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
FORMATS = tuple(_METADATA)


class WorkbenchFigure(Figure):
    """A figure that shows itself in Jupyter without pyplot."""

    def _repr_png_(self) -> bytes:
        return encoded(self, "png")


@contextmanager
def styled() -> Iterator[None]:
    """While open, what is drawn or saved looks the same whatever the user's own settings are."""
    with style.context(["default", _SETTINGS]):
        yield


def new_figure(*, width: float, height: float) -> Figure:
    """An empty figure, in inches, that pyplot does not know of."""
    return WorkbenchFigure(figsize=(width, height), dpi=DPI, layout="constrained")


def titled(axes: Axes, title: str) -> Figure:
    """The figure that `axes` is in, titled: as a whole where it is ours, else over `axes`."""
    figure, title = axes.get_figure(root=True), title.replace("$", r"\$")
    if isinstance(figure, WorkbenchFigure):
        figure.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")
    else:
        axes.set_title("\n".join([title, axes.get_title(loc="left")]).strip(), loc="left")
    assert figure is not None
    return figure


def encoded(figure: Figure, kind: str) -> bytes:
    """The figure as a png, pdf or svg: fonts embedded, no date, the same bytes every time."""
    if kind not in FORMATS:
        raise ValueError(
            f"cannot save a figure as {kind!r}; the file's ending is one of {', '.join(FORMATS)}"
        )
    buffer = BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=_METADATA[kind])
    return buffer.getvalue()
