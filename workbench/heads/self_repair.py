"""How much of a head's direct effect on the logits comes back when it is removed, and from where.

After Rushing & Nanda 2024 (https://arxiv.org/abs/2402.15390) and McGrath et al. 2023 (the "Hydra
effect"). What is removed is what the head writes at the last position, seen through the last
norm with its scale held. What comes back is the difference between that and the change that the
model as a whole shows, and is split into whose output changed:

    total - direct = norm + later heads + later MLPs        for every prompt, exactly

The norm's share is the change of the logits less the change they would show with the norm's scale
held: with less in the stream, the same rest is divided by less, and so counts for more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.effects import Source
from workbench.heads.ablating import Ablation
from workbench.heads.naming import Head, checked, named
from workbench.heads.ranking import in_order
from workbench.heads.removal import Change, Reader
from workbench.heads.sets import cells
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels

SHARES = ("norm", "heads", "mlps")
"""Whose output makes up for what is gone: the last norm, later heads, later MLPs."""

Where = Literal["last", "all"]
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class SelfRepair(Result):
    """What comes back when a head is removed. Positive: the rest of the model made up for it.

    All numbers are changes in the logit difference, so `direct`, what the head's own output
    wrote there, is negative where the head was helping, and so is `total`, the change that the
    model shows. repair = total - direct = norm + heads + mlps, for every prompt. Where the
    direct effect is negative, a positive repair brings back and a negative one loses still more.

    `p` says whether the repair is zero, corrected for all heads that were removed.
    """

    repair: Float[Tensor, " removed"] = field(metadata={"means": "total minus direct"})
    low: Float[Tensor, " removed"] = field(metadata={"means": "lower 95 % bound of repair"})
    high: Float[Tensor, " removed"] = field(metadata={"means": "upper 95 % bound of repair"})
    p: Float[Tensor, " removed"] = field(metadata={"means": "p-value, corrected for all heads"})
    direct: Float[Tensor, " removed"] = field(metadata={"means": "effect of its own output alone"})
    direct_low: Float[Tensor, " removed"]
    direct_high: Float[Tensor, " removed"]
    total: Float[Tensor, " removed"] = field(metadata={"means": "effect of removing it"})
    total_low: Float[Tensor, " removed"]
    total_high: Float[Tensor, " removed"]
    share: Float[Tensor, "removed part"] = field(metadata={"means": "repair by norm, heads, MLPs"})
    share_low: Float[Tensor, "removed part"]
    share_high: Float[Tensor, "removed part"]
    by_head: Float[Tensor, "removed layer head"] = field(
        metadata={
            "means": "repair by each other head; adds up to the share of the heads; NaN: gone"
        }
    )
    by_mlp: Float[Tensor, "removed layer"] = field(
        metadata={"means": "repair by each MLP; adds up to the share of the MLPs"}
    )
    direct_per_prompt: Float[Tensor, "removed batch"]
    total_per_prompt: Float[Tensor, "removed batch"]
    share_per_prompt: Float[Tensor, "removed part batch"]
    by_head_per_prompt: Float[Tensor, "removed layer head batch"]
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the logit difference"})
    heads: list[Head] = field(metadata={"axis": "removed"})
    parts: list[str] = field(metadata={"axis": "part"})
    at: str
    unit: str
    ablation: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def restored(self) -> Float[Tensor, " removed"]:
        """Share of the direct effect that comes back; 1 is all of it, above 1 more than that."""
        return -self.repair / self.direct

    def strongest_helpers(self, head: Head, n: int = 3) -> list[tuple[Head, float]]:
        """The heads whose change makes up most for `head`, with how much."""
        if head not in self.heads:
            have = ", ".join(map(named, self.heads))
            raise KeyError(f"head {named(head)} was not removed; removed were {have}")
        change = self.by_head[self.heads.index(head)]
        return [(other, float(change[other])) for other in in_order(change)[:n]]

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        at = int(self.direct.argmin())
        head, value = self.heads[at], float(self.repair[at])
        norm, heads, mlps = self.share[at].tolist()
        significant = [
            one for one, p in zip(self.heads, self.p.tolist(), strict=True) if p <= LEVEL
        ]
        text = (
            f"Removing head {named(head)} of {self.model} takes {float(self.direct[at]):+.2f} "
            f"{self.unit} of its own from the logit difference of {self.task}, and changes it by "
            f"{float(self.total[at]):+.2f} in all: the rest of the model adds {value:+.2f} "
            f"[{float(self.low[at]):+.2f}, {float(self.high[at]):+.2f}] ({norm:+.2f} the last "
            f"norm, {heads:+.2f} other heads, {mlps:+.2f} MLPs)."
        )
        if value > 0 and heads > 0:
            (other, much), *_ = self.strongest_helpers(head, 1)
            text += f" Among the heads {named(other)} adds most ({much:+.2f})."
        text += (
            f" Of {len(self.heads)} heads removed one by one, {len(significant)} show a repair "
            f"other than 0 (corrected p ≤ {LEVEL})."
        )
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, Any]:
        """The head with the largest direct effect, and what of it comes back."""
        at = int(self.direct.argmin())
        found = {name: float(getattr(self, name)[at]) for name in ("direct", "total", "repair")}
        bounds = {name: float(getattr(self, name)[at]) for name in ("low", "high")}
        return {"head": named(self.heads[at]), **found, **bounds, "norm": float(self.share[at, 0])}

    def table(self) -> str:
        """Every head as text, one a line: direct, total, what comes back and from where."""
        columns = ("direct", "total", "repair", *self.parts)
        lines = [f"{'head':<8}" + "".join(f"{one:>10}" for one in columns) + "  95 % of repair"]
        for at, head in enumerate(self.heads):
            values = [self.direct[at], self.total[at], self.repair[at], *self.share[at]]
            bounds = f"[{float(self.low[at]):+.3f}, {float(self.high[at]):+.3f}]"
            lines.append(
                f"{named(head):<8}" + "".join(f"{float(value):>+10.3f}" for value in values)
                + f"  {bounds}{' *' * bool(self.p[at] <= LEVEL)}"
            )  # fmt: skip
        return "\n".join(lines)


@torch.no_grad()
def self_repair(
    model: HookedModel,
    task: Task,
    heads: Sequence[Head],
    *,
    ablation: Source | Ablation = "mean",
    at: Where = "last",
    seed: int = 0,
) -> SelfRepair:
    """Remove each of `heads` alone, and see whose output changes to make up for it.

    `at` says where it is removed: at the "last" position of each prompt, so that nothing but
    its direct effect and what reads that there is touched; or at "all" positions, where what
    other positions tell the last one changes too and counts among the shares.

    Refused where nothing adds up: answers or foils that are sets, heads whose sum is
    normalised before it is added (Gemma 2 and 3), soft-capped logits.
    """
    if at not in get_args(Where):
        raise ValueError(f"at={at!r}: a head is removed at the 'last' position or at 'all'")
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    listed = checked(model, heads)
    where = task.clean.last if at == "last" else None
    edits = cells(
        model, task, [[one] for one in listed], ablation=ablation, positions=where, seed=seed
    )
    reader = Reader.of(model, task)
    changes = [reader.change(head, edit) for head, edit in zip(listed, edits, strict=True)]
    return SelfRepair(
        **_numbers(changes, seed=seed),
        baseline=reader.total.float().cpu(),
        heads=listed,
        parts=list(SHARES),
        at=at,
        unit="nats",
        ablation=str(Source.of(ablation)),
        **labels(model, task),
    )


def _numbers(changes: Sequence[Change], *, seed: int) -> dict[str, Tensor]:
    direct = torch.stack([one.direct for one in changes])
    total = torch.stack([one.total for one in changes])
    by_head = torch.stack([one.heads for one in changes])
    by_mlp = torch.stack([one.mlps for one in changes])
    norm = torch.stack([one.norm for one in changes])
    share = torch.stack([norm, by_head.nansum(dim=(1, 2)), by_mlp.sum(dim=1)], dim=1)
    found: dict[str, Tensor] = {}
    repair = statistics.bounds(total - direct, seed=seed)
    found["repair"], found["low"], found["high"] = repair
    for name, values in (("direct", direct), ("total", total), ("share", share)):
        mean, low, high = statistics.bounds(values, seed=seed)
        found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    found["p"] = statistics.permutation_test(total - direct, seed=seed).corrected
    found["by_head"], found["by_mlp"] = by_head.mean(-1), by_mlp.mean(-1)
    found |= {
        "direct_per_prompt": direct, "total_per_prompt": total, "share_per_prompt": share,
        "by_head_per_prompt": by_head,
    }  # fmt: skip
    return {name: value.float() for name, value in found.items()}
