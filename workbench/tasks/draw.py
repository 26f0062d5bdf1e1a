"""Drawing cases from a pool of words: by a generator that is handed in, each prompt once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from workbench.tasks.build import Case

Thing = TypeVar("Thing")

_TRIES = 100
"""How often an already drawn prompt is drawn anew before the pool counts as used up."""


def some(things: Sequence[Thing], number: int, generator: torch.Generator) -> list[Thing]:
    """`number` different ones of `things`, in random order."""
    order = torch.randperm(len(things), generator=generator)[:number]
    return [things[index] for index in order.tolist()]


def one(things: Sequence[Thing], generator: torch.Generator) -> Thing:
    """One of `things`."""
    return things[int(torch.randint(len(things), (), generator=generator))]


def cases(
    templates: Sequence[Thing],
    case: Callable[[Thing, torch.Generator], Case],
    *,
    prompts: int,
    generator: torch.Generator,
) -> list[Case]:
    """`prompts` cases, the templates in turn; clean prompts are distinct while the pool lasts."""
    if prompts < 1:
        raise ValueError(f"{prompts} prompts were asked for: a task has at least 1")
    turns = some(templates, len(templates), generator)
    found: dict[str, Case] = {}
    repeated: list[Case] = []
    for number in range(prompts):
        drawn = case(turns[number % len(turns)], generator)
        for _ in range(_TRIES):
            if drawn.clean not in found:
                break
            drawn = case(turns[number % len(turns)], generator)
        if drawn.clean in found:
            repeated.append(drawn)
        found.setdefault(drawn.clean, drawn)
    return [*found.values(), *repeated]
