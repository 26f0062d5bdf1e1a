"""Indirect objects: of two people, the one who is not named again receives the thing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from workbench import words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, built, fill
from workbench.tasks.task import Task
from workbench.tasks.tokens import enough

Corruption = Literal["swap", "third"]

_TEMPLATES = {
    "got": "When {first} and {second} got to the {place}, {S2} gave a {object} to",
    "sat": "While {first} and {second} sat in the {place}, {S2} handed a {object} to",
    "met": "One day {first} and {second} met at the {place}, and {S2} gave a {object} to",
    "friends": "The friends {first} and {second} were at the {place} when {S2} gave a {object} to",
    "late": "Because {first} and {second} were late at the {place}, {S2} handed a {object} to",
    "offered": "When {first} and {second} were in the {place}, {S2} offered the {object} to",
}
_ORDERS = {"ABBA": ("IO", "S1"), "BABA": ("S1", "IO")}


@dataclass(frozen=True)
class _Template:
    name: str
    text: str


def ioi(model: Any, *, prompts: int, seed: int, corruption: Corruption = "swap") -> Task:
    """Indirect object identification (Wang et al. 2022): "Ann and Bob ..., Bob gave it to" Ann.

    The answer is the indirect object (IO), the foil the subject (S), who is named twice. Six
    templates, each in the order IO S (ABBA) and S IO (BABA), in turn.

    corruption   "swap": the repeated name is exchanged for the other one, so that the corrupt
                 prompt asks for the foil. "third": three names that occur nowhere else, so that
                 it asks for neither.
    Roles: IO, S1 (first mention), S1+1 (the token after it), S2 (second mention), END.
    """
    if corruption not in ("swap", "third"):
        raise ValueError(f'corruption {corruption!r} is not known: take "swap" or "third"')
    pool = _Pool(
        enough(model, words.NAMES, what="names", least=5),
        enough(model, words.PLACES, what="places", least=1),
        enough(model, words.OBJECTS, what="objects", least=1),
        corruption,
    )
    drawn = draw.cases(_templates(), pool.case, prompts=prompts, generator=derive(seed, "ioi"))
    task = built(model, "ioi", drawn)
    return replace(task, positions={**task.positions, "S1+1": task.positions["S1"] + 1})


def _templates() -> list[_Template]:
    return [
        _Template(
            f"{name} {order}", text.replace("{first}", f"{{{a}}}").replace("{second}", f"{{{b}}}")
        )
        for name, text in _TEMPLATES.items()
        for order, (a, b) in _ORDERS.items()
    ]


@dataclass(frozen=True)
class _Pool:
    names: list[str]
    places: list[str]
    objects: list[str]
    corruption: Corruption

    def case(self, template: _Template, generator: torch.Generator) -> Case:
        io, s, *others = draw.some(self.names, 5, generator)
        setting = {
            "place": draw.one(self.places, generator),
            "object": draw.one(self.objects, generator),
        }
        clean, spans = fill(template.text, {"IO": io, "S1": s, "S2": s, **setting})
        corrupt, _ = fill(template.text, {**self._corrupt(io, s, others), **setting})
        roles = {role: spans[role] for role in ("IO", "S1", "S2")}
        return Case(clean, corrupt, (f" {io}",), (f" {s}",), roles, template.name)

    def _corrupt(self, io: str, s: str, others: list[str]) -> Mapping[str, str]:
        if self.corruption == "swap":
            return {"IO": io, "S1": s, "S2": io}
        return dict(zip(("IO", "S1", "S2"), others, strict=True))
