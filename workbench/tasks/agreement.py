"""Verbs agree with their subject, not with the noun that stands closest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from workbench import words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, built, fill
from workbench.tasks.task import Task
from workbench.tasks.tokens import enough

Attractor = Literal["other", "same"]

_TEMPLATES = {
    place: f"The {{subject}} {place} the {{attractor}}"
    for place in ("near", "behind", "beside", "with", "by")
}
_NUMBERS = ("singular", "plural")


def agreement(model: Any, *, prompts: int, seed: int, attractor: Attractor = "other") -> Task:
    """Subject-verb agreement over an attractor: "The key near the cabinets" is, not are.

    The corrupt prompt has the subject in the other number; the attractor stays.

    attractor   "other": a noun of the other number than the clean subject's. "same": of the
                same number, the easier control.
    Roles: subject, attractor, END. Each template has a group for each number of the subject.
    """
    if attractor not in ("other", "same"):
        raise ValueError(f'attractor {attractor!r} is not known: take "other" or "same"')
    pool = _Pool(
        _both(model, words.NOUNS, "nouns (singular and plural)", 3),
        _both(model, words.VERBS, "verbs (singular and plural)", 1),
        attractor,
    )
    templates = [(place, number) for place in _TEMPLATES for number in (0, 1)]
    drawn = draw.cases(templates, pool.case, prompts=prompts, generator=derive(seed, "agreement"))
    return built(model, "agreement", drawn)


def _both(model: Any, pairs: dict[str, str], what: str, least: int) -> list[tuple[str, str]]:
    """The pairs of which singular and plural are one token each."""
    fitting = set(enough(model, [*pairs, *pairs.values()], what=what, least=2 * least))
    kept = [pair for pair in pairs.items() if fitting.issuperset(pair)]
    if len(kept) < least:
        raise ValueError(
            f"{len(kept)} of {len(pairs)} pairs of {what} are single tokens for this tokenizer, "
            f"at least {least} are needed: tasks.make takes prompts of your own"
        )
    return kept


@dataclass(frozen=True)
class _Pool:
    nouns: Sequence[tuple[str, str]]
    verbs: Sequence[tuple[str, str]]
    attractor: Attractor

    def case(self, template: tuple[str, int], generator: torch.Generator) -> Case:
        place, number = template
        subject, near = draw.some(self.nouns, 2, generator)
        verb = draw.one(self.verbs, generator)
        beside = near[number if self.attractor == "same" else 1 - number]
        text = _TEMPLATES[place]
        clean, spans = fill(text, {"subject": subject[number], "attractor": beside})
        corrupt, _ = fill(text, {"subject": subject[1 - number], "attractor": beside})
        group = f"{place} {_NUMBERS[number]}"
        return Case(clean, corrupt, (f" {verb[number]}",), (f" {verb[1 - number]}",), spans, group)
