"""How good a model stays as heads are removed, in several orders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts
from workbench import effects, metrics, statistics
from workbench.effects import Source
from workbench.heads.ablating import Ablation
from workbench.heads.naming import Head, every
from workbench.heads.orders import RANDOM, counted, ranked
from workbench.heads.sets import cells
from workbench.heads.texts import TEXT, as_task, check_text
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels

Prune = Callable[[HookedModel, list[Head]], HookedModel]
"""From a model and heads to a model without them."""

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class PruningCurve(Result):
    """What is left of each measure when so many heads are removed. Higher is better throughout.

    `value` is the mean over prompts, `change` its change from the whole model, prompt by prompt
    (negative: worse), each with 95 % bounds over prompts. The order "random" is the mean over
    several; `draw` holds each of them. On the text the measure is the mean log-probability of a
    token, which is minus the loss.

    `area` is the mean change over the shares of heads that were measured (trapezoids): 0 where
    nothing is lost on the way, and the higher the better the order.
    """

    value: Float[Tensor, "measure order size"] = field(metadata={"means": "mean over prompts"})
    low: Float[Tensor, "measure order size"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, "measure order size"] = field(metadata={"means": "upper 95 % bound"})
    change: Float[Tensor, "measure order size"] = field(metadata={"means": "from the whole model"})
    change_low: Float[Tensor, "measure order size"]
    change_high: Float[Tensor, "measure order size"]
    area: Float[Tensor, "measure order"] = field(metadata={"means": "mean change over shares"})
    area_low: Float[Tensor, "measure order"]
    area_high: Float[Tensor, "measure order"]
    draw: Float[Tensor, "measure draw size"] = field(
        metadata={"means": "mean over prompts for each random order"}
    )
    removed: Int[Tensor, " size"] = field(metadata={"means": "number of heads removed"})
    share: Float[Tensor, " size"] = field(metadata={"means": "share of all heads removed"})
    measures: list[str] = field(metadata={"axis": "measure"})
    units: list[str] = field(metadata={"axis": "measure"})
    orders: list[str] = field(metadata={"axis": "order"})
    removal: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def largest(self, loss: float, *, measure: str, order: str) -> float:
        """The largest share of heads that costs less than `loss`, as far as the bounds tell.

        Of the shares that were measured, the last one before the lower bound of the change falls
        below minus `loss` for the first time.
        """
        at = self._at(measure, order)
        fails = (~(self.change_low[at] >= -loss)).nonzero()  # NaN is not known to be affordable
        last = int(fails[0]) - 1 if len(fails) else len(self.share) - 1
        return float(self.share[max(last, 0)])

    def best(self, measure: str) -> str:
        """The order with the largest area."""
        row = self.area[self._measure(measure)]
        return self.orders[int(row.argmax())]

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        main = self.measures[-1] if TEXT in self.measures[-1] else self.measures[0]
        at = self._measure(main)
        loss = 0.1 if self.units[at] != "fraction" else 0.05
        order = self.best(main)
        kept = ", ".join(
            f"{one} {self.largest(loss, measure=main, order=one):.0%}" for one in self.orders
        )
        row = self.orders.index(order)
        bounds = f"[{float(self.area_low[at, row]):+.2f}, {float(self.area_high[at, row]):+.2f}]"
        return (
            f"Removing heads of {self.model} ({self.removal}) costs least in {main} in the order "
            f"{order}: {float(self.area[at, row]):+.2f} {bounds} {self.units[at]} on average over "
            f"the curve. Heads that can go for less than {loss:g} {self.units[at]} by the bounds: "
            f"{kept}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The best order by the last measure, its area, and what can go for 0.1 of the unit."""
        main = self.measures[-1]
        order = self.best(main)
        at = self._at(main, order)
        return {
            "order": order, "area": float(self.area[at]), "low": float(self.area_low[at]),
            "high": float(self.area_high[at]),
            "share_for_0.1": self.largest(0.1, measure=main, order=order),
        }  # fmt: skip

    def table(self, measure: str) -> str:
        """Every order, a line each: what is left at each share, and its area with bounds."""
        at = self._measure(measure)
        width = max(len(one) for one in self.orders) + 2
        shares = "".join(f"{float(one):>9.0%}" for one in self.share)
        lines = [f"{'removed':<{width}}{shares}     area ({self.units[at]})"]
        for row, order in enumerate(self.orders):
            values = "".join(f"{float(one):>+9.2f}" for one in self.value[at, row])
            area, low, high = (
                float(one[at, row]) for one in (self.area, self.area_low, self.area_high)
            )
            lines.append(f"{order:<{width}}{values}    {area:+.3f} [{low:+.3f}, {high:+.3f}]")
        return "\n".join(lines)

    def _measure(self, measure: str) -> int:
        if measure not in self.measures:
            raise KeyError(f"no measure {measure!r}; there are {', '.join(self.measures)}")
        return self.measures.index(measure)

    def _at(self, measure: str, order: str) -> tuple[int, int]:
        if order not in self.orders:
            raise KeyError(f"no order {order!r}; there are {', '.join(self.orders)}")
        return self._measure(measure), self.orders.index(order)


def curve(
    model: HookedModel,
    task: Task,
    orders: Mapping[str, Sequence[Head]],
    *,
    measures: Sequence[Metric] = (metrics.logit_diff, metrics.accuracy),
    text: Prompts | None = None,
    removal: Source | Ablation | Prune = "mean",
    shares: Sequence[float] = SHARES,
    draws: int = 5,
    seed: int = 0,
) -> PruningCurve:
    """Remove the first heads of each order, more and more of them, and measure what is left.

    orders    name -> heads, the first to go first; each has every head that the largest of
              `shares` takes, and "random" is added: `draws` orders drawn with `seed`
    measures  of the task's clean prompts; the mean log-probability of a token of `text` besides
    removal   what is put in the heads' place, as `effects.Source` says ("mean" is over the task's
              corrupt prompts, and over `text` itself there); or a function that prunes them for
              real and gives the smaller model, which must take at least one head to stay where
              the share is 1

    Text has no counterfactual: with it `removal` is one of the others.
    """
    check_text(text, removal)
    heads = every(model)
    counts = counted(shares, len(heads))
    rankings = ranked(model, orders, counts[-1], draws=draws, seed=seed)
    found = _Measured.of(model, task, rankings, counts, measures, removal, seed)
    if text is not None:
        found += _Measured.of(
            model, as_task(text), rankings, counts, [metrics.mean_logprob], removal, seed
        )
    names = [*orders, RANDOM] if draws else list(orders)
    return _result(
        model, task, found, names=names, counts=counts, total=len(heads), removal=removal, seed=seed
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """One measure of every ranking and count."""

    name: str
    unit: str
    values: Float[Tensor, "ranking size batch"]

    @classmethod
    def of(  # noqa: PLR0917
        cls,
        model: HookedModel,
        task: Task,
        rankings: Sequence[Sequence[Head]],
        counts: Sequence[int],
        measures: Sequence[Metric],
        removal: Source | Ablation | Prune,
        seed: int,
    ) -> list["_Measured"]:
        sets = [tuple(sorted(one[:count])) for one in rankings for count in counts]
        unique = list(dict.fromkeys(sets))
        if callable(removal):
            values = _pruned(model, task, unique, measures, removal)
        else:
            values = _ablated(model, task, unique, measures, removal, seed)
        rows = [unique.index(some) for some in sets]
        shape = (len(rankings), len(counts), len(task))
        ours = TEXT if task.name == TEXT else ""
        return [
            cls(f"{one.name} of {ours}" if ours else one.name, one.unit, value[rows].view(shape))
            for one, value in zip(measures, values, strict=True)
        ]


def _ablated(  # noqa: PLR0917
    model: HookedModel,
    task: Task,
    sets: Sequence[tuple[Head, ...]],
    measures: Sequence[Metric],
    removal: Source | Ablation,
    seed: int,
) -> Float[Tensor, "measure set batch"]:
    some = [one for one in sets if one]
    edits = cells(model, task, some, ablation=removal, seed=seed)
    found = effects.exact(model, task, edits, metrics=measures, seed=seed)
    at = {one: found.values[:, row] for row, one in enumerate(some)}
    return torch.stack([at.get(one, found.baseline) for one in sets], dim=1)


def _pruned(
    model: HookedModel,
    task: Task,
    sets: Sequence[tuple[Head, ...]],
    measures: Sequence[Metric],
    prune: Prune,
) -> Float[Tensor, "measure set batch"]:
    columns = []
    for some in sets:
        small = prune(model, list(some)) if some else model
        columns.append(torch.stack([effects.measure(small, task, metric=m) for m in measures]))
    return torch.stack(columns, dim=1)


def _result(
    model: HookedModel,
    task: Task,
    found: Sequence[_Measured],
    *,
    names: list[str],
    counts: list[int],
    total: int,
    removal: Source | Ablation | Prune,
    seed: int,
) -> PruningCurve:
    given = sum(name != RANDOM for name in names)
    share = torch.tensor(counts) / total
    columns: dict[str, list[Tensor]] = {}

    def keep(name: str, bounds: statistics.Bounds) -> None:
        parts = (bounds.mean, bounds.low, bounds.high)
        for ending, part in zip(("", "_low", "_high"), parts, strict=True):
            columns.setdefault(name + ending, []).append(part.float())

    for one in found:
        values = one.values.double()
        drawn = values[given:]
        columns.setdefault("draw", []).append(drawn.mean(-1).float())
        if len(drawn):
            values = torch.cat([values[:given], drawn.mean(0, keepdim=True)])
        change = values - values[:, :1]
        keep("value", _bounds(values, one.unit, seed=seed))
        keep("change", statistics.bounds(change, seed=seed))
        area = torch.trapezoid(change.movedim(1, -1), share.double(), dim=-1) / float(share[-1])
        keep("area", statistics.bounds(area, seed=seed))
    stacked = {name: torch.stack(parts) for name, parts in columns.items()}
    stacked["low"], stacked["high"] = stacked.pop("value_low"), stacked.pop("value_high")
    return PruningCurve(
        **stacked,
        removed=torch.tensor(counts),
        share=share,
        measures=[one.name for one in found],
        units=[one.unit for one in found],
        orders=names,
        removal="pruned" if callable(removal) else f"{Source.of(removal)} ablation",
        **labels(model, task),
    )


def _bounds(
    values: Float[Tensor, "order size batch"], unit: str, *, seed: int
) -> statistics.Bounds:
    """Bounds of each mean; of shares exact where every prompt has 0 or 1, and never beyond."""
    if unit != "fraction":
        return statistics.bounds(values, seed=seed)
    rows = [
        statistics.bounds(row.bool() if bool(((row == 0) | (row == 1)).all()) else row, seed=seed)
        for row in values
    ]
    parts = (torch.stack(part).clamp(0, 1) for part in zip(*rows, strict=True))
    return statistics.Bounds(*parts)
