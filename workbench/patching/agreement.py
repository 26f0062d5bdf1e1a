"""Do rankings of edges agree: with other prompts, with other methods, with the truth?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.choices import check_choice
from workbench.patching.circuits import Circuit
from workbench.patching.graph import Graph
from workbench.patching.scores import By, EdgeScores
from workbench.results import Result
from workbench.statistics import auroc, rank_correlation

STABLE = 0.8
"""Mean overlap from which Méloux et al. (2025) call a circuit stable."""


@dataclass(frozen=True, eq=False)
class Stability(Result):
    """How alike circuits are that other samples of the prompts would have given. 1: the same.

    `jaccard` is edges in both over edges in either, for pairs of bootstrap samples of the
    prompts; `kept` is in how many of the samples an edge is among the first.
    """

    graph: Graph
    kept: Float[Tensor, "writer reader"] = field(metadata={"means": "share of samples with it"})
    jaccard: Float[Tensor, " pair"] = field(metadata={"means": "overlap of two samples' circuits"})
    size: int
    resamples: int
    by: str
    method: str
    metric: str
    task: str
    model: str
    caveat: str = ""

    def sentence(self) -> str:
        """What was found, in a sentence."""
        mean = float(self.jaccard.mean())
        always = int((self.kept == 1).sum())
        return (
            f"The first {self.size} edges of {self.method} on {self.task} overlap by {mean:.2f} "
            f"(Jaccard, mean over pairs of {self.resamples} resamples of the prompts; "
            f"{'stable' if mean >= STABLE else 'not stable'}, {STABLE} being the guideline); "
            f"{always} are in all of them. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The mean overlap."""
        return {"jaccard": float(self.jaccard.mean()), "edges": self.size}


def stability(
    scores: EdgeScores, size: int, *, by: By = "magnitude", resamples: int = 100, seed: int = 0
) -> Stability:
    """Draw the prompts of `scores` again and again, and compare the first `size` edges."""
    check_choice("by", by, By)
    graph, prompts = scores.graph, scores.per_prompt.shape[-1]
    if prompts < 2 or resamples < 2 or not 0 < size <= graph.size:
        raise ValueError(
            f"{size} of {graph.size} edges, {prompts} prompts and {resamples} resamples: stability "
            "needs an edge at least, and two of the others"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(prompts, (resamples, prompts), generator=generator)
    flat = scores.per_prompt[graph.edges].double()
    counts = torch.stack([torch.bincount(row, minlength=prompts) for row in drawn]).double()
    means = counts @ flat.T / prompts
    if by == "magnitude":
        means = means.abs()
    elif scores.run == "clean":
        means = -means
    first = means.argsort(dim=1, descending=True, stable=True)[:, :size]
    members = torch.zeros(means.shape).scatter_(1, first, 1.0)
    both = members @ members.T
    one, other = torch.triu_indices(resamples, resamples, offset=1)
    kept = torch.zeros(graph.edges.shape)
    kept[graph.edges] = members.mean(dim=0)
    shared = both[one, other]
    return Stability(
        graph=graph,
        kept=kept,
        jaccard=shared / (2 * size - shared),
        size=size,
        resamples=resamples,
        by=by,
        method=scores.method,
        metric=scores.metric,
        task=scores.task,
        model=scores.model,
        caveat=scores.caveat,
    )


@dataclass(frozen=True, eq=False)
class Agreement(Result):
    """How well rankings of edges find the edges of a circuit. AUROC 1: all of them first.

    `auroc` is the chance that an edge of the circuit is ranked before one that is not in it, a
    tie counting one half, so that 0.5 is no order at all. `correlation` is Spearman's, with the
    sizes of the exact effects; NaN where the truth is a circuit without any.
    """

    method: list[str] = field(metadata={"axis": "method"})
    auroc: Float[Tensor, " method"] = field(metadata={"means": "edges of the circuit first"})
    correlation: Float[Tensor, " method"] = field(metadata={"means": "of ranks with exact effects"})
    found: Float[Tensor, " method"] = field(metadata={"means": "share among as many first edges"})
    truth: str
    size: int
    edges: int
    by: str
    task: str
    model: str

    def sentence(self) -> str:
        """What was found, in a sentence."""
        each = ", ".join(
            f"{name} {float(area):.2f}" for name, area in zip(self.method, self.auroc, strict=True)
        )
        return (
            f"How well rankings find the {self.size} of {self.edges} edges of {self.truth} "
            f"(AUROC): {each}."
        )

    def headline(self) -> dict[str, Any]:
        """AUROC of every method."""
        return {name: float(area) for name, area in zip(self.method, self.auroc, strict=True)}


def agreement(
    scores: Sequence[EdgeScores],
    truth: EdgeScores | Circuit,
    *,
    by: By = "magnitude",
    smallest: float = 1e-3,
) -> Agreement:
    """Hold rankings against exact effects, or against a circuit that is known to be right.

    With exact effects the edges to be found are those that change the metric by more than
    `smallest`, in its unit. (MIB's `compare_graphs` counts an edge that the hypothesis lacks as
    found where the reference has it.)
    """
    graph = truth.graph
    different = [one.method for one in scores if one.graph != graph]
    if different or not scores:
        raise ValueError(
            f"{', '.join(different) or 'nothing'} to be compared with the truth on {graph}: give "
            "scores of the same graph"
        )
    sizes = None if isinstance(truth, Circuit) else truth.score[graph.edges].abs()
    inside = truth.mask[graph.edges] if isinstance(truth, Circuit) else _above(sizes, smallest)
    rankings = [one.importance(by)[graph.edges] for one in scores]
    return Agreement(
        method=[one.method for one in scores],
        auroc=torch.tensor([auroc(one, inside) for one in rankings]),
        correlation=torch.tensor(
            [torch.nan if sizes is None else rank_correlation(one, sizes) for one in rankings]
        ),
        found=torch.tensor([_share_found(one, inside) for one in rankings]),
        truth=truth.name if isinstance(truth, Circuit) else f"more than {smallest:g} exactly",
        size=int(inside.sum()),
        edges=graph.size,
        by=by,
        task=scores[0].task,
        model=scores[0].model,
    )


def _above(sizes: Float[Tensor, " edge"] | None, smallest: float) -> Bool[Tensor, " edge"]:
    assert sizes is not None
    return sizes > smallest


def _share_found(ranking: Float[Tensor, " edge"], inside: Bool[Tensor, " edge"]) -> float:
    """The share of the members among as many first edges."""
    count = int(inside.sum())
    first = ranking.argsort(descending=True, stable=True)[:count]
    return float(inside[first].float().mean())
