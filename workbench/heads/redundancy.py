"""Which heads stand in for each other: what pairs cost beyond the sum of their members."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import effects, statistics
from workbench.effects import Source
from workbench.heads.ablating import Ablation
from workbench.heads.naming import Head, checked, named
from workbench.heads.sets import cells
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels

LEVEL = 0.05
FLOOR = 0.05
"""Pairs that cost less than this share of the costliest are taken to cost as much as that."""


@dataclass(frozen=True, eq=False)
class Redundancy(Result):
    """What two heads cost beyond the sum of each alone. Negative: they stand in for each other.

    interaction = effect(both) - effect(one) - effect(other), where effects are changes in the
    metric (negative: the heads were helping). 0: their effects only add up. Above 0: they work in
    series, so that with one gone the other has little to lose. The diagonal is NaN.

    `p` is corrected for testing all pairs (max-statistic over sign flips, Westfall & Young 1993);
    `low` and `high` bound each pair's own mean, uncorrected.
    """

    interaction: Float[Tensor, "head head"] = field(
        metadata={"means": "effect of both minus the sum of each alone"}
    )
    low: Float[Tensor, "head head"] = field(metadata={"means": "lower 95 % bound of interaction"})
    high: Float[Tensor, "head head"] = field(metadata={"means": "upper 95 % bound of interaction"})
    p: Float[Tensor, "head head"] = field(metadata={"means": "p-value, corrected for all pairs"})
    both: Float[Tensor, "head head"] = field(metadata={"means": "effect of ablating both"})
    alone: Float[Tensor, " head"] = field(metadata={"means": "effect of ablating it alone"})
    pairs_per_prompt: Float[Tensor, "head head batch"] = field(
        metadata={"means": "effect of ablating both, of each prompt; alone on the diagonal"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without ablation"})
    heads: list[Head] = field(metadata={"axis": "head"})
    metric: str
    unit: str
    ablation: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def strongest(self, n: int) -> list[tuple[Head, Head]]:
        """The `n` pairs that stand in for each other most, strongest first."""
        rows, columns = torch.triu_indices(len(self.heads), len(self.heads), offset=1)
        order = self.interaction[rows, columns].argsort(stable=True)[:n].tolist()
        return [(self.heads[rows[at]], self.heads[columns[at]]) for at in order]

    def significant(self, level: float = LEVEL) -> list[tuple[Head, Head]]:
        """The pairs that stand in for each other with a corrected p of at most `level`."""
        every = self.strongest(len(self.heads) ** 2)
        return [pair for pair in every if self.p[self.at(*pair)] <= level and self._below(pair)]

    def at(self, one: Head, other: Head) -> tuple[int, int]:
        """Where in the matrices a pair stands."""
        missing = [head for head in (one, other) if head not in self.heads]
        if missing:
            raise KeyError(
                f"head {named(missing[0])} was not among those whose pairs were ablated: "
                f"{', '.join(map(named, self.heads))}"
            )
        return self.heads.index(one), self.heads.index(other)

    def overlap(self, rows: Tensor | None = None) -> Float[Tensor, "head other"]:
        """The share of a pair's effect that neither shows alone, from 0 (adds up) to 1 (all of it).

        Minus the interaction over the size of the pair's effect, where the two stand in for each
        other; else 0. Pairs that change next to nothing are divided by `FLOOR` times the largest
        effect instead. `rows` chooses prompts, again where one is drawn twice.
        """
        some = self.pairs_per_prompt if rows is None else self.pairs_per_prompt[..., rows]
        both = some.double().mean(-1)
        alone = both.diagonal()
        standing_in = (alone[:, None] + alone - both) * both.sign() * -1
        size = both.abs().clamp(min=FLOOR * float(both.abs().max()))
        share = torch.where(size > 0, standing_in / size.clamp(min=1e-30), 0.0).clamp(0, 1)
        return share.fill_diagonal_(1.0).float()

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        count = len(self.heads) * (len(self.heads) - 1) // 2
        found = self.significant()
        series = int(((self.p <= LEVEL) & (self.interaction > 0)).sum()) // 2
        text = (
            f"Of {count} pairs among {len(self.heads)} heads of {self.model}, {len(found)} stand "
            f"in for each other on {self.task} (corrected p ≤ {LEVEL}, {self.ablation} ablation), "
            f"{series} work in series."
        )
        one, other = (found or self.strongest(1))[0]
        at = self.at(one, other)
        value, low, high = (float(v[at]) for v in (self.interaction, self.low, self.high))
        i, j = at
        which = "The strongest pair is" if found else "The most negative interaction is that of"
        text += (
            f" {which} {named(one)} and {named(other)}: together "
            f"{float(self.both[at]):+.2f} {self.unit} in {self.metric}, alone "
            f"{float(self.alone[i]):+.2f} and {float(self.alone[j]):+.2f}, so {value:+.2f} "
            f"[{low:+.2f}, {high:+.2f}] beyond their sum."
        )
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, Any]:
        """The strongest pair, its interaction with bounds, and how many are significant."""
        pair = self.strongest(1)[0]
        at = self.at(*pair)
        found = {name: float(getattr(self, name)[at]) for name in ("interaction", "low", "high")}
        return {"pair": " ".join(map(named, pair)), **found, "significant": len(self.significant())}

    def table(self, n: int = 15) -> str:
        """The strongest pairs as text, one a line."""
        width = 2 + max(len(named(head)) for head in self.heads) * 2
        lines = [f"{'pair':<{width}}{'together':>10}{'sum':>10}{'beyond':>10}  95 % bounds"]
        for pair in self.strongest(n):
            i, j = self.at(*pair)
            both, alone = float(self.both[i, j]), float(self.alone[i] + self.alone[j])
            value, low, high, p = (
                float(v[i, j]) for v in (self.interaction, self.low, self.high, self.p)
            )
            lines.append(
                f"{' '.join(map(named, pair)):<{width}}{both:>+10.3f}{alone:>+10.3f}"
                f"{value:>+10.3f}  [{low:+.3f}, {high:+.3f}]  p = {p:.4f}{' *' * (p <= LEVEL)}"
            )
        return "\n".join(lines)

    def _below(self, pair: tuple[Head, Head]) -> bool:
        return bool(self.interaction[self.at(*pair)] < 0)


def redundancy(
    model: HookedModel,
    task: Task,
    heads: Sequence[Head],
    *,
    metric: Metric,
    ablation: Source | Ablation = "mean",
    seed: int = 0,
) -> Redundancy:
    """Ablate every one of `heads` alone and every pair of them, at all positions.

    Choose `heads` not by damage alone: of two that stand in for each other perfectly, each costs
    nothing (`heads.candidates`). Sets of which any one member suffices need three or more gone
    before anything shows; `interaction` and `backups` ablate those.
    """
    listed = ready(model, task, heads)
    count = len(listed)
    pairs = list(combinations(range(count), 2))
    sets = [[head] for head in listed] + [[listed[i], listed[j]] for i, j in pairs]
    edits = cells(model, task, sets, ablation=ablation, seed=seed)
    found = effects.exact(model, task, edits, metrics=[metric], seed=seed)
    effect = found.effect[0]
    alone, both = effect[:count], effect[count:]
    one, other = torch.tensor(pairs).T
    beyond = both.double() - alone[one].double() - alone[other].double()
    mean, low, high = statistics.bounds(beyond, seed=seed)
    p = statistics.permutation_test(beyond, seed=seed).corrected

    def square(values: Tensor, diagonal: Tensor) -> Tensor:
        matrix = torch.zeros(count, count, *values.shape[1:])
        matrix[one, other] = matrix[other, one] = values.float()
        matrix[torch.arange(count), torch.arange(count)] = diagonal.float()
        return matrix

    nothing = torch.full((count,), torch.nan)
    return Redundancy(
        interaction=square(mean, nothing),
        low=square(low, nothing),
        high=square(high, nothing),
        p=square(p, nothing),
        both=square(both.mean(-1), nothing),
        alone=alone.mean(-1),
        pairs_per_prompt=square(both, alone),
        baseline=found.baseline[0],
        heads=listed,
        metric=metric.name,
        unit=metric.unit,
        ablation=str(Source.of(ablation)),
        **labels(model, task),
    )


def ready(model: HookedModel, task: Task, heads: Sequence[Head]) -> list[Head]:
    """The heads of a set that can be studied, or an error that says why it cannot."""
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    return checked(model, heads, least=2)
