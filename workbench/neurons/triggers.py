"""What makes a neuron fire: tokens and pairs of tokens, how selective it is, and for how many.

Detectors are the token detectors of Voita et al. (2023), with their 5 tokens and 95 %; they look at
ReLUs, which fire above 0. Selectivity is the index of Morcos et al. (2018), tokens as classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench.corpora import Corpus
from workbench.models import words
from workbench.neurons import grounds
from workbench.neurons.naming import End, Neuron
from workbench.neurons.tracing import Traces, traces
from workbench.results import Result

MOST_TOKENS, COVERED = 5, 0.95
"""A detector's firings are to 95 % at no more than five tokens, at 95 % of which it fires."""

NO_TOKEN = -1
_NEVER = torch.tensor(torch.nan)


@dataclass(frozen=True, eq=False)
class Triggers(Result):
    """Which tokens make chosen neurons fire, and what stands before and after them.

    A neuron fires where its activation is above `level` of its largest one. Mass is what lies
    above 0 where it fires. For the `end` "bottom" all activations have their sign turned first:
    it fires where it is most negative, and all numbers are about minus the activation. `kinds` is
    the effective number of tokens that share the mass, exp(entropy): 1 is a pure detector, large
    is polysemantic (in tokens; not in meanings).
    """

    neurons: Int[Tensor, "cell part"] = field(metadata={"means": "layer and number of each neuron"})
    token: Int[Tensor, "cell rank"] = field(
        metadata={"means": "tokens with the largest mass; -1: there are fewer"}
    )
    mass: Float[Tensor, "cell rank"] = field(metadata={"means": "their share of the mass"})
    average: Float[Tensor, "cell rank"] = field(metadata={"means": "mean activation at the token"})
    fires: Float[Tensor, "cell rank"] = field(
        metadata={"means": "share of the token's occurrences where it fires"}
    )
    before: Int[Tensor, "cell rank part"] = field(
        metadata={"means": "pairs (token before, token) by mass"}
    )
    before_mass: Float[Tensor, "cell rank"] = field(metadata={"means": "their share of the mass"})
    after: Int[Tensor, "cell rank part"] = field(
        metadata={"means": "pairs (token, token after) by mass"}
    )
    after_mass: Float[Tensor, "cell rank"] = field(metadata={"means": "their share of the mass"})
    covering: Int[Tensor, " cell"] = field(
        metadata={"means": "how many tokens have 95 % of the firings"}
    )
    detector: Bool[Tensor, " cell"] = field(
        metadata={"means": "whether it is a detector of a few tokens"}
    )
    selectivity: Float[Tensor, " cell"] = field(
        metadata={
            "means": "(mean at its best token - mean elsewhere) / (their sum), of positive parts"
        }
    )
    kinds: Float[Tensor, " cell"] = field(
        metadata={"means": "effective number of tokens, NaN: never fires"}
    )
    level: float
    end: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    def place(self, neuron: tuple[int, int]) -> int:
        """Which cell a neuron is."""
        found = (self.neurons == torch.tensor(list(neuron))).all(dim=1).nonzero()
        if not len(found):
            raise KeyError(f"{Neuron(*neuron)} was not asked about")
        return int(found[0])

    @property
    def detectors(self) -> list[Neuron]:
        """The neurons that detect a few tokens."""
        return [Neuron(*one.tolist()) for one in self.neurons[self.detector]]

    def words(self, model: Any, neuron: tuple[int, int], *, n: int = 5) -> list[str]:
        """The strongest tokens of a neuron as strings."""
        ids = self.token[self.place(neuron)][:n]
        return words(model, ids[ids != NO_TOKEN])

    def sentence(self) -> str:
        """What was found, in a sentence."""
        return (
            f"Of {len(self.neurons)} neurons of {self.model}, {int(self.detector.sum())} detect at "
            f"most {MOST_TOKENS} tokens on {self.task}; the median neuron fires at effectively "
            f"{float(self.kinds.nanmedian()):.0f} kinds of token."
        )

    def headline(self) -> dict[str, float]:
        """How many detectors there are, and how many tokens a neuron stands for."""
        return {"detectors": float(self.detector.sum()), "kinds": float(self.kinds.nanmedian())}


def triggers(
    model: HookedModel,
    corpus: Corpus,
    neurons: Sequence[tuple[int, int]],
    *,
    level: float = 0.2,
    k: int = 10,
    seen: Traces | None = None,
    end: End = "top",
) -> Triggers:
    """The tokens and pairs that `neurons` fire at on `corpus`, in one more pass.

    end  "bottom": where they are most negative, instead of where they are largest

    Where they were traced on this corpus already, `seen` saves that pass.
    """
    listed = grounds.checked(model, neurons)
    seen = (seen or traces(model, corpus, listed)).those_of(corpus, listed).of_end(end)
    found = [_described(seen, one, level, k) for one in seen.neurons]
    joined = {name: torch.stack([one[name] for one in found]) for name in found[0]}
    return Triggers(
        neurons=torch.tensor(seen.neurons), **joined, level=level, end=end,
        **grounds.of_corpus(model, corpus),
    )  # fmt: skip


def _described(seen: Traces, neuron: Neuron, level: float, k: int) -> dict[str, Tensor]:
    value = seen.of(neuron).double()
    largest = float(value.max())
    firing = (value > level * largest) & (value > 0)
    mass = torch.where(firing, value, 0.0)
    total = float(mass.sum()) or 1.0
    kinds, inverse, count = seen.token.unique(return_inverse=True, return_counts=True)

    def per_token(what: Tensor) -> Tensor:
        return torch.zeros(len(kinds), dtype=torch.double).index_add(0, inverse, what.double())

    by_mass, fired, sums = per_token(mass), per_token(firing), per_token(value.clamp(min=0))
    order = by_mass.argsort(descending=True, stable=True)
    order = order[by_mass[order] > 0]
    covering = int((fired[order].cumsum(0) < COVERED * float(fired.sum())).sum()) + 1
    few = order[: min(covering, MOST_TOKENS)]
    detects = len(order) > 0 and covering <= MOST_TOKENS
    detects = detects and float(fired[few].sum() / count[few].sum()) >= COVERED
    share = by_mass[order] / total
    average = per_token(value) / count
    pairs = {
        name: _pairs(torch.stack(both, dim=1), mass, total, k)
        for name, both in (
            ("before", (seen.before, seen.token)), ("after", (seen.token, seen.after)),
        )
    }  # fmt: skip
    return {
        "token": _filled(kinds[order], k, NO_TOKEN), "mass": _filled(share.float(), k, 0.0),
        "average": _filled(average[order].float(), k, 0.0),
        "fires": _filled((fired / count)[order].float(), k, 0.0),
        "before": pairs["before"][0], "before_mass": pairs["before"][1],
        "after": pairs["after"][0], "after_mass": pairs["after"][1],
        "covering": torch.tensor(covering), "detector": torch.tensor(detects),
        "selectivity": _selectivity(sums, count), 
        "kinds": torch.exp(-(share * share.log()).sum()).float() if len(order) else _NEVER,
    }  # fmt: skip


def _selectivity(sums: Float[Tensor, " kind"], count: Int[Tensor, " kind"]) -> Float[Tensor, ""]:
    """Of a neuron's best token that is there at least twice."""
    often = count >= min(2, int(count.max()))
    best = int(torch.where(often, sums / count, -1.0).argmax())
    here = sums[best] / count[best]
    elsewhere = (sums.sum() - sums[best]) / (count.sum() - count[best]).clamp(min=1)
    return ((here - elsewhere) / (here + elsewhere).clamp(min=1e-30)).float()


def _pairs(
    pairs: Int[Tensor, "token part"], mass: Float[Tensor, " token"], total: float, k: int
) -> tuple[Int[Tensor, "rank part"], Float[Tensor, " rank"]]:
    firing = (mass > 0) & (pairs >= 0).all(dim=1)
    some, inverse = pairs[firing].unique(dim=0, return_inverse=True)
    shares = torch.zeros(len(some), dtype=torch.double).index_add(0, inverse, mass[firing])
    order = shares.argsort(descending=True, stable=True)[:k]
    filled = torch.full((k, 2), NO_TOKEN)
    filled[: len(order)] = some[order]
    return filled, _filled((shares[order] / total).float(), k, 0.0)


def _filled(values: Tensor, k: int, empty: float | int) -> Tensor:
    found = torch.full((k,), empty, dtype=values.dtype)
    found[: min(k, len(values))] = values[:k]
    return found
