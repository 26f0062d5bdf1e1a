"""Do measures of importance order the heads alike, and where do they not?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.heads.comparing import constant, correlated, drawn, overlap, ranks, spread
from workbench.heads.naming import Head, named
from workbench.heads.ranking import Importance, Kind, in_order
from workbench.heads.reasons import MUCH, Reading, reasons
from workbench.results import Result


@dataclass(frozen=True, eq=False)
class ImportanceAgreement(Result):
    """How alike measures order the heads of a model. 1: the same order, 0: none in common.

    `correlation` is Spearman's, over the heads that both score; its bounds are by bootstrap over
    prompts on Fisher's scale, where a measure has numbers for each prompt (one that has none is
    held fixed; NaN where neither has any). `overlap` is how many of the first `top` heads of one
    are among the first of the other, as a share, equals being drawn by lot (NaN where there are
    no more heads). `share` is a head's score as a part of that measure's largest, and `spread`
    how far apart its shares are.
    """

    correlation: Float[Tensor, "method other"] = field(
        metadata={"means": "rank correlation of the scores"}
    )
    low: Float[Tensor, "method other"] = field(metadata={"means": "lower 95 % bound of it"})
    high: Float[Tensor, "method other"] = field(metadata={"means": "upper 95 % bound of it"})
    overlap: Float[Tensor, "method other"] = field(metadata={"means": "share of first heads"})
    heads: Float[Tensor, "method other"] = field(metadata={"means": "heads that both score"})
    score: Float[Tensor, "method layer head"] = field(metadata={"means": "higher: matters more"})
    rank: Float[Tensor, "method layer head"] = field(
        metadata={"means": "place in the order, from 1; equal scores share their mean place"}
    )
    share: Float[Tensor, "method layer head"] = field(
        metadata={"means": "score as a part of the largest"}
    )
    spread: Float[Tensor, "layer head"] = field(
        metadata={"means": "how far apart the measures' shares are"}
    )
    method: list[str] = field(metadata={"axis": "method"})
    other: list[str] = field(metadata={"axis": "other"})
    kinds: list[str] = field(metadata={"axis": "method"})
    top: int
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def between(self, one: str, other: str) -> statistics.Estimate:
        """The rank correlation of two measures with its bounds; `n` counts heads."""
        at = (self._place(one), self._place(other))
        value, low, high = (float(part[at]) for part in (self.correlation, self.low, self.high))
        return statistics.Estimate(value, low, high, int(self.heads[at]))

    def ranked(self) -> list[Head]:
        """The heads by their mean share over the measures, those that matter most first."""
        return in_order(self.share.nanmean(dim=0))

    def disagreed(self, n: int) -> list[Head]:
        """The `n` heads on which the measures are furthest apart, furthest first."""
        return in_order(self.spread)[:n]

    def why(self, head: Head) -> list[str]:
        """What explains that the measures disagree about a head; may be nothing."""
        places = [at for at in range(len(self.method)) if not self.score[(at, *head)].isnan()]
        return reasons(
            [
                Reading(
                    cast(Kind, self.kinds[at]),
                    float(self.score[(at, *head)]),
                    float(self.share[(at, *head)]),
                )
                for at in places
            ]
        )

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        pairs = [
            (one, other)
            for one, other in combinations(range(len(self.method)), 2)
            if not self.correlation[one, other].isnan()
        ]
        text = (
            f"{len(self.method)} measures of the importance of {len(self.ranked())} heads of "
            f"{self.model} on {self.task} ({self.metric})"
        )
        if not pairs:
            return f"{text}: none of them tells heads apart that another one does. {self.caveat}"
        values = torch.tensor([float(self.correlation[pair]) for pair in pairs])
        blind = [
            name for name, share in zip(self.method, self.share, strict=True) if constant(share)
        ]
        same = f" ({', '.join(blind)}: the same for all)" if blind else ""
        least, most = pairs[int(values.argmin())], pairs[int(values.argmax())]
        worst = self.disagreed(1)[0]
        why = "; ".join(self.why(worst)) or "no known reason"
        return (
            f"{text}{same}: their orders correlate by {float(values.mean()):+.2f} on average, from "
            f"{self._said(least)} to {self._said(most)}. They are furthest apart on head "
            f"{named(worst)}: {why}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The mean, least and greatest correlation between two measures, and the mean overlap."""
        one, other = torch.triu_indices(len(self.method), len(self.method), offset=1)
        values, overlap = self.correlation[one, other], self.overlap[one, other]
        known = values[~values.isnan()]
        if not len(known):
            return {"correlation": float("nan"), "overlap": float(overlap.nanmean())}
        return {
            "correlation": float(known.mean()),
            "least": float(known.min()),
            "greatest": float(known.max()),
            "overlap": float(overlap.nanmean()),
            "furthest": named(self.disagreed(1)[0]),
        }

    def table(self, n: int = 15) -> str:
        """The heads that matter most by any measure: their place by each, and why places differ."""
        shown = in_order(self.share.abs().nan_to_num(-1).amax(dim=0))[:n]
        letters = [f"({place + 1})" for place in range(len(self.method))]
        lines = [f"{letter} {name}" for letter, name in zip(letters, self.method, strict=True)]
        lines.append("".join([f"{'head':<8}", *(f"{letter:>6}" for letter in letters), "  why"]))
        for head in shown:
            places = (float(self.rank[(at, *head)]) for at in range(len(self.method)))
            cells = ["–" if place != place else f"{place:g}" for place in places]
            row = "".join([f"{named(head):<8}", *(f"{cell:>6}" for cell in cells)])
            lines.append(f"{row}  {'; '.join(self.why(head))}".rstrip())
        return "\n".join(lines)

    def correlations(self) -> str:
        """The rank correlations with their bounds as text, a line for each two measures."""
        lines = [f"{'correlation':<14}{'95 % bounds':<18}{'overlap':<9}between"]
        for one, other in combinations(range(len(self.method)), 2):
            value, low, high, shared = (
                float(part[one, other])
                for part in (self.correlation, self.low, self.high, self.overlap)
            )
            bounds = "–" if low != low else f"[{low:+.2f}, {high:+.2f}]"
            common = "–" if shared != shared else f"{shared:.0%}"
            said = "–" if value != value else f"{value:+.2f}"
            pair = f"{self.method[one]}, {self.method[other]}"
            lines.append(f"{said:<14}{bounds:<18}{common:<9}{pair}")
        return "\n".join(lines)

    def _said(self, pair: tuple[int, int]) -> str:
        names = " and ".join(self.method[place] for place in pair)
        return f"{float(self.correlation[pair]):+.2f} ({names})"

    def _place(self, name: str) -> int:
        if name not in self.method:
            raise KeyError(f"no measure {name!r} was compared; there are {', '.join(self.method)}")
        return self.method.index(name)


def agreement(
    results: Sequence[Importance], *, top: int = 10, resamples: int = 200, seed: int = 0
) -> ImportanceAgreement:
    """Hold measures of the same heads on the same task against each other.

    `top` is how many first heads are compared; `seed` draws the bootstrap over prompts, the same
    prompts for all measures.
    """
    first = _checked(results)
    score = torch.stack([one.score.float() for one in results])
    largest = score.abs().nan_to_num(0).amax(dim=(1, 2), keepdim=True)
    share = score / torch.where(largest > 0, largest, 1.0)
    size = len(results)
    square = {name: torch.full((size, size), torch.nan) for name in ("correlation", "low", "high")}
    common, heads = torch.zeros(size, size), torch.zeros(size, size)
    samples = [drawn(one, resamples, seed) for one in results]
    for one in range(size):
        for other in range(one, size):
            both = ~(score[one].isnan() | score[other].isnan())
            found = correlated(score, samples, both, (one, other))
            for at in ((one, other), (other, one)):
                for name, value in zip(square, found, strict=True):
                    square[name][at] = value
                heads[at] = float(both.sum())
                common[at] = overlap(score[one][both], score[other][both], top)
    names = [one.way for one in results]
    return ImportanceAgreement(
        **square,
        overlap=common,
        heads=heads,
        score=score,
        rank=torch.stack([ranks(one) for one in score]),
        share=share,
        spread=spread(share),
        method=names,
        other=list(names),
        kinds=[one.kind for one in results],
        top=top,
        caveat=" ".join(dict.fromkeys(getattr(one, "caveat", "") for one in results)).strip(),
        **{name: getattr(first, name) for name in _SHARED},
    )


_SHARED = ("metric", "unit", "task", "task_digest", "model", "model_digest")


def _checked(results: Sequence[Importance]) -> Importance:
    """The first result; raises unless all of them are of the same heads, prompts and metric."""
    if len(results) < 2:
        raise ValueError(f"{len(results)} results have nothing to agree with: give two or more")
    first: Any = results[0]
    for one in results[1:]:
        for name in _SHARED:
            mine, theirs = getattr(first, name), getattr(one, name)
            if mine != theirs:
                raise ValueError(
                    f"{first.way} has the {name} {mine}, {one.way} has {theirs}: measure both with "
                    "the same metric on the same prompts of the same model"
                )
        if one.score.shape != first.score.shape:
            raise ValueError(
                f"{first.way} scores {tuple(first.score.shape)} heads, {one.way} "
                f"{tuple(one.score.shape)}: they are of different models"
            )
    names = [one.way for one in results]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]} was given twice: give every measure once")
    return first


def shortlist(results: Iterable[Importance], n: int) -> list[Head]:
    """`n` heads that some measure makes much of: each in turn names its strongest not yet taken.

    Heads that matter to no measure come last, to fill up.
    """
    sizes = [one.score.abs() for one in results]
    if not sizes:
        raise ValueError("no measure was given to choose heads by")
    least = [MUCH * float(size.nan_to_num(0).max()) for size in sizes]
    orders = [in_order(size) for size in sizes]
    matter = [
        [head for head in order if size[head] > max(floor, 0.0)]
        for order, size, floor in zip(orders, sizes, least, strict=True)
    ]
    named_in_turn = [
        head for several in (matter, orders) for heads in zip_longest(*several) for head in heads
    ]
    return [head for head in dict.fromkeys(named_in_turn) if head is not None][:n]
