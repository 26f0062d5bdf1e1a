"""Which neurons of two models do the same: correlation over one text (Gurnee et al. 2024).

The best |correlation| with any neuron of the other model (MaxCorr of Bau et al. 2018), less what
it is with that model's layers in a rotated basis: above 0.5 a neuron is universal, as in the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Site, sites, visit
from workbench.corpora import Corpus
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron, in_order
from workbench.results import Result
from workbench.statistics import derive
from workbench.tasks import provenance

EXCESS = 0.5
"""A neuron is universal whose best match is this much better than in a rotated basis."""

_AT_ONCE = 2048  # neurons


@dataclass(frozen=True, eq=False)
class Universal(Result):
    """How like each neuron its most similar neuron of another model is, by |correlation|.

    `excess` is that minus the best match in the other model's layers after a random rotation:
    what any basis would show. `match` is (layer, number) in the other model.
    """

    correlation: Float[Tensor, "layer neuron"] = field(metadata={"means": "best |correlation|"})
    baseline: Float[Tensor, "layer neuron"] = field(metadata={"means": "the same, rotated"})
    match: Int[Tensor, "layer neuron part"] = field(metadata={"means": "layer and number"})
    layers: list[int] = field(metadata={"axis": "layer"})
    tokens: int
    other: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def excess(self) -> Float[Tensor, "layer neuron"]:
        """How much better the neuron is matched than in any basis."""
        return self.correlation - self.baseline

    @property
    def universal(self) -> list[Neuron]:
        """The neurons that are matched far better than in any basis, best first."""
        found = [one for one in in_order(self.excess) if self.excess[one] > EXCESS]
        return [Neuron(self.layers[one.layer], one.neuron) for one in found]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        return (
            f"{len(self.universal)} of {self.correlation.numel():,} neurons of {self.model} "
            f"({len(self.universal) / self.correlation.numel():.1%}) have a counterpart in "
            f"{self.other} on {self.tokens:,} tokens of {self.task}; the median best correlation "
            f"is {float(self.correlation.median()):.2f}, in a rotated basis "
            f"{float(self.baseline.median()):.2f}."
        )

    def headline(self) -> dict[str, float]:
        """The share of universal neurons."""
        return {
            "universal": len(self.universal) / self.correlation.numel(),
            "correlation": float(self.correlation.median()),
        }  # fmt: skip


@torch.no_grad()
def universal(
    model: HookedModel,
    other: HookedModel,
    corpus: Corpus,
    *,
    layers: Sequence[int] | None = None,
    other_layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Universal:
    """Match the neurons of two models that read the same tokens.

    Memory is tokens times neurons, time tokens times both models' neurons: choose `layers`, and a
    corpus of a few thousand tokens (`corpus.at_most(2000)`).
    """
    for one in (model, other):
        grounds.matches(one, corpus)
    mine = list(range(grounds.shape(model)[0])) if layers is None else list(layers)
    theirs = list(range(grounds.shape(other)[0])) if other_layers is None else list(other_layers)
    ours, others = _standardised(model, corpus, mine), _standardised(other, corpus, theirs)
    best, match, baseline = [], [], []
    rotated = {
        layer: _rotated(part, derive(seed, "rotation", str(layer)))
        for layer, part in others.items()
    }
    for layer in mine:
        value, where = _best(ours[layer], others)
        best.append(value)
        match.append(where)
        baseline.append(_best(ours[layer], rotated)[0])
    return Universal(
        correlation=torch.stack(best), baseline=torch.stack(baseline), match=torch.stack(match),
        layers=mine, tokens=len(ours[mine[0]]), other=provenance.of_model(other)["model"],
        **grounds.of_corpus(model, corpus),
    )  # fmt: skip


def _standardised(
    model: HookedModel, corpus: Corpus, layers: Sequence[int]
) -> dict[int, Float[Tensor, "token neuron"]]:
    """Every neuron with mean 0 and length 1 over tokens; constant ones are 0."""
    sites.all(model, "neuron")
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for batch in corpus.rows.batches(16):
        inside = batch.mask.bool().clone()
        inside[:, 0] = False

        def show(site: Site, activation: Tensor, inside: Tensor = inside) -> None:
            parts[site.layer].append(activation.cpu()[inside].float())

        visit(model, batch, [Site("neuron", layer) for layer in layers], show)
    return {layer: _unit(torch.cat(some)) for layer, some in parts.items()}


def _unit(x: Float[Tensor, "token neuron"]) -> Float[Tensor, "token neuron"]:
    x = x - x.mean(0)
    length = x.norm(dim=0)
    return torch.where(length > 1e-6, x / length.clamp(min=1e-6), 0.0)


def _rotated(
    x: Float[Tensor, "token neuron"], generator: torch.Generator
) -> Float[Tensor, "token neuron"]:
    width = x.shape[1]
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return _unit(x @ basis)


def _best(
    x: Float[Tensor, "token neuron"], others: dict[int, Tensor]
) -> tuple[Float[Tensor, " neuron"], Int[Tensor, "neuron part"]]:
    best = torch.full((x.shape[1],), -1.0)
    where = torch.zeros(x.shape[1], 2, dtype=torch.long)
    for layer, other in others.items():
        for start in range(0, other.shape[1], _AT_ONCE):
            value, at = (x.T @ other[:, start : start + _AT_ONCE]).abs().max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            where[better] = torch.stack([torch.full_like(at, layer), at + start], 1)[better]
    return best, where
