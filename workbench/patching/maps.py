"""What sweeps found: maps over layers and places, and lists of named places."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.results import Result

Cell = tuple[int, int]
"""(layer, column) of a map, both counted from zero."""

LEAST_GAP = 0.1
"""Clean and corrupt metrics nearer than this, in the metric's unit, leave nothing to restore."""


@dataclass(frozen=True, eq=False)
class Sweep(Result):
    """Change in a metric by patching a place. Denoise: positive restores. Noise: negative breaks.

    denoise   edits are made in the corrupt prompts: what is enough to bring the answer back
    noise     edits are made in the clean prompts: what the answer cannot do without
    They answer different questions (Heimersheim & Nanda 2024): of two places that back each
    other up denoising finds both and noising none; of two that are both needed, the reverse.

    `p` is corrected for all cells of the map (max-statistic over sign flips, Westfall & Young
    1993); `low` and `high` bound each cell's own mean effect, uncorrected. Everything is NaN for
    a head that was removed from the model.
    """

    effect: Float[Tensor, "layer place"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, "layer place"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "layer place"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, "layer place"] = field(metadata={"means": "p-value, corrected for all cells"})
    per_prompt: Float[Tensor, "layer place batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    clean: Float[Tensor, " batch"] = field(metadata={"means": "the metric of the clean prompt"})
    corrupt: Float[Tensor, " batch"] = field(metadata={"means": "the metric of the corrupt prompt"})
    layers: list[int] = field(metadata={"axis": "layer", "means": "which layers were swept"})
    places: list[str] = field(metadata={"axis": "place", "means": "what each column is"})
    stream: str
    over: str
    direction: str
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    cost: str = ""
    caveat: str = ""

    def strongest(self, n: int) -> list[Cell]:
        """The `n` cells (layer, column) with the largest effect in either direction."""
        size = self.effect.abs().flatten().nan_to_num(nan=-1.0)  # heads that were removed
        order = size.argsort(descending=True, stable=True)[: min(n, self._count)].tolist()
        width = self.effect.shape[1]
        return [(index // width, index % width) for index in order]

    def significant(self, level: float = 0.05) -> list[Cell]:
        """The cells whose corrected p-value is at most `level`, strongest effect first."""
        return [cell for cell in self.strongest(self.effect.numel()) if self.p[cell] <= level]

    def normalised(self, least_gap: float = LEAST_GAP) -> tuple[Float[Tensor, "layer place"], int]:
        """The share of the gap between clean and corrupt that each cell moves, and how many
        prompts were left out because their own gap is smaller than `least_gap`.

        1: the patch does all that exchanging the prompts does; 0: nothing. A ratio of means, not
        a mean of ratios, which small gaps blow up. Raises when too little gap is left.
        """
        gap = self.clean - self.corrupt
        kept = gap.abs() >= least_gap
        mean = gap[kept].mean() if bool(kept.any()) else torch.zeros(())
        if mean.abs() < least_gap:
            raise ValueError(
                f"{self.task}: {self.metric} of clean and corrupt prompts differ by "
                f"{float(gap.mean()):+.3g} {self.unit} on average, {int(kept.sum())} of {len(gap)} "
                f"prompts by at least {least_gap:g}: there is no gap to normalise by. Choose a "
                "corruption that changes the answer"
            )
        sign = 1 if self.direction == "denoise" else -1
        return sign * self.per_prompt[..., kept].mean(dim=-1) / mean, int((~kept).sum())

    def named(self, cell: Cell) -> str:
        """A cell in words, such as "layer 15, S2"."""
        layer, place = self.layers[cell[0]], self.places[cell[1]]
        what = f"head {layer}.{place}" if self.over == "head" else f"layer {layer}, {place}"
        return f"neuron {layer}.{place}" if self.over == "neuron" else what

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        found = self.significant()
        base = self.corrupt if self.direction == "denoise" else self.clean
        other = self.clean if self.direction == "denoise" else self.corrupt
        into = "the corrupt" if self.direction == "denoise" else "the clean"
        text = (
            f"{self.direction.capitalize()} {self.stream} of {self.model} on {self.task}: "
            f"{self.source} values put into {into} prompts, where {self.metric} is "
            f"{base.mean():+.2f} {self.unit} ({other.mean():+.2f} in the others, {len(base)} "
            f"prompts). {len(found)} of {self._count} places change it "
            "(corrected p ≤ 0.05)."
        )
        if found:
            cell = found[0]
            value, low, high = (float(v[cell]) for v in (self.effect, self.low, self.high))
            text += f" The strongest is {self.named(cell)}: {value:+.2f} [{low:+.2f}, {high:+.2f}]."
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, float | str]:
        """The strongest place's effect with its bounds, and how many are significant."""
        cell = self.strongest(1)[0]
        return {
            "effect": float(self.effect[cell]),
            "low": float(self.low[cell]),
            "high": float(self.high[cell]),
            "place": self.named(cell),
            "significant": len(self.significant()),
        }

    @property
    def _count(self) -> int:
        return int((~self.effect.isnan()).sum())

    def table(self, n: int = 15) -> str:
        """The strongest places as text, one a line."""
        return statistics.table(
            self.strongest(n), result=self, named="place", value="effect", name=self.named
        )


@dataclass(frozen=True, eq=False)
class Sweeps(Result):
    """Change in metrics by patching a place. Denoise: positive restores. Noise: negative breaks.

    Denoise: edits are made in the corrupt prompts, and show what is enough to bring the answer
    back. Noise: in the clean prompts, and show what the answer cannot do without. Of two places
    that back each other up denoising finds both and noising none; of two that are both needed,
    the reverse (Heimersheim & Nanda 2024).

    `p` is corrected for all cells of its map; `low` and `high` are uncorrected. There is a map
    for each direction and metric; `one(direction, metric)` is one of them as a `Sweep`.
    """

    effect: Float[Tensor, "direction metric layer place"] = field(
        metadata={"means": "mean change in the metric"}
    )
    low: Float[Tensor, "direction metric layer place"] = field(
        metadata={"means": "lower 95 % bound of effect"}
    )
    high: Float[Tensor, "direction metric layer place"] = field(
        metadata={"means": "upper 95 % bound of effect"}
    )
    p: Float[Tensor, "direction metric layer place"] = field(
        metadata={"means": "p-value, corrected for all cells of its map"}
    )
    per_prompt: Float[Tensor, "direction metric layer place batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    clean: Float[Tensor, "metric batch"] = field(metadata={"means": "metrics of the clean prompts"})
    corrupt: Float[Tensor, "metric batch"] = field(
        metadata={"means": "metrics of the corrupt prompts"}
    )
    directions: list[str] = field(metadata={"axis": "direction"})
    metrics: list[str] = field(metadata={"axis": "metric"})
    units: list[str] = field(metadata={"axis": "metric"})
    layers: list[int] = field(metadata={"axis": "layer"})
    places: list[str] = field(metadata={"axis": "place"})
    stream: str
    over: str
    source: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    cost: str = ""
    caveat: str = ""

    def one(self, direction: str = "", metric: str = "") -> Sweep:
        """The map of one direction and one metric; the first of each unless named."""
        way = self._index(direction, self.directions, "direction")
        which = self._index(metric, self.metrics, "metric")
        maps = {name: getattr(self, name)[way, which] for name in _MAPS}
        return Sweep(
            **maps,
            clean=self.clean[which],
            corrupt=self.corrupt[which],
            layers=self.layers,
            places=self.places,
            stream=self.stream,
            over=self.over,
            direction=self.directions[way],
            source=self.source,
            metric=self.metrics[which],
            unit=self.units[which],
            task=self.task,
            task_digest=self.task_digest,
            model=self.model,
            model_digest=self.model_digest,
            cost=self.cost,
            caveat=self.caveat,
        )

    def sentence(self) -> str:
        """What was found in each direction, by the first metric."""
        first = self.one(self.directions[0])
        said = [self.one(direction).sentence() for direction in self.directions]
        said = [one.removesuffix(first.caveat).strip() for one in said] if first.caveat else said
        return " ".join([*said, self.caveat]).strip()

    def headline(self) -> dict[str, float | str]:
        """The strongest place of the first direction and metric."""
        return self.one().headline()

    def table(self, n: int = 15) -> str:
        """The strongest places of each direction, by the first metric."""
        return "\n\n".join(f"{way}\n{self.one(way).table(n)}" for way in self.directions)

    def _index(self, name: str, names: list[str], what: str) -> int:
        if name and name not in names:
            raise KeyError(f"no {what} {name!r} in this sweep; there are {', '.join(names)}")
        return names.index(name) if name else 0


_MAPS = ("effect", "low", "high", "p", "per_prompt")
