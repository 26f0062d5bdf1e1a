"""What a neuron writes: its output weights read through the final norm and the unembedding.

Each neuron's share of an MLP's output is a vector that promotes tokens (Geva et al. 2022). Gurnee
et al. (2024) sort neurons by the shape of those logits: few tokens promoted (high kurtosis,
positive skewness) or few suppressed (negative skewness).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench.models import words
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron, in_order
from workbench.results import Result
from workbench.tasks import provenance

_AT_ONCE = 512  # neurons whose logits are held together


@dataclass(frozen=True, eq=False)
class Written(Result):
    """What each neuron writes into the logits when it fires, from the weights alone.

    A neuron's direct effect on the logits is its activation, divided by the final norm's scale,
    times its row of `logits`: W_U norm-weight w_out. Promoted tokens come first in `promoted`
    where the activation is positive; where it is negative the roles are exchanged. Logits are
    relative to their mean over the vocabulary, which no probability depends on.
    """

    promoted: Int[Tensor, "layer neuron rank"] = field(
        metadata={"means": "tokens with the highest logits"}
    )
    promoted_by: Float[Tensor, "layer neuron rank"] = field(
        metadata={"means": "logit per unit of activation"}
    )
    suppressed: Int[Tensor, "layer neuron rank"] = field(
        metadata={"means": "tokens with the lowest logits"}
    )
    suppressed_by: Float[Tensor, "layer neuron rank"] = field(
        metadata={"means": "logit per unit of activation"}
    )
    spread: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "standard deviation over the vocabulary"}
    )
    skewness: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "positive: promotes few; negative: suppresses"}
    )
    kurtosis: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "large: few tokens; a normal spread is 3"}
    )
    length: Float[Tensor, "layer neuron"] = field(metadata={"means": "length of w_out"})
    unembedding_token: Int[Tensor, "layer neuron"] = field(
        metadata={"means": "token whose unembedding is nearest"}
    )
    unembedding_cosine: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "its cosine with w_out"}
    )
    embedding_token: Int[Tensor, "layer neuron"] = field(
        metadata={"means": "token whose embedding is nearest"}
    )
    embedding_cosine: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "its cosine with w_in (the gate)"}
    )
    task: str
    task_digest: str
    model: str
    model_digest: str

    def sharpest(self, n: int) -> list[Neuron]:
        """The neurons whose logits are most concentrated on few tokens."""
        return in_order(self.kurtosis, n)

    def words(self, model: Any, neuron: tuple[int, int], *, n: int = 5) -> dict[str, list[str]]:
        """The promoted and suppressed tokens of a neuron as strings."""
        found = {"promoted": self.promoted, "suppressed": self.suppressed}
        return {name: words(model, ids[neuron][:n]) for name, ids in found.items()}

    def sentence(self) -> str:
        """What was found, in a sentence."""
        top = self.sharpest(3)
        said = ", ".join(f"{one} ({float(self.kurtosis[one]):.0f})" for one in top)
        sharp = int((self.kurtosis > 10).sum())
        suppress = int(((self.kurtosis > 10) & (self.skewness < 0)).sum())
        return (
            f"Of {self.kurtosis.numel():,} neurons of {self.model}, {sharp:,} write to few tokens "
            f"(kurtosis above 10), of which {suppress:,}"
            f" suppress them when positive. Sharpest: {said}."
        )

    def headline(self) -> dict[str, float]:
        """How many are sharp, and how sharp the sharpest is."""
        return {
            "sharp": float((self.kurtosis > 10).sum()), "kurtosis": float(self.kurtosis.max()),
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """The sharpest neurons as text, one a line."""
        lines = [f"{'neuron':<10}{'kurtosis':>10}{'skewness':>10}{'cosine with unembedding':>26}"]
        for one in self.sharpest(n):
            lines.append(
                f"{one!s:<10}{float(self.kurtosis[one]):>10.1f}{float(self.skewness[one]):>+10.2f}"
                f"{float(self.unembedding_cosine[one]):>+26.3f}"
            )
        return "\n".join(lines)


@torch.no_grad()
def writes(model: HookedModel, *, k: int = 10) -> Written:
    """What every neuron of `model` promotes and suppresses, `k` tokens each, from its weights."""
    layers, width = grounds.shape(model)
    to_logits, embedding = through_norm(model), _unit(embeddings(model))
    if not 1 <= k <= len(embedding):
        raise ValueError(f"k={k}: the vocabulary has {len(embedding)} tokens, take 1 or more")
    unembedding = _unit(model.unembed.W_U.float().T)  # type: ignore[attr-defined]
    parts: dict[str, list[Tensor]] = {}
    for layer in range(layers):
        out, reads = out_weights(model, layer), in_weights(model, layer)
        for at in range(0, width, _AT_ONCE):
            found = _described(
                out[at : at + _AT_ONCE], reads[at : at + _AT_ONCE], to_logits, k,
                unembedding=unembedding, embedding=embedding,
            )  # fmt: skip
            for name, value in found.items():
                parts.setdefault(name, []).append(value.cpu())
    joined = {
        name: torch.cat(values).reshape(layers, width, *values[0].shape[1:])
        for name, values in parts.items()
    }
    labels = provenance.of_model(model)
    return Written(
        **joined, task=f"the weights of {labels['model']}", task_digest=labels["model_digest"],
        **labels,
    )  # fmt: skip


def through_norm(model: HookedModel) -> Float[Tensor, "vocab d_model"]:
    """From the last residual stream to the logits, where the norm's scale is 1.

    What the norm multiplies by, and whether it centres, is found by calling it. Logits are
    relative to their mean.
    """
    norm, unembed = model.ln_final, model.unembed  # type: ignore[attr-defined]
    weight, centres = norm_weight(norm, unembed.W_U)
    matrix = unembed.W_U.float().T * weight.float()
    if centres:
        matrix = matrix - matrix.mean(dim=1, keepdim=True)
    return matrix - matrix.mean(dim=0, keepdim=True)


def norm_weight(norm: Any, like: Tensor) -> tuple[Float[Tensor, " d_model"], bool]:
    """What a norm multiplies each coordinate by once its scale is 1; whether it centres.

    A norm that does not normalise (there is none, or its epsilon swamps what it is given)
    multiplies by what it does.
    """
    width, device = like.shape[0], like.device
    signs = torch.where(torch.arange(width, device=device) % 2 == 0, 1.0, -1.0).to(like)
    probe = 100 * signs

    def after(vector: Tensor) -> Tensor:
        return norm(vector[None, None])[0, 0].double()

    bias = after(torch.zeros_like(probe))
    once, twice = after(probe) - bias, after(2 * probe) - bias
    shifted = after(probe + 50) - bias
    normalises = bool((twice - once).abs().max() < 0.5 * once.abs().max())
    centres = normalises and bool((shifted - once).abs().max() < 1e-2 * once.abs().max())
    weight = once * signs.double()
    return (weight if normalises else weight / 100).to(like), centres


def out_weights(model: HookedModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """What each neuron of a layer writes, per unit of activation."""
    return model.blocks[layer].mlp.W_out.detach().float()


def in_weights(model: HookedModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """What each neuron of a layer reads (of gated MLPs, what its gate reads)."""
    mlp = model.blocks[layer].mlp
    weight = mlp.W_gate if getattr(mlp, "gate", None) is not None else mlp.W_in
    return weight.detach().float().T


def embeddings(model: HookedModel) -> Float[Tensor, "vocab d_model"]:
    """The tokens' embeddings."""
    return model.embed.W_E.detach().float()  # type: ignore[attr-defined]


def _unit(rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)


def _described(
    out: Float[Tensor, "neuron d_model"],
    reads: Float[Tensor, "neuron d_model"],
    to_logits: Float[Tensor, "vocab d_model"],
    k: int,
    *,
    unembedding: Float[Tensor, "vocab d_model"],
    embedding: Float[Tensor, "vocab d_model"],
) -> dict[str, Tensor]:
    logits = einsum(out, to_logits, "neuron d, vocab d -> neuron vocab")
    high, promoted = logits.topk(k, dim=1)
    low, suppressed = logits.topk(k, dim=1, largest=False)
    spread = logits.square().mean(1).sqrt()
    standard = logits / spread[:, None].clamp(min=1e-30)
    square = standard.square()
    skewness = (square * standard).mean(1)
    kurtosis = square.square_().mean(1)
    near = (_unit(out) @ unembedding.T).abs().max(1).indices
    reading = (_unit(reads) @ embedding.T).abs().max(1).indices
    return {
        "promoted": promoted, "promoted_by": high, "suppressed": suppressed, "suppressed_by": low,
        "spread": spread, "skewness": skewness, "kurtosis": kurtosis, "length": out.norm(dim=1),
        "unembedding_token": near,
        "unembedding_cosine": (_unit(out) * unembedding[near]).sum(1),
        "embedding_token": reading,
        "embedding_cosine": (_unit(reads) * embedding[reading]).sum(1),
    }  # fmt: skip
