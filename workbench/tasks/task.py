"""What a task is: prompts with a known right answer, and the same prompts corrupted."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Prompts

ABSENT = -1
"""Fills `answer` and `foil` where a prompt has fewer ids than another."""


class Roles(dict[str, Int[Tensor, " batch"]]):
    """Where each role is; one that there is not is an error that names those there are."""

    def __missing__(self, role: str) -> Tensor:
        raise KeyError(f"no role {role!r} in this task; there are {', '.join(self) or 'none'}")


@dataclass(frozen=True, eq=False)
class Task:
    """Clean and corrupt prompts of equal lengths, token by token in the same places.

    answer, foil   ids of the token that should and should not come next, each a set (usually
                   of one; several where a tokenizer splits or spells a word in several ways,
                   then their probabilities are summed), filled up with -1
    positions      role ("IO", "S2", "END", ...) -> its index in each prompt
    group          which template each prompt was made from; `templates` has their names
    dropped        how many cases were left out because they do not fit the tokenizer
    """

    name: str
    clean: Prompts
    corrupt: Prompts
    answer: Int[Tensor, "batch answers"]
    foil: Int[Tensor, "batch foils"]
    positions: Mapping[str, Int[Tensor, " batch"]]
    group: Int[Tensor, " batch"]
    templates: tuple[str, ...] = ()
    dropped: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", Roles(self.positions))
        if not self.clean.lengths.equal(self.corrupt.lengths):
            row = int((self.clean.lengths != self.corrupt.lengths).nonzero()[0])
            raise ValueError(
                f"{self.name}: clean prompt {row} has {int(self.clean.lengths[row])} tokens, its "
                f"corrupt one {int(self.corrupt.lengths[row])}; pairs must be of equal length"
            )
        for what, ids in (("answer", self.answer), ("foil", self.foil)):
            if ids.shape[0] != len(self.clean) or bool((ids == ABSENT).all(dim=1).any()):
                raise ValueError(
                    f"{self.name}: every prompt needs at least one {what}; there are "
                    f"{ids.shape[0]} rows for {len(self.clean)} prompts"
                )
            ordered = ids.sort(dim=1).values
            if bool(((ordered.diff(dim=1) == 0) & (ordered[:, 1:] != ABSENT)).any()):
                raise ValueError(f"{self.name}: a prompt has the same {what} twice; give it once")
        lengths = self.clean.lengths
        for role, at in self.positions.items():
            if at.shape != lengths.shape or bool(((at < 0) | (at >= lengths)).any()):
                raise ValueError(f"{self.name}: role {role!r} is not at one token of each prompt")
        if self.group.shape != lengths.shape:
            raise ValueError(
                f"{self.name}: there are {len(self.group)} groups for {len(self.clean)} prompts"
            )

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: int | slice | list[int] | Int[Tensor, " chosen"]) -> "Task":
        """Some of the prompts, with all that belongs to them; an int gives that one alone."""
        if isinstance(rows, int):
            rows = [range(len(self))[rows]]
        if not len(torch.arange(len(self))[rows]):
            raise ValueError(f"{self.name}: {rows} chooses none of the {len(self)} prompts")
        return Task(
            self.name,
            self.clean[rows],
            self.corrupt[rows],
            self.answer[rows],
            self.foil[rows],
            {role: at[rows] for role, at in self.positions.items()},
            self.group[rows],
            self.templates,
            self.dropped,
        )

    def swapped(self) -> "Task":
        """The task with clean and corrupt prompts exchanged; answer and foil stay."""
        return replace(self, clean=self.corrupt, corrupt=self.clean)

    @property
    def digest(self) -> str:
        """SHA-256 over every id and index of the task, whatever its padding holds."""
        content = hashlib.sha256(self.name.encode())
        for prompts in (self.clean, self.corrupt):
            real = prompts.tokens * prompts.mask
            for part in (prompts.lengths, real[:, : int(prompts.lengths.max())]):
                content.update(part.cpu().contiguous().numpy().tobytes())
        for part in (self.answer, self.foil, self.group, *self.positions.values()):
            content.update(part.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()


def summed(
    logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch ids"]
) -> Float[Tensor, " batch"]:
    """The logit of a set of ids taken together: log of the sum of their exponentials."""
    largest = int(ids.max())
    if largest >= logits.shape[1]:
        raise ValueError(
            f"id {largest} of an answer or foil is not one of {logits.shape[1]} tokens: the task "
            "was made for another model's tokenizer"
        )
    ids = ids.to(logits.device)
    chosen = logits.gather(1, ids.clamp(min=0))
    if ids.shape[1] == 1:
        return chosen[:, 0]
    return chosen.masked_fill(ids == ABSENT, -torch.inf).logsumexp(dim=1)


def logit_difference(logits: Float[Tensor, "batch vocab"], task: Task) -> Float[Tensor, " batch"]:
    """logit(answer) - logit(foil), which is also log p(answer) - log p(foil)."""
    return summed(logits, task.answer) - summed(logits, task.foil)
