"""The prompts that planted models were made for."""

from typing import Any

import torch

from workbench.models.planted import truth
from workbench.models.planted import vocabulary as words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, built, fill
from workbench.tasks.induction import induction
from workbench.tasks.task import Task


def planted(model: Any, *, prompts: int, seed: int) -> Task:
    """The task that a planted model was made for: `induction`, `gate` or `brackets`."""
    draws = {"induction": induction, "gate": gate, "brackets": brackets}
    return draws[truth(model).task](model, prompts=prompts, seed=seed)


def gate(model: Any, *, prompts: int, seed: int) -> Task:
    """A word of weather and one of the garden: is the grass wet? Clean: both say so; corrupt: none.

    "the rain and then hose today so" wet, "the wind and then gate today so" dry. Where the two
    stand and which comes first differs from prompt to prompt. Roles: FIRST (weather), SECOND
    (garden), END. For the planted models "and" and "or".
    """
    generator = derive(seed, "gate")

    def case(_: str, generator: torch.Generator) -> Case:
        said: list[str] = draw.some(words.FILLER, draw.one(range(3, 8), generator), generator)
        slots = draw.some(["{FIRST}", "{SECOND}"], 2, generator)
        for slot, at in zip(slots, _apart(len(said), generator), strict=True):
            said.insert(at, slot)
        template = " ".join([*said, words.ASKS])
        on = {"FIRST": draw.one(words.FIRST_ON, generator)}
        on["SECOND"] = draw.one(words.SECOND_ON, generator)
        off = {"FIRST": draw.one(words.FIRST_OFF, generator)}
        off["SECOND"] = draw.one(words.SECOND_OFF, generator)
        clean, roles = fill(template, on)
        corrupt, _spans = fill(template, off)
        return Case(clean, corrupt, (f" {words.YES}",), (f" {words.NO}",), roles, "gate")

    drawn = draw.cases(["gate"], case, prompts=prompts, generator=generator)
    return built(model, "gate", drawn)


def brackets(model: Any, *, prompts: int, seed: int) -> Task:
    """Are these brackets balanced? Clean prompts are; corrupt ones fail in one of two ways.

    "( ( ) ) ( ) ?" yes. In the group "order" an outer pair is exchanged, so that one closes too
    early: ") ( ) ( ( ) ?"; in "number" a bracket that closes is made one that opens. Roles: FLIP
    (the first bracket that differs), END. For the planted model "brackets".
    """

    def case(kind: str, generator: torch.Generator) -> Case:
        clean = _balanced(draw.one(range(3, 8), generator), generator)
        corrupt = list(clean)
        if kind == "order":
            start, stop = draw.one(_outer(clean), generator)
            corrupt[start], corrupt[stop] = words.CLOSE, words.OPEN
        else:
            closing = [at for at, one in enumerate(clean) if one == words.CLOSE]
            start = draw.one(closing, generator)
            corrupt[start] = words.OPEN
        before = len(" ".join(clean[:start])) + (start > 0)
        text, other = (" ".join([*one, words.VERDICT]) for one in (clean, corrupt))
        right, wrong = (f" {words.BALANCED}",), (f" {words.UNBALANCED}",)
        return Case(text, other, right, wrong, {"FLIP": (before, before + 1)}, kind)

    generator = derive(seed, "brackets")
    drawn = draw.cases(["order", "number"], case, prompts=prompts, generator=generator)
    return built(model, "brackets", drawn)


def _apart(number: int, generator: torch.Generator) -> list[int]:
    """Where to put two words between `number` others."""
    return [draw.one(range(number + 1 + more), generator) for more in (0, 1)]


def _balanced(pairs: int, generator: torch.Generator) -> list[str]:
    """So many pairs of brackets, any of them open or closed where that is possible."""
    found, depth, left = [], 0, pairs
    while left or depth:
        opens = left and (not depth or bool(torch.randint(2, (), generator=generator)))
        found.append(words.OPEN if opens else words.CLOSE)
        depth, left = (depth + 1, left - 1) if opens else (depth - 1, left)
    return found


def _outer(brackets: list[str]) -> list[tuple[int, int]]:
    """From where to where each pair goes that is in no other."""
    found, depth, start = [], 0, 0
    for at, bracket in enumerate(brackets):
        if bracket == words.OPEN and depth == 0:
            start = at
        depth += 1 if bracket == words.OPEN else -1
        if depth == 0:
            found.append((start, at))
    return found
