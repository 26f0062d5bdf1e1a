"""Repeats: random tokens said twice, so that only the first saying tells what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hooks import Prompts
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import id_sets
from workbench.tasks.task import Task

_SHORTEST = 4
"""Tokens before the repeat: one repeated, the answer, the foil, and one more to choose from."""


def induction(model: Any, *, prompts: int, seed: int, period: tuple[int, int] = (8, 16)) -> Task:
    """A segment of different random tokens, then its beginning again: what comes next?

    Both the segment's length (from period[0] to period[1] tokens) and how much of it is said again
    differ from prompt to prompt, because with one length the answer could be found by its place.
    The answer is the token after the earlier occurrence of the last one; the foil stands later in
    the segment and, like the answer, is not said again. The corrupt prompt has other tokens in
    place of the first saying, so that nothing in it is said twice and neither is favoured.
    Roles: EARLIER (earlier occurrence of the last token), PREVIOUS (the token after it, which is
    the answer), END. A model without a tokenizer is given ids of its whole vocabulary.
    """
    _check(model, prompts, period)
    generator = derive(seed, "induction")
    start = _start(model)
    drawn = [
        _draw(_vocabulary(model, 2 * period[1], generator), period, generator)
        for _ in range(prompts)
    ]
    earlier = torch.tensor([len(start) + len(one.again) - 1 for one in drawn])
    clean = Prompts.padded([[*start, *one.segment, *one.again] for one in drawn], pad=_pad(model))
    return Task(
        "induction",
        clean,
        Prompts.padded([[*start, *one.other, *one.again] for one in drawn], pad=_pad(model)),
        id_sets([[one.answer] for one in drawn]),
        id_sets([[one.foil] for one in drawn]),
        {"EARLIER": earlier, "PREVIOUS": earlier + 1, "END": clean.last},
        torch.zeros(prompts, dtype=torch.long),
        ("induction",),
    )


@dataclass(frozen=True)
class _Drawn:
    segment: list[int]
    other: list[int]  # as long, none of its tokens in the segment
    again: list[int]
    answer: int
    foil: int


def _draw(tokens: Sequence[int], period: tuple[int, int], generator: torch.Generator) -> _Drawn:
    length = draw.one(range(period[0], period[1] + 1), generator)
    segment, other = list(tokens[:length]), list(tokens[length : 2 * length])
    again = draw.one(range(max(1, length // 2 - 1), length - 1), generator)
    foil = draw.one(segment[again + 1 :], generator)
    return _Drawn(segment, other, segment[:again], segment[again], foil)


def _check(model: Any, prompts: int, period: tuple[int, int]) -> None:
    low, high = period
    if prompts < 1:
        raise ValueError(f"{prompts} prompts were asked for: a task has at least 1")
    if not _SHORTEST <= low <= high:
        raise ValueError(
            f"period ({low}, {high}) must be (shortest, longest) with {_SHORTEST} <= shortest "
            "<= longest"
        )
    limit = model.cfg.n_ctx
    if 2 * high > limit:
        raise ValueError(
            f"period ({low}, {high}) gives prompts of up to {2 * high} tokens, the model takes "
            f"{limit}: take a shorter one"
        )


def _start(model: Any) -> list[int]:
    """What the model's tokenizer puts before every prompt."""
    if model.tokenizer is None or not model.cfg.default_prepend_bos:
        return []
    return [model.tokenizer.bos_token_id]


def _pad(model: Any) -> int:
    pad = getattr(model.tokenizer, "pad_token_id", None)
    return 0 if pad is None else pad


def _vocabulary(model: Any, number: int, generator: torch.Generator) -> list[int]:
    """`number` different ids in random order: ordinary tokens that print as something."""
    size = model.cfg.d_vocab
    found = []
    for token in torch.randperm(size, generator=generator).tolist():
        if len(found) == number:
            break
        if model.tokenizer is None or _is_ordinary(model.tokenizer, token):
            found.append(token)
    if len(found) < number:
        raise ValueError(
            f"{len(found)} of {size} tokens are ordinary, {number} are needed for segments of up "
            f"to {number // 2}: take a shorter period"
        )
    return found


def _is_ordinary(tokenizer: Any, token: int) -> bool:
    if token in _special(tokenizer) or token >= len(tokenizer):
        return False
    shown = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return bool(shown.strip()) and "\N{REPLACEMENT CHARACTER}" not in shown


def _special(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
