"""What someone who prunes needs to know: which heads can go, what that costs, and what it saves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hooks import Prompts
from workbench import effects, metrics, statistics
from workbench.heads.costs import Costs, costs
from workbench.heads.curves import SHARES, PruningCurve, curve
from workbench.heads.naming import Head
from workbench.heads.pruning import prune
from workbench.heads.texts import TEXT, as_task
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
    change     what the pruned model changes in a token's mean log-probability (nats), with bounds,
               on the text that chose neither order nor share (negative: it reads worse)
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
    change: float = field(metadata={"means": "change on text that chose nothing", "unit": "nats"})
    change_low: float
    change_high: float
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
        fresh = (
            f"On text that chose nothing a token's log-probability changes by {self.change:+.3f} "
            f"[{self.change_low:+.3f}, {self.change_high:+.3f}] nats."
        )
        curved = self.curve.sentence().removesuffix(self.curve.caveat).strip()
        lines = [f"{said} {fresh}", self.costs.sentence(), curved, self.caveat]
        return "\n".join(lines).strip()

    def headline(self) -> dict[str, Any]:
        """How many heads go, in which order, and what is left of parameters and time."""
        return {
            "removed": len(self.removed),
            "order": self.order,
            "within": self.within,
            "change": self.change,
            "low": self.change_low,
            "high": self.change_high,
            **self.costs.headline(),
        }

    def table(self) -> str:
        """The curve of every measure, what fresh text loses, the costs, and the heads that go."""
        curves = "\n\n".join(f"{one}\n{self.curve.table(one)}" for one in self.curve.measures)
        fresh = (
            f"text that chose nothing, nats per token: {self.change:+.3f} "
            f"[{self.change_low:+.3f}, {self.change_high:+.3f}]"
        )
        return "\n\n".join([curves, fresh, self.costs.table(), f"removed\n{listed(self.removed)}"])


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
    token of the first half of `text` loses on average, in nats, and the share that goes is the
    largest one measured whose loss is below `allowed` by the bounds; the other half says what the
    pruned model then loses, untouched by that choice. The pruned model must give what the ablated
    one gives, in the task and in the text, or this raises.
    """
    if len(text) < 4:
        raise ValueError(
            f"{len(text)} passages of text were given: half of them choose what goes and the other "
            f"half judge it, so give at least 4"
        )
    chooses, judges = text[: len(text) // 2], text[len(text) // 2 :]
    removal = "zero" if over is None else effects.Source("mean", over=over)
    found = curve(
        model, task, orders, text=chooses, removal=removal, shares=shares, draws=draws, seed=seed
    )
    choice = affordable(found, orders, allowed=allowed)
    small = prune(model, choice.heads, replace="zero" if over is None else "mean", over=over)
    before, after = (
        effects.measure(one, as_task(judges), metric=metrics.mean_logprob).double()
        for one in (model, small)
    )
    change = statistics.estimate(after - before, seed=seed)
    return PruningStudy(
        curve=found,
        costs=costs(model, small, rounds=3, seed=seed),
        removed=choice.heads,
        order=choice.order,
        measure=choice.measure,
        unit=found.units[found.measures.index(choice.measure)],
        allowed=allowed,
        within="yes" if choice.within else "no",
        change=change.value,
        change_low=change.low,
        change_high=change.high,
        missed=_missed(small, task, chooses, found=found, choice=choice),
        task=found.task,
        task_digest=found.task_digest,
        model=found.model,
        model_digest=found.model_digest,
        caveat=found.caveat,
    )


@dataclass(frozen=True)
class Choice:
    """Heads that can go in the best order, and whether their loss is within what is allowed."""

    measure: str
    order: str
    heads: list[Head]
    at: int
    within: bool


def affordable(
    found: PruningCurve, orders: Mapping[str, Sequence[Head]], *, allowed: float
) -> Choice:
    """The heads of the order with the largest area, as many as cost less than `allowed`.

    In the text's measure, or the first where there is no text. Where even the smallest share
    that was measured costs more, that share.
    """
    measure = next((one for one in found.measures if TEXT in one), found.measures[0])
    area = found.area[found.measures.index(measure)]
    order = max(orders, key=lambda one: float(area[found.orders.index(one)]))
    share = found.largest(allowed, measure=measure, order=order)
    at = found.share.tolist().index(share) if share > 0 else 1
    return Choice(measure, order, list(orders[order][: int(found.removed[at])]), at, share > 0)


def listed(heads: Sequence[Head]) -> str:
    """Heads as text, a line for each layer that loses some."""
    layers = sorted({layer for layer, _ in heads})
    of = {layer: sorted(number for one, number in heads if one == layer) for layer in layers}
    return "\n".join(
        f"  layer {layer:>2}: {', '.join(map(str, numbers))}" for layer, numbers in of.items()
    )


def _missed(
    small: Model, task: Task, text: Prompts, *, found: PruningCurve, choice: Choice
) -> float:
    """How far the pruned model's means are from the ablated one's, at the worse of two measures."""
    misses = []
    for one, metric in ((task, metrics.logit_diff), (as_task(text), metrics.mean_logprob)):
        now = float(effects.measure(small, one, metric=metric).double().mean())
        name = next(name for name in found.measures if name.startswith(metric.name))
        then = float(
            found.value[found.measures.index(name), found.orders.index(choice.order), choice.at]
        )
        misses.append(abs(now - then))
        if not misses[-1] <= _ROUNDING * max(1.0, abs(then)):
            raise ArithmeticError(
                f"the pruned model gives {now:.6g} {metric.unit} of {name} where the ablated one "
                f"gives {then:.6g}: removing these heads did not do what ablating them does"
            )
    return max(misses)
