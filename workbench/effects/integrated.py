"""Gradients along a path from what is there to what replaces it, instead of at its start alone.

Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365) over activations
(Marks et al. 2024; over inputs: Hanna et al. 2024), and conductance (Dhamdhere et al. 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from tqdm.auto import tqdm

from hooks import Site, edits, intervening
from hooks.choices import check_choice
from workbench.effects.attribution import Part
from workbench.effects.nodes import ON_THE_STREAM, per_node
from workbench.effects.pair import Pair
from workbench.effects.quadrature import Quadrature

Way = Literal["site", "inputs"]


@dataclass(frozen=True)
class Integrated(Quadrature):
    """Integrated gradients: the mean gradient along a path, by a named rule.

    path   "site": each site is moved from its value to its replacement by itself, all of it
           together. The sum over its nodes is then, up to the rule's error, the effect of
           replacing all of it, and the gap is reported. A pass for each site and step.
           "inputs": the token embeddings are moved to the other run's and carry everything
           with them. A pass for each step, all sites at once; complete at the embeddings only.
    """

    path: Way = "site"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("path", self.path, Way)

    def __str__(self) -> str:
        return f"integrated gradients along the {self.path} ({super().__str__()})"


def integrated(
    pair: Pair, sites: Sequence[Site], *, method: Integrated, summed: Sequence[str]
) -> Part:
    """Mean gradients along the path, times the change at each node."""
    moved = [[site] for site in sites] if method.path == "site" else [[_inputs(pair), *sites]]
    found: dict[Site, Tensor] = {}
    sums: dict[Site, tuple[Tensor, Tensor]] = {}
    base = pair.activations([site for together in moved for site in together])
    changes, baseline = pair.changes(base), pair.measured()
    for together in tqdm(moved, desc="integrating gradients", unit="path", mininterval=0.5):
        start, *_ = together
        mean = _mean_gradients(pair, together, method, step=(base[start], changes[start]))
        for site in dict.fromkeys(together):
            found[site] = per_node(changes[site] * mean[site], site, summed)
        exact = pair.measured({start: edits.replace(base[start] + changes[start])}) - baseline
        sums[start] = (found[start].flatten(1).sum(1), exact)
    return Part.of({site: found[site] for site in sites}, baseline, sums)


def _mean_gradients(
    pair: Pair, sites: Sequence[Site], method: Integrated, *, step: tuple[Tensor, Tensor]
) -> dict[Site, Tensor]:
    """The mean gradient at all sites while the first of them is moved along its step."""
    origin, change = step
    mean: dict[Site, Tensor] = {}
    for place, weight in method.points:
        with intervening(pair.model, {sites[0]: edits.replace(origin + place * change)}):
            found = pair.gradients(sites)
        for site, gradient in found.items():
            part = weight * gradient
            mean[site] = mean[site] + part if site in mean else part
    return mean


def conducted(pair: Pair, sites: Sequence[Site], *, steps: int, summed: Sequence[str]) -> Part:
    """What of the change along the inputs' path goes through each node, by the trapezoid rule."""
    first = _inputs(pair)
    base = pair.activations([first])
    change, baseline = pair.changes(base)[first], pair.measured()
    total: dict[Site, Tensor] = {}
    before = None
    for number in tqdm(range(steps + 1), desc="conductance", unit="step", mininterval=0.5):
        point = base[first] + number / steps * change
        with intervening(pair.model, {first: edits.replace(point)}):
            here = pair.gradients(sites)
        if before is not None:
            for site in sites:
                moved = here.activations[site] - before.activations[site]
                part = per_node(moved * (here[site] + before[site]) / 2, site, summed)
                total[site] = total[site] + part if site in total else part
        before = here
    exact = pair.measured({first: edits.replace(base[first] + change)}) - baseline
    cuts = [site for site in sites if site.stream in ON_THE_STREAM]
    sums = {site: (total[site].flatten(1).sum(1), exact) for site in cuts}
    return Part.of(total, baseline, sums)


def _inputs(pair: Pair) -> Site:
    """Where what depends on the tokens alone enters the model."""
    embed = Site("embed")
    return embed if embed.stream in pair.model.access.writable else Site("resid_pre", 0)
