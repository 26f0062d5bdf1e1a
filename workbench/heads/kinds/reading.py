"""What heads would say of single tokens, and how the logits hear what is said."""

from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture, edits, intervening, sites
from hooks.sites import check_readable
from workbench.heads.naming import Head, every, output_matrix


def check_additive(model: HookedModel) -> None:
    """Raise where heads have no output of their own (Gemma 2 and 3 normalise their sum)."""
    check_readable(model, Site("attn_out", 0))
    if "head_out" in model.access.refused:
        raise ValueError(f"heads have no output of their own: {model.access.refused['head_out']}")


@torch.no_grad()
def values_of_tokens(
    model: HookedModel, tokens: Int[Tensor, " token"], *, batch_size: int = 512
) -> tuple[Float[Tensor, "head token d_head"], list[Head]]:
    """Each head's z when it attends to one token only, read off the token's early embedding.

    That is its embedding and what the first MLP adds to it (Wang et al. 2022), written into
    every layer. In a prompt of one token z is the value itself, whatever norms, biases and groups
    of key-value heads the architecture has.
    """
    wanted, found = sites.all(model, "z"), []
    for part in Prompts.of(tokens[:, None]).batches(batch_size):
        with intervening(model, {Site("attn_out", 0): edits.zero()}):
            early = capture(model, part, [Site("resid_post", 0)])[Site("resid_post", 0)]
        later = {Site("resid_pre", at): edits.replace(early) for at in range(1, len(wanted))}
        with intervening(model, later):
            seen = capture(model, part, wanted)
        found.append([rearrange(seen[site], "t 1 h d -> h t d") for site in wanted])
    layers = [torch.cat(one, dim=1) for one in zip(*found, strict=True)]
    return torch.cat(layers).double(), every(model)


def written(model: HookedModel, heads: list[Head]) -> Float[Tensor, "head d_head d_model"]:
    """The output matrix of every head."""
    return torch.stack([output_matrix(model, head) for head in heads]).double()


@dataclass(frozen=True, eq=False)
class Hearing:
    """The unembedding as heads' outputs reach it, through the final norm with its scale fixed.

    The norm's weight, and whether it centres, are found by calling it, so that LayerNorm, RMSNorm
    and Gemma's offset need no cases.
    """

    words: Float[Tensor, "vocab d_model"]
    norm: torch.nn.Module
    weight: Float[Tensor, " d_model"]
    centres: bool

    @classmethod
    @torch.no_grad()
    def of(cls, model: HookedModel) -> "Hearing":
        """How `model` hears."""
        norm, unembed = model.ln_final, model.unembed.W_U  # type: ignore[attr-defined]
        width = unembed.shape[0]
        probe = torch.ones(width, dtype=unembed.dtype, device=unembed.device)
        probe[1::2] = -1
        if width % 2:
            probe[-1] = -2.0  # with the ones before it the mean is zero, and no entry is
            probe[-3:-1] = 1.0
        bias = norm(torch.zeros_like(probe)[None, None])[0, 0]
        after, shifted = (norm((probe + by)[None, None])[0, 0] for by in (0.0, 3.0))
        centres = bool((shifted - after).abs().max() < 1e-3 * after.abs().max())
        weight = ((after - bias) / probe).double()
        return cls(unembed.T.double(), norm, weight, centres)

    def directions(self, tokens: Int[Tensor, "*some"]) -> Float[Tensor, "*some d_model"]:
        """What a head must write to raise the logits of these tokens, but for the norm's scale."""
        found = self.words[tokens.to(self.words.device)] * self.weight
        return found - found.mean(-1, keepdim=True) if self.centres else found

    @torch.no_grad()
    def scale(self, final: Float[Tensor, "batch d_model"]) -> Float[Tensor, " batch"]:
        """By how much the norm multiplies what stands in these last residual streams."""
        inner = final.double()
        inner = inner - inner.mean(-1, keepdim=True) if self.centres else inner
        bias = self.norm(torch.zeros_like(final[:1, None]))[0, 0].double()
        after = self.norm(final[:, None])[:, 0].double() - bias
        weighted = inner * self.weight
        return einsum(after, weighted, "b d, b d -> b") / weighted.square().sum(1)
