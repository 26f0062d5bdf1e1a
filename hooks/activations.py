"""What one forward pass left behind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from hooks.heads import LayerHeads
from hooks.prompts import Prompts
from hooks.sites import HookedModel, Site, check_readable


@dataclass(frozen=True, eq=False)
class Activations(Mapping[Site, Tensor]):
    """Prompts in, and copies of everything that was asked for on the way.

    `seen[Site("z", 5)]` has the axes `Site.axes` (`batch pos head d_head`). When positions
    were chosen, the pos axis (query, for attention) has one entry for each of them.
    """

    prompts: Prompts
    at: Mapping[Site, Tensor]
    positions: Int[Tensor, "batch chosen"] | None = None
    kept_logits: Float[Tensor, "batch pos vocab"] | None = None
    kept_heads: tuple[LayerHeads, ...] | None = None  # of each layer, where some were removed

    def __getitem__(self, site: Site) -> Tensor:
        if site not in self.at:
            have = ", ".join(map(str, sorted(self.at))) or "nothing"
            raise KeyError(f"{site} was not captured; captured: {have}")
        return self.at[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.at)

    def __len__(self) -> int:
        return len(self.at)

    def heads(self, site: Site) -> list[int]:
        """The numbers of the heads along the head axis of `site`, as before any was removed."""
        if "head" not in site.axes:
            raise ValueError(f"{site} has no heads, only the axes {' '.join(site.axes)}")
        if self.kept_heads is None:
            return list(range(self[site].shape[site.axes.index("head")]))
        return list(self.kept_heads[site.layer].of(site.stream))

    @property
    def logits(self) -> Float[Tensor, "batch pos vocab"]:
        """The logits that were kept: one row of each prompt ("last"), or all."""
        if self.kept_logits is None:
            raise ValueError('no logits were kept: capture(..., logits="last") or "all" keeps them')
        return self.kept_logits


def head_out(
    model: HookedModel, seen: Activations, layer: int
) -> Float[Tensor, "batch pos head d_model"]:
    """What each head of `layer` adds to the residual stream: its z through its slice of W_O.

    Summed over heads, plus the attention's output bias where there is one, this is attn_out.
    Computed when asked, because it is d_model/d_head times as large as z. Refused where the
    architecture normalises the heads' sum before adding it (Gemma 2 and 3), because then no
    head has a contribution of its own.
    """
    check_readable(model, Site("attn_out", layer))
    if "head_out" in model.access.refused:
        raise ValueError(
            f"heads of {model.cfg.architecture} have no output of their own: "
            f"{model.access.refused['head_out']}. Use z, or attn_out as a whole"
        )
    weight = model.blocks[layer].attn.W_O
    z = seen[Site("z", layer)]
    return einsum(z, weight, "batch pos head d_head, head d_head d_model -> batch pos head d_model")
