"""Who reads what a neuron writes: heads and later neurons, from the weights alone.

For heads the composition score of Elhage et al. (2021), |A B| / (|A| |B|) in Frobenius norms, of
w_out and W_Q, W_K or W_V. They subtract what random matrices give; here it is divided by that,
which for one direction is 1 over the root of d_model.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron
from workbench.neurons.writing import in_weights, out_weights
from workbench.results import Result
from workbench.tasks import provenance

READS = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class Composition(Result):
    """How much later heads and neurons read of what one neuron writes, norms left out.

    `heads` is |w_out W| / (|w_out| |W|), times the root of d_model: 1 is what a random direction
    gives. `neurons` are cosines of w_out with what later neurons read (the gate's weights, where
    there are gates), signed: positive turns them on when the neuron is positive.
    """

    heads: Float[Tensor, "read layer head"] = field(
        metadata={"means": "NaN: not later, or no such"}
    )
    neuron_layer: Int[Tensor, " rank"] = field(metadata={"means": "layers of the closest neurons"})
    neuron_number: Int[Tensor, " rank"] = field(metadata={"means": "their numbers"})
    cosine: Float[Tensor, " rank"] = field(metadata={"means": "their cosines, largest first"})
    neuron: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def readers(self) -> list[Neuron]:
        """The later neurons that read it most."""
        pairs = zip(self.neuron_layer.tolist(), self.neuron_number.tolist(), strict=True)
        return [Neuron(*one) for one in pairs]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        flat = self.heads.nan_to_num(nan=-1.0).flatten()
        read, layer, head = torch.unravel_index(flat.argmax(), self.heads.shape)
        said = f"No head comes after neuron {self.neuron} of {self.model}"
        if float(flat.max()) >= 0:
            said = (
                f"Neuron {self.neuron} of {self.model} is read most by {READS[int(read)]} of head "
                f"{int(layer)}.{int(head)} ({float(flat.max()):.1f} times a random direction)"
            )
        if self.readers:
            said += f", and by neuron {self.readers[0]} (cosine {float(self.cosine[0]):+.2f})"
        return said + "."


@torch.no_grad()
def composition(model: HookedModel, neuron: tuple[int, int], *, k: int = 10) -> Composition:
    """Who reads what `neuron` writes; the `k` closest later neurons."""
    [one], (layers, width) = grounds.checked(model, [neuron]), grounds.shape(model)
    out = out_weights(model, one.layer)[one.neuron]
    unit = out / out.norm().clamp(min=1e-30)
    found = torch.full((3, layers, model.cfg.n_heads), torch.nan)
    for layer in range(one.layer + 1, layers):
        for read, name in enumerate(READS):
            weight = getattr(model.blocks[layer].attn, f"W_{name.upper()}").detach().float()
            size = torch.einsum("d,hdk->hk", unit, weight).norm(dim=-1)
            found[read, layer, : len(size)] = (
                size / weight.flatten(1).norm(dim=1).clamp(min=1e-30) * len(out) ** 0.5
            ).cpu()
    cosines = torch.zeros(layers, width)
    for layer in range(one.layer + 1, layers):
        reads = in_weights(model, layer)
        cosines[layer] = (reads @ unit / reads.norm(dim=1).clamp(min=1e-30)).cpu()
    later = (layers - one.layer - 1) * width
    order = cosines.abs().flatten().argsort(descending=True, stable=True)[: min(k, later)]
    labels = provenance.of_model(model)
    return Composition(
        heads=found, neuron_layer=order // width, neuron_number=order % width,
        cosine=cosines.flatten()[order], neuron=str(one), task=f"weights of {labels['model']}",
        task_digest=labels["model_digest"], **labels,
    )  # fmt: skip
