"""Which heads take over when one is gone: a greedy search, judged on prompts it did not see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import HookedModel
from workbench import effects, statistics
from workbench.effects import Source
from workbench.heads.ablating import Ablation
from workbench.heads.naming import Head, checked, every, named
from workbench.heads.sets import cells
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels

LEVEL = 0.05
FEWEST = 12
"""With fewer prompts no half is large enough for any sign flip test to say anything."""


@dataclass(frozen=True, eq=False)
class Backups(Result):
    """How much more a head costs once others are gone. Negative: it had taken over for them.

    Each step ablates, together with the heads that are gone, every other head, and takes the one
    whose effect grew most against ablating it alone:
    growth = effect(gone + head) - effect(gone) - effect(head). That is measured again on prompts
    that took no part in the choice; the search ends with the first step whose growth there is
    not below 0 with p ≤ 0.05. (Steps are tested in order and the first failure ends it, so the
    chance that any accepted head is none is at most 0.05 in all.)

    `then` = alone + growth says how a head takes over: below 0 it helps once the others are gone;
    else it worked against the metric alone, and does so less.

    `map` is the growth of every head on the choosing prompts, NaN where a head is gone (the
    conditional co-ablation of Gong 2026).
    """

    growth: Float[Tensor, " step"] = field(metadata={"means": "growth on the judging prompts"})
    low: Float[Tensor, " step"] = field(metadata={"means": "lower 95 % bound of growth"})
    high: Float[Tensor, " step"] = field(metadata={"means": "upper 95 % bound of growth"})
    p: Float[Tensor, " step"] = field(metadata={"means": "p-value of growth, of this step"})
    alone: Float[Tensor, " step"] = field(metadata={"means": "effect of the head alone"})
    then: Float[Tensor, " step"] = field(metadata={"means": "effect of the head, the others gone"})
    then_low: Float[Tensor, " step"] = field(metadata={"means": "lower 95 % bound of then"})
    then_high: Float[Tensor, " step"] = field(metadata={"means": "upper 95 % bound of then"})
    together: Float[Tensor, " step"] = field(metadata={"means": "effect of all gone with it"})
    accepted: Bool[Tensor, " step"] = field(metadata={"means": "whether it is taken for a backup"})
    map: Float[Tensor, "step layer head"] = field(
        metadata={"means": "growth of every head on the choosing prompts"}
    )
    growth_per_prompt: Float[Tensor, "step batch"]
    heads: list[Head] = field(metadata={"axis": "step", "means": "the head each step chose"})
    of: list[Head] = field(metadata={"means": "the heads that were gone from the start"})
    before: float = field(metadata={"means": "effect of the heads that were gone at the start"})
    ended: str
    metric: str
    unit: str
    ablation: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def found(self) -> list[Head]:
        """The heads that took over, in the order they were found."""
        return [one for one, kept in zip(self.heads, self.accepted.tolist(), strict=True) if kept]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        backups, gone = self.found(), named(*self.of)
        text = f"Without {gone}, {self.model} has {self.before:+.2f} {self.unit} of {self.metric}"
        if not backups:
            first = f"{named(self.heads[0])} grew most, by {float(self.growth[0]):+.2f}"
            bounds = f"[{float(self.low[0]):+.2f}, {float(self.high[0]):+.2f}]"
            return (
                f"{text} on {self.task}, and no other head is shown to take over: {first} {bounds} "
                f"on prompts that did not choose it. {self.caveat}"
            ).strip()
        last = len(backups) - 1
        steps = ", ".join(
            f"{named(head)} ({float(self.growth[at]):+.2f} "
            f"[{float(self.low[at]):+.2f}, {float(self.high[at]):+.2f}] more than alone)"
            for at, head in enumerate(backups)
        )
        return (
            f"{text} on {self.task}; taking over are {steps}. With all of them gone: "
            f"{float(self.together[last]):+.2f} {self.unit}. The search ended because "
            f"{self.ended}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """How many heads took over, which, and what all of them cost."""
        count = len(self.found())
        together = float(self.together[count - 1]) if count else self.before
        return {
            "of": named(*self.of), "backups": count, "found": " ".join(map(named, self.found())),
            "together": together, "before": self.before,
        }  # fmt: skip


def backups(
    model: HookedModel,
    task: Task,
    heads: Head | Sequence[Head],
    *,
    metric: Metric,
    ablation: Source | Ablation = "mean",
    among: Sequence[Head] | None = None,
    most: int = 4,
    seed: int = 0,
) -> Backups:
    """Ablate `heads`, and add to them, one by one, the heads that have taken over.

    Half of the prompts, drawn with `seed`, choose; the other half judges. `among` are the heads
    that may be chosen, all others unless they are given; at most `most` steps are made.
    """
    of = checked(model, [heads] if _is_head(heads) else heads)  # pyright: ignore
    others = [one for one in checked(model, among or every(model)) if one not in of]
    if len(task) < FEWEST:
        raise ValueError(
            f"{len(task)} prompts: a half that chooses and one that judges need {FEWEST} or more"
        )
    if not others or most < 1:
        raise ValueError(f"{len(others)} other heads and {most} steps leave nothing to search")
    order = torch.randperm(len(task), generator=statistics.derive(seed, "backups", task.name))
    search = _Search(
        model, task[order[: len(task) // 2]], task[order[len(task) // 2 :]], metric,
        ablation, seed,
    )  # fmt: skip
    alone = dict(zip(others, search.choosing([[one] for one in others]), strict=True))
    steps, ended, start = _steps(search, of, others, alone, most)
    return _result(model, task, of, steps, search=search, ended=ended, before=start)


@dataclass(frozen=True, eq=False)
class _Search:
    model: HookedModel
    chooses: Task
    judges: Task
    metric: Metric
    ablation: Source | Ablation
    seed: int

    def choosing(self, sets: Sequence[Sequence[Head]]) -> Float[Tensor, "set batch"]:
        """The effect of each set on the prompts that choose."""
        return self._effect(self.chooses, sets)

    def judging(self, sets: Sequence[Sequence[Head]]) -> Float[Tensor, "set batch"]:
        """The effect of each set on the other prompts."""
        return self._effect(self.judges, sets)

    def _effect(self, task: Task, sets: Sequence[Sequence[Head]]) -> Tensor:
        edits = cells(self.model, task, sets, ablation=self.ablation, seed=self.seed)
        found = effects.exact(self.model, task, edits, metrics=[self.metric], seed=self.seed)
        return found.effect[0].double()


@dataclass(frozen=True, eq=False)
class _Step:
    head: Head
    growth: Float[Tensor, " batch"]
    alone: float
    then: float
    then_low: float
    then_high: float
    together: float
    low: float
    high: float
    p: float
    map: Float[Tensor, "layer head"]

    @property
    def accepted(self) -> bool:
        return self.p <= LEVEL and float(self.growth.mean()) < 0


def _steps(
    search: _Search, of: list[Head], others: list[Head], alone: dict[Head, Tensor], most: int
) -> tuple[list[_Step], str, float]:
    gone, steps, start = list(of), [], 0.0
    for number in range(most):
        left = [one for one in others if one not in gone]
        if not left:
            return steps, "no head is left", start
        step, before = _step(search, gone, left, alone)
        start = before if number == 0 else start
        steps.append(step)
        if not step.accepted:
            why = f"{named(step.head)}, the next, did not grow on the judging prompts"
            return steps, f"{why} (p = {step.p:.2g})", start
        gone.append(step.head)
    return steps, f"{most} steps were asked for", start


def _step(
    search: _Search, gone: list[Head], left: list[Head], alone: dict[Head, Tensor]
) -> tuple[_Step, float]:
    base, *each = search.choosing([gone, *([*gone, one] for one in left)])
    grown = {
        one: float((both - base - alone[one]).mean()) for one, both in zip(left, each, strict=True)
    }
    best = min(left, key=lambda one: grown[one])
    before, single, both = search.judging([gone, [best], [*gone, best]])
    growth = both - before - single
    _, low, high = statistics.bounds(growth[None], seed=search.seed)
    then, then_low, then_high = statistics.bounds((both - before)[None], seed=search.seed)
    p = statistics.permutation_test(growth[None], seed=search.seed).p
    seen = torch.full((search.model.cfg.n_layers, search.model.cfg.n_heads), torch.nan)
    for (layer, head), value in grown.items():
        seen[layer, head] = value
    step = _Step(
        best, growth, float(single.mean()), float(then), float(then_low), float(then_high),
        float(both.mean()), float(low), float(high), float(p), seen,
    )  # fmt: skip
    return step, float(before.mean())


def _result(
    model: HookedModel,
    task: Task,
    of: list[Head],
    steps: list[_Step],
    *,
    search: _Search,
    ended: str,
    before: float,
) -> Backups:
    def column(name: str) -> Tensor:
        return torch.tensor([float(getattr(step, name)) for step in steps])

    return Backups(
        growth=torch.stack([step.growth.mean() for step in steps]).float(),
        low=column("low"),
        high=column("high"),
        p=column("p"),
        alone=column("alone"),
        then=column("then"),
        then_low=column("then_low"),
        then_high=column("then_high"),
        together=column("together"),
        accepted=torch.tensor([step.accepted for step in steps]),
        map=torch.stack([step.map for step in steps]),
        growth_per_prompt=torch.stack([step.growth for step in steps]).float(),
        heads=[step.head for step in steps],
        of=of,
        before=before,
        ended=ended,
        metric=search.metric.name,
        unit=search.metric.unit,
        ablation=str(search.ablation),
        **labels(model, task),
    )


def _is_head(heads: object) -> bool:
    return isinstance(heads, tuple) and len(heads) == 2 and isinstance(heads[0], int)
