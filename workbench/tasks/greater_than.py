"""Years: what begins in 1732 ends in 17-something greater than 32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench import words
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.build import Case, Span, built, fill
from workbench.tasks.task import Task
from workbench.tasks.tokens import continuation, enough, tokenizer_of

_TEMPLATES = {
    "lasted": "The {event} lasted from the year {century}{YY} to the year {century}",
    "began": "The {event} began in the year {century}{YY} and ended in the year {century}",
    "went on": "The {event} went on from the year {century}{YY} until the year {century}",
}
_CENTURIES = tuple(str(century) for century in range(11, 19))


def greater_than(model: Any, *, prompts: int, seed: int) -> Task:
    """Greater than (Hanna et al. 2023): "The war lasted from the year 1732 to the year 17".

    Where the tokenizer has a token for two digits, the answers are all endings above 32 and the
    foils all others, and the corrupt year is 1701. Where digits stand alone, the answers are the
    tens digits above 3 and the foils those below it (3 itself is neither: 1735 is later, 1731 is
    not), and the corrupt year is 1702.
    Roles: event, YY (the token that decides: the two digits, or the tens digit), END.
    """
    template = next(iter(_TEMPLATES.values()))
    years = _years(tokenizer_of(model), template)
    if not years:
        raise ValueError(
            "no year can be asked for: this tokenizer writes neither two digits nor one digit as "
            "a token of its own after the first two digits of a year"
        )
    pool = _Pool(enough(model, words.EVENTS, what="events", least=1), years, model.tokenizer)
    drawn = draw.cases(
        list(_TEMPLATES), pool.case, prompts=prompts, generator=derive(seed, "greater_than")
    )
    return built(model, "greater_than", drawn)


def endings(tokenizer: Any, clean: str, ending: str) -> tuple[list[str], list[str]]:
    """What may and what may not follow `clean`, which ends in a century, after a year in `ending`.

    Two digits where the tokenizer writes them as one token there, else tens digits.
    """
    if _length(tokenizer, clean, ending) == 1:
        both = [f"{number:02}" for number in range(100)]
        both = [one for one in both if _length(tokenizer, clean, one) == 1]
        return [one for one in both if one > ending], [one for one in both if one <= ending]
    tens = [str(digit) for digit in range(10)]
    return [one for one in tens if one > ending[0]], [one for one in tens if one < ending[0]]


def _length(tokenizer: Any, text: str, ending: str) -> int | None:
    """How many tokens `ending` adds; None where it changes those of the text."""
    ids = continuation(tokenizer, text, ending)
    return None if ids is None else len(ids)


def _years(tokenizer: Any, template: str) -> list[tuple[str, str, int]]:
    """(century, ending, tokens of an ending) that this tokenizer splits after the century."""
    found = []
    for century in _CENTURIES:
        text, spans = fill(template, {"event": words.EVENTS[0], "century": century, "YY": ""})
        before = text[: spans["YY"][0]]
        for number in range(2, 99):
            sizes = {_length(tokenizer, one, f"{number:02}") for one in (before, text)}
            if sizes == {1} or (sizes == {2} and 10 <= number < 90):
                found.append((century, f"{number:02}", sizes.pop()))
    fewest = min((size for *_, size in found), default=0)
    return [one for one in found if one[2] == fewest]


@dataclass(frozen=True)
class _Pool:
    events: Sequence[str]
    years: Sequence[tuple[str, str, int]]
    tokenizer: Any

    def case(self, template: str, generator: torch.Generator) -> Case:
        century, ending, size = draw.one(self.years, generator)
        common = {"event": draw.one(self.events, generator), "century": century}
        clean, spans = fill(_TEMPLATES[template], {**common, "YY": ending})
        start = spans["YY"][0]
        early = "01" if size == 1 else "0" + ending[1]
        corrupt, _ = fill(_TEMPLATES[template], {**common, "YY": early})
        answer, foil = endings(self.tokenizer, clean, ending)
        decides: Span = (start, start + 3 - size)
        roles = {"event": spans["event"], "YY": decides}
        return Case(clean, corrupt, tuple(answer), tuple(foil), roles, template)
