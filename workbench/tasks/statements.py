"""Texts with a label rather than an answer: what probes are fitted to."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench import words
from workbench.models.text import checked
from workbench.statistics import derive
from workbench.tasks import draw
from workbench.tasks.tokens import encoded, token_at, tokenizer_of

TRUTH = {
    "capital": "The capital of {country} is {city}.",
    "city": "{city} is the capital city of {country}.",
    "called": "The capital city of {country} is called {city}.",
    "named": "{country} has a capital city named {city}.",
}
_AGREEMENT = {
    "near": "The {noun} near the {other}",
    "behind": "The {noun} behind the {other}",
    "with": "The {noun} with the {other}",
    "home": "When the {noun} went home, the {other}",
}
_CLASSES = {
    "DET": ("the", "a", "every"),
    "PREP": ("near", "behind", "with", "beside"),
    "CONJ": ("because", "when", "while"),
    "VERB": ("sat", "stayed", "left", "laughed", "wept", "worked"),
    "ADJ": ("tired", "happy", "sad"),
}
_ORDER = "DET NOUN PREP DET NOUN VERB CONJ NAME VERB PREP DET NOUN".split()


@dataclass(frozen=True, eq=False)
class Labelled:
    """Prompts with one label each, at one token of each.

    y          the label, counted from 0; `labels` has their names
    position   the token that the label is about
    group      what must not be split: a template, a sentence, a noun
    kind       what the label is about (a country, a word), numbered: for control tasks
    """

    name: str
    prompts: Prompts
    y: Int[Tensor, " batch"]
    labels: tuple[str, ...]
    position: Int[Tensor, " batch"]
    group: Int[Tensor, " batch"]
    kind: Int[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def digest(self) -> str:
        """SHA-256 over every id and number."""
        content = hashlib.sha256(self.name.encode())
        real = self.prompts.tokens * self.prompts.mask
        for part in (real, self.prompts.lengths, self.y, self.position, self.group, self.kind):
            content.update(part.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()


_Row = tuple[str, str, int, str, str]
"""text, label, token, group, kind"""


def truth(
    model: Any, *, subjects: int, seed: int, templates: Sequence[str] = tuple(TRUTH)
) -> Labelled:
    """True and false statements about capitals, one of each for every country and template.

    The label is about the last token, the full stop. Groups are templates, kinds are countries.
    A false city is another country's, which is as often in a false statement as in a true one.
    """
    unknown = [one for one in templates if one not in TRUTH]
    if unknown or not templates:
        asked = repr(unknown[0]) if unknown else "was asked for"
        raise ValueError(f"no template {asked}; there are {', '.join(TRUTH)}")
    generator = derive(seed, "truth")
    countries = draw.some(list(words.CAPITALS), min(subjects, len(words.CAPITALS)), generator)
    if len(countries) < 2:
        raise ValueError(f"{subjects} subjects: a false statement needs another country; take 2")
    rows: list[_Row] = []
    for template in templates:
        # A rotation: every city is used once in a true and once in a false statement.
        shift = 1 + int(torch.randint(len(countries) - 1, (1,), generator=generator))
        for place, country in enumerate(countries):
            other = countries[(place + shift) % len(countries)]
            for label, city in (("true", country), ("false", other)):
                said = TRUTH[template].format(country=country, city=words.CAPITALS[city])
                rows.append((said, label, -1, template, country))
    return _labelled(model, "truth of statements", rows)


def number(model: Any, *, nouns: int, seed: int) -> Labelled:
    """Is the subject singular or plural? Read at a noun of either number that comes after it.

    Groups are the subject's noun, so that judged nouns were never learned from; kinds are the
    words at which the label is read, which say nothing about it.
    """
    generator = derive(seed, "number")
    some = draw.some(list(words.NOUNS), min(nouns, len(words.NOUNS)), generator)
    rows: list[_Row] = []
    for noun in some:
        for text in _AGREEMENT.values():
            other = draw.one([one for one in words.NOUNS if one != noun], generator)
            for label, subject in (("singular", noun), ("plural", words.NOUNS[noun])):
                for read in (other, words.NOUNS[other]):
                    rows.append((text.format(noun=subject, other=read), label, -1, noun, read))
    return _labelled(model, "number of the subject", rows)


def part_of_speech(model: Any, *, sentences: int, seed: int) -> Labelled:
    """The class of every word of sentences from a small grammar. Groups are sentences."""
    generator = derive(seed, "part of speech")
    pools = {**_CLASSES, "NOUN": tuple(words.NOUNS), "NAME": tuple(words.NAMES[:30])}
    tokenizer = tokenizer_of(model)
    rows: list[_Row] = []
    for sentence in range(sentences):
        chosen = [draw.one(list(pools[name]), generator) for name in _ORDER]
        text = " ".join(chosen)
        start = 0
        for name, word in zip(_ORDER, chosen, strict=True):
            at = token_at(tokenizer, text, start, start + len(word))
            rows.append((text, name, at, str(sentence), word))
            start += len(word) + 1
    return _labelled(model, "part of speech", rows)


def _labelled(model: Any, name: str, rows: Sequence[_Row]) -> Labelled:
    tokenizer = tokenizer_of(model)
    texts = [row[0] for row in rows]
    prompts = checked(model, [encoded(tokenizer, text) for text in texts], texts)
    at = torch.tensor([row[2] for row in rows])
    labels = tuple(sorted({row[1] for row in rows}))
    numbers = [{one: n for n, one in enumerate(dict.fromkeys(r[c] for r in rows))} for c in (3, 4)]
    return Labelled(
        name=name,
        prompts=prompts,
        y=torch.tensor([labels.index(row[1]) for row in rows]),
        labels=labels,
        position=torch.where(at < 0, prompts.last, at),
        group=torch.tensor([numbers[0][row[3]] for row in rows]),
        kind=torch.tensor([numbers[1][row[4]] for row in rows]),
    )
