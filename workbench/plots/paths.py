"""Figures of what senders say to receivers, and of where restored states bring an answer back."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.patching import PathEffects, Tracing
from workbench.plots import marks
from workbench.plots.style import BLUE, GREY, INK, LEVEL, OCHRE, new_figure, styled, titled

_BETWEEN = {
    "free": "MLPs and norms between are free",
    "frozen": "all between is held",
    "linear": "all between is held, and the last norm's scale",
}
_COLORS = (OCHRE, BLUE, GREY)


def draw_path_effects(result: PathEffects, ax: Axes | None = None) -> Figure:
    """A map of the senders, heads and MLPs, and beside it the strongest with their bounds.

    Only the map is drawn where `ax` is given.
    """
    maps = _with_mlps(result)
    heads = result.effect.shape[1]
    columns = marks.Side("sending head", [*map(str, range(heads)), "MLP"])
    meaning = _meaning(result)
    title = f"{result.task}: what is said to {result.to}, {result.model}"
    said = f"{_BETWEEN[result.between]} (outlined: corrected p ≤ {LEVEL})"
    with styled():
        if ax is not None:
            marks.grid(ax, maps["effect"], maps["p"] <= LEVEL, meaning=meaning, columns=columns,
                       title=said)  # fmt: skip
            return titled(ax, title)
        figure = new_figure(width=7.6, height=marks.grid_height(len(result.effect)))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        marks.grid(
            left, maps["effect"], maps["p"] <= LEVEL, meaning=meaning, columns=columns, title=said
        )
        cells = marks.strongest(maps["effect"], marks.MOST_BARS)
        at = tuple(np.array(cells, dtype=int).reshape(-1, 2).T)
        marks.bars(
            right,
            maps["effect"][at],
            bounds=(maps["low"][at], maps["high"][at]),
            marked=maps["p"][at] <= LEVEL,
            names=[f"MLP {a}" if b == heads else f"{a}.{b}" for a, b in cells],
            meaning=meaning,
        )
        right.set_title(f"strongest senders (filled: p ≤ {LEVEL})", fontsize=8)
        return titled(left, title)


def _with_mlps(result: PathEffects) -> dict[str, np.ndarray]:
    """The maps of heads with the MLPs as their last column."""
    pairs = {"effect": "mlp", "low": "mlp_low", "high": "mlp_high", "p": "mlp_p"}
    return {
        heads: np.column_stack([getattr(result, heads).numpy(), getattr(result, mlps).numpy()])
        for heads, mlps in pairs.items()
    }


def _meaning(result: PathEffects) -> marks.Meaning:
    label = f"change in {marks.words(result.metric)} ({result.unit})"
    if result.direction == "denoise":
        return marks.Meaning(label, "hurts the answer", "brings it back", helps="positive")
    return marks.Meaning(label, "the path helps", "gets in the way", helps="negative")


def draw_tracing(result: Tracing, ax: Axes | None = None) -> Figure:
    """A map of the places at which a state was restored, and the strongest places by layer.

    Only the map is drawn where `ax` is given.
    """
    columns = marks.Side(
        "role of the token" if result.over == "role" else "token position", result.places
    )
    title = f"{result.task}: noise on the {result.subject}, {_what(result)} restored, "
    title += result.model
    with styled():
        if ax is not None:
            _map(ax, result, columns)
            return titled(ax, title)
        width = marks.grid_width(columns, len(result.places))
        height = marks.grid_height(len(result.layers)) + 0.4
        figure = new_figure(width=width + 4.2, height=height)
        left, right = figure.subplots(1, 2, width_ratios=(width, 4.2))
        _map(left, result, columns)
        _curves(right, result)
        return titled(left, title)


def _what(result: Tracing) -> str:
    window = "" if result.window == 1 else f" of {result.window} layers"
    cut = "" if result.severed == "none" else f" with later {result.severed} severed"
    return f"{result.stream}{window}{cut}"


def _map(axes: Axes, result: Tracing, columns: marks.Side) -> None:
    marks.grid(
        axes,
        result.effect.numpy(),
        (result.p <= LEVEL).numpy(),
        meaning=marks.Meaning(
            f"{marks.words(result.metric)} restored ({result.unit})",
            "takes away",
            "brings back",
            helps="positive",
        ),
        columns=columns,
        rows=marks.Side("layer", [str(layer) for layer in result.layers]),
        title=f"every place (outlined: corrected p ≤ {LEVEL})",
    )


def _curves(axes: Axes, result: Tracing) -> None:
    """The places that bring most back, by layer; a line for what there is to bring back."""
    effect, layers = result.effect.numpy(), np.array(result.layers)
    order = np.argsort(-np.abs(effect).max(axis=0), kind="stable")[: len(_COLORS)]
    for place, color in zip(sorted(order.tolist()), _COLORS, strict=False):
        bounds = (result.low.numpy()[:, place], result.high.numpy()[:, place])
        marks.curve(
            axes, layers, effect[:, place], bounds=bounds, label=result.places[place], color=color
        )
    axes.axhline(0, color=INK, linewidth=0.7)
    axes.axhline(result.total, color=INK, linewidth=1.0, linestyle="--", label="all of it")
    axes.set(xlabel="layer", ylabel=f"restored ({result.unit})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("strongest places by layer", fontsize=8)
    axes.legend(loc="best")
