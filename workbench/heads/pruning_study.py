"""What someone who prunes needs to know: which heads can go, what that costs, and what it saves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hooks import Prompts
from workbench import effects, metrics
from workbench.heads.costs import Costs, costs
from workbench.heads.curves import SHARES, TEXT, PruningCurve, as_task, curve
from workbench.heads.naming import Head, named
from workbench.heads.pruning import prune
from workbench.models import Model
from workbench.results import Result
from workbench.tasks import Task

_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class PruningStudy(Result):
    """Which heads can go for less than a stated loss, and what the smaller model saves.

    curve      what is left as heads are removed in several orders
    costs      parameters, operations and seconds before and after removing `removed` for real
    order      the order that loses least in `measure`
    removed    its heads up to the largest share that costs less than `allowed` by the bounds
    within     "yes", or "no" where even the smallest share measured costs more: then that one
    missed     largest difference between the pruned model and the ablated one in a measure
    """

    curve: PruningCurve
    costs: Costs
    removed: list[Head]
    order: str
    measure: str
    unit: str
    allowed: float
    within: str
    missed: float = field(metadata={"means": "pruned model from ablated one"})
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        whole = len(self.curve.removed) and float(self.curve.removed[-1] / self.curve.share[-1])
        share = len(self.removed) / whole
        said = (
            f"{len(self.removed)} heads ({share:.0%}) can go for less than {self.allowed:g} "
            f"{self.unit} of {self.measure} by the bounds, in the order {self.order}."
            if self.within == "yes"
            else f"No share that was measured costs less than {self.allowed:g} {self.unit} of "
            f"{self.measure} by the bounds; the smallest, {len(self.removed)} heads ({share:.0%}), "
            f"was removed to see what it saves."
        )
        curved = self.curve.sentence().removesuffix(self.curve.caveat).strip()
        return f"{said} {self.costs.sentence()} {curved} {self.caveat}".strip()

    def headline(self) -> dict[str, Any]:
        """How many heads go, in which order, and what is left of parameters and time."""
        return {
            "removed": len(self.removed),
            "order": self.order,
            "within": self.within,
            **self.costs.headline(),
        }

    def table(self) -> str:
        """The curve of every measure, the costs, and the heads that go."""
        curves = "\n\n".join(f"{one}\n{self.curve.table(one)}" for one in self.curve.measures)
        goes = ", ".join(map(named, sorted(self.removed)))
        return f"{curves}\n\n{self.costs.table()}\n\nremoved: {goes}"


def study_pruning(
    model: Model,
    task: Task,
    orders: Mapping[str, Sequence[Head]],
    *,
    text: Prompts,
    over: Prompts | None = None,
    shares: Sequence[float] = SHARES,
    draws: int = 5,
    allowed: float = 0.1,
    seed: int = 0,
) -> PruningStudy:
    """Curves over `orders`, then the heads that the best of them lets go, removed for real.

    Heads write nothing once they are gone; with `over` they write what they write on average
    in those prompts, which should not be the ones that judge. An order is judged by what a
    token of `text` loses on average, in nats; the share that goes is the largest one measured
    whose loss is below `allowed` by the bounds. The pruned model must give what the ablated one
    gives, in the task and in the text, or this raises.
    """
    removal = "zero" if over is None else effects.Source("mean", over=over)
    found = curve(
        model, task, orders, text=text, removal=removal, shares=shares, draws=draws, seed=seed
    )
    measure = next(one for one in found.measures if TEXT in one)
    area = found.area[found.measures.index(measure)]
    order = max(orders, key=lambda one: float(area[found.orders.index(one)]))
    share = found.largest(allowed, measure=measure, order=order)
    at = found.share.tolist().index(share) if share > 0 else 1
    removed = list(orders[order][: int(found.removed[at])])
    small = prune(model, removed, replace="zero" if over is None else "mean", over=over)
    return PruningStudy(
        curve=found,
        costs=costs(model, small, seed=seed),
        removed=removed,
        order=order,
        measure=measure,
        unit=found.units[found.measures.index(measure)],
        allowed=allowed,
        within="yes" if share > 0 else "no",
        missed=_missed(small, task, text, found=found, order=order, at=at),
        task=found.task,
        task_digest=found.task_digest,
        model=found.model,
        model_digest=found.model_digest,
        caveat=found.caveat,
    )


def _missed(
    small: Model, task: Task, text: Prompts, *, found: PruningCurve, order: str, at: int
) -> float:
    """How far the pruned model's means are from the ablated one's, at the worse of two measures."""
    misses = []
    for one, metric in ((task, metrics.logit_diff), (as_task(text), metrics.mean_logprob)):
        now = float(effects.measure(small, one, metric=metric).double().mean())
        name = next(name for name in found.measures if name.startswith(metric.name))
        then = float(found.value[found.measures.index(name), found.orders.index(order), at])
        misses.append(abs(now - then))
        if not misses[-1] <= _ROUNDING * max(1.0, abs(then)):
            raise ArithmeticError(
                f"the pruned model gives {now:.6g} {metric.unit} of {name} where the ablated one "
                f"gives {then:.6g}: removing these heads did not do what ablating them does"
            )
    return max(misses)
