"""What path patching found: one number for each sender, head or MLP."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.results import Result

Head = tuple[int, int]
"""(layer, head), both counted from zero."""

_BETWEEN = {
    "free": "other heads held, MLPs and norms free",
    "frozen": "everything between held",
    "linear": "everything between held, the last norm's scale too",
}


@dataclass(frozen=True, eq=False)
class PathEffects(Result):
    """Change in a metric by what a sender says to the receivers. Noise: negative, the path helps.

    noise     in the clean prompts the receivers are told what the corrupt ones say: what the
              answer loses when this path alone is cut. Negative: the path was helping
    denoise   the other way round: what this path alone brings back. Positive: it helps
    Senders that cannot reach a receiver have an effect of exactly 0.

    `p` and `mlp_p` are corrected for all senders together (max-statistic over sign flips,
    Westfall & Young 1993); the bounds are uncorrected.
    """

    effect: Float[Tensor, "layer head"] = field(metadata={"means": "mean effect of a sending head"})
    low: Float[Tensor, "layer head"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "layer head"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, "layer head"] = field(metadata={"means": "p-value, corrected for all senders"})
    per_prompt: Float[Tensor, "layer head batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    mlp: Float[Tensor, " layer"] = field(metadata={"means": "mean effect of a sending MLP"})
    mlp_low: Float[Tensor, " layer"] = field(metadata={"means": "lower 95 % bound of mlp"})
    mlp_high: Float[Tensor, " layer"] = field(metadata={"means": "upper 95 % bound of mlp"})
    mlp_p: Float[Tensor, " layer"] = field(metadata={"means": "p-value, corrected for all senders"})
    mlp_per_prompt: Float[Tensor, "layer batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric of the base run"})
    other: Float[Tensor, " batch"] = field(metadata={"means": "the metric of the other run"})
    to: str
    between: str
    direction: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    cost: str = ""
    caveat: str = ""

    def most_helpful(self, n: int) -> list[Head]:
        """The `n` heads whose path to the receivers helps most, most helpful first."""
        return self._ranked(self.effect if self.direction == "noise" else -self.effect, n)

    def strongest(self, n: int) -> list[Head]:
        """The `n` heads with the largest effect in either direction."""
        return self._ranked(-self.effect.abs(), n)

    def significant(self, level: float = 0.05) -> list[Head]:
        """The heads whose corrected p-value is at most `level`, strongest effect first."""
        return [head for head in self.strongest(self.effect.numel()) if self.p[head] <= level]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        found = self.significant()
        sign = -1 if self.direction == "noise" else 1
        helping = [head for head in found if sign * self.effect[head] > 0]
        run = "clean" if self.direction == "noise" else "corrupt"
        text = (
            f"Path patching to {self.to} ({_BETWEEN[self.between]}) in the {run} prompts of "
            f"{self.task}, {self.model}: {self.metric} is {self.baseline.mean():+.2f} {self.unit} "
            f"({self.other.mean():+.2f} in the other run, {len(self.baseline)} prompts). Of "
            f"{int((~self.effect.isnan()).sum())} heads {len(found)} change it by this path "
            f"(corrected p ≤ 0.05), {len(helping)} of them help."
        )
        if helping:
            names = ", ".join(f"{a}.{b} ({float(self.effect[a, b]):+.2f})" for a, b in helping[:4])
            text += f" The most helpful: {names}."
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, float]:
        """The most helpful head's effect with its bounds, and how many heads are significant."""
        layer, head = self.most_helpful(1)[0]
        at = (layer, head)
        found = {name: float(getattr(self, name)[at]) for name in ("effect", "low", "high")}
        return {**found, "layer": layer, "head": head, "significant": len(self.significant())}

    def table(self, n: int = 15) -> str:
        """The strongest senders, heads and MLPs, as text, one a line."""
        fields = {
            name: torch.cat([getattr(self, name), getattr(self, own)[:, None]], dim=1)
            for name, own in (("effect", "mlp"), ("low", "mlp_low"), ("high", "mlp_high"))
        }
        fields["p"] = torch.cat([self.p, self.mlp_p[:, None]], dim=1)
        size = fields["effect"].abs().flatten()
        there = int((~size.isnan()).sum())  # without heads that were removed
        order = size.nan_to_num(nan=-1.0).argsort(descending=True, stable=True)
        order = order[: min(n, there)].tolist()
        width = fields["effect"].shape[1]

        def name(cell: Sequence[int]) -> str:
            return f"MLP {cell[0]}" if cell[1] == width - 1 else f"{cell[0]}.{cell[1]}"

        return statistics.table(
            [divmod(index, width) for index in order],
            result=SimpleNamespace(**fields, unit=self.unit), named="sender", value="effect",
            name=name,
        )  # fmt: skip

    def _ranked(self, by: Float[Tensor, "layer head"], n: int) -> list[Head]:
        there = int((~by.isnan()).sum())  # heads that were removed sort last
        order = by.flatten().argsort(stable=True)[: min(n, there)].tolist()
        width = self.effect.shape[1]
        return [(index // width, index % width) for index in order]
