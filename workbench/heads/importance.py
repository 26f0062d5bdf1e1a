"""How much does each head matter? Six ways to ask, on the same prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from hooks import HookedModel
from workbench.heads.ablating import Ablation
from workbench.heads.ablation import ablate_each
from workbench.heads.agreement import shortlist
from workbench.heads.descent import ENOUGH, Descent
from workbench.heads.gates import learn_gates
from workbench.heads.gating import causal_gating
from workbench.heads.mask_gradients import mask_gradients
from workbench.heads.ranking import Importance
from workbench.heads.shapley import shapley
from workbench.metrics import Metric
from workbench.tasks import Task


@dataclass(frozen=True)
class Effort:
    """How much is spent on the measures that learn or sample.

    seeds     learnings of the gates, and fits of the causal gating
    descent   how each is learned
    players   heads that Shapley values are shared between, the first of the other measures
    orders    orders in which those are ablated
    """

    seeds: int = 3
    descent: Descent = ENOUGH
    players: int = 12
    orders: int = 16


USUAL = Effort()


def importance(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    ablations: Sequence[Ablation] = ("zero", "mean", "resample", "counterfactual"),
    effort: Effort = USUAL,
    memory: str | int = "2GB",
    seed: int = 0,
) -> list[Importance]:
    """Measure the importance of every head in all the ways there are; `agreement` compares them.

    Each head ablated alone by each of `ablations`; the gradient of a mask, without and with its
    sign; hard-concrete gates; causal gating; and Shapley values of a shortlist, to which each
    of the others in turn adds its strongest head not yet on it. All but the first use the first
    of `ablations`.
    """
    if not ablations:
        raise ValueError("no ablation was given: name at least one, such as 'zero'")
    alone = [
        ablate_each(model, task, metric=metric, ablation=one, memory=memory, seed=seed)
        for one in ablations
    ]
    slope = mask_gradients(model, task, metric=metric, ablation=ablations[0], seed=seed)
    gates = learn_gates(
        model, task, metric=metric, ablation=ablations[0], seeds=effort.seeds,
        descent=effort.descent, seed=seed,
    )  # fmt: skip
    gating = causal_gating(
        model, task, metric=metric, ablation=ablations[0], seeds=effort.seeds,
        descent=effort.descent, seed=seed,
    )  # fmt: skip
    found: list[Importance] = [*alone, slope, slope.signed(seed=seed), gates, gating]
    shares = shapley(
        model, task, shortlist(found, effort.players), metric=metric, orders=effort.orders,
        ablation=ablations[0], memory=memory, seed=seed,
    )  # fmt: skip
    return [*found, shares]
