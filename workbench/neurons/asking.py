"""Chat models that explain neurons in words, and that simulate them from such words.

    said = neurons.explain(model, corpus, some, explainer=neurons.by_chat(model),
                           simulator=neurons.follow_chat(model))
    neurons.by_chat(models.Endpoint("http://127.0.0.1:8000/v1", "some-model"))

The loaded model is asked in this process. Small models explain badly: the score says how badly.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench import models
from workbench.neurons.scoring import FIRES

Example = tuple[list[str], list[float]]
"""The tokens of a row of text, and the neuron's activation at each; the first token's is 0."""

_AROUND = 8  # tokens shown on both sides of the strongest one
_LONGEST = 300  # characters of an explanation
_STRONGEST = 10

_EXPLAIN = (
    "A neuron in a language model fires at the words between « and » in these pieces of text:\n\n"
    "{shown}\n\n"
    "What do the marked words have in common? Answer with one short sentence."
)
_SIMULATE = (
    "A neuron in a language model is explained like this: {explanation}\n\n"
    "Here are the tokens of a text with their numbers, as JSON:\n{tokens}\n\n"
    "Answer with nothing but a JSON object: from the number of each token at which the neuron "
    'fires to how strongly, 1 to 10, such as {{"3": 10, "7": 4}}; {{}} if it does nowhere.'
)
_RATE = (
    "A neuron in a language model is explained like this: {explanation}\n"
    "After each token of a text say how strongly the neuron fires there, from 0 to 9."
)


@dataclass(frozen=True)
class ByChat:
    """An explainer: shows a chat model where a neuron fires, and asks what that has in common."""

    chat: models.Chat
    name: str
    examples: int = 5

    def __call__(self, examples: Sequence[Example]) -> str:
        """The first line of what the chat model says."""
        largest = max((max(values) for _, values in examples), default=0.0)
        order = sorted(range(len(examples)), key=lambda at: (-max(examples[at][1]), at))
        shown = [
            f"{number}. {_marked(*examples[at], level=FIRES * largest)}"
            for number, at in enumerate(order[: self.examples], 1)
        ]
        asked = _EXPLAIN.format(shown="\n".join(shown))
        said = self.chat([{"role": "user", "content": asked}]).strip()
        return (said.splitlines() or ["(nothing)"])[0][:_LONGEST]


@dataclass(frozen=True)
class FollowReplies:
    """A simulator: asks a chat model, once for each row of text, at which tokens it would fire."""

    chat: models.Chat
    name: str

    def __call__(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        """From 0 to 1 for each token."""
        numbered = json.dumps(dict(enumerate(tokens)), ensure_ascii=False)
        asked = _SIMULATE.format(explanation=explanation, tokens=numbered)
        said = self.chat([{"role": "user", "content": asked}])
        found = [0.0] * len(tokens)
        try:
            rated = json.loads(said[said.index("{") : said.rindex("}") + 1])
            for number, value in rated.items():
                if not 0 <= int(number) < len(tokens) or not 0 <= float(value) <= _STRONGEST:
                    raise ValueError(number)
                found[int(number)] = float(value) / _STRONGEST
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{self.name} was asked for an object such as {{"3": 10}} of {len(tokens)} tokens, '
                f"and said {said[:_LONGEST]!r}"
            ) from error
        return found


@dataclass(frozen=True, eq=False)
class FollowLogits:
    """A simulator: the mean of the digits that a loaded chat model expects after each token.

    All tokens of a row in one pass, as Bills et al. (2023) do it: where digits were to stand
    there is "?", so that what was expected before does not lead what is expected next.
    """

    model: Any

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.origin.name

    @torch.no_grad()
    def __call__(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        """From 0 to 1 for each token."""
        asked = _RATE.format(explanation=explanation)
        ids = models.chat(self.model, [{"role": "user", "content": asked}]).tokens[0].tolist()
        digits, tab, unknown = self._ids("\t"), self._plain("\t"), self._plain("?\n")
        places: list[int] = []
        for token in tokens:
            ids += [*self._plain(token), *tab]
            places.append(len(ids) - 1)
            ids += unknown
        if len(ids) > self.model.cfg.n_ctx:
            raise ValueError(
                f"{len(tokens)} tokens make a prompt of {len(ids)}, {self.name} takes "
                f"{self.model.cfg.n_ctx}: make the corpus of shorter rows"
            )
        logits = self.model(Prompts.of(torch.tensor([ids])))[0, places][:, digits].float().cpu()
        return (logits.softmax(-1) @ torch.arange(10.0) / 9).tolist()

    def _ids(self, before: str) -> Int[Tensor, " digit"]:
        """The tokens of the ten digits where they stand after `before`."""
        found = [self._plain(f"{before}{digit}") for digit in range(10)]
        if len({ids[-1] for ids in found}) < 10 or {tuple(ids[:-1]) for ids in found} != {
            tuple(self._plain(before))
        }:
            raise ValueError(f"digits are no tokens of their own in {self.name}: ask an endpoint")
        return torch.tensor([ids[-1] for ids in found])

    def _plain(self, text: str) -> list[int]:
        return list(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])


def by_chat(who: "models.Model | models.Chat") -> ByChat:
    """An explainer that asks a loaded chat model, an `Endpoint`, or any function like it."""
    if isinstance(who, models.Model):
        return ByChat(partial(models.reply, who), who.origin.name)
    return ByChat(who, _called(who))


def follow_chat(who: "models.Model | models.Chat") -> FollowLogits | FollowReplies:
    """A simulator that asks a loaded chat model, an `Endpoint`, or any function like it."""
    if isinstance(who, models.Model):
        return FollowLogits(who)
    return FollowReplies(who, _called(who))


def _called(who: Any) -> str:
    return str(getattr(who, "__name__", who))


def _marked(tokens: list[str], values: list[float], *, level: float) -> str:
    """What stands around the strongest token, with marks where the neuron fires."""
    at = values.index(max(values))
    shown = range(max(0, at - _AROUND), min(len(tokens), at + _AROUND + 1))
    pieces = [
        f"«{tokens[n]}»" if values[n] > max(level, 0.0) or n == at else tokens[n] for n in shown
    ]
    return "".join(pieces).replace("»«", "").replace("\n", " ").strip()
