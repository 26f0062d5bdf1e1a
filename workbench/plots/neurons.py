"""Figures of what neurons do on running text, and of all of them at a glance."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.neurons import Activity, Atlas, Confidence, Explained, Triggers, Universal, Written
from workbench.plots.style import BLUE, GREY, INK, OCHRE, QUIET, RED, new_figure, styled, titled

_MOST = 16  # bars in a panel


def short(task: str) -> str:
    """A corpus without its numbers, for a title."""
    return task.partition(":")[0]


def draw_activity(result: Activity, ax: Axes | None = None) -> Figure:
    """How sparse each layer's neurons are, and what they do at first tokens and hardly elsewhere.

    Only the first panel is drawn where `ax` is given.
    """
    title = f"What neurons do on {short(result.task)}, {result.model}"
    with styled():
        if ax is not None:
            _by_layer(ax, result.sparsity.numpy(), "sparsity (0 always, 1 rarely)")
            return titled(ax, title)
        figure = new_figure(width=9.6, height=3.4)
        left, middle, right = figure.subplots(1, 3)
        _by_layer(left, result.sparsity.numpy(), "sparsity (0 always, 1 rarely)")
        _by_layer(middle, result.positive.numpy(), "share of activations above 0")
        ordinary, first = result.ordinary.numpy(), result.first_size.numpy()
        _first_tokens(right, ordinary, first, "usual", "1 in 1,000 other tokens go beyond")
        return titled(left, title)


def draw_atlas(result: Atlas, ax: Axes | None = None) -> Figure:
    """Sparsity by layer, how well explanations predict, and how large they are at first tokens.

    Only the explanations are drawn where `ax` is given.
    """
    title = f"Neurons of {result.model} on {short(result.task)}"
    names = [str(one) for one in result.neurons]
    with styled():
        if ax is not None:
            _scores(ax, names, result.score.numpy(), result.null.numpy())
            return titled(ax, title)
        figure = new_figure(width=10.4, height=4.0)
        left, middle, right = figure.subplots(1, 3)
        _by_layer(left, result.sparsity.numpy(), "sparsity (0 always, 1 rarely)")
        _scores(middle, names, result.score.numpy(), result.null.numpy())
        elsewhere, first = result.largest.numpy(), result.first_largest.numpy()
        _first_tokens(right, elsewhere, first, "largest", "largest size elsewhere")
        return titled(left, title)


def draw_explained(result: Explained, ax: Axes | None = None) -> Figure:
    """How well each explanation predicts its neuron, and how well others' do."""
    names = [".".join(map(str, one)) for one in result.neurons.tolist()]
    with styled():
        ax = ax or new_figure(width=5.2, height=4.2).subplots()
        assert ax is not None
        _scores(ax, names, result.score.numpy(), result.null.numpy())
        return titled(ax, f"Explanations of neurons, {result.model}")


def draw_triggers(result: Triggers, ax: Axes | None = None) -> Figure:
    """At effectively how many kinds of token each neuron fires; detectors are filled."""
    names = [".".join(map(str, one)) for one in result.neurons.tolist()]
    with styled():
        ax = ax or new_figure(width=5.2, height=4.2).subplots()
        assert ax is not None
        marked = result.detector.numpy()
        bars(ax, names, result.kinds.numpy(), filled=marked, colors=[BLUE] * len(names))
        ax.set(xlabel="effective number of tokens", xscale="log")
        ax.set_title("filled: detects a few tokens", loc="left")
        return titled(ax, f"What neurons fire at on {short(result.task)}, {result.model}")


def draw_written(result: Written, ax: Axes | None = None) -> Figure:
    """How concentrated each neuron's logits are, by layer; which promote and which suppress."""
    with styled():
        ax = ax or new_figure(width=5.6, height=3.6).subplots()
        assert ax is not None
        layers = np.repeat(np.arange(len(result.kurtosis)), result.kurtosis.shape[1])
        suppress = result.skewness.numpy().ravel() < 0
        kurtosis = result.kurtosis.numpy().ravel()
        shift = np.where(suppress, 0.18, -0.18)
        for side, color, label in ((False, BLUE, "promotes few"), (True, RED, "suppresses few")):
            some = suppress == side
            ax.scatter(
                (layers + shift)[some], kurtosis[some], s=4, color=color, alpha=0.35,
                linewidths=0, label=label, rasterized=True,
            )  # fmt: skip
        ax.set(xlabel="layer", ylabel="kurtosis of its logits (normal: 3)", yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(loc="upper left", markerscale=2)
        return titled(ax, f"What neurons write, {result.model}")


def draw_universal(result: Universal, ax: Axes | None = None) -> Figure:
    """Best correlations with another model's neurons, and with a rotation of them."""
    with styled():
        ax = ax or new_figure(width=5.2, height=3.4).subplots()
        assert ax is not None
        edges = np.linspace(0, 1, 41).tolist()
        for values, color, label in (
            (result.correlation, BLUE, "neurons"), (result.baseline, GREY, "rotated basis"),
        ):  # fmt: skip
            ax.hist(values.numpy().ravel(), edges, histtype="step", color=color, label=label)
        ax.set(xlabel=f"best |correlation| in {result.other}", ylabel="neurons")
        ax.legend()
        return titled(ax, f"Counterparts of {result.model}'s neurons")


def draw_confidence(result: Confidence, ax: Axes | None = None) -> Figure:
    """Length of w_out against its share in the null space; what ablation does to the entropy."""
    title = f"Neurons that set confidence, {result.model}"
    with styled():
        if ax is not None:
            _null_space(ax, result)
            return titled(ax, title)
        figure = new_figure(width=8.4, height=3.4)
        left, right = figure.subplots(1, 2)
        _null_space(left, result)
        names = [str(one) for one in result.neurons]
        place = np.arange(len(names))
        right.barh(place - 0.2, result.total.numpy(), 0.38, color=BLUE, label="total")
        right.barh(place + 0.2, result.frozen.numpy(), 0.38, color=OCHRE, label="norm's scale held")
        right.set(yticks=place, yticklabels=names, xlabel=f"change of the entropy ({result.unit})")
        right.invert_yaxis()
        right.legend(loc="lower right")
        return titled(left, title)


def bars(
    ax: Axes,
    names: Sequence[str],
    values: np.ndarray,
    *,
    colors: Sequence[str],
    filled: np.ndarray | None = None,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Horizontal bars from above, at most so many; hollow where not `filled`."""
    count = min(len(names), _MOST)
    place = np.arange(count)
    full = np.ones(count, bool) if filled is None else filled[:count]
    faces = [color if one else "white" for color, one in zip(colors, full, strict=False)]
    ax.barh(place, values[:count], 0.7, color=faces, edgecolor=list(colors[:count]), linewidth=0.9)
    if bounds is not None:
        ax.hlines(place, bounds[0][:count], bounds[1][:count], color=INK, linewidth=0.9)
    ax.axvline(0, color=QUIET, linewidth=0.7)
    ax.set(yticks=place, yticklabels=list(names[:count]), ylim=(count - 0.4, -0.6))
    if len(names) > count:
        ax.set_ylabel(f"{count} of {len(names)} neurons", color=QUIET)


def _by_layer(ax: Axes, values: np.ndarray, label: str) -> None:
    """Each layer's middle half and its median."""
    layers = np.arange(len(values))
    low, middle, high = np.nanpercentile(values, (25, 50, 75), axis=1)
    least, most = np.nanpercentile(values, (1, 99), axis=1)
    ax.fill_between(layers, least, most, color=BLUE, alpha=0.12, linewidth=0, label="1 to 99 %")
    ax.fill_between(layers, low, high, color=BLUE, alpha=0.3, linewidth=0, label="middle half")
    ax.plot(layers, middle, color=BLUE, linewidth=1.6, marker="o", markersize=2.6, label="median")
    ax.set(xlabel="layer", title=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best", fontsize=7)


def _first_tokens(
    ax: Axes, elsewhere: np.ndarray, first: np.ndarray, which: str, other: str
) -> None:
    """A size at first tokens against one elsewhere, one point for each neuron."""
    elsewhere, first = elsewhere.ravel(), first.ravel()
    there = (elsewhere > 0) & (first > 0)
    out = there & (first >= 6 * elsewhere)
    for some, color, size in ((there & ~out, GREY, 3), (out, RED, 12)):
        ax.scatter(
            elsewhere[some], first[some], s=size, color=color, alpha=0.5, linewidths=0,
            rasterized=True,
        )  # fmt: skip
    ends = np.array([elsewhere[there].min(), elsewhere[there].max()])
    ax.plot(ends, ends, color=QUIET, linewidth=0.7)
    ax.plot(ends, 6 * ends, color=RED, linewidth=0.7, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel=other)
    ax.set_title(f"{which} size at first tokens\n{int(out.sum())} above 6 times (dotted)")


def _scores(ax: Axes, names: Sequence[str], score: np.ndarray, null: np.ndarray) -> None:
    order = np.argsort(-np.nan_to_num(score), kind="stable")
    ordered = [str(names[at]) for at in order.tolist()]
    bars(ax, ordered, score[order], colors=[BLUE] * len(names))
    place = np.arange(min(len(names), _MOST))
    ax.plot(null[order][: len(place)], place, "o", color=OCHRE, markersize=4)
    ax.set(xlabel="correlation with the truth, held out")
    ax.set_title("how well its explanation predicts\n(dots: explanations of other neurons)")


def _null_space(ax: Axes, result: Confidence) -> None:
    length, null = result.length.numpy(), result.null.numpy()
    ax.scatter(
        length[:-1].ravel(), null[:-1].ravel(), s=3, color=GREY, alpha=0.4, linewidths=0,
        label="other layers", rasterized=True,
    )  # fmt: skip
    ax.scatter(length[-1], null[-1], s=6, color=BLUE, alpha=0.6, linewidths=0, label="last layer")
    for one in result.neurons[:4]:
        ax.annotate(str(one), (length[one], null[one]), fontsize=7, color=INK)
    ax.set(xlabel="length of what it writes", title="share the unembedding hardly reads")
    ax.legend()
