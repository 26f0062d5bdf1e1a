"""What a list of named places does, each on its own."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.results import Result


@dataclass(frozen=True, eq=False)
class Ranking(Result):
    """Change in a metric by each of some named places or sets of places. Negative: it is lower.

    `p` is corrected for all of the places (max-statistic); `low` and `high` are uncorrected.
    """

    effect: Float[Tensor, " place"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, " place"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, " place"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, " place"] = field(metadata={"means": "p-value, corrected for all places"})
    per_prompt: Float[Tensor, "place batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without any edit"})
    places: list[str] = field(metadata={"axis": "place", "means": "what was edited"})
    what: str
    run: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    cost: str = ""
    caveat: str = ""

    def strongest(self, n: int) -> list[str]:
        """The `n` places with the largest effect in either direction."""
        return [self.places[index] for index in self._order()[:n]]

    def significant(self, level: float = 0.05) -> list[str]:
        """The places whose corrected p-value is at most `level`, strongest effect first."""
        return [self.places[index] for index in self._order() if self.p[index] <= level]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        found = self.significant()
        text = (
            f"{self.what} of {self.model} on the {self.run} prompts of {self.task}, where "
            f"{self.metric} is {self.baseline.mean():+.2f} {self.unit} ({len(self.baseline)} "
            f"prompts): {len(found)} of {len(self.places)} change it (corrected p ≤ 0.05)."
        )
        if found:
            at = self.places.index(found[0])
            value, low, high = (float(one[at]) for one in (self.effect, self.low, self.high))
            text += f" The strongest is {found[0]}: {value:+.2f} [{low:+.2f}, {high:+.2f}]."
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, float | str]:
        """The strongest place's effect with its bounds, and how many are significant."""
        at = self._order()[0]
        return {
            "effect": float(self.effect[at]),
            "low": float(self.low[at]),
            "high": float(self.high[at]),
            "place": self.places[at],
            "significant": len(self.significant()),
        }

    def table(self, n: int = 15) -> str:
        """The strongest places as text, one a line."""
        return statistics.table(
            [(index,) for index in self._order()[:n]], result=self, named="place", value="effect",
            name=lambda cell: self.places[cell[0]],
        )  # fmt: skip

    def _order(self) -> list[int]:
        return self.effect.abs().argsort(descending=True, stable=True).tolist()
