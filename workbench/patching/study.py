"""From a task to a circuit on one page: which edges, how faithful, and against chance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.faithfulness import FRACTIONS, faithfulness, faithfulness_curve, smallest
from workbench.patching.graph import Graph
from workbench.patching.scores import By, EdgeScores, How
from workbench.results import Result
from workbench.tasks import Task

LISTED = 60
"""So many of the strongest edges are written down by name."""


@dataclass(frozen=True, eq=False)
class CircuitStudy(Result):
    """How much each edge helps the metric (positive: it helps), and what the first ones keep.

    `help` is the score of an edge, turned so that positive helps; `p` says whether the prompts
    agree on it, corrected for all edges of the graph. `faithfulness` is the share of the metric
    that the first edges of the ranking keep when all others are cut: 0 without edges, 1 with
    all. `random` is the same for edges drawn at random, as many.
    """

    help: Float[Tensor, " edge"] = field(metadata={"means": "score of the edge; positive helps"})
    p: Float[Tensor, " edge"] = field(metadata={"means": "p-value, corrected for all edges"})
    edges: list[str] = field(metadata={"axis": "edge", "means": "writer -> reader"})
    size: Int[Tensor, " circuit"] = field(metadata={"means": "number of edges"})
    faithfulness: Float[Tensor, " circuit"] = field(metadata={"means": "share of the metric kept"})
    faithfulness_low: Float[Tensor, " circuit"] = field(metadata={"means": "lower 95 % bound"})
    faithfulness_high: Float[Tensor, " circuit"] = field(metadata={"means": "upper 95 % bound"})
    random: Float[Tensor, "draw circuit"] = field(
        metadata={"means": "share kept by as many edges drawn at random"}
    )
    cpr: float
    cmd: float
    relative_gap: float
    graph: Graph
    method: str
    by: str
    how: str
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def smallest(self, share: float = 0.9) -> int:
        """The fewest edges, of the sizes that were measured, that keep `share` of the metric."""
        return smallest(self.size, self.faithfulness, share)

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        size = self.smallest()
        at = self.size.tolist().index(size)
        by_chance = float(self.random[:, at].mean())
        agreed = int((self.p <= 0.05).sum())
        return (
            f"Of {self.graph.size} edges of {self.model}, the {size} that {self.method} ranks "
            f"first ({self.by}, {self.how}) keep {float(self.faithfulness[at]):.0%} "
            f"[{float(self.faithfulness_low[at]):.0%}, {float(self.faithfulness_high[at]):.0%}] of "
            f"{self.metric} on {self.task}, where cut edges carry: {self.source}; as many edges at "
            f"random keep {by_chance:.0%}. The strongest is {self.edges[0]}: "
            f"{float(self.help[0]):+.2f} {self.unit}. On {agreed} of the {len(self.edges)} "
            f"strongest the prompts agree (corrected p ≤ 0.05). {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The size that keeps 90 %, and the areas of MIB (Mueller et al. 2025)."""
        return {"edges": self.smallest(), "cpr": self.cpr, "cmd": self.cmd}

    def table(self, n: int = 15) -> str:
        """The strongest edges as text, one a line."""
        width = max(len(name) for name in self.edges[:n]) + 2
        lines = [f"{'edge':<{width}}{f'help ({self.unit})':<16}p (corrected)"]
        for name, value, p in zip(
            self.edges[:n], self.help.tolist(), self.p.tolist(), strict=False
        ):
            lines.append(f"{name:<{width}}{f'{value:+.3f}':<16}{p:.4f}{' *' * (p <= 0.05)}")
        return "\n".join(lines)


def study_circuit(
    model: HookedModel,
    task: Task,
    scores: EdgeScores,
    *,
    metric: Metric,
    by: By = "magnitude",
    how: How = "greedy",
    fractions: Sequence[float] = FRACTIONS,
    draws: int = 5,
    seed: int = 0,
) -> CircuitStudy:
    """What the edges that `scores` ranks first keep of the metric, beside edges at random.

    Measure on other prompts than those the scores come from, or the circuit is praised for what
    it was chosen by. `draws` random circuits of each size are measured; `seed` draws them.
    """
    if draws < 1:
        raise ValueError(f"{draws} random circuits are no comparison: take 3 or more")
    curve = faithfulness_curve(
        model, task, scores, metric=metric, by=by, how=how, fractions=fractions
    )
    generator = torch.Generator().manual_seed(seed)
    sizes = curve.size.tolist()
    others = [
        Circuit.random(scores.graph, size, generator=generator)
        for _ in range(draws)
        for size in sizes[1:-1]
    ]
    found = faithfulness(model, task, others, metric=metric, seed=seed).faithfulness
    inner = found.reshape(draws, len(sizes) - 2)
    ends = torch.zeros(draws, 1), torch.ones(draws, 1)
    names = scores.most_important(LISTED, by=by)
    places = [scores.graph.edge(name) for name in names]
    p = scores.significance(seed=seed)
    return CircuitStudy(
        help=torch.stack([scores.help[place] for place in places]),
        p=torch.stack([p[place] for place in places]),
        edges=names,
        size=curve.size,
        faithfulness=curve.faithfulness,
        faithfulness_low=curve.low,
        faithfulness_high=curve.high,
        random=torch.cat([ends[0], inner, ends[1]], dim=1),
        cpr=curve.cpr.value,
        cmd=curve.cmd,
        relative_gap=scores.relative_gap,
        graph=scores.graph,
        method=scores.method,
        by=by,
        how=how,
        source=curve.source,
        metric=curve.metric,
        unit=curve.unit,
        task=curve.task,
        task_digest=curve.task_digest,
        model=curve.model,
        model_digest=curve.model_digest,
        caveat=_caveat(scores, curve.caveat),
    )


def _caveat(scores: EdgeScores, caveat: str) -> str:
    if scores.relative_gap <= 0.05:
        return caveat
    return (
        f"The scores miss {scores.relative_gap:.0%} of what they should add up to: take more "
        f"points on the path. {caveat}"
    ).strip()
