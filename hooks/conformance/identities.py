"""What must hold between the activations of one pass if they are what their names say.

Sums are compared element by element against the rounding that their dtype allows, so that
a part that is small beside the residual stream is still held to what it is.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from hooks.sites import Site, Stream

NOTHING_BETWEEN = "attention and MLP read the same input, so nothing lies between"
_SLACK = 8  # roundings allowed for a sum of a few terms

_NOT_ADDED = "its blocks do not add their parts to the residual stream"


def refusals(model: Any, seen: Mapping[Site, Tensor]) -> dict[str, str]:
    """Stream -> why it is not what its name says, from what one pass left."""
    refused: dict[str, str] = {}
    for layer in range(model.cfg.n_layers):
        found = _of_layer(seen, layer)
        for reasons in (_of_attention(found), _of_block(found), _of_heads(model, found, layer)):
            for stream, reason in reasons.items():
                refused.setdefault(stream, reason)
    last = seen.get(Site("resid_post", model.cfg.n_layers - 1))
    final = seen.get(Site("final"))
    if final is not None and (last is None or not adds_up([last], final)):
        refused["final"] = "the last norm does not read the residual stream"
    if "attn_out" in refused:
        refused["head_out"] = refused["attn_out"]
    return refused


def adds_up(parts: list[Tensor], total: Tensor) -> bool:
    """Whether `total` is the sum of `parts`, up to the rounding of a few additions."""
    expected = sum(part.double() for part in parts)
    size = sum(part.double().abs() for part in parts)
    return _within(total, expected, size)


def _of_layer(seen: Mapping[Site, Tensor], layer: int) -> dict[Stream, Tensor]:
    return {site.stream: found for site, found in seen.items() if site.layer == layer}


def _of_attention(found: Mapping[Stream, Tensor]) -> dict[str, str]:
    if "pattern" not in found:
        return {"scores": "there is no pattern to compare it with"} if "scores" in found else {}
    pattern, refused = found["pattern"].double(), {}
    # Models take the softmax in float32, whatever else they compute in.
    eps = max(torch.finfo(dtype).eps for dtype in (found["pattern"].dtype, torch.float32))
    room = 2 * _SLACK * eps
    if not bool(((pattern.sum(dim=-1) - 1).abs() <= room).all()):
        refused["pattern"] = "its rows do not sum to one"
    if "scores" not in found or not pattern.numel():  # or all heads of the layer were removed
        return refused
    if found["scores"].equal(found["pattern"]):
        refused["scores"] = "its hook point holds the pattern, after the softmax"
    elif not bool(((found["scores"].double().softmax(dim=-1) - pattern).abs() <= room).all()):
        refused["scores"] = "the pattern is not the softmax of what its hook point holds"
    return refused


def _of_block(found: Mapping[Stream, Tensor]) -> dict[str, str]:
    parts = [found[name] for name in ("resid_pre", "attn_out", "mlp_out") if name in found]
    if "resid_post" not in found or not adds_up(parts, found["resid_post"]):
        return {s: _NOT_ADDED for s in ("attn_out", "mlp_out", "resid_mid") if s in found}
    if "resid_mid" not in found:
        return {}
    if "attn_out" not in found:
        return {"resid_mid": "there is no attn_out that leads to it"}
    if not adds_up([found["resid_pre"], found["attn_out"]], found["resid_mid"]):
        return {"resid_mid": NOTHING_BETWEEN}
    return {}


def _of_heads(model: Any, found: Mapping[Stream, Tensor], layer: int) -> dict[str, str]:
    if "z" not in found or "attn_out" not in found:
        return {"head_out": "there is no z or no attn_out to take apart"}
    attention = model.blocks[layer].attn
    weight, bias = attention.W_O.double(), attention.b_O
    z, total = found["z"].double(), found["attn_out"]
    expected, size = _through(z, weight), _through(z.abs(), weight.abs())
    if bias is not None:
        expected, size = expected + bias.double(), size + bias.double().abs()
    if not _within(total, expected, size):
        return {"head_out": "the heads' sum is normalised before it joins the residual stream"}
    return {}


def _through(
    z: Float[Tensor, "batch pos head d_head"], weight: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    return einsum(z, weight, "batch pos head d_head, head d_head d_model -> batch pos d_model")


def _within(found: Tensor, expected: Any, size: Any) -> bool:
    room = _SLACK * torch.finfo(found.dtype).eps * size
    return bool(((found.double() - expected).abs() <= room).all())
