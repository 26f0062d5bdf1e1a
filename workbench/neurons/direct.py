"""What each neuron wrote into the answer of a task, through the final norm as it was.

Direct logit attribution (Elhage et al. 2021) of single neurons: activation times w_out, times the
difference of the answer's and the foil's unembeddings, over the scale of the final norm.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, HookedModel, Site, capture, sites
from workbench import statistics
from workbench.effects.fixed_norm import FixedNorm, logits_of
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron, in_order
from workbench.neurons.writing import out_weights
from workbench.results import Result
from workbench.tasks import Task, provenance

_FEW = 200  # neurons whose bounds are found; those of all would take longer than the model


@dataclass(frozen=True, eq=False)
class NeuronAttribution(Result):
    """What each neuron wrote into logit(answer) - logit(foil). Positive: for the answer.

    Seen through the final norm (and the MLP's own, where there is one) with its scale as it was:
    neurons + bias = MLP, in every layer and prompt. What a neuron causes is another question.
    """

    effect: Float[Tensor, "layer neuron"] = field(metadata={"means": "mean direct effect"})
    low: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "lower 95 % bound; NaN: not asked"}
    )
    high: Float[Tensor, "layer neuron"] = field(metadata={"means": "upper 95 % bound"})
    mlp: Float[Tensor, "layer batch"] = field(metadata={"means": "direct effect of the MLP"})
    bias: Float[Tensor, "layer batch"] = field(metadata={"means": "that of the MLP's output bias"})
    neurons_summed: Float[Tensor, "layer batch"] = field(metadata={"means": "of all its neurons"})
    total: Float[Tensor, " batch"] = field(metadata={"means": "the model's logit difference"})
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def strongest(self, n: int) -> list[Neuron]:
        """The neurons that wrote most for or against the answer."""
        return in_order(self.effect.abs(), n)

    def sentence(self) -> str:
        """What was found, in a sentence."""
        top = ", ".join(f"{one} ({float(self.effect[one]):+.2f})" for one in self.strongest(3))
        half = self.effect.abs().flatten().sort(descending=True).values.cumsum(0)
        count = int((half < half[-1] / 2).sum()) + 1
        return (
            f"MLPs of {self.model} wrote {float(self.mlp.mean(1).sum()):+.2f} of "
            f"{float(self.total.mean()):+.2f} {self.unit} on {self.task}; {count} of "
            f"{self.effect.numel():,} neurons wrote half of it. Strongest: {top}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, float]:
        """The strongest neuron's direct effect, and all MLPs'."""
        one = self.strongest(1)[0]
        return {
            "effect": float(self.effect[one]), "low": float(self.low[one]),
            "high": float(self.high[one]), "mlps": float(self.mlp.mean(1).sum()),
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """The strongest neurons as text, one a line."""
        lines = [f"{'neuron':<10}{f'wrote ({self.unit})':>14}  95 % bounds"]
        for one in self.strongest(n):
            effect, low, high = (float(part[one]) for part in (self.effect, self.low, self.high))
            lines.append(f"{one!s:<10}{effect:>+14.3f}  [{low:+.3f}, {high:+.3f}]")
        return "\n".join(lines)


@torch.no_grad()
def direct_effects(model: HookedModel, task: Task, *, seed: int = 0) -> NeuronAttribution:
    """Split what each MLP wrote into the logit difference into what its neurons wrote.

    At the last position, for single answers and foils. Refused where what leaves the last norm,
    unembedded, is not the logits (soft caps).
    """
    if task.answer.shape[1] > 1 or task.foil.shape[1] > 1:
        raise ValueError(f"{task.name} has sets of answers or foils, whose logits do not add up")
    layers, width = grounds.shape(model)
    wanted = [*sites.all(model, "neuron"), *sites.all(model, "mlp_out"), Site("final")]
    seen = capture(model, task.clean, wanted, positions=task.clean.last)
    norm = FixedNorm.of(model, seen[Site("final")])
    logits = logits_of(model, task.clean, norm)[:, 0].double()
    direction = _direction(model, task, norm)
    per_prompt = torch.empty(layers, width, len(task))
    mlp, bias = torch.empty(2, layers, len(task), dtype=torch.float64)
    for layer in range(layers):
        found = _layer(model, seen, layer, direction)
        per_prompt[layer], mlp[layer], bias[layer] = found[0].T.float(), found[1], found[2]
    effect = per_prompt.double().mean(-1)
    low, high = torch.full_like(effect, torch.nan), torch.full_like(effect, torch.nan)
    chosen = tuple(torch.tensor(in_order(effect.abs(), _FEW)).T)
    _, low[chosen], high[chosen] = statistics.bounds(per_prompt[chosen], seed=seed)
    answer, foil = (ids[:, :1].to(logits.device) for ids in (task.answer, task.foil))
    total = (logits.gather(1, answer) - logits.gather(1, foil))[:, 0]
    return NeuronAttribution(
        effect=effect.float(), low=low.float(), high=high.float(), mlp=mlp.float(),
        bias=bias.float(), neurons_summed=per_prompt.double().sum(1).float(),
        total=total.float().cpu(), unit="nats", **provenance.labels(model, task),
    )  # fmt: skip


def _direction(model: Any, task: Task, norm: FixedNorm) -> Float[Tensor, "batch d_model"]:
    """What a vector added to the last residual stream is multiplied with, centring included."""
    words = model.unembed.W_U.double().T
    difference = words[task.answer[:, 0].to(words.device)] - words[task.foil[:, 0].to(words.device)]
    direction = difference * norm.weight.reshape(-1, norm.weight.shape[-1])
    return direction - direction.mean(-1, keepdim=True) if norm.centres else direction


def _layer(
    model: Any, seen: Activations, layer: int, direction: Float[Tensor, "batch d_model"]
) -> tuple[Float[Tensor, "batch neuron"], Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Effects of one layer's neurons, of the whole MLP, and of its bias."""
    active, whole = seen[Site("neuron", layer)][:, 0].double(), seen[Site("mlp_out", layer)][:, 0]
    weights, constant = out_weights(model, layer).double(), output_bias(model, layer)
    before = active @ weights + constant
    # A norm after the MLP multiplies coordinate by coordinate, once its scale is held.
    safe = torch.where(before == 0, torch.ones_like(before), before)
    through = torch.where(before == 0, torch.ones_like(before), whole.double() / safe)
    after = not bool((before - whole.double()).abs().max() > 1e-3 * before.abs().max())
    toward = direction if after else direction * through
    each = active * einsum(toward, weights, "batch d, neuron d -> batch neuron")
    return each, (whole.double() * direction).sum(1), (toward * constant).sum(1)


def output_bias(model: Any, layer: int) -> Float[Tensor, " d_model"]:
    """The bias of an MLP's output matrix, zeros where it has none."""
    found = getattr(model.blocks[layer].mlp, "b_out", None)
    width = model.blocks[layer].mlp.W_out
    if found is None:
        return torch.zeros(width.shape[1], dtype=torch.float64, device=width.device)
    return found.detach().double()
