"""Does a model find the grammatical sentence likelier? No probe, no parameters."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.probes.likelihood import Before, sentence_logprob
from workbench.results import Result
from workbench.tasks import SentencePairs, provenance

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class MinimalPairs(Result):
    """Share of pairs whose good sentence is likelier as a whole; a tie counts one half.

    `p` is that of a sign test against one half, adjusted for all phenomena (Benjamini &
    Hochberg); `difference` is log p(good) - log p(bad) in nats.
    """

    accuracy: Float[Tensor, " phenomenon"] = field(metadata={"means": "share of pairs right"})
    low: Float[Tensor, " phenomenon"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, " phenomenon"] = field(metadata={"means": "upper 95 % bound"})
    p: Float[Tensor, " phenomenon"] = field(metadata={"means": "adjusted p-value against 1/2"})
    count: Int[Tensor, " phenomenon"] = field(metadata={"means": "pairs"})
    difference: Float[Tensor, " pair"] = field(metadata={"means": "log p(good) - log p(bad)"})
    member: Int[Tensor, " pair"] = field(metadata={"means": "which of the phenomena"})
    longer: Int[Tensor, " pair"] = field(
        metadata={"means": "tokens of the good sentence minus those of the bad one"}
    )
    phenomena: list[str] = field(metadata={"axis": "phenomenon"})
    overall: statistics.Estimate
    before: str
    unit: str
    task: str
    model: str
    model_digest: str

    def above_chance(self, level: float = LEVEL) -> list[str]:
        """The phenomena that the model gets right more often than not, best first."""
        order = self.accuracy.argsort(descending=True, stable=True).tolist()
        good = (self.p <= level) & (self.accuracy > 0.5)
        return [self.phenomena[i] for i in order if good[i]]

    def below_chance(self, level: float = LEVEL) -> list[str]:
        """The phenomena that the model gets wrong more often than not, worst first."""
        order = self.accuracy.argsort(stable=True).tolist()
        bad = (self.p <= level) & (self.accuracy < 0.5)
        return [self.phenomena[i] for i in order if bad[i]]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        right, wrong = self.above_chance(), self.below_chance()
        worst = int(self.accuracy.argmin())
        uneven = float((self.longer != 0).float().mean())
        return (
            f"{self.model} finds the good sentence likelier in {100 * self.overall.value:.1f} % "
            f"[{100 * self.overall.low:.1f}, {100 * self.overall.high:.1f}] of "
            f"{len(self.difference)} pairs of {self.task}. Of {len(self.phenomena)} phenomena "
            f"{len(right)} are above chance, {len(wrong)} below, at the others nothing shows "
            f"(adjusted p ≤ {LEVEL}); the worst is {self.phenomena[worst]} "
            f"({float(self.accuracy[worst]):.2f}). In {100 * uneven:.0f} % of pairs one sentence "
            "has more tokens."
        )

    def headline(self) -> dict[str, float]:
        """The share of all pairs with its bounds, and how many phenomena are above chance."""
        return {
            "accuracy": self.overall.value, "low": self.overall.low, "high": self.overall.high,
            "above_chance": len(self.above_chance()),
        }  # fmt: skip


def minimal_pairs(
    model: HookedModel,
    pairs: SentencePairs,
    *,
    before: Before = "bos",
    batch_size: int = 32,
    seed: int = 0,
) -> MinimalPairs:
    """Compare the two sentences of each pair by their probability as a whole (Warstadt 2020).

    Not divided by length: pairs are made to differ in one thing. `before` says what stands before
    every sentence; with "nothing", what differs in the first token is not seen.
    """
    good, bad = (
        sentence_logprob(model, one, before=before, batch_size=batch_size)
        for one in (pairs.good, pairs.bad)
    )
    difference = good - bad
    right = (difference > 0).double() + 0.5 * (difference == 0).double()
    found = [_phenomenon(right[pairs.group == one], seed) for one in range(len(pairs.phenomena))]
    accuracy, low, high, p, count = (torch.tensor(one) for one in zip(*found, strict=True))
    groups = pairs.group if len(pairs.phenomena) > 1 else None
    return MinimalPairs(
        accuracy=accuracy,
        low=low,
        high=high,
        p=statistics.benjamini_hochberg(p).float(),
        count=count,
        difference=difference,
        member=pairs.group,
        longer=pairs.good.lengths - pairs.bad.lengths,
        phenomena=list(pairs.phenomena),
        overall=statistics.estimate(right, groups=groups, seed=seed),
        before=before,
        unit="nats",
        task=pairs.name,
        **provenance.of_model(model),
    )


def _phenomenon(right: Tensor, seed: int) -> tuple[float, float, float, float, int]:
    """Share, bounds, p and count of one phenomenon; one pair alone bounds nothing."""
    decided = right[right != 0.5]
    p = 1.0
    if len(decided):
        p = float(stats.binomtest(int(decided.sum()), len(decided)).pvalue)
    if len(right) < 2:
        return float(right.mean()), 0.0, 1.0, p, len(right)
    binary = len(decided) == len(right)
    bounds = statistics.proportion(right) if binary else statistics.estimate(right, seed=seed)
    return bounds.value, max(bounds.low, 0.0), min(bounds.high, 1.0), p, len(right)
