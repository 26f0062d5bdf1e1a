"""Removing heads for good: a smaller model, which knows what its heads were called before."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from einops import einsum
from jaxtyping import Float
from torch import Tensor

from hooks import Prompts, Site
from hooks import heads as numbering
from hooks.choices import check_choice
from workbench import effects
from workbench.heads.naming import Head, pairs
from workbench.models import Model, surgery

Replacement = Literal["zero", "mean"]
"""What stands in for what a removed head wrote: nothing, or what it writes on average."""


def prune(
    model: Model,
    heads: Iterable[Head],
    *,
    replace: Replacement = "zero",
    over: Prompts | None = None,
    batch_size: int = 64,
) -> Model:
    """A new model without `heads`, (layer, head), whose matrices are smaller; `model` is kept.

    It computes what `model` does when these heads are ablated, captures, patches and generates
    like any other, and its heads keep their numbers, also when it is pruned again. A key-value
    head goes with the last query head that reads it; a layer without heads runs no attention.
    Edges between its heads are refused (`patching.Graph` takes the attention of a layer as one
    there): find a circuit of heads before they are removed.

    "mean" adds to each layer what its removed heads write on average over the real tokens of
    the prompts `over`, but for the first ones: the mean of `heads.ablate_each`, folded through
    W_O into a bias.
    """
    check_choice("replace", replace, Replacement)
    gone = _checked(model, heads)
    kept = [
        [head for head in numbering.at(model, layer).query if head not in gone.get(layer, ())]
        for layer in range(model.cfg.n_layers)
    ]
    if (replace == "mean") != (over is not None):
        raise ValueError("replace='mean' takes, and alone takes, the prompts of the mean: over=...")
    if over is None:
        return surgery.cut(model, kept, how="nothing in their place")
    constants = _written(model, gone, over, batch_size)
    return surgery.cut(model, kept, constants=constants, how="their mean in their place")


def kept(model: Model) -> list[list[int]]:
    """The heads that each layer of `model` has, by the numbers they had before any was removed."""
    return [list(numbering.at(model, layer).query) for layer in range(model.cfg.n_layers)]


def _checked(model: Model, heads: Iterable[Head]) -> dict[int, list[int]]:
    """The heads to remove, by layer; an error that names one that cannot be."""
    gone: dict[int, list[int]] = {}
    listed = pairs(heads)
    for layer, head in listed:
        if not 0 <= layer < model.cfg.n_layers:
            raise ValueError(
                f"head {layer}.{head} does not exist: {model.origin.name} has layers 0 to "
                f"{model.cfg.n_layers - 1}"
            )
        numbering.check(model, Site("z", layer), [head])
        if head in gone.setdefault(layer, []):
            raise ValueError(f"head {layer}.{head} is given twice: name it once")
        gone[layer].append(head)
    if len(listed) == len(numbering.all(model)):
        first = ", ".join(f"{layer}.{head}" for layer, head in sorted(listed)[:12])
        more = ", ..." if len(listed) > 12 else ""
        raise ValueError(
            f"{first}{more} are all heads of {model.origin.name}: keep at least one, or what is "
            "left mixes no tokens"
        )
    return gone


def _written(
    model: Model, gone: Mapping[int, Sequence[int]], over: Prompts, batch_size: int
) -> dict[int, Float[Tensor, " d_model"]]:
    """What the heads that go write on average, layer by layer."""
    sites = {layer: Site("z", layer) for layer in gone}
    means = effects.mean_over(model, over, sites.values(), batch_size=batch_size)
    found = {}
    for layer, removed in gone.items():
        there = numbering.at(model, layer).query
        rows = [there.index(head) for head in removed]
        z, weight = means[sites[layer]][rows], model.blocks[layer].attn.W_O[rows]
        found[layer] = einsum(z.double(), weight.double(), "head d, head d model -> model")
    return found
