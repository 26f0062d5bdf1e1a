"""Surprisal by region: is a model surprised where a reader would be? (SyntaxGym)"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.probes.likelihood import Before, surprisal
from workbench.results import Result
from workbench.tasks import RegionSuite, provenance

_TERM = re.compile(r"\(\s*(\d+|\*)\s*;\s*%(.+?)%\s*\)")


@dataclass(frozen=True, eq=False)
class RegionSurprisal(Result):
    """Surprisal of each region in each condition, and how often each prediction holds."""

    mean: Float[Tensor, "condition region"] = field(metadata={"means": "mean over items"})
    low: Float[Tensor, "condition region"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, "condition region"] = field(metadata={"means": "upper 95 % bound"})
    surprisal: Float[Tensor, "item condition region"] = field(
        metadata={"means": "sum over the tokens of the region"}
    )
    holds: Bool[Tensor, "prediction item"] = field(metadata={"means": "the prediction holds"})
    accuracy: Float[Tensor, " prediction"] = field(metadata={"means": "share of items"})
    accuracy_low: Float[Tensor, " prediction"] = field(metadata={"means": "lower 95 % bound"})
    accuracy_high: Float[Tensor, " prediction"] = field(metadata={"means": "upper 95 % bound"})
    predictions: list[str] = field(metadata={"axis": "prediction"})
    conditions: list[str] = field(metadata={"axis": "condition"})
    regions: list[str] = field(metadata={"axis": "region"})
    before: str
    unit: str
    task: str
    model: str
    model_digest: str

    def sentence(self) -> str:
        """What was found, in one sentence."""
        shares = "; ".join(
            f"{text}: {100 * float(a):.0f} % [{100 * float(low):.0f}, {100 * float(high):.0f}]"
            for text, a, low, high in zip(
                self.predictions, self.accuracy, self.accuracy_low, self.accuracy_high, strict=True
            )
        )
        return f"Of {self.holds.shape[1]} items of {self.task}, {self.model} bears out {shares}."

    def headline(self) -> dict[str, float]:
        """The share of items for which all predictions hold."""
        return {"all": float(self.holds.all(dim=0).double().mean())}


def region_surprisal(
    model: HookedModel,
    suite: RegionSuite,
    *,
    before: Before = "bos",
    batch_size: int = 32,
    seed: int = 0,
) -> RegionSurprisal:
    """Surprisal summed over the tokens of every region, and the suite's predictions about it.

    (Gauthier et al. 2020.)
    """
    found = surprisal(model, suite.prompts, before=before, batch_size=batch_size).double()
    found = found.reshape(suite.items, len(suite.conditions), 1, -1)
    at = torch.arange(found.shape[-1])
    inside = (at >= suite.first[..., None]) & (at <= suite.last[..., None])
    regions = (found * inside).sum(dim=-1)
    holds = torch.stack([_judged(one, regions, suite) for one in suite.predictions])
    mean, low, high = statistics.bounds(regions.movedim(0, -1), seed=seed)
    shares = [statistics.proportion(one) for one in holds]
    return RegionSurprisal(
        mean=mean.float(),
        low=low.float(),
        high=high.float(),
        surprisal=regions.float(),
        holds=holds,
        accuracy=torch.tensor([one.value for one in shares]),
        accuracy_low=torch.tensor([one.low for one in shares]),
        accuracy_high=torch.tensor([one.high for one in shares]),
        predictions=list(suite.predictions),
        conditions=list(suite.conditions),
        regions=list(suite.regions),
        before=before,
        unit="nats",
        task=suite.name,
        **provenance.of_model(model),
    )


def _judged(
    formula: str, regions: Float[Tensor, "item condition region"], suite: RegionSuite
) -> Bool[Tensor, " item"]:
    def value(region: str, condition: str) -> Tensor:
        if condition not in suite.conditions:
            known = ", ".join(suite.conditions)
            raise ValueError(f"{formula!r}: no condition {condition!r}; there are {known}")
        at = regions[:, suite.conditions.index(condition)]
        if region == "*":
            return at.sum(dim=1)
        if not 1 <= int(region) <= at.shape[1]:
            raise ValueError(f"{formula!r}: no region {region}; they are 1 to {at.shape[1]}")
        return at[:, int(region) - 1]

    found = _Formula(formula, value).whole()
    if found.dtype != torch.bool:
        raise ValueError(f"{formula!r} compares nothing: a prediction has <, > or =")
    return found


class _Formula:
    """Reads a prediction from left to right: comparisons of sums of regions, with & and |."""

    def __init__(self, text: str, value: Callable[[str, str], Tensor]) -> None:
        self.text, self.value, self.at = text, value, 0

    def whole(self) -> Tensor:
        found = self._any()
        if self._next():
            raise self._error()
        return found

    def _any(self) -> Tensor:
        found = self._all()
        while self._take("|"):
            found = found | self._all()
        return found

    def _all(self) -> Tensor:
        found = self._comparison()
        while self._take("&"):
            found = found & self._comparison()
        return found

    def _comparison(self) -> Tensor:
        left = self._sum()
        for sign, compare in (("<", torch.lt), (">", torch.gt), ("=", torch.eq)):
            if self._take(sign):
                return compare(left, self._sum())
        return left

    def _sum(self) -> Tensor:
        found = self._term()
        while self._next() in ("+", "-"):
            sign = 1 if self._take("+") else -1
            self._take("-")
            found = found + sign * self._term()
        return found

    def _term(self) -> Tensor:
        self._next()
        term = _TERM.match(self.text, self.at)
        if term:
            self.at = term.end()
            return self.value(term[1], term[2])
        for opening, closing in ("()", "[]"):
            if self._take(opening):
                found = self._any()
                if not self._take(closing):
                    raise self._error()
                return found
        raise self._error()

    def _next(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _take(self, sign: str) -> bool:
        there = self._next() == sign
        self.at += there
        return there

    def _error(self) -> ValueError:
        return ValueError(
            f"{self.text!r} is no prediction: at character {self.at} {self.text[self.at :][:20]!r};"
            " expected such as (5;%match%) < (5;%mismatch%)"
        )
