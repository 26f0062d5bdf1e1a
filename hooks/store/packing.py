"""From what one pass left behind to what lies on the disk: one row for each real token."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.activations import Activations
from hooks.sites import Site

_LARGEST = torch.finfo(torch.float16).max


def packed(seen: Activations, dtype: torch.dtype) -> dict[str, Tensor]:
    """The real tokens and the activations of a batch, by name, without padding."""
    prompts = seen.prompts
    tokens = prompts.tokens[prompts.mask.bool()].to(torch.int32)
    rows = {str(site): _narrowed(flat(seen, site), dtype, site).cpu() for site in seen}
    return {"tokens": tokens.cpu(), **rows}


def flat(seen: Activations, site: Site) -> Shaped[Tensor, "row ..."]:
    """The activations at `site` of all real tokens (or all chosen positions), one after another.

    Of an attention pattern, a row is one query: (row, head, key).
    """
    axis = site.axes.index("query" if "query" in site.axes else "pos")
    ordered = seen[site].movedim(axis, 1)
    if seen.positions is not None or bool((seen.prompts.lengths == ordered.shape[1]).all()):
        return ordered.flatten(0, 1)
    return ordered[seen.prompts.mask.bool()]


def _narrowed(
    rows: Float[Tensor, "row ..."], dtype: torch.dtype, site: Site
) -> Float[Tensor, "row ..."]:
    """The rows in the precision of the disk; what it cannot hold is refused."""
    if dtype == torch.float16 and rows.dtype != torch.float16 and rows.numel():
        low, high = (float(one) for one in torch.aminmax(rows))
        low = 0.0 if site.stream == "scores" else low  # masked scores are infinite by design
        if max(high, -low) > _LARGEST:
            raise FloatingPointError(
                f"{site} reaches {max(high, -low):.3g}, float16 ends at {_LARGEST:.0f}: "
                'write with dtype="bfloat16" or "float32"'
            )
    return rows.to(dtype)
