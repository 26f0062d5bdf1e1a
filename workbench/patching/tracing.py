"""What causal tracing found: where restoring a state brings the answer back."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.patching.maps import LEAST_GAP, Cell
from workbench.results import Result


@dataclass(frozen=True, eq=False)
class Tracing(Result):
    """Change in a metric by restoring one state while the subject is noise. Positive: it helps.

    The indirect effects of Meng et al. (2022): the metric with the subject's embeddings made
    noisy and one state as in the clean run, minus the metric with the noise alone, each a mean
    over draws of the noise. The total effect is the clean metric minus that with the noise.

    `p` is corrected for all cells of the map (max-statistic over sign flips, Westfall & Young
    1993); `low` and `high` bound each cell's own mean effect, uncorrected. Both are over
    prompts; `by_draw` shows how much hangs on the noise.
    """

    effect: Float[Tensor, "layer place"] = field(metadata={"means": "mean indirect effect"})
    low: Float[Tensor, "layer place"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "layer place"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, "layer place"] = field(metadata={"means": "p-value, corrected for all cells"})
    per_prompt: Float[Tensor, "layer place batch"] = field(
        metadata={"means": "indirect effect in each prompt, mean over draws"}
    )
    by_draw: Float[Tensor, "draw layer place"] = field(
        metadata={"means": "indirect effect for each draw of the noise, mean over prompts"}
    )
    clean: Float[Tensor, " batch"] = field(metadata={"means": "the metric without noise"})
    noised: Float[Tensor, " batch"] = field(
        metadata={"means": "the metric with the noise alone, mean over draws"}
    )
    total: float = field(metadata={"means": "total effect: the clean metric minus the noised"})
    total_low: float = field(metadata={"means": "lower 95 % bound of total"})
    total_high: float = field(metadata={"means": "upper 95 % bound of total"})
    layers: list[int] = field(metadata={"axis": "layer", "means": "the middle of each window"})
    places: list[str] = field(metadata={"axis": "place", "means": "what each column is"})
    stream: str
    over: str
    window: int
    severed: str
    subject: str
    noise: float = field(metadata={"means": "in standard deviations of subjects' embeddings"})
    deviation: float = field(metadata={"means": "standard deviation of subjects' embeddings"})
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    cost: str = ""
    caveat: str = ""

    def share(self, least_gap: float = LEAST_GAP) -> Float[Tensor, "layer place"]:
        """The share of the total effect that each restoration brings back, a ratio of means.

        Raises where the noise changes the metric by less than `least_gap` on average.
        """
        if abs(self.total) < least_gap:
            raise ValueError(
                f"the noise changes {self.metric} by {-self.total:+.3g} {self.unit} on average: "
                "there is nothing to restore a share of. Take more noise or another subject"
            )
        return self.effect / self.total

    def strongest(self, n: int) -> list[Cell]:
        """The `n` cells (layer, column) with the largest effect in either direction."""
        order = self.effect.abs().flatten().argsort(descending=True, stable=True)[:n].tolist()
        width = self.effect.shape[1]
        return [(index // width, index % width) for index in order]

    def significant(self, level: float = 0.05) -> list[Cell]:
        """The cells whose corrected p-value is at most `level`, strongest effect first."""
        return [cell for cell in self.strongest(self.effect.numel()) if self.p[cell] <= level]

    def named(self, cell: Cell) -> str:
        """A cell in words, such as "layer 15, subject"."""
        return f"layer {self.layers[cell[0]]}, {self.places[cell[1]]}"

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        found, draws = self.significant(), len(self.by_draw)
        total, low, high = self.total, self.total_low, self.total_high
        what = self.stream if self.window == 1 else f"{self.stream} of {self.window} layers"
        cut = "" if self.severed == "none" else f" with later {self.severed} severed there"
        text = (
            f"Noise on the {self.subject} ({self.noise:g} standard deviations, {draws} draws) "
            f"lowers {self.metric} of {self.model} on {self.task} by {total:+.2f} {self.unit} "
            f"[{low:+.2f}, {high:+.2f}] from {self.clean.mean():+.2f} ({len(self.clean)} prompts). "
            f"Restoring {what}{cut}, {len(found)} of {self.effect.numel()} places bring something "
            "back or take it away (corrected p ≤ 0.05)."
        )
        if found:
            cell = found[0]
            value, low, high = (float(v[cell]) for v in (self.effect, self.low, self.high))
            text += f" The strongest is {self.named(cell)}: {value:+.2f} [{low:+.2f}, {high:+.2f}]."
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, float | str]:
        """The strongest place's effect with its bounds, and the total effect."""
        cell = self.strongest(1)[0]
        return {
            "effect": float(self.effect[cell]),
            "low": float(self.low[cell]),
            "high": float(self.high[cell]),
            "place": self.named(cell),
            "total": self.total,
            "significant": len(self.significant()),
        }

    def table(self, n: int = 15) -> str:
        """The strongest places as text, one a line."""
        return statistics.table(
            self.strongest(n), result=self, named="place", value="effect", name=self.named
        )
