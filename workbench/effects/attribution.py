"""Estimated effects of single nodes, one value per prompt: what attributing gives back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Site, heads
from workbench.effects.nodes import node_axes
from workbench.effects.pair import Pair
from workbench.effects.sources import Source
from workbench.tasks import provenance

GAP = 1e-3
"""A sum over nodes that misses the effect of all of them together by more is flagged."""


@dataclass(frozen=True)
class Node:
    """One node, and its mean estimated effect over prompts."""

    site: Site
    at: Mapping[str, int]  # axis -> index
    effect: float

    def __str__(self) -> str:
        return " ".join([str(self.site), *(f"{axis} {index}" for axis, index in self.at.items())])


@dataclass(frozen=True, eq=False)
class Attribution(Mapping[Site, Tensor]):
    """Estimated change in a metric if one node alone were replaced. Negative: the metric falls.

    `found[Site("z", 5)]` has the axes `found.axes(Site("z", 5))`, prompts last; what is padding
    in a prompt has 0. Along an axis in `summed`, all nodes are replaced together.

    at           the run whose nodes are replaced, and at which gradients are taken
    source       what by: a kind of `effects.Source`, or the caller's "own" tensors
    baseline     the metric of that run
    gap          site -> by how much the nodes' sum misses the effect of replacing all of them at
                 once (mean absolute miss, as a part of the mean absolute effect, or of 1 % of the
                 metric where that is larger); where the method promises the two to be equal
    """

    per_prompt: Mapping[Site, Float[Tensor, "*nodes batch"]]
    baseline: Float[Tensor, " batch"]
    at: str
    method: str
    source: str
    summed: tuple[str, ...]
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    gap: Mapping[Site, float] = field(default_factory=dict)
    caveat: str = ""

    def __getitem__(self, site: Site) -> Tensor:
        if site not in self.per_prompt:
            have = ", ".join(map(str, sorted(self.per_prompt))) or "nothing"
            raise KeyError(f"nothing was attributed to {site}; attributed: {have}")
        return self.per_prompt[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.per_prompt)

    def __len__(self) -> int:
        return len(self.per_prompt)

    def axes(self, site: Site) -> tuple[str, ...]:
        """The names of the axes of `found[site]`."""
        return (*node_axes(site, self.summed), "batch")

    def stacked(self, stream: str) -> Float[Tensor, "layer *nodes batch"]:
        """All attributed layers of a stream in one tensor, from the lowest to the highest."""
        chosen = sorted(site for site in self if site.stream == stream)
        if not chosen:
            raise KeyError(
                f"nothing was attributed to {stream}; attributed streams: "
                f"{', '.join(dict.fromkeys(site.stream for site in self))}"
            )
        return torch.stack([self[site] for site in chosen])

    @property
    def incomplete(self) -> list[Site]:
        """The sites whose nodes miss the effect of all of them by more than 0.1 %."""
        return [site for site, gap in self.gap.items() if not gap <= GAP]

    def strongest(self, n: int) -> list[Node]:
        """The `n` nodes with the largest mean effect in either direction, strongest first."""
        nodes: list[Node] = []
        for site in self:
            mean = self[site].mean(dim=-1)
            size = mean.abs().flatten()
            there = int((~size.isnan()).sum())  # without heads that were removed
            order = size.nan_to_num(nan=-1.0).argsort(descending=True, stable=True)
            best = order[: min(n, there)]
            for place in np.array(np.unravel_index(best.numpy(), mean.shape)).T.tolist():
                index = dict(zip(self.axes(site), place, strict=False))
                nodes.append(Node(site, index, float(mean[tuple(place)])))
        return sorted(nodes, key=lambda node: -abs(node.effect))[:n]

    def to_frame(self) -> pd.DataFrame:
        """One row per node: stream, layer, its index along each axis, and its mean effect."""
        frames = []
        for site in self:
            mean = self[site].mean(dim=-1)
            places = np.indices(mean.shape).reshape(mean.ndim, -1)
            columns: dict[str, Any] = {"stream": site.stream, "layer": site.layer}
            columns |= dict(zip(self.axes(site), places, strict=False))
            frames.append(pd.DataFrame({**columns, "effect": mean.flatten().numpy()}))
        frame = pd.concat(frames, ignore_index=True)
        whole = {name: "Int64" for name in frame.columns if name not in ("stream", "effect")}
        return frame.astype(whole)  # indices stay whole numbers where another site lacks the axis

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        top = "; ".join(f"{node} ({node.effect:+.3f})" for node in self.strongest(3))
        count = sum(int((~found[..., 0].isnan()).sum()) for found in self.values())
        return (
            f"Strongest of {count} nodes of {self.model} for {self.metric} ({self.unit}) on "
            f"{self.task}, by {self.method} at the {self.at} run "
            f"({float(self.baseline.mean()):+.2f}), source {self.source}: {top}. "
            f"{self.caveat}"
        ).strip()

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        printer.text(self.sentence())


@dataclass(frozen=True, eq=False)
class Part:
    """What one batch of prompts gave, prompts first; `sums` has (sum of nodes, effect of all)."""

    found: Mapping[Site, Float[Tensor, "batch ..."]]
    baseline: Float[Tensor, " batch"]
    sums: Mapping[Site, tuple[Tensor, Tensor]]

    @classmethod
    def of(
        cls,
        found: Mapping[Site, Tensor],
        baseline: Tensor,
        sums: Mapping[Site, tuple[Tensor, Tensor]] | None = None,
    ) -> "Part":
        """The same on the CPU, so that batches do not pile up where the model is."""
        sums = {site: (one.cpu(), other.cpu()) for site, (one, other) in (sums or {}).items()}
        kept = {site: one.float().cpu() for site, one in found.items()}
        return cls(kept, baseline.float().cpu(), sums)


def gathered(
    pair: Pair,
    parts: Sequence[Part],
    *,
    method: str,
    source: Source | str | Mapping[Site, Tensor],
    summed: Sequence[str],
) -> Attribution:
    """The parts of all batches as one attribution."""
    baseline = torch.cat([part.baseline for part in parts])
    least = 0.01 * float(baseline.abs().mean())
    gap = {site: _gap([part.sums[site] for part in parts], least) for site in parts[0].sums}
    return Attribution(
        per_prompt={
            site: _at_full_width(pair.model, site, [part.found[site] for part in parts], summed)
            for site in parts[0].found
        },
        baseline=baseline,
        at=pair.at,
        method=method,
        source="own" if isinstance(source, Mapping) else str(source),
        summed=tuple(summed),
        metric=pair.metric.name,
        unit=pair.metric.unit,
        **provenance.of_task(pair.model, pair.task),
        gap=gap,
        caveat=" ".join([*_caveats_of_gap(gap), *_caveats_of_precision(pair)]),
    )


def _at_full_width(
    model: HookedModel, site: Site, found: Sequence[Tensor], summed: Sequence[str]
) -> Float[Tensor, "... batch"]:
    """All batches; NaN for heads that were removed from the model."""
    axes, joined = node_axes(site, summed), _joined(found)
    if "head" not in axes:
        return joined
    return heads.widened(model, site, joined, axes.index("head"))


def _joined(found: Sequence[Tensor]) -> Float[Tensor, "... batch"]:
    """Batches of prompts of different lengths as one tensor, prompts last."""
    widest = torch.tensor([one.shape[1:] for one in found]).amax(dim=0)
    joined = found[0].new_zeros(sum(len(one) for one in found), *widest.long().tolist())
    start = 0
    for one in found:
        rows = slice(start, start + len(one))
        joined[(rows, *map(slice, one.shape[1:]))] = one
        start = rows.stop
    return joined.movedim(0, -1).contiguous()


def _gap(sums: Sequence[tuple[Tensor, Tensor]], least: float) -> float:
    total, exact = (torch.cat(side) for side in zip(*sums, strict=True))
    miss, size = (total - exact).abs().mean(), exact.abs().mean()
    return float(miss / max(float(size), least, 1e-30))


def _caveats_of_gap(gap: Mapping[Site, float]) -> list[str]:
    wide = [site for site, one in gap.items() if not one <= GAP]
    if not wide:
        return []
    worst = max(wide, key=lambda site: gap[site])
    return [
        f"Caveat: at {len(wide)} of {len(gap)} sites the nodes' sum misses the effect of all of "
        f"them together by more than 0.1 % ({gap[worst]:.1%} at {worst}): take more steps."
    ]


def _caveats_of_precision(pair: Pair) -> list[str]:
    dtype = next(pair.model.original_model.parameters()).dtype
    if dtype not in (torch.bfloat16, torch.float16):
        return []
    name = str(dtype).removeprefix("torch.")
    return [f"Caveat: activations and gradients were computed in {name}."]
