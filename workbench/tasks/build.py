"""From strings to a Task: every prompt in tokens, every role at its token, every pair checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.models.text import checked
from workbench.tasks.task import ABSENT, Task
from workbench.tasks.tokens import continuation, encoded, pieces, token_at, tokenizer_of

Unfit = Literal["refuse", "drop"]
"""What happens to a case that this tokenizer cannot express."""

Span = tuple[int, int]
"""From which character of the clean text, up to (not including) which."""


@dataclass(frozen=True)
class Case:
    """One prompt in strings, before any tokenizer has seen it.

    answer, foil   what may follow `clean`, with its leading space
    roles          role -> the characters of `clean`, or the index of the token
    problem        why there can be no such prompt, where that is known already
    """

    clean: str
    corrupt: str
    answer: tuple[str, ...]
    foil: tuple[str, ...]
    roles: Mapping[str, Span | int] = field(default_factory=dict)
    group: str = ""
    problem: str = ""


class UnfitError(ValueError):
    """A case that this tokenizer cannot express, and why."""


@dataclass(frozen=True)
class _Row:
    clean: list[int]
    corrupt: list[int]
    answer: list[int]
    foil: list[int]
    positions: dict[str, int]


def fill(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    """The template with its slots filled, and where each slot's word came to stand."""
    text, spans = "", {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot is not None:
            spans[slot] = (len(text), len(text) + len(words[slot]))
            text += words[slot]
    return text, spans


def built(model: Any, name: str, cases: Sequence[Case], *, unfit: Unfit = "refuse") -> Task:
    """The task made of `cases`; one that does not fit is refused by its row, or dropped."""
    if unfit not in ("refuse", "drop"):
        raise ValueError(f'{name}: unfit is "refuse" or "drop", not {unfit!r}')
    tokenizer = tokenizer_of(model)
    kept: list[tuple[Case, _Row]] = []
    for number, case in enumerate(cases):
        try:
            kept.append((case, _row(tokenizer, case)))
        except UnfitError as problem:
            if unfit == "refuse":
                raise ValueError(
                    f"{name}, row {number}: {problem}. "
                    'Correct the row, or leave such rows out with unfit="drop"'
                ) from None
    if not kept:
        raise ValueError(f"{name}: none of the {len(cases)} rows fits this tokenizer")
    return _task(model, name, kept, dropped=len(cases) - len(kept))


def _row(tokenizer: Any, case: Case) -> _Row:
    if case.problem:
        raise UnfitError(case.problem)
    clean, corrupt = encoded(tokenizer, case.clean), encoded(tokenizer, case.corrupt)
    if len(clean) != len(corrupt):
        raise UnfitError(
            f"clean has {len(clean)} tokens {pieces(tokenizer, clean)}, corrupt has "
            f"{len(corrupt)} {pieces(tokenizer, corrupt)}; both must have equally many"
        )
    if clean == corrupt:
        raise UnfitError(f"clean and corrupt are the same tokens {pieces(tokenizer, clean)}")
    for what, words in (("answer", case.answer), ("foil", case.foil)):
        if not words:
            raise UnfitError(f"there is no {what} that is one token after {case.clean[-30:]!r}")
    # Each id once, or its probability would be summed twice.
    answer = list(
        dict.fromkeys(_one(tokenizer, case.clean, word, "answer") for word in case.answer)
    )
    foil = list(dict.fromkeys(_one(tokenizer, case.clean, word, "foil") for word in case.foil))
    if set(answer) & set(foil):
        raise UnfitError(f"answer {case.answer} and foil {case.foil} share a token")
    return _Row(clean, corrupt, answer, foil, _positions(tokenizer, case, len(clean)))


def _positions(tokenizer: Any, case: Case, length: int) -> dict[str, int]:
    positions = {
        role: place if isinstance(place, int) else token_at(tokenizer, case.clean, *place)
        for role, place in case.roles.items()
    }
    for role, at in positions.items():
        if not 0 <= at < length:
            raise UnfitError(
                f"role {role!r} is at token {at}, but clean has {length} tokens, counted from 0"
            )
    return {**positions, "END": positions.get("END", length - 1)}


def _one(tokenizer: Any, text: str, word: str, what: str) -> int:
    """The single token that spells `word` after `text`."""
    ids = continuation(tokenizer, text, word)
    if ids is None or len(ids) != 1 or ids[0] == _unknown(tokenizer):
        shown = encoded(tokenizer, text + word)[-4:] if ids is None else ids
        hint = "" if word.startswith((" ", "\n")) else " (a word after a space is ' word')"
        raise UnfitError(
            f"{what} {word!r} after {text[-30:]!r} is {pieces(tokenizer, shown)}, "
            f"not one token of its own{hint}"
        )
    return ids[0]


def _unknown(tokenizer: Any) -> int | None:
    return getattr(tokenizer, "unk_token_id", None)


def _task(model: Any, name: str, kept: Sequence[tuple[Case, _Row]], *, dropped: int) -> Task:
    cases, rows = [case for case, _ in kept], [row for _, row in kept]
    templates = tuple(dict.fromkeys(case.group for case in cases))
    return Task(
        name,
        checked(model, [row.clean for row in rows], [case.clean for case in cases]),
        checked(model, [row.corrupt for row in rows], [case.corrupt for case in cases]),
        id_sets([row.answer for row in rows]),
        id_sets([row.foil for row in rows]),
        {role: torch.tensor([row.positions[role] for row in rows]) for role in rows[0].positions},
        torch.tensor([templates.index(case.group) for case in cases]),
        templates,
        dropped,
    )


def id_sets(sets: Sequence[Sequence[int]]) -> Int[Tensor, "batch ids"]:
    """Sets of ids as rows of one tensor, the shorter ones filled up."""
    width = max(map(len, sets))
    return torch.tensor([[*ids, *[ABSENT] * (width - len(ids))] for ids in sets])
