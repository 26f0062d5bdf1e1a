"""Are parse trees in the geometry of activations? (Hewitt & Manning 2019)

A linear map under which squared distances are distances in the tree, or squared lengths depths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from workbench import statistics
from workbench.probes.probe import check_rows
from workbench.probes.training import trained

Sentence = Float[Tensor, "_word d_model"]


@dataclass(frozen=True, eq=False)
class TreeProbe:
    """`map` takes a word's activation to where squared distances are distances in the tree."""

    map: Float[Tensor, "rank d_model"]
    kind: str
    gradient: float

    def distances(self, x: Sentence) -> Float[Tensor, "word word"]:
        """The squared distances between the words of one sentence."""
        placed = x @ self.map.T
        return (placed[:, None] - placed[None]).square().sum(dim=-1)

    def depths(self, x: Sentence) -> Float[Tensor, " word"]:
        """The squared lengths of the words of one sentence."""
        return (x @ self.map.T).square().sum(dim=-1)

    def edges(self, x: Sentence) -> set[tuple[int, int]]:
        """The tree that spans the words with the least distance, as pairs of words."""
        return spanning(self.distances(x))


@dataclass(frozen=True)
class TreeScore:
    """Over sentences: share of a tree's edges that are found (UUAS), and Spearman of distances."""

    edges_found: float
    rank_correlation: float
    error: float


def fit_distance(
    sentences: Sequence[Sentence],
    heads: Sequence[Int[Tensor, " _word"]],
    *,
    generator: torch.Generator,
    rank: int = 64,
    steps: int = 1000,
    rate: float = 0.02,
) -> TreeProbe:
    """Squared distances under the map are distances in the tree (Hewitt & Manning 2019).

    `heads` has, for every word, the place of its head in the sentence, and -1 at the root. The
    loss is the mean over pairs of |tree distance - squared distance|, each sentence equally.
    """
    _check(sentences, heads)
    wanted = [tree_distances(one).to(x) for x, one in zip(sentences, heads, strict=True)]
    x, mask = _padded(sentences)
    target = torch.stack([_square(one, x.shape[1]) for one in wanted])
    size = mask.sum(dim=1).square()

    def loss(map_: Float[Tensor, "rank d_model"]) -> Tensor:
        placed = x @ map_.T
        found = (placed[:, :, None] - placed[:, None]).square().sum(dim=-1)
        gap = (found - target).abs() * mask[:, :, None] * mask[:, None]
        return (gap.sum(dim=(1, 2)) / size).mean()

    return _fitted(x, loss, "distance", rank, steps=steps, rate=rate, generator=generator)


def fit_depth(
    sentences: Sequence[Sentence],
    heads: Sequence[Int[Tensor, " _word"]],
    *,
    generator: torch.Generator,
    rank: int = 64,
    steps: int = 1000,
    rate: float = 0.02,
) -> TreeProbe:
    """Squared lengths are depths in the tree, the root at 0 (Hewitt & Manning 2019)."""
    _check(sentences, heads)
    x, mask = _padded(sentences)
    target = torch.zeros(mask.shape).to(x)
    for row, (one, head) in enumerate(zip(sentences, heads, strict=True)):
        root = int((head < 0).nonzero()[0])
        target[row, : len(one)] = tree_distances(head)[root].to(x)

    def loss(map_: Float[Tensor, "rank d_model"]) -> Tensor:
        gap = ((x @ map_.T).square().sum(dim=-1) - target).abs() * mask
        return (gap.sum(dim=1) / mask.sum(dim=1)).mean()

    return _fitted(x, loss, "depth", rank, steps=steps, rate=rate, generator=generator)


def judge_tree(
    probe: TreeProbe, sentences: Sequence[Sentence], heads: Sequence[Int[Tensor, " _word"]]
) -> TreeScore:
    """How well a distance probe finds the trees of sentences that it never saw."""
    _check(sentences, heads)
    found = there = 0
    orders, errors = [], []
    for x, head in zip(sentences, heads, strict=True):
        gold = {(min(n, h), max(n, h)) for n, h in enumerate(head.tolist()) if h >= 0}
        wanted, distances = tree_distances(head).to(x), probe.distances(x)
        found, there = found + len(gold & spanning(distances)), there + len(gold)
        upper = torch.triu_indices(len(x), len(x), 1).unbind()
        errors.append(float((wanted - distances)[upper].abs().mean()))
        if len(x) > 2:
            orders.append(statistics.rank_correlation(wanted[upper], distances[upper]))
    return TreeScore(found / there, float(np.nanmean(orders)), float(np.mean(errors)))


def tree_distances(heads: Int[Tensor, " word"]) -> Float[Tensor, "word word"]:
    """How many edges lie between any two words of a tree, given each word's head (-1: root)."""
    paths = []
    for word in range(len(heads)):
        path = [word]
        while int(heads[path[-1]]) >= 0:
            path.append(int(heads[path[-1]]))
            if len(path) > len(heads):
                raise ValueError(f"word {word} is its own ancestor: the heads are no tree")
        paths.append(set(path))
    return torch.tensor([[float(len(one ^ other)) for other in paths] for one in paths])


def spanning(distances: Float[Tensor, "word word"]) -> set[tuple[int, int]]:
    """The edges of the minimum spanning tree, the smaller word first."""
    # Zero is no edge to scipy: move all up, which changes no order.
    table = distances.detach().cpu().double().numpy() + 1.0
    rows, columns = minimum_spanning_tree(np.triu(table, 1)).nonzero()
    return {(int(one), int(other)) for one, other in zip(rows, columns, strict=True)}


def _fitted(
    x: Float[Tensor, "sentence word d_model"], loss, kind: str, rank: int, *,
    steps: int, rate: float, generator: torch.Generator,
) -> TreeProbe:  # fmt: skip
    start = torch.randn(1, rank, x.shape[-1], generator=generator) / x.shape[-1] ** 0.5
    weights = [start.to(x).requires_grad_()]
    left = trained(weights, lambda: loss(weights[0][0])[None], steps=steps, rate=rate)
    return TreeProbe(weights[0].detach()[0], kind, float(left[0]))


def _padded(sentences: Sequence[Sentence]) -> tuple[Tensor, Tensor]:
    x = torch.nn.utils.rnn.pad_sequence(list(sentences), batch_first=True)
    lengths = torch.tensor([len(one) for one in sentences], device=x.device)
    return x, (torch.arange(x.shape[1], device=x.device) < lengths[:, None]).to(x)


def _square(table: Float[Tensor, "word word"], size: int) -> Float[Tensor, "size size"]:
    return torch.nn.functional.pad(table, (0, size - len(table), 0, size - len(table)))


def _check(sentences: Sequence[Sentence], heads: Sequence[Int[Tensor, " _word"]]) -> None:
    if len(sentences) != len(heads) or not sentences:
        raise ValueError(f"{len(heads)} trees for {len(sentences)} sentences: give each its own")
    for row, (x, head) in enumerate(zip(sentences, heads, strict=True)):
        check_rows(x, each=f"sentence {row}, word")
        if len(x) != len(head):
            raise ValueError(f"sentence {row} has {len(x)} words and {len(head)} heads")
        if len(x) < 2 or int((head < 0).sum()) != 1 or bool((head >= len(head)).any()):
            raise ValueError(
                f"sentence {row}: heads {head.tolist()} are no tree with one root (-1) over two or "
                "more words, counted from 0"
            )
