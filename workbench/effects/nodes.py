"""What counts as one node of an activation: which axes tell nodes apart, which lie within one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site

_WITHIN = ("batch", "d_model", "d_head")  # a node is a vector; prompts are kept apart

ON_THE_STREAM = frozenset({"embed", "resid_pre", "resid_mid", "resid_post", "final"})
"""Streams of which one layer is a cut: all that the logits depend on goes through it."""


def node_axes(site: Site, summed: Sequence[str] = ()) -> tuple[str, ...]:
    """The axes that tell the nodes of `site` apart, in order, without those summed over."""
    return tuple(axis for axis in site.axes if axis not in _WITHIN and axis not in summed)


def per_node(
    product: Float[Tensor, "batch ..."], site: Site, summed: Sequence[str]
) -> Float[Tensor, "batch ..."]:
    """Activations times gradients, summed to one number for each prompt and node."""
    kept = ("batch", *node_axes(site, summed))
    gone = [place for place, axis in enumerate(site.axes) if axis not in kept]
    return product.sum(dim=gone, dtype=torch.float64).float() if gone else product.float()


def check_summed(sites: Sequence[Site], summed: Sequence[str]) -> None:
    """Raise for an axis that tells no nodes apart, before anything is run."""
    there = dict.fromkeys(axis for site in sites for axis in node_axes(site))
    wrong = [axis for axis in summed if axis not in there]
    if wrong or isinstance(summed, str):
        raise ValueError(
            f"cannot sum over {summed if isinstance(summed, str) else wrong[0]!r}: nodes of these "
            f"sites are told apart by {', '.join(there) or 'nothing'}; write summed=('pos',)"
        )
