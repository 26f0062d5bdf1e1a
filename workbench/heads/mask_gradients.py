"""How much would the metric move if every head's output were turned down a little?"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, sites
from workbench import effects
from workbench.heads.ablating import Ablation, ablating
from workbench.heads.bounding import bounded
from workbench.heads.naming import named
from workbench.heads.ranking import Importance, Kind, labels
from workbench.metrics import Metric
from workbench.tasks import Task

Reading = Literal["absolute", "signed"]


@dataclass(frozen=True, eq=False)
class MaskGradients(Importance):
    """Slope of a metric as each head is turned up from 0 to 1, at 1. Higher: it matters more.

    The slope of one prompt is the sum over positions of z (less what stands in its place) times
    its gradient: to first order what ablating the head costs; positive: the head helps.
    `importance` is the mean of its absolute value (Michel et al. 2019,
    https://arxiv.org/abs/1905.10650), or in the signed reading of the slope itself. Where others
    stand ready to take over, or the metric is saturated, slopes are near zero whatever the head
    does.
    """

    importance: Float[Tensor, "layer head"] = field(
        metadata={"means": "mean over prompts of the slope, without its sign where absolute"}
    )
    low: Float[Tensor, "layer head"] = field(metadata={"means": "lower 95 % bound of importance"})
    high: Float[Tensor, "layer head"] = field(metadata={"means": "upper 95 % bound of importance"})
    per_prompt: Float[Tensor, "layer head batch"] = field(
        metadata={"means": "slope of each prompt, with its sign"}
    )
    reading: str
    normalised: str
    ablation: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def way(self) -> str:
        """How it was measured."""
        scaled = ", per layer" if self.normalised == "per layer" else ""
        return f"{'signed mask' if self.reading == 'signed' else 'mask'} gradient{scaled}"

    @property
    def kind(self) -> Kind:
        """What it looks at."""
        return "signed slope" if self.reading == "signed" else "slope"

    @property
    def score(self) -> Float[Tensor, "layer head"]:
        """The importance."""
        return self.importance

    @property
    def score_of_prompts(self) -> Float[Tensor, "layer head batch"]:
        """What it is the mean of."""
        return self.per_prompt if self.reading == "signed" else self.per_prompt.abs()

    def signed(self, *, seed: int = 0) -> "MaskGradients":
        """The same slopes with their signs: what helps some prompts and hurts others cancels."""
        return _read(self, self.per_prompt, "signed", seed)

    def per_layer(self, *, seed: int = 0) -> "MaskGradients":
        """The same divided by the length (l2) of each layer's importances, so that layers compare.

        Recommended for pruning by Molchanov et al. 2017 (https://arxiv.org/abs/1611.06440).
        """
        length = self.importance.square().nansum(dim=1, keepdim=True).sqrt()
        scaled = self.per_prompt / torch.where(length > 0, length, 1.0)[..., None]
        return replace(_read(self, scaled, self.reading, seed), normalised="per layer")

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        best = self.ranked()[0]
        value, low, high = (float(one[best]) for one in (self.importance, self.low, self.high))
        unit = "" if self.normalised == "per layer" else f" {self.unit}"
        return (
            f"The {self.way} of {self.metric} on {self.task} is largest for head {named(best)} of "
            f"{len(self.ranked())} of {self.model}: {value:+.3f}{unit} [{low:+.3f}, {high:+.3f}]. "
            f"{self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The largest importance with its bounds, and whose it is."""
        layer, head = self.ranked()[0]
        value, low, high = (
            float(one[layer, head]) for one in (self.importance, self.low, self.high)
        )
        return {"importance": value, "low": low, "high": high, "layer": layer, "head": head}

    def table(self, n: int = 15) -> str:
        """The most important heads as text, one a line."""
        lines = [f"{'head':<8}{'importance':<14}{'95 % bounds':<20}mean slope"]
        for head in self.ranked()[:n]:
            low, high = float(self.low[head]), float(self.high[head])
            slope = float(self.per_prompt.mean(dim=-1)[head])
            value, bounds = f"{float(self.importance[head]):.3f}", f"[{low:.3f}, {high:.3f}]"
            lines.append(f"{named(head):<8}{value:<14}{bounds:<20}{slope:+.3f}")
        return "\n".join(lines)


def mask_gradients(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    ablation: Ablation | effects.Source = "zero",
    batch_size: int = 32,
    seed: int = 0,
) -> MaskGradients:
    """The slope of `metric` at a mask on every head, for each of the clean prompts.

    The mask mixes the head's z with what `ablation` writes; with "zero" it multiplies z, as in
    Michel et al. One pass forward and one back for all heads. `seed` draws the bootstrap.
    """
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds need at least two")
    wanted = sites.all(model, "z")
    how = ablating(model, task, ablation, batch_size=batch_size, seed=seed)
    # What replacing z does to first order is minus the slope of the mask.
    found = effects.attribute(
        model, task, wanted, metric=metric, source=how.values or "zero", summed=("pos",),
        batch_size=batch_size,
    )  # fmt: skip
    slopes = -torch.stack([found[site] for site in wanted])
    nothing = torch.zeros(slopes.shape[:2])
    empty = MaskGradients(
        nothing, nothing, nothing, slopes, "absolute", "", how.source, **labels(model, task, metric)
    )
    return _read(empty, slopes, "absolute", seed)


def _read(
    found: MaskGradients,
    slopes: Float[Tensor, "layer head batch"],
    reading: Reading | str,
    seed: int,
) -> MaskGradients:
    values = slopes if reading == "signed" else slopes.abs()
    importance, low, high, _ = bounded(values, seed=seed)
    return replace(
        found,
        importance=importance,
        low=low,
        high=high,
        per_prompt=slopes,
        reading=reading,
    )
