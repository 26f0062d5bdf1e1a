"""What each writer of a graph adds to the residual stream: in one run, in another, on average."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture
from workbench.patching.graph import Graph
from workbench.tasks import Task

Replacement = Literal["counterfactual", "zero", "mean", "position mean"]
"""What a cut edge carries instead of what its writer wrote:

counterfactual   what the writer wrote in the prompt's corrupt twin
zero             nothing (of the embedding, nothing of the positions either)
mean             the writer's mean over the real tokens of all corrupt prompts but their first
                 ones, which attention sinks make unlike all others
position mean    its mean over the corrupt prompts at the same position, real tokens only
"""

Outputs = Mapping[Site, Tensor]
"""Site of a writer -> what flowed there; axes of size one stand for all prompts or positions."""


def attention_site(graph: Graph, layer: int) -> Site:
    """Where the layer's attention is read: each head's z, or what all of them add."""
    return Site("z" if graph.detail == "heads" else "attn_out", layer)


def writer_sites(graph: Graph) -> list[Site]:
    """The sites that together hold what every writer wrote."""
    found = [Site("resid_pre", 0)]
    for layer in range(graph.layers):
        found.append(attention_site(graph, layer))
        if graph.mlp != "none":
            found.append(Site("mlp_out", layer))
    return found


def added_by_attention(
    model: HookedModel, graph: Graph, layer: int, seen: Tensor
) -> Float[Tensor, "writer batch pos d_model"]:
    """What the attention writers of a layer add, from what flowed through `attention_site`.

    It is linear in it, so that a difference gives a difference.
    """
    if graph.detail == "layers":
        return rearrange(seen, "batch pos d_model -> 1 batch pos d_model")
    weight = model.blocks[layer].attn.W_O.to(seen.dtype)
    return einsum(
        seen, weight, "batch pos head d_head, head d_head d_model -> head batch pos d_model"
    )


def differences(
    model: HookedModel, graph: Graph, there: Outputs, here: Outputs
) -> Float[Tensor, "writer batch pos d_model"]:
    """What every writer wrote there, minus what it wrote here."""
    parts = [
        rearrange(there[Site("resid_pre", 0)] - here[Site("resid_pre", 0)], "b p d -> 1 b p d")
    ]
    for layer in range(graph.layers):
        at = attention_site(graph, layer)
        parts.append(added_by_attention(model, graph, layer, there[at] - here[at]))
        if graph.mlp != "none":
            at = Site("mlp_out", layer)
            parts.append(rearrange(there[at] - here[at], "b p d -> 1 b p d"))
    return torch.cat(parts)


def replacements(
    model: HookedModel, graph: Graph, task: Task, replacement: Replacement, *, batch_size: int
) -> Callable[[Task], Outputs]:
    """A function from some prompts of `task` to what their writers' edges carry when cut."""
    wanted = writer_sites(graph)
    if replacement == "counterfactual":
        return lambda part: capture(model, part.corrupt, wanted)
    if replacement in ("mean", "position mean"):
        means = _means(model, task, wanted, batch_size, by_position=replacement != "mean")
        return lambda part: _cut(means, part.clean)
    if replacement != "zero":
        raise ValueError(
            f"no replacement {replacement!r}; there are {', '.join(get_args(Replacement))}"
        )
    seen = capture(model, task.clean[:1], wanted)
    zeros = {site: torch.zeros_like(seen[site][:, :1]) for site in wanted}
    return lambda part: zeros


def _means(
    model: HookedModel, task: Task, wanted: list[Site], batch_size: int, *, by_position: bool
) -> Outputs:
    """Each site's mean over real tokens, with axes of size one where it does not depend on them."""
    if not by_position and int(task.corrupt.lengths.min()) < 2:
        raise ValueError("mean replacement needs prompts of at least two tokens")
    length = int(task.corrupt.lengths.max())
    totals = dict.fromkeys(wanted, torch.zeros(()))
    count = torch.zeros(length)
    for prompts in task.corrupt.batches(batch_size):
        seen = capture(model, prompts, wanted)
        real = seen.prompts.mask.double()
        real[:, 0] *= float(by_position)
        missing = length - real.shape[1]
        count = count.to(real) + torch.nn.functional.pad(real.sum(0), (0, missing))
        for site in wanted:
            summed = einsum(seen[site].double(), real, "batch pos ..., batch pos -> pos ...")
            gap = [0, 0] * (summed.ndim - 1) + [0, missing]
            totals[site] = totals[site].to(summed) + torch.nn.functional.pad(summed, gap)
    if not by_position:
        totals = {site: total.sum(0, keepdim=True) for site, total in totals.items()}
        count = count.sum(0, keepdim=True)
    dtype = next(model.original_model.parameters()).dtype
    shaped = {site: count.reshape(-1, *[1] * (total.ndim - 1)) for site, total in totals.items()}
    return {site: (total / shaped[site])[None].to(dtype) for site, total in totals.items()}


def _cut(means: Outputs, prompts: Prompts) -> Outputs:
    """The means of the positions that these prompts have."""
    return {site: mean[:, : prompts.tokens.shape[1]] for site, mean in means.items()}
