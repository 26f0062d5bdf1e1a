"""Figures of what a model loses without neurons, and of which neurons know something."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.neurons import (
    ConceptNeurons,
    ConceptStudy,
    KnowledgeNeurons,
    NeuronAttribution,
    NeuronEffects,
    Screen,
)
from workbench.plots import marks
from workbench.plots.neurons import bars, short
from workbench.plots.style import BLUE, GREY, LEVEL, OCHRE, QUIET, RED, new_figure, styled, titled


def draw_neuron_effects(result: NeuronEffects, ax: Axes | None = None) -> Figure:
    """The strongest effects with their bounds; filled where they are significant."""
    with styled():
        ax = ax or new_figure(width=5.4, height=4.2).subplots()
        assert ax is not None
        _effects(ax, result)
        return titled(ax, f"{short(result.task)} without neurons, {result.model}")


def draw_screen(result: Screen, ax: Axes | None = None) -> Figure:
    """Estimates against exact effects, and the strongest exact ones.

    Only the comparison is drawn where `ax` is given.
    """
    title = f"Neurons for {result.task} ({result.ablation} ablation), {result.model}"
    with styled():
        if ax is not None:
            _agreement(ax, result)
            return titled(ax, title)
        figure = new_figure(width=8.8, height=4.0)
        left, right = figure.subplots(1, 2)
        _agreement(left, result)
        _effects(right, result.exact)
        return titled(left, title)


def draw_concept_neurons(result: ConceptNeurons, ax: Axes | None = None) -> Figure:
    """Held-out accuracy against the number of neurons, and what shuffled labels give."""
    with styled():
        ax = ax or new_figure(width=4.8, height=3.6).subplots()
        assert ax is not None
        _accuracy(ax, result)
        return titled(ax, f"{result.concept} in few neurons, {result.model}")


def draw_concept_study(result: ConceptStudy, ax: Axes | None = None) -> Figure:
    """How well few neurons tell the concept, and what the task loses without them.

    Only the first is drawn where `ax` is given.
    """
    title = f"{result.concept.concept} in {result.model} ({result.task})"
    with styled():
        if ax is not None:
            _accuracy(ax, result.concept)
            return titled(ax, title)
        figure = new_figure(width=8.8, height=4.0)
        left, right = figure.subplots(1, 2)
        _accuracy(left, result.concept)
        _effects(right, result.effects)
        return titled(left, title)


def draw_knowledge_neurons(result: KnowledgeNeurons, ax: Axes | None = None) -> Figure:
    """Change of p(answer) by suppressing and amplifying, with random neurons and other facts."""
    with styled():
        ax = ax or new_figure(width=5.4, height=3.6).subplots()
        assert ax is not None
        place = np.arange(2)
        ax.bar(place - 0.22, result.effect.numpy(), 0.36, color=[RED, BLUE], label=result.task)
        ax.vlines(place - 0.22, result.low.numpy(), result.high.numpy(), color="k", linewidth=0.9)
        ax.bar(place + 0.18, result.other.numpy(), 0.24, color=OCHRE, label="other facts")
        for at in place:
            draws = result.random[at].numpy()
            ax.plot(
                np.full(len(draws), at + 0.4), draws, "o", color=GREY, markersize=4,
                label="random neurons" if not at else None,
            )  # fmt: skip
        ax.axhline(0, color=QUIET, linewidth=0.7)
        ax.set(xticks=place, xticklabels=["suppressed", "amplified"], ylabel="change of p(answer)")
        ax.set_title(f"{len(result.chosen)} neurons; p(answer) is {result.baseline:.3f}")
        ax.legend(loc="best")
        return titled(ax, f"Knowledge neurons for {result.task}, {result.model}")


def draw_neuron_attribution(result: NeuronAttribution, ax: Axes | None = None) -> Figure:
    """The neurons that wrote most for or against the answer."""
    with styled():
        ax = ax or new_figure(width=5.4, height=4.2).subplots()
        assert ax is not None
        top = result.strongest(16)
        values = np.array([float(result.effect[one]) for one in top])
        bounds = tuple(
            np.array([float(part[one]) for one in top]) for part in (result.low, result.high)
        )
        colors = [BLUE if value >= 0 else RED for value in values]
        bars(ax, [str(one) for one in top], values, colors=colors, bounds=(bounds[0], bounds[1]))
        ax.set(xlabel=f"wrote into the logit difference ({result.unit})")
        return titled(ax, f"What neurons wrote, {result.task}, {result.model}")


def _effects(ax: Axes, result: NeuronEffects) -> None:
    order = [result.names.index(name) for name in result.strongest(len(result.names))]
    effect = result.effect.numpy()[order]
    bars(
        ax, [result.names[at] for at in order], effect,
        colors=[BLUE if value < 0 else RED for value in effect],
        filled=(result.p <= LEVEL).numpy()[order],
        bounds=(result.low.numpy()[order], result.high.numpy()[order]),
    )  # fmt: skip
    ax.set(xlabel=f"change in {marks.words(result.metric)} ({result.unit})")
    ax.set_title(f"{result.ablation} ablation; filled: corrected p ≤ {LEVEL}")


def _agreement(ax: Axes, result: Screen) -> None:
    where = tuple(result.chosen.T)
    guess, exact = result.estimate[where].numpy(), result.exact.effect.numpy()
    top = np.arange(len(guess)) < result.top
    for some, color, label in ((top, BLUE, "top by estimate"), (~top, GREY, "drawn at random")):
        ax.scatter(guess[some], exact[some], s=14, color=color, label=label, linewidths=0)
    ends = np.array([min(guess.min(), exact.min()), max(guess.max(), exact.max())])
    ax.plot(ends, ends, color=QUIET, linewidth=0.7)
    ax.set(xlabel=f"estimated change ({result.unit})", ylabel=f"exact change ({result.unit})")
    ax.set_title(f"rank correlation {result.agreement:.2f} ({result.agreement_top:.2f} of the top)")
    ax.legend()


def _accuracy(ax: Axes, result: ConceptNeurons) -> None:
    ks, null = result.ks.numpy(), result.null.numpy()
    low, high = np.percentile(null, (2.5, 97.5), axis=1)
    ax.fill_between(ks, low, high, color=GREY, alpha=0.25, linewidth=0, label="shuffled, 95 %")
    ax.plot(ks, null.mean(1), color=GREY, linewidth=1.2, label="shuffled labels, mean")
    ax.plot(ks, result.accuracy.numpy(), color=BLUE, marker="o", linewidth=1.6, label="neurons")
    ax.axhline(0.5, color=QUIET, linewidth=0.7, linestyle=":")
    ax.set_xscale("log", base=2)
    ax.set(xticks=ks, xticklabels=[str(k) for k in ks], xlabel="neurons", ylim=(0, 1.03))
    ax.set_title("balanced accuracy, held out")
    ax.legend(loc="lower right")
