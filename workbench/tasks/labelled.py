"""Words with labels, in the tokens of a model: what probes of words are asked about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Prompts
from workbench.models.text import checked
from workbench.tasks.alignment import align
from workbench.tasks.build import Span, Unfit, UnfitError
from workbench.tasks.tokens import tokenizer_of

ROOT, NO_HEAD = -1, -2
"""In `head`: the word is the root of its sentence; no tree was given."""


@dataclass(frozen=True, eq=False)
class LabelledWords:
    """Words of sentences, each with its label and the tokens it became.

    sentence      which of `prompts` each word is in
    first, last   its first and last token there, counted from 0; a token that covers two words
                  belongs to both
    label         which of `labels` it has
    head          the word it depends on (an index like any here), -1 at the root of a sentence,
                  -2 where no tree was given
    group         what hangs together and must not be split: `groups` has their names
    """

    name: str
    prompts: Prompts
    words: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    sentence: Int[Tensor, " word"]
    first: Int[Tensor, " word"]
    last: Int[Tensor, " word"]
    label: Int[Tensor, " word"]
    head: Int[Tensor, " word"]
    group: Int[Tensor, " word"]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.words)

    @property
    def types(self) -> tuple[str, ...]:
        """What each word is, whatever its case: control tasks label types at random."""
        return tuple(word.lower() for word in self.words)

    def frequent(self, groups: int) -> "LabelledWords":
        """Only the words whose label is found in at least so many groups, without their trees.

        Rarer ones cannot be both learned from and judged when groups are kept whole.
        """
        found = [len(self.group[self.label == one].unique()) for one in range(len(self.labels))]
        names = [one for one, count in enumerate(found) if count >= groups]
        if len(names) < 2:
            most = ", ".join(f"{n} {count}" for n, count in zip(self.labels, found, strict=True))
            raise ValueError(
                f"{self.name}: fewer than two labels are in {groups} groups or more ({most}): ask "
                "for fewer groups, or read more sentences"
            )
        rows = torch.isin(self.label, torch.tensor(names)).nonzero()[:, 0]
        new = torch.zeros(len(self.labels), dtype=torch.long)
        new[names] = torch.arange(len(names))
        return replace(
            self,
            words=tuple(self.words[row] for row in rows.tolist()),
            labels=tuple(self.labels[one] for one in names),
            sentence=self.sentence[rows],
            first=self.first[rows],
            last=self.last[rows],
            label=new[self.label[rows]],
            head=torch.full((len(rows),), NO_HEAD),
            group=self.group[rows],
        )

    def tree_distance(self, sentence: int) -> Int[Tensor, "word word"]:
        """How many dependencies lie between each two words of a sentence."""
        at = (self.sentence == sentence).nonzero()[:, 0].tolist()
        ways = [self._to_root(word) for word in at]
        found = torch.zeros(len(at), len(at), dtype=torch.long)
        for i, up in enumerate(ways):
            for j, other in enumerate(ways):
                found[i, j] = len(set(up) ^ set(other))
        return found

    def tree_depth(self, sentence: int) -> Int[Tensor, " word"]:
        """How many dependencies lie between each word of a sentence and its root."""
        at = (self.sentence == sentence).nonzero()[:, 0].tolist()
        return torch.tensor([len(self._to_root(word)) - 1 for word in at])

    def _to_root(self, word: int) -> list[int]:
        way = [word]
        while int(self.head[way[-1]]) >= 0:
            way.append(int(self.head[way[-1]]))
            if len(way) > len(self):
                raise ValueError(f"{self.name}: word {word} ({self.words[word]!r}) hangs in a ring")
        if int(self.head[way[-1]]) == NO_HEAD:
            raise ValueError(f"{self.name} has no trees: read them from a CoNLL-U file")
        return way


@dataclass(frozen=True)
class Sentence:
    """A text, the characters of each of its words, and what is said of them."""

    text: str
    spans: Sequence[Span]
    labels: Sequence[str]
    heads: Sequence[int] = ()  # the place of each word's head in the sentence, -1 for none
    group: str = ""
    where: str = ""  # for messages: file and row


def labelled(
    model: Any, name: str, sentences: Iterable[Sentence], *, unfit: Unfit = "refuse"
) -> LabelledWords:
    """Sentences in the tokens of `model`; one that cannot be aligned is refused, or dropped."""
    if unfit not in ("refuse", "drop"):
        raise ValueError(f'{name}: unfit is "refuse" or "drop", not {unfit!r}')
    tokenizer, given = tokenizer_of(model), list(sentences)
    kept: list[tuple[Sentence, list[int], list[Span]]] = []
    for one in given:
        try:
            kept.append((one, *align(tokenizer, one.text, one.spans)))
        except UnfitError as problem:
            if unfit == "refuse":
                raise ValueError(
                    f'{one.where}: {problem}. Correct it, or leave such rows out with unfit="drop"'
                ) from None
    if not kept:
        raise ValueError(f"{name}: none of the {len(given)} sentences fits this tokenizer")
    prompts = checked(model, [ids for _, ids, _ in kept], [one.text for one, _, _ in kept])
    return _gathered(name, prompts, kept, dropped=len(given) - len(kept))


def _gathered(
    name: str,
    prompts: Prompts,
    kept: list[tuple[Sentence, list[int], list[Span]]],
    *,
    dropped: int,
) -> LabelledWords:
    words, labels, groups = [], [], []
    sentence, first, last, head = [], [], [], []
    for number, (one, _, tokens) in enumerate(kept):
        start = len(words)
        for at, (low, high) in enumerate(tokens):
            words.append(one.text[slice(*one.spans[at])])
            labels.append(one.labels[at])
            groups.append(one.group or f"sentence {number}")
            sentence.append(number)
            first.append(low)
            last.append(high)
            up = one.heads[at] if one.heads else NO_HEAD
            head.append(start + up if up >= 0 else up)
    names, members = tuple(sorted(set(labels))), tuple(dict.fromkeys(groups))
    number_of = {label: index for index, label in enumerate(names)}
    place = {group: index for index, group in enumerate(members)}
    return LabelledWords(
        name=name,
        prompts=prompts,
        words=tuple(words),
        labels=names,
        groups=members,
        sentence=torch.tensor(sentence),
        first=torch.tensor(first),
        last=torch.tensor(last),
        label=torch.tensor([number_of[one] for one in labels]),
        head=torch.tensor(head),
        group=torch.tensor([place[one] for one in groups]),
        dropped=dropped,
    )
