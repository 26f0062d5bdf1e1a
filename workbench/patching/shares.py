"""Shares of the gap between a whole model and no edges, with bounds over prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.effects import Source, measure
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.cutting import measure_circuits
from workbench.patching.maps import LEAST_GAP
from workbench.statistics import Estimate
from workbench.tasks import Task

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUGH = 0.1  # for half precision


def trapezoid(fractions: Sequence[float]) -> Float[Tensor, " circuit"]:
    """How much each height counts in the area between the first and the last fraction."""
    weights = torch.zeros(len(fractions))
    for place, (before, after) in enumerate(pairwise(fractions)):
        weights[place : place + 2] += (after - before) / 2
    return weights


@dataclass(frozen=True, eq=False)
class Shares:
    """The metric without edges, with all of them, and under each circuit."""

    values: Float[Tensor, "circuit batch"]

    @classmethod
    def of(
        cls, model: HookedModel, task: Task, circuits: list[Circuit], *, metric: Metric,
        source: Source | Kind, batch_size: int,
    ) -> "Shares":  # fmt: skip
        """Runs the circuits on the clean prompts, and refuses a gap too small to be shared."""
        graph = circuits[0].graph
        ends = [Circuit.empty(graph), Circuit.full(graph)]
        between = [one for one in circuits if 0 < len(one) < graph.size]
        empty, full, *rest = measure_circuits(
            model, task, [*ends, *between], metric=metric, source=source, batch_size=batch_size
        )
        known, others = {0: empty, graph.size: full}, iter(rest)
        rows = [known[len(one)] if len(one) in known else next(others) for one in circuits]
        values = torch.stack([empty, full, *rows])
        _check_whole(model, task, values[1], metric=metric, batch_size=batch_size)
        gap = float((values[1] - values[0]).mean())
        if abs(gap) < LEAST_GAP:
            raise ValueError(
                f"{metric.name} is {gap:+.2g} {metric.unit} higher with all edges than with none "
                f"(which carry: {Source.of(source)}), on average over {len(task)} prompts: there "
                "is nothing to be faithful to; take prompts, or a source, that the metric tells "
                "apart"
            )
        return cls(values)

    def kept(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """The share of the gap that each keeps, with bounds over prompts."""
        value, linear = self._linear()
        if self.values.shape[1] < 2:
            unknown = torch.full_like(value, torch.nan)
            return value, unknown, unknown
        found = statistics.bounds(linear, seed=seed)
        return value, found.low.float(), found.high.float()

    def weighted(self, rows: list[int], weights: Float[Tensor, " circuit"]) -> Estimate:
        """A weighted sum of shares, with bounds."""
        value, linear = self._linear()
        each = (weights.double()[:, None] * linear[rows]).sum(dim=0)
        if len(each) < 2:
            return Estimate(float((weights * value[rows]).sum()), torch.nan, torch.nan, 1)
        return statistics.estimate(each)

    @property
    def gap_is_uncertain(self) -> bool:
        """Whether chance alone could give the gap that shares are taken of."""
        gap = (self.values[1] - self.values[0]).double()
        if len(gap) < 2:
            return False
        found = statistics.estimate(gap)
        return found.low <= 0 <= found.high

    def _linear(self) -> tuple[Float[Tensor, " circuit"], Float[Tensor, "circuit batch"]]:
        """Each share f, and numbers per prompt whose mean is f and that vary as f does.

        f is a ratio of means, so to first order prompt i moves it by (a_i - f g_i) / mean g.
        """
        above = (self.values - self.values[0]).double()
        gap = above[1]
        value = above.mean(dim=1) / gap.mean()
        linear = value[:, None] + (above - value[:, None] * gap) / gap.mean()
        return value.float(), linear


def _check_whole(
    model: HookedModel,
    task: Task,
    value: Float[Tensor, " batch"],
    *,
    metric: Metric,
    batch_size: int,
) -> None:
    """Raise unless all edges together give what the model gives."""
    parts = [slice(at, at + batch_size) for at in range(0, len(task), batch_size)]
    plain = torch.cat([measure(model, task[part], metric=metric[part]) for part in parts])
    error = float((value - plain).abs().max())
    allowed = _TOLERANCE.get(next(model.original_model.parameters()).dtype, _ROUGH)
    if error > allowed * max(1.0, float(plain.abs().max())):
        raise RuntimeError(
            f"with all edges {metric.name} is off by {error:.2g} from a plain run, so its edges "
            "are not all that this model is made of; check_model says what it does"
        )
