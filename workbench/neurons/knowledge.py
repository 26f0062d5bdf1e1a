"""Neurons in which a fact is kept: attributed, suppressed, amplified (Dai et al. 2022).

20 steps, 0.2 of the largest attribution, 70 % of the prompts, times 0 and times 2 are the paper's.
There the prompts are paraphrases of one fact; here they are facts of one relation.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Site, capture, edits, sites
from hooks.replay import Cell
from workbench import effects, statistics
from workbench.effects import Integrated
from workbench.metrics import answer_prob
from workbench.neurons.ablation import random_sets
from workbench.neurons.naming import Neuron, by_layer, in_order
from workbench.results import Result
from workbench.tasks import Task, provenance

_AT_ONCE = 16  # prompts
WAYS = ("suppressed", "amplified")


@dataclass(frozen=True, eq=False)
class KnowledgeNeurons(Result):
    """What suppressing and amplifying a relation's knowledge neurons does to p(answer).

    A neuron counts for a prompt whose attribution (integrated gradients of p(answer) from 0 to its
    activation at the last token) is above `threshold` of the prompt's largest; it is a knowledge
    neuron of the relation when it counts for at least `shared` of the prompts. Effects are changes
    of p(answer) at the last token: negative when suppressed and positive when amplified means that
    the fact goes through them. `random` neurons of the same layers and `other` prompts say what
    any neurons, and any facts, would show.
    """

    attribution: Float[Tensor, "layer neuron"] = field(metadata={"means": "mean attribution"})
    share: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "share of prompts it counts for"}
    )
    chosen: Int[Tensor, "cell part"] = field(metadata={"means": "the knowledge neurons"})
    effect: Float[Tensor, " way"] = field(metadata={"means": "change, suppressed and amplified"})
    low: Float[Tensor, " way"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, " way"] = field(metadata={"means": "upper 95 % bound"})
    random: Float[Tensor, "way draw"] = field(metadata={"means": "the same for random neurons"})
    other: Float[Tensor, " way"] = field(metadata={"means": "the same on other prompts"})
    gap: Float[Tensor, " layer"] = field(metadata={"means": "miss of completeness, as a share"})
    baseline: float
    threshold: float
    shared: float
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def neurons(self) -> list[Neuron]:
        """The relation's knowledge neurons, highest attribution first."""
        return [Neuron(*one.tolist()) for one in self.chosen]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        down, up = (float(one) for one in self.effect)
        chance = [float(one.mean()) for one in self.random]
        least = min(float(self.share[one]) for one in self.neurons)
        return (
            f"Knowledge neurons of {self.model} on {self.task}: {len(self.chosen)}, each counting "
            f"for at least {least:.0%} of the prompts. p(answer) is {self.baseline:.3f}, and "
            f"changes by {down:+.3f} "
            f"when they are suppressed and {up:+.3f} when amplified (random neurons "
            f"{chance[0]:+.3f} and {chance[1]:+.3f}; other prompts {float(self.other[0]):+.3f} and "
            f"{float(self.other[1]):+.3f}). {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, float]:
        """The effects of suppressing and amplifying."""
        return {
            "effect": float(self.effect[0]), "low": float(self.low[0]),
            "high": float(self.high[0]), "amplified": float(self.effect[1]),
            "neurons": float(len(self.chosen)),
        }  # fmt: skip


def knowledge(
    model: HookedModel,
    task: Task,
    *,
    other: Task,
    steps: int = 20,
    threshold: float = 0.2,
    shared: float = 0.7,
    most: int = 20,
    seed: int = 0,
) -> KnowledgeNeurons:
    """Find the neurons that `task`'s facts go through, then suppress and amplify them.

    Where fewer than one neuron is shared so widely, those with the widest share are taken, and
    the caveat says so. At most `most` are kept. `other` are prompts about something else.
    """
    found, gaps = _attributed(model, task, steps)
    counts = found > threshold * found.flatten(0, 1).amax(0).clamp(min=0)
    share, mean = counts.double().mean(-1), found.mean(-1)
    wide = [one for one in in_order(mean) if share[one] >= shared]
    caveat = ""
    if not wide:
        widest = float(share.max())
        wide = [one for one in in_order(mean) if share[one] >= widest]
        caveat = (
            f"Caveat: no neuron counts for {shared:.0%} of the prompts; these count for "
            f"{widest:.0%}."
        )
    chosen = wide[:most]
    labels = provenance.labels(model, task)
    drawn = random_sets(model, chosen, number=5, seed=seed)
    cells = [_cell(task, some, way) for some in (chosen, *drawn.values()) for way in WAYS]
    exact = effects.exact(model, task, cells, metrics=[answer_prob], seed=seed)
    elsewhere = effects.exact(
        model, other, [_cell(other, chosen, way) for way in WAYS], metrics=[answer_prob], seed=seed
    )
    bounds = statistics.bounds(exact.effect[0, :2], seed=seed)
    return KnowledgeNeurons(
        attribution=mean, share=share.float(), chosen=torch.tensor(chosen),
        effect=bounds.mean.float(), low=bounds.low.float(), high=bounds.high.float(),
        random=exact.effect[0, 2:].mean(-1).reshape(-1, 2).T.contiguous(),
        other=elsewhere.effect[0].mean(-1), gap=gaps, baseline=float(exact.baseline[0].mean()),
        threshold=threshold, shared=shared, unit=answer_prob.unit,
        **{**labels, "caveat": f"{caveat} {labels['caveat']}".strip()},
    )  # fmt: skip


def _attributed(
    model: HookedModel, task: Task, steps: int
) -> tuple[Float[Tensor, "layer neuron batch"], Float[Tensor, " layer"]]:
    """Attributions at the last token, each layer's neurons moved to 0 there by themselves."""
    wanted, parts = sites.all(model, "neuron"), []
    gaps: list[Tensor] = []
    for start in range(0, len(task), _AT_ONCE):
        some = task[start : start + _AT_ONCE]
        seen = capture(model, some.clean, wanted)
        gone = {site: _without_last(seen[site], some) for site in wanted}
        found = effects.attribute(
            model, some, wanted, metric=answer_prob, source=gone, summed=("pos",),
            method=Integrated("midpoint", steps),
        )  # fmt: skip
        parts.append(-found.stacked("neuron"))
        gaps.append(torch.tensor([found.gap.get(site, 0.0) for site in wanted]))
    return torch.cat(parts, dim=-1), torch.stack(gaps).amax(0)


def _without_last(activation: Tensor, task: Task) -> Tensor:
    changed = activation.clone()
    changed[torch.arange(len(task)), task.clean.last.to(activation.device)] = 0
    return changed


def _cell(task: Task, neurons: list[Neuron], way: str) -> Cell:
    factor = 0.0 if way == "suppressed" else 2.0
    return {
        Site("neuron", layer): edits.scale(factor, neurons=some, positions=task.clean.last)
        for layer, some in by_layer(neurons).items()
    }
