"""Activations of labelled words, as probes take them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Site, capture, sites
from hooks.sites import Stream
from workbench.probes.examples import Examples
from workbench.tasks import LabelledWords, provenance
from workbench.tasks.labelled import NO_HEAD

Token = Literal["last", "first", "mean"]


def word_features(
    model: HookedModel,
    words: LabelledWords,
    *,
    stream: Stream = "resid_post",
    layers: Sequence[int] | None = None,
    token: Token = "last",
    batch_size: int = 16,
) -> Examples:
    """What flows at each word's last (or first) token, or the mean over its tokens.

    Every sentence is run once. Labels, groups and types (the word, whatever its case) are those
    of `words`.
    """
    if token not in ("last", "first", "mean"):
        raise ValueError(f"no token {token!r}; there are 'last', 'first' and 'mean'")
    places = sites.all(model, stream) if layers is None else [Site(stream, one) for one in layers]
    found: list[Tensor] = []
    for start in range(0, len(words.prompts), batch_size):
        here = (words.sentence >= start) & (words.sentence < start + batch_size)
        if bool(here.any()):
            seen = capture(model, words.prompts[start : start + batch_size], places)
            first, last = words.first[here], words.last[here]
            rows = words.sentence[here] - start
            first, last = (last, last) if token == "last" else (first, last)
            last = first if token == "first" else last
            found.append(
                torch.stack([_mean(seen[site].flatten(2), rows, first, last) for site in places])
            )
    names = {word: number for number, word in enumerate(sorted(set(words.types)))}
    return Examples(
        torch.cat(found, dim=1),
        words.label,
        words.group,
        torch.tensor([names[word] for word in words.types]),
        words.last if token == "last" else words.first,
        layers=tuple(site.layer for site in places),
        stream=stream,
        what=f"{stream} at the {token} token of each word of {words.name}",
        **provenance.of_model(model),
    )


class Parsed(NamedTuple):
    """Sentences as `fit_distance` and `fit_depth` take them, one entry for each.

    x       what flows at its words, in order
    heads   the place of each word's head in its sentence, -1 at the root
    """

    x: list[Float[Tensor, "_word d_model"]]
    heads: list[Int[Tensor, " _word"]]


def parsed(words: LabelledWords, examples: Examples, *, layer: int) -> Parsed:
    """The sentences of a treebank with their trees, at one layer of their `word_features`.

    Sentences of one word, which have no distances, are left out. For Hewitt & Manning (2019).
    """
    if len(examples) != len(words):
        raise ValueError(
            f"{len(examples)} examples for {len(words)} words of {words.name}: give their "
            "`word_features`"
        )
    x = examples.x[examples.row(layer)]
    found = Parsed([], [])
    for sentence in words.sentence.unique().tolist():
        at = (words.sentence == sentence).nonzero()[:, 0]
        head = words.head[at]
        if bool((head == NO_HEAD).any()):
            raise ValueError(
                f"{words.name}: word {int(at[0])} has no head; trees are read from CoNLL-U files "
                "(`frequent` drops words, and trees with them)"
            )
        if len(at) > 1:
            found.x.append(x[at])
            found.heads.append(torch.where(head >= 0, head - at[0], head))
    return found


def _mean(
    seen: Float[Tensor, "batch pos d_model"], rows: Tensor, first: Tensor, last: Tensor
) -> Float[Tensor, "word d_model"]:
    """The mean of each word's tokens."""
    total = torch.zeros(len(rows), seen.shape[2], dtype=seen.dtype, device=seen.device)
    for step in range(int((last - first).max()) + 1):
        there = (first + step <= last).to(seen.device)
        at = (first + step).clamp(max=seen.shape[1] - 1)
        total = total + torch.where(there[:, None], seen[rows, at], 0)
    return total / (last - first + 1)[:, None].to(seen)
