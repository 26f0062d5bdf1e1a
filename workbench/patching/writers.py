"""What each writer of a graph adds to the residual stream, and what its edges carry instead."""

from collections.abc import Callable, Mapping

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Site
from workbench import effects
from workbench.effects import Source
from workbench.effects.exact import Run
from workbench.effects.sources import Kind
from workbench.patching.graph import Graph
from workbench.tasks import Task

Outputs = Mapping[Site, Tensor]
"""Site of a writer -> what flows there."""


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


def carried(
    model: HookedModel,
    graph: Graph,
    task: Task,
    source: Source | Kind,
    *,
    run: Run = "clean",
    batch_size: int = 64,
) -> Callable[[slice], Outputs]:
    """A function from rows of the task to what changed edges carry in them, for every writer."""
    source, wanted = Source.of(source), writer_sites(graph)
    if source.kind == "counterfactual":
        return lambda rows: effects.values(model, task[rows], wanted, source=source, run=run)
    found = effects.values(model, task, wanted, source=source, run=run, batch_size=batch_size)

    def of(rows: slice) -> Outputs:
        length = task[rows].clean.tokens.shape[1]
        return {site: value[rows][:, :length] for site, value in found.items()}

    return of
