"""Groups of heads that stand in for each other, and how far the prompts agree on them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from hooks.choices import check_choice
from workbench import statistics
from workbench.heads.ablation import HeadEffects
from workbench.heads.likeness import HeadSimilarity, Measure
from workbench.heads.naming import Head, named
from workbench.heads.redundancy import Redundancy
from workbench.results import Result

Linkage = Literal["average", "complete", "single"]


@dataclass(frozen=True, eq=False)
class Clusters(Result):
    """Which heads are alike, as a tree that is cut at a distance, and how sure the cut is.

    distance = 1 - similarity. Heads are joined by `linkage` (average: by the mean distance
    between two groups), and the tree is cut at the distance `cut`: what is joined below it is a
    cluster, so their number follows from the cut, and a head that resembles none stays alone.

    `stability` is the mean adjusted Rand index (Hubert & Arabie 1985) between these clusters and
    those of resampled prompts: 1 where all agree, about 0 where there is only chance; NaN where
    the similarity was not given for each prompt. `together` is how often two heads shared a
    cluster there.
    """

    distance: Float[Tensor, "head head"] = field(metadata={"means": "1 - similarity"})
    together: Float[Tensor, "head head"] = field(
        metadata={"means": "share of resamples in which two heads are in one cluster"}
    )
    cluster: Int[Tensor, " head"] = field(metadata={"means": "number of the head's cluster"})
    importance: Float[Tensor, " head"] = field(metadata={"means": "higher is kept first"})
    tree: Float[Tensor, "join part"] = field(
        metadata={"means": "scipy's linkage: two nodes, their distance, how many heads"}
    )
    heads: list[Head] = field(metadata={"axis": "head"})
    stability: float
    cut: float
    linkage: str
    source: str
    task: str = ""

    def groups(self) -> list[list[Head]]:
        """The heads of each cluster, most important first; the largest cluster first."""
        found: dict[int, list[Head]] = {}
        for at in self.importance.argsort(descending=True, stable=True).tolist():
            found.setdefault(int(self.cluster[at]), []).append(self.heads[at])
        return sorted(found.values(), key=len, reverse=True)

    def keep_one(self) -> list[Head]:
        """The heads to remove when the most important one of each cluster is kept.

        Least important first; heads that are alone in their cluster are kept.
        """
        goes = {head for group in self.groups() for head in group[1:]}
        order = self.importance.argsort(stable=True).tolist()
        return [self.heads[at] for at in order if self.heads[at] in goes]

    def kept(self) -> list[Head]:
        """The most important head of each cluster of two or more."""
        return [group[0] for group in self.groups() if len(group) > 1]

    def stability_of(self, group: Sequence[Head]) -> float:
        """How often the heads of a group shared a cluster, on average over its pairs."""
        unknown = [head for head in group if head not in self.heads]
        if unknown:
            raise ValueError(
                f"head {named(*unknown[:1])} was not clustered; there are "
                f"{', '.join(map(named, self.heads))}"
            )
        rows = [self.heads.index(head) for head in group]
        if len(rows) < 2:
            return float("nan")
        one, other = torch.tensor(rows)[torch.triu_indices(len(rows), len(rows), offset=1)]
        return float(self.together[one, other].mean())

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        several = [group for group in self.groups() if len(group) > 1]
        singles = len(self.heads) - sum(map(len, several))
        parts = "; ".join(
            f"{', '.join(map(named, group))}"
            + ("" if np.isnan(self.stability) else f" (together {self.stability_of(group):.0%})")
            for group in several
        )
        sure = (
            "it was not measured how far prompts agree on that"
            if np.isnan(self.stability)
            else f"resampled prompts agree on that with an adjusted Rand index of "
            f"{self.stability:.2f}"
        )
        return (
            f"By {self.source}, {len(self.heads)} heads form {len(several)} clusters of two or "
            f"more{': ' if parts else ''}{parts}; {singles} stand alone (cut at distance "
            f"{self.cut:g}, {self.linkage} linkage); {sure}. Keeping one of each removes "
            f"{len(self.keep_one())}."
        )

    def headline(self) -> dict[str, Any]:
        """How many clusters, how many heads they make superfluous, and how stable they are."""
        several = sum(len(group) > 1 for group in self.groups())
        return {
            "clusters": several, "superfluous": len(self.keep_one()), "stability": self.stability,
        }  # fmt: skip


def cluster(
    similarity: Float[Tensor, "head other"] | Float[Tensor, "head other batch"],
    heads: Sequence[Head],
    *,
    source: str,
    importance: Float[Tensor, " head"] | None = None,
    cut: float = 0.5,
    linkage: Linkage = "average",
    resamples: int = 200,
    seed: int = 0,
) -> Clusters:
    """Cluster heads by how alike they are: 1 the same, 0 nothing in common.

    `similarity` is one matrix, or one for each prompt, whose mean is taken; only then can the
    prompts be resampled (`resamples` times, by `seed`) for a stability. `source` names it in
    words. `importance` decides whom `Clusters.keep_one` keeps; without it the first.
    """
    per_prompt = similarity[..., None] if similarity.ndim == 2 else similarity
    batch = per_prompt.shape[-1]

    def matrix(rows: Tensor) -> Tensor:
        return per_prompt[..., rows].double().mean(-1)

    tree = _Trees(matrix, 0 if similarity.ndim == 2 else batch, cut, linkage)
    weight = torch.zeros(len(heads)) if importance is None else importance.float()
    everything = torch.arange(batch)
    return tree.clusters(
        everything, heads, importance=weight, source=source, resamples=resamples, seed=seed
    )


def cluster_alike(
    alike: HeadSimilarity, alone: HeadEffects, *, by: Measure = "output", cut: float = 0.5
) -> Clusters:
    """Cluster heads by how alike they are, the one whose loss alone costs most being kept first.

    By "attention" likeness is 1 - D / log 2, log 2 being the largest divergence that there is;
    heads that rest on the first token differ little, so that they are alike however the rest of
    their attention lies. Heads that do not compare, as those that write nothing, stand alone.
    """
    same = alike.alike(by)
    if by == "attention":
        same = 1 - alike.divergence / math.log(2)
    same = same.nan_to_num(0.0).clamp(min=0.0, max=1.0).fill_diagonal_(1.0)
    importance = torch.stack([-alone.effect[head] for head in alike.heads])
    return cluster(same, alike.heads, source=f"likeness of {by}", importance=importance, cut=cut)


def cluster_redundant(
    found: Redundancy,
    *,
    cut: float = 0.5,
    linkage: Linkage = "average",
    resamples: int = 200,
    seed: int = 0,
) -> Clusters:
    """Cluster heads by `Redundancy.overlap`: the share of a pair's effect that neither shows alone.

    The head whose loss alone costs most is kept first.
    """
    tree = _Trees(found.overlap, found.pairs_per_prompt.shape[-1], cut, linkage)
    return tree.clusters(
        torch.arange(tree.batch), found.heads, importance=-found.alone,
        source=f"what pairs cost beyond the sum ({found.ablation} ablation, {found.metric})",
        resamples=resamples, seed=seed, task=found.task,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Trees:
    """From chosen prompts to clusters; `batch` is 0 where there are none to choose from."""

    matrix: Callable[[Tensor], Tensor]
    batch: int
    cut: float
    linkage: Linkage

    def __post_init__(self) -> None:
        check_choice("linkage", self.linkage, Linkage)
        if not self.cut >= 0:
            raise ValueError(f"cut={self.cut!r}: a distance at which clusters end is 0 or more")

    def clusters(
        self,
        everything: Int[Tensor, " chosen"],
        heads: Sequence[Head],
        *,
        importance: Float[Tensor, " head"],
        source: str,
        resamples: int,
        seed: int,
        task: str = "",
    ) -> Clusters:
        distance = self._distance(everything)
        if distance.shape[0] != len(heads) or len(importance) != len(heads):
            raise ValueError(
                f"a similarity of {tuple(distance.shape)} and {len(importance)} importances for "
                f"{len(heads)} heads: give one row, column and number for each"
            )
        tree = hierarchy.linkage(squareform(distance, checks=False), self.linkage)
        labels = self._cut(tree)
        together = np.full(distance.shape, np.nan)
        stability = float("nan")
        if resamples < 1:
            raise ValueError(f"resamples={resamples}: a stability takes at least one")
        if self.batch > 1:
            others = self._resampled(resamples, seed)
            together = np.mean([one[:, None] == one for one in others], axis=0)
            stability = float(np.mean([adjusted_rand(labels, one) for one in others]))
        return Clusters(
            distance=torch.from_numpy(distance).float(),
            together=torch.from_numpy(together).float(),
            cluster=torch.from_numpy(labels.astype(np.int64)),
            importance=importance,
            tree=torch.from_numpy(tree).float(),
            heads=list(heads),
            stability=stability,
            cut=self.cut,
            linkage=self.linkage,
            source=source,
            task=task,
        )

    def _distance(self, rows: Tensor) -> np.ndarray:
        similarity = self.matrix(rows).double().numpy()
        if (
            similarity.ndim != 2
            or len(similarity) < 2
            or similarity.shape[0] != similarity.shape[1]
        ):
            raise ValueError(
                f"a similarity of shape {similarity.shape} is not one of two or more heads to "
                "each other"
            )
        off = similarity[~np.eye(len(similarity), dtype=bool)]
        if not np.isfinite(off).all() or off.min() < -1e-6 or off.max() > 1 + 1e-6:
            raise ValueError(
                f"similarities lie between 0 and 1, found {off.min():g} to {off.max():g}: take 1 "
                "minus a distance, and leave out heads that have none"
            )
        if np.abs(similarity - similarity.T)[~np.eye(len(similarity), dtype=bool)].max() > 1e-4:
            raise ValueError("the similarity is not symmetric: take the mean with its transpose")
        distance = 1 - np.clip((similarity + similarity.T) / 2, 0, 1)
        np.fill_diagonal(distance, 0)
        return distance

    def _cut(self, tree: np.ndarray) -> np.ndarray:
        return hierarchy.fcluster(tree, self.cut, criterion="distance")

    def _resampled(self, resamples: int, seed: int) -> list[np.ndarray]:
        generator = statistics.derive(seed, "clusters")
        found = []
        for _ in range(resamples):
            rows = torch.randint(self.batch, (self.batch,), generator=generator)
            distance = squareform(self._distance(rows), checks=False)
            found.append(self._cut(hierarchy.linkage(distance, self.linkage)))
        return found


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """How far two partitions agree on pairs, 0 on average by chance (Hubert & Arabie 1985).

    Two partitions that both have a single cluster, or both only clusters of one, agree: 1.
    """
    table = (one[:, None] == np.unique(one)).T.astype(float) @ (other[:, None] == np.unique(other))
    pairs, rows, columns = (_pairs(x) for x in (table, table.sum(1), table.sum(0)))
    every = _pairs(np.array([len(one)]))
    expected = rows * columns / every if every else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1) / 2).sum())
