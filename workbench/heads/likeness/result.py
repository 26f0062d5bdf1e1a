"""Which heads are alike, as a result."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from scipy.cluster import hierarchy
from scipy.spatial import distance
from torch import Tensor

from hooks.choices import check_choice
from workbench.heads.naming import Head
from workbench.results import Result

Measure = Literal["attention", "output", "writes", "values", "queries", "keys"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

LEAST_DIVERGENCE = 1e-3
"""In nats: heads whose rows, shuffled, differ by less have no pattern to compare."""


@dataclass(frozen=True, eq=False)
class HeadSimilarity(Result):
    """How alike every two heads are, in six ways. `divergence`: 0 is alike; all others: larger is.

    divergence   Jensen-Shannon divergence of their attention, in nats (0 to log 2), its part on
                 the first token left out and given apart as `divergence_first`: the two add up
    cka          debiased CKA of what they write: 1 alike, about 0 unrelated, first tokens left out
    writes ...   projection kernels of the spaces they write to (W_O) and read from (W_V, W_Q,
                 W_K): the rank for the same space; under grouped queries the heads of a group
                 share values and keys, so that those two are the rank whatever the heads do, and
                 such pairs are not among the most alike
    chance       for each measure, what heads have on average whose weights are drawn anew:
                 copies of the model on the same prompts, of weights random spaces
    limit        what the most alike of all pairs of such heads reaches in 5 % of draws. For
                 attention both are shares of `divergence_chance`, what the same two heads would
                 have if the rows of one were shuffled, since heads that rest on the first token
                 differ little anyway
    NaN: not defined, as for a head that writes nothing.
    """

    divergence: Float[Tensor, "head other"] = field(
        metadata={"means": "divergence of attention but to the first token", "unit": "nats"}
    )
    divergence_first: Float[Tensor, "head other"] = field(
        metadata={"means": "its part on the first token", "unit": "nats"}
    )
    cka: Float[Tensor, "head other"] = field(metadata={"means": "debiased CKA of outputs"})
    writes: Float[Tensor, "head other"] = field(metadata={"means": "overlap of spaces written to"})
    values: Float[Tensor, "head other"] = field(metadata={"means": "overlap of value spaces"})
    queries: Float[Tensor, "head other"] = field(metadata={"means": "overlap of query spaces"})
    keys: Float[Tensor, "head other"] = field(metadata={"means": "overlap of key spaces"})
    divergence_chance: Float[Tensor, "head other"] = field(
        metadata={"means": "divergence with shuffled rows", "unit": "nats"}
    )
    chance: Float[Tensor, " measure"] = field(metadata={"means": "mean of heads drawn anew"})
    limit: Float[Tensor, " measure"] = field(metadata={"means": "most alike by chance, at 5 %"})
    measures: list[str] = field(metadata={"axis": "measure"})
    heads: list[Head]
    names: list[str] = field(metadata={"axis": "head"})
    group: list[int] = field(metadata={"axis": "head"})
    rows: int
    tokens: int
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def shared(self) -> Bool[Tensor, "head other"]:
        """Which two heads read the same key-value head, and so have the same values and keys."""
        place = [(layer, group) for (layer, _), group in zip(self.heads, self.group, strict=True)]
        return torch.tensor([[one == other for other in place] for one in place])

    def alike(self, by: Measure) -> Float[Tensor, "head other"]:
        """The matrix of one measure, turned so that larger is more alike.

        Overlaps are shares of the ranks, so that small spaces compare with large ones: 1 is the
        same space.
        """
        if by == "attention":
            return -self.divergence
        found = self.matrix(by)
        if by == "output":
            return found
        rank = found.diagonal()
        return found / (rank[:, None] * rank[None]).sqrt()

    def most_alike(self, n: int, *, by: Measure = "output") -> list[tuple[Head, Head]]:
        """The `n` pairs of heads that are most alike by one measure, most alike first."""
        return [(self.heads[a], self.heads[b]) for a, b in self._pairs(by)[:n]]

    def beyond_chance(self, by: Measure = "output") -> list[tuple[Head, Head]]:
        """The pairs more alike than any two heads of a model that was never trained.

        Such a model has a pair among them in at most 5 % of draws, by each measure.
        """
        check_choice("by", by, Measure)
        limit = float(self.limit[MEASURES.index(by)])
        found = self.matrix(by) > limit
        if by == "attention":
            found = self.divergence < limit * self.divergence_chance
            found &= self.divergence_chance > LEAST_DIVERGENCE
        return [(self.heads[a], self.heads[b]) for a, b in self._pairs(by) if bool(found[a, b])]

    def of(self, one: Head, other: Head, *, by: Measure = "output") -> float:
        """One measure of two heads, as it is."""
        return float(self.matrix(by)[self._at(one), self._at(other)])

    def order(self, by: Measure = "output") -> list[int]:
        """The heads in an order that puts alike ones side by side (average linkage)."""
        alike = self.alike(by).double()
        far = (alike.nan_to_num(-1.0).max() - alike).nan_to_num(2 * float(alike.nan_to_num().max()))
        far = ((far + far.T) / 2).clamp(min=0).fill_diagonal_(0.0)
        if len(self.heads) < 3:
            return list(range(len(self.heads)))
        tree = hierarchy.linkage(distance.squareform(far.numpy(), checks=False), "average")
        return hierarchy.leaves_list(tree).tolist()

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        parts = []
        both: tuple[tuple[Measure, str], ...] = (("attention", "attend"), ("output", "write"))
        for by, what in both:
            found = self._pairs(by)
            if found:
                names = " and ".join(self.names[at] for at in found[0])
                value = float(self.matrix(by)[found[0]])
                unit = "divergence {:.3f} nats" if by == "attention" else "CKA {:+.2f}"
                parts.append(f"{names} {what} most alike ({unit.format(value)})")
        count, pairs = len(self.heads), len(self.heads) * (len(self.heads) - 1) // 2
        beyond = len(self.beyond_chance("output"))
        return (
            f"Of {count} heads of {self.model} on {self.task}, {'; '.join(parts) or 'none compare'}"
            f". {beyond} of {pairs} pairs write more alike than any two with weights drawn anew."
        )

    def headline(self) -> dict[str, int]:
        """For each measure how many pairs are more alike than by chance."""
        return {f"alike by {by}": len(self.beyond_chance(by)) for by in MEASURES}

    def table(self, n: int = 15, *, by: Measure = "output") -> str:
        """The most alike pairs as text, one a line; a star marks what chance does not give."""
        beyond = set(self.beyond_chance(by))
        lines = [
            f"{'heads':<16}{'attention':<12}{'output':<10}"
            + "".join(f"{one:<10}" for one in MEASURES[2:])
        ]
        for a, b in self._pairs(by)[:n]:
            values = "".join(f"{float(self.matrix(one)[a, b]):<10.3f}" for one in MEASURES[1:])
            mark = "*" if (self.heads[a], self.heads[b]) in beyond else ""
            pair = f"{self.names[a]}, {self.names[b]}"
            lines.append(f"{pair:<16}{float(self.divergence[a, b]):<12.4f}{values}{mark}".rstrip())
        return "\n".join(lines)

    def matrix(self, by: Measure) -> Float[Tensor, "head other"]:
        """One measure of every two heads, as it is."""
        check_choice("by", by, Measure)
        named = {"attention": self.divergence, "output": self.cka}
        return named[by] if by in named else getattr(self, by)

    def _pairs(self, by: Measure) -> list[tuple[int, int]]:
        """Each pair once, the most alike first, without those that do not compare."""
        alike = self.alike(by)
        if by in ("values", "keys"):
            alike = alike.masked_fill(self.shared, torch.nan)
        a, b = torch.triu_indices(len(self.heads), len(self.heads), offset=1)
        value = alike[a, b]
        order = value.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
        return [(int(a[at]), int(b[at])) for at in order if not value[at].isnan()]

    def _at(self, head: Head) -> int:
        if head not in self.heads:
            raise ValueError(
                f"head {head[0]}.{head[1]} was not compared; there are {', '.join(self.names)}"
            )
        return self.heads.index(head)
