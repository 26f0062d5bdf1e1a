"""Which heads are worth keeping, when every head that stays open has a price?

Each head's z is multiplied by a hard-concrete gate (Louizos et al. 2018), and what is learned is
the least of: minus the metric, plus the price times the sum over heads of P(gate != 0) (Voita et
al. 2019). Unlike theirs the weights stay frozen, a gate that is shut lets in what the ablation
writes, and the metric is the task's, not the loss on the text the model was made for.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel
from hooks.choices import check_index
from workbench import effects, statistics
from workbench.heads import hard_concrete
from workbench.heads.ablating import Ablation, ablating
from workbench.heads.descent import ENOUGH, Descent, Gated
from workbench.heads.naming import Head, named
from workbench.heads.ranking import Importance, Kind, in_order, labels
from workbench.metrics import Metric
from workbench.tasks import Task

_START = 2.0  # log alpha at first: all gates all but open


@dataclass(frozen=True, eq=False)
class HeadGates(Importance):
    """How surely each head stays open when open heads cost. 1: it earns its price, 0: it is shut.

    Hard-concrete gates (Louizos et al. 2018), one for each head of frozen weights (Voita et al.
    2019), learned anew from every seed. `expected` is how many are open. A head that others can
    stand in for may be shut in one seed and open in another.
    """

    chance: Float[Tensor, "seed layer head"] = field(
        metadata={"means": "chance that the gate is not 0"}
    )
    gate: Float[Tensor, "seed layer head"] = field(
        metadata={"means": "gate after learning: 1 is open, 0 is shut"}
    )
    expected: Float[Tensor, " seed"] = field(metadata={"means": "expected number of open heads"})
    gated: Float[Tensor, "seed batch"] = field(metadata={"means": "the metric under the gates"})
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without gates"})
    loss: Float[Tensor, "seed step"] = field(
        metadata={"means": "price of the open heads minus the metric"}
    )
    penalty: float
    ablation: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def way(self) -> str:
        """How it was measured."""
        return "hard-concrete gates"

    @property
    def kind(self) -> Kind:
        """What it looks at."""
        return "gates"

    @property
    def score(self) -> Float[Tensor, "layer head"]:
        """The chance of being open, mean over seeds."""
        return self.chance.mean(dim=0)

    def open(self, seed: int = 0) -> list[Head]:
        """The heads whose gate is not 0 in the `seed`-th learning, the widest open first."""
        check_index("seed", seed, len(self.gate))
        gate = self.gate[seed]
        return [head for head in in_order(gate) if gate[head] > 0]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        counts = [len(self.open(seed)) for seed in range(len(self.gate))]
        always = int((self.gate > 0).all(dim=0).sum())
        return (
            f"At {self.penalty:g} {self.unit} a head, {_range(counts)} of "
            f"{len(self.ranked())} heads of {self.model} stay open on {self.task} "
            f"({len(counts)} seeds, {self.ablation} in place of the others; {always} in all of "
            f"them): {self.metric} is {float(self.gated.mean()):+.2f} {self.unit} with the gates, "
            f"{float(self.baseline.mean()):+.2f} without. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """How many heads are expected to be open, and the metric under the gates."""
        return {
            "open": float(self.expected.mean()),
            "gated": float(self.gated.mean()),
            "baseline": float(self.baseline.mean()),
            "seeds": len(self.gate),
        }

    def table(self, n: int = 15) -> str:
        """The heads most surely open as text, one a line."""
        lines = [f"{'head':<8}{'chance':<10}seeds in which it is open"]
        for head in self.ranked()[:n]:
            count = int((self.gate[(slice(None), *head)] > 0).sum())
            share = f"{count} of {len(self.gate)}"
            lines.append(f"{named(head):<8}{float(self.score[head]):<10.3f}{share}")
        return "\n".join(lines)


def learn_gates(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    penalty: float = 0.05,
    ablation: Ablation | effects.Source = "zero",
    seeds: int = 3,
    descent: Descent = ENOUGH,
    seed: int = 0,
) -> HeadGates:
    """Learn which heads to keep, when each costs `penalty` (in the metric's unit) while open.

    Weights stay as they are. A gate multiplies its head's z at all positions, and lets in what
    `ablation` writes as far as it is shut. Every prompt of a step draws gates of its own; each of
    `seeds` learnings draws its own numbers, from `seed`.
    """
    if penalty < 0 or seeds < 1:
        raise ValueError(f"penalty {penalty} and {seeds} seeds: give a price of at least 0, a seed")
    how = ablating(model, task, ablation, seed=seed)
    gated = Gated(model, task, metric, how)
    learned = [
        _learned(gated, penalty, descent, statistics.derive(seed, "gates", str(number)))
        for number in tqdm(range(seeds), desc="learning gates", disable=None)
    ]
    log_alpha = torch.stack([one for one, _ in learned]).masked_fill(~gated.there, torch.nan)
    gate, chance = hard_concrete.settled(log_alpha), hard_concrete.open_chance(log_alpha)
    return HeadGates(
        chance=chance,
        gate=gate,
        expected=chance[:, gated.there].sum(dim=1),
        gated=torch.stack([gated.measured(one) for one in gate]),
        baseline=effects.measure(model, task, metric=metric),
        loss=torch.stack([loss for _, loss in learned]),
        penalty=penalty,
        ablation=how.source,
        **labels(model, task, metric),
    )


def _learned(
    gated: Gated, penalty: float, descent: Descent, generator: torch.Generator
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, " step"]]:
    """log alpha of every head, and the loss of every step."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        log_alpha = torch.full(gated.shape, _START, requires_grad=True)
        adam = torch.optim.Adam([log_alpha], lr=descent.rate)
        losses = []
        for _ in range(descent.steps):
            rows = descent.rows(gated.task, generator)
            uniform = torch.rand(len(rows), *gated.shape, generator=generator)
            gates = hard_concrete.drawn(log_alpha.expand_as(uniform), uniform)
            measured, slope = gated.slopes(gates, rows)
            price = penalty * hard_concrete.open_chance(log_alpha[gated.there]).sum()
            adam.zero_grad()
            (price - (gates * slope).sum() / len(rows)).backward()
            adam.step()
            losses.append(float(price.detach()) - float(measured.mean()))
    return log_alpha.detach(), torch.tensor(losses)


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
