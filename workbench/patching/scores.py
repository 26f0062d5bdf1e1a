"""A score for every edge of a graph: which edges matter, and the circuits made of them."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.patching.circuits import Circuit, grow, top
from workbench.patching.graph import Graph
from workbench.results import Result

By = Literal["magnitude", "help"]
How = Literal["top", "greedy"]

LARGEST_GAP = 1e-3
"""Above this share of the total, a path is too coarse for its scores to add up."""


@dataclass(frozen=True, eq=False)
class EdgeScores(Result):
    """Change in a metric when one edge carries another run's value. Negative in "clean": it helps.

    `run` says where the edges are changed: in the clean run (noising: edges with negative scores
    help) or in the corrupt one (denoising: those with positive scores do). Estimates, or exact.

    `gap` is what the scores of the edges that leave a part (the embedding, or each layer's
    attention and MLP) add up to, minus the exact change when the whole part is replaced.
    """

    graph: Graph
    score: Float[Tensor, "writer reader"] = field(metadata={"means": "mean change in the metric"})
    per_prompt: Float[Tensor, "writer reader batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    part: list[str] = field(metadata={"axis": "part"})
    total: Float[Tensor, "part batch"] = field(metadata={"means": "exact change by the part"})
    gap: Float[Tensor, "part batch"] = field(metadata={"means": "sum of scores minus total"})
    method: str
    run: str
    quadrature: str
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    cost: str = ""
    caveat: str = ""

    @property
    def help(self) -> Float[Tensor, "writer reader"]:
        """The scores, turned so that positive edges help the metric."""
        return -self.score if self.run == "clean" else self.score

    @property
    def writer_score(self) -> Float[Tensor, " writer"]:
        """The sum over the edges that leave a writer; for attribution, its score as a node."""
        return self.score.sum(dim=1)

    @property
    def relative_gap(self) -> float:
        """By how much the scores miss what they should add up to, as a share of it."""
        total = float(self.total.abs().sum())
        return float(self.gap.abs().sum()) / total if total else 0.0

    def importance(self, by: By = "magnitude") -> Float[Tensor, "writer reader"]:
        """What edges are ranked by: the size of their score, or how much they help."""
        if by not in get_args(By):
            raise ValueError(f"cannot rank by {by!r}; there are {', '.join(get_args(By))}")
        return self.score.abs() if by == "magnitude" else self.help

    def most_important(self, n: int, *, by: By = "magnitude") -> list[str]:
        """The names of the `n` most important edges, the most important first."""
        return [self.graph.name(*place) for place in self._ranked(n, by)]

    def circuit(self, size: int, *, by: By = "magnitude", how: How = "top") -> Circuit:
        """The `size` most important edges.

        "top" takes them as they come. "greedy" (Hanna et al. 2024) starts at the logits and
        adds, one after the other, the most important edge into what it has, so that every edge
        leads to the logits.
        """
        if how not in get_args(How):
            raise ValueError(f"no way {how!r}; there are {', '.join(get_args(How))}")
        make = top if how == "top" else grow
        name = f"the {size} edges of {self.method} on {self.task} ({by}, {how})"
        return make(self.graph, self.importance(by), size, name=name)

    def significance(
        self, *, seed: int = 0, permutations: int = 2000
    ) -> Float[Tensor, "writer reader"]:
        """p-values of all edges, corrected for looking at all of them; 1 where there is none.

        By sign flips of prompts, against the largest of all edges (see statistics). Says whether
        the prompts agree on an edge, not whether an estimate is right.
        """
        test = statistics.permutation_test(
            self.per_prompt[self.graph.edges], seed=seed, permutations=permutations
        )
        found = torch.ones_like(self.score)
        found[self.graph.edges] = test.corrected.to(found)
        return found

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        first = self._ranked(1, "magnitude")[0]
        edge, score = self.graph.name(*first), float(self.score[first])
        what = "replaced in" if self.run == "clean" else "restored into"
        text = (
            f"{self.method} over the {self.graph.size} edges of {self.model} on {self.task} "
            f"({self.per_prompt.shape[-1]} prompts): the edge that changes {self.metric} most "
            f"when {what} the {self.run} run is {edge}, {score:+.3f} {self.unit}."
        )
        if self.relative_gap > LARGEST_GAP:
            text += f" {self._incomplete()}"
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, Any]:
        """The strongest edge, and how far the scores are from adding up."""
        first = self._ranked(1, "magnitude")[0]
        return {
            "edge": self.graph.name(*first),
            "score": float(self.score[first]),
            "relative_gap": self.relative_gap,
        }

    def table(self, n: int = 15) -> str:
        """The strongest edges as text, one a line, with 95 % bounds over prompts."""
        places = self._ranked(n, "magnitude")
        rows, columns = map(list, zip(*places, strict=True))
        several = self.per_prompt.shape[-1] > 1
        found = statistics.bounds(self.per_prompt[rows, columns]) if several else None
        lines = [f"{'edge':<28}{f'{self.metric} ({self.unit})':<20}95 % bounds"]
        for line, place in enumerate(places):
            bounds = "unknown: one prompt"
            if found is not None:
                bounds = f"[{float(found.low[line]):+.3f}, {float(found.high[line]):+.3f}]"
            lines.append(
                f"{self.graph.name(*place):<28}{f'{float(self.score[place]):+.3f}':<20}{bounds}"
            )
        return "\n".join(lines)

    def _incomplete(self) -> str:
        if not self.quadrature:
            return (
                f"To first order only: the scores miss what they should add up to by "
                f"{self.relative_gap:.0%}."
            )
        return (
            f"The path is coarse: with {self.quadrature} the scores miss what they should add "
            f"up to by {self.relative_gap:.1%}; take more steps."
        )

    def _ranked(self, n: int, by: By) -> list[tuple[int, int]]:
        order = self.importance(by).masked_fill(~self.graph.edges, -torch.inf).flatten()
        chosen = order.argsort(descending=True, stable=True)[: min(n, self.graph.size)].tolist()
        return [divmod(index, len(self.graph.readers)) for index in chosen]
