"""Figures of what comes back when a head is removed."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workbench.heads import SelfRepair
from workbench.plots import marks
from workbench.plots.redundancy import named
from workbench.plots.style import BLUE, GREY, INK, LINES, OCHRE, QUIET, new_figure, styled, titled

_COLORS = {"norm": GREY, "heads": BLUE, "mlps": OCHRE}
_WORDS = {"norm": "last norm", "heads": "other heads", "mlps": "MLPs"}


def draw_self_repair(result: SelfRepair, ax: Axes | None = None) -> Figure:
    """Direct against total effect, and beside it whose output makes the difference.

    Only the shares are drawn where `ax` is given.
    """
    title = f"{result.task}: heads removed ({result.ablation} ablation), {result.model}"
    with styled():
        if ax is not None:
            _shares(ax, result)
            return titled(ax, title)
        height = max(3.8, 1.7 + 0.3 * len(result.heads))
        figure = new_figure(width=8.2, height=height)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _scatter(left, result)
        _shares(right, result)
        return titled(left, title)


def _scatter(ax: Axes, result: SelfRepair) -> None:
    direct, total = result.direct.numpy(), result.total.numpy()
    across = np.abs(np.stack([result.direct_low.numpy(), result.direct_high.numpy()]) - direct)
    along = np.abs(np.stack([result.total_low.numpy(), result.total_high.numpy()]) - total)
    ax.errorbar(
        direct, total, xerr=across, yerr=along, fmt="o", color=BLUE, ecolor=QUIET, markersize=4,
        elinewidth=0.8, gid="heads",
    )  # fmt: skip
    ends = np.array([min(direct.min(), total.min(), 0), max(direct.max(), total.max(), 0)])
    ends = ends + 0.08 * np.ptp(ends) * np.array([-1, 1])
    ax.plot(ends, ends, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    start = float(ends[0] + 0.04 * np.ptp(ends))
    ax.text(
        start, start, "nothing comes back", fontsize=8, color=QUIET,
        rotation=45, rotation_mode="anchor", transform_rotates_text=True, va="bottom",
    )  # fmt: skip
    ax.axhline(0, color=LINES, linewidth=0.8, zorder=0)
    ax.axvline(0, color=LINES, linewidth=0.8, zorder=0)
    far = np.argsort(-np.hypot(direct, total), kind="stable")[: marks.MOST_BARS]
    for at in far:
        ax.annotate(
            named(result.heads[at]), (direct[at], total[at]), xytext=(4, 4),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    ax.set(xlabel=f"direct effect ({result.unit})", ylabel=f"total effect ({result.unit})")
    ax.set_title("above the line where direct < 0: made up for", fontsize=8)


def _shares(ax: Axes, result: SelfRepair) -> None:
    """Stacked shares of every head, and a line with bounds for their sum."""
    rows = np.arange(len(result.heads), dtype=float)
    share = result.share.numpy()
    for sign in (1, -1):
        start = np.zeros(len(rows))
        for at, part in enumerate(result.parts):
            value = np.where(np.sign(share[:, at]) == sign, share[:, at], 0.0)
            ax.barh(rows, value, left=start, height=0.6, color=_COLORS.get(part, GREY), gid=part)
            start = start + value
    repair = result.repair.numpy()
    marks.intervals(ax, rows, low=result.low.numpy(), high=result.high.numpy())
    ax.plot(repair, rows, "D", color=INK, markersize=4, zorder=4, gid="repair")
    names = [
        f"{named(head)}  ({float(direct):+.2f})"
        for head, direct in zip(result.heads, result.direct, strict=True)
    ]
    marks.bar_axes(ax, names, label=f"total − direct ({result.unit})")
    handles = [Patch(color=_COLORS.get(p, GREY), label=_WORDS.get(p, p)) for p in result.parts]
    ax.use_sticky_edges = False
    ax.margins(x=0.06)
    ax.legend(handles=handles, loc="lower right", ncols=1, handlelength=1.0)
    ax.set_ylabel("head (its direct effect)")
    ax.set_title("what the rest of the model adds (diamond: sum)", fontsize=8)
