"""Several tasks as one."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench.tasks.task import ABSENT, Task


def joined(name: str, parts: Sequence[Task]) -> Task:
    """The prompts of several tasks one after another, with the roles that all of them have.

    Templates of the same name are one group.
    """
    if not parts:
        raise ValueError(f"{name}: no tasks were given to join")
    roles = [role for role in parts[0].positions if all(role in one.positions for one in parts)]
    templates = tuple(dict.fromkeys(one for part in parts for one in part.templates))
    group = [
        torch.tensor([templates.index(part.templates[at]) for at in part.group.tolist()])
        if part.templates
        else part.group
        for part in parts
    ]
    return Task(
        name,
        _prompts([one.clean for one in parts]),
        _prompts([one.corrupt for one in parts]),
        _filled([one.answer for one in parts]),
        _filled([one.foil for one in parts]),
        {role: torch.cat([one.positions[role] for one in parts]) for role in roles},
        torch.cat(group),
        templates,
        sum(one.dropped for one in parts),
    )


def _prompts(parts: list[Prompts]) -> Prompts:
    width = max(one.tokens.shape[1] for one in parts)
    rows = [torch.nn.functional.pad(one.tokens, (0, width - one.tokens.shape[1])) for one in parts]
    return Prompts(torch.cat(rows), torch.cat([one.lengths for one in parts]))


def _filled(parts: list[Tensor]) -> Int[Tensor, "batch ids"]:
    width = max(one.shape[1] for one in parts)
    pad = torch.nn.functional.pad
    return torch.cat([pad(one, (0, width - one.shape[1]), value=ABSENT) for one in parts])
