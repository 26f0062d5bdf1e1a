"""Pairs of a grammatical and an ungrammatical sentence, by templates of our own."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch

from workbench import words
from workbench.statistics import derive
from workbench.tasks.pairs import SentencePairs, pairs

_Pair = tuple[str, str]


def grammar(model: Any, *, prompts: int, seed: int) -> SentencePairs:
    """Six phenomena, up to `prompts` pairs of each, that differ in one word or two.

    agreement (over an attractor), agreement across a clause, determiner, reflexive, pronoun case,
    polarity.
    """
    if prompts < 1:
        raise ValueError(f"{prompts} pairs of each phenomenon: take 1 or more")
    rows = []
    for name, make in _PHENOMENA.items():
        every = list(dict.fromkeys(make()))
        order = torch.randperm(len(every), generator=derive(seed, "grammar", name))
        for at in order[:prompts].tolist():
            good, bad = every[at]
            rows.append({"sentence_good": good, "sentence_bad": bad, "UID": name})
    return pairs(model, rows, name="grammar")


def _numbers() -> Iterator[tuple[_Pair, _Pair, int]]:
    """Subject, other noun and the subject's number."""
    for subject, other in product(words.NOUNS.items(), repeat=2):
        if subject != other:
            yield subject, other, 0
            yield subject, other, 1


def _agreement() -> Iterator[_Pair]:
    for subject, other, number in _numbers():
        start = f"The {subject[number]} near the {other[1 - number]}"
        for verb in words.VERBS.items():
            if verb[0] != "has":
                yield f"{start} {verb[number]} old.", f"{start} {verb[1 - number]} old."


def _across_a_clause() -> Iterator[_Pair]:
    people = [pair for pair in words.NOUNS.items() if pair[0] in ("boy", "girl", "man", "woman")]
    for subject, other in product(words.NOUNS.items(), people):
        for number in (0, 1) if subject != other else ():
            start = f"The {subject[number]} that the {other[1 - number]} saw"
            verb = ("was", "were")
            yield f"{start} {verb[number]} late.", f"{start} {verb[1 - number]} late."


def _determiner() -> Iterator[_Pair]:
    for one, several in words.NOUNS.items():
        for name in words.NAMES[:12]:
            yield f"{name} saw this {one}.", f"{name} saw these {one}."
            yield f"{name} saw these {several}.", f"{name} saw this {several}."


def _reflexive() -> Iterator[_Pair]:
    for names, right, wrong in (
        (words.WOMEN, "herself", "himself"), (words.MEN, "himself", "herself")
    ):  # fmt: skip
        for name, verb in product(names, ("saw", "helped", "hurt")):
            yield f"{name} {verb} {right}.", f"{name} {verb} {wrong}."


def _case() -> Iterator[_Pair]:
    cases = {"she": "her", "he": "him", "they": "them", "we": "us"}
    for name, verb in product(words.NAMES[:20], ("likes", "knows", "saw")):
        for subject, right in cases.items():
            yield f"{name} {verb} {right}.", f"{name} {verb} {subject}."


def _polarity() -> Iterator[_Pair]:
    for noun in words.NOUNS.values():
        for verb in ("laughed", "been late", "stayed long"):
            yield f"No {noun} have ever {verb}.", f"Some {noun} have ever {verb}."


_PHENOMENA: Mapping[str, Callable[[], Iterator[_Pair]]] = {
    "agreement": _agreement,
    "agreement_across_a_clause": _across_a_clause,
    "determiner": _determiner,
    "reflexive": _reflexive,
    "pronoun_case": _case,
    "polarity": _polarity,
}
