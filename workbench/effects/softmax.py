"""Queries and keys replaced one at a time, through the softmax as it is.

A linear estimate fails where attention is saturated: a softmax near 0 or 1 has no slope. So the
attention that a replaced query or key would give is computed exactly, and only what follows is
linear: effect = (new attention - attention) . gradient at the attention (the "QK fix" of AtP*,
Kramár et al. 2024, https://arxiv.org/abs/2403.00745).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from einops import einsum, reduce
from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, Prompts, Site, capture, edits, heads, intervening
from hooks.sites import check_writable

QUERIES, KEYS = frozenset({"q", "q_rot"}), frozenset({"k", "k_rot"})

Estimator = Callable[[Tensor], Tensor]
"""From the gradient at a layer's attention to (batch, *nodes) of one site."""

Attention = Float[Tensor, "batch head query key"]

_LOWEST = -1e30  # stands for "may not look there"; the models' own value may be infinite


def pattern_of(site: Site) -> Site:
    """The attention that a query or key decides."""
    return Site("pattern", site.layer)


def check_sites(model: HookedModel, sites: Sequence[Site], summed: Sequence[str]) -> None:
    """Raise where attention cannot be recomputed for these queries and keys."""
    for site in sites:
        check_writable(model, pattern_of(site))
        if site.stream in KEYS and "pos" not in summed and "scores" not in model.access.writable:
            raise ValueError(
                f"keys of single positions need the scores, and {model.cfg.architecture} has none: "
                f"{model.access.refused.get('scores', '')}. summed=('pos',) replaces those of all "
                "positions together, for which the attention itself is enough"
            )


def estimators(
    model: HookedModel,
    prompts: Prompts,
    targets: Mapping[Site, Tensor],
    patterns: Mapping[Site, Tensor],
    *,
    summed: Sequence[str],
) -> dict[Site, Estimator]:
    """For each site of `targets`, how a gradient at its attention becomes estimates per node.

    The model itself recomputes the attention, so its masks, windows, norms, rotary positions and
    grouped queries are as they are. One pass for each of the streams.
    """
    made: dict[Site, Estimator] = {}
    together = "pos" in summed
    for stream in dict.fromkeys(site.stream for site in targets):
        chosen = {site: target for site, target in targets.items() if site.stream == stream}
        alone = stream in KEYS and not together
        before = capture(model, prompts, [_scores(site) for site in chosen]) if alone else {}
        after = _reattended(model, prompts, chosen, patterns, read=_scores if alone else pattern_of)
        for site in chosen:
            if alone:
                scores = before[_scores(site)], after[_scores(site)]
                finish = partial(one_key_at_a_time, *scores)
            else:
                change = after[pattern_of(site)] - patterns[pattern_of(site)]
                finish = partial(_through, change)
            made[site] = partial(_per_head, finish, owners=_owners(model, site), summed=summed)
    return made


def one_key_at_a_time(
    scores: Attention, changed: Attention, gradient: Attention
) -> Float[Tensor, "batch key head"]:
    """What replacing one key alone does: sum over queries of (new attention - attention) . g.

    `changed` has the scores with all keys replaced; since a score depends on no other key, its
    column is what that key alone would give. If attention to the key goes from a to a', that to
    all others shrinks by (1 - a') / (1 - a), so a row's change is (a' - a) (g - mean of the
    others' g, weighted by attention).
    """
    x, new = (one.double().clamp(min=_LOWEST) for one in (scores, changed))
    g = gradient.double()
    rest, others = _without_each(x, g)
    moved = torch.sigmoid(new - rest) - torch.sigmoid(x - rest)
    return reduce(moved * (g - others), "batch head query key -> batch key head", "sum")


def _without_each(x: Attention, g: Attention) -> tuple[Attention, Attention]:
    """For each key: log-sum-exp of the other keys' scores, and their mean g under the softmax."""
    top = x.argmax(dim=-1, keepdim=True)
    weight = (x - x.gather(-1, top)).exp()  # 1 at the top
    total, weighted = weight.sum(-1, keepdim=True), (weight * g).sum(-1, keepdim=True)
    # Without a key that is not the top at least 1 is left, so subtracting is safe ...
    left = (total - weight).clamp(min=torch.finfo(x.dtype).tiny)
    rest, others = x.gather(-1, top) + left.log(), (weighted - weight * g) / left
    # ... and without the top the others' softmax is taken anew.
    below = x.scatter(-1, top, 2 * _LOWEST)
    rest = rest.scatter(-1, top, below.logsumexp(-1, keepdim=True))
    others = others.scatter(-1, top, (below.softmax(-1) * g).sum(-1, keepdim=True))
    return rest, others


def _through(change: Attention, gradient: Attention) -> Float[Tensor, "batch query head"]:
    """What exchanged rows of attention do, to first order in what follows."""
    return einsum(
        change.double(), gradient.double(), "batch head query key, batch head query key -> "
        "batch query head",
    )  # fmt: skip


def _per_head(
    finish: Estimator, gradient: Attention, *, owners: tuple[int, ...], summed: Sequence[str]
) -> Float[Tensor, "batch ..."]:
    """Summed over the query heads that share a key head, and over the axes in `summed`."""
    found = finish(gradient)
    mine = torch.tensor(owners, dtype=torch.long, device=found.device)
    shape = (*found.shape[:2], 1 + max(owners, default=-1))
    found = found.new_zeros(shape).index_add(2, mine, found)
    gone = [place for place, axis in ((1, "pos"), (2, "head")) if axis in summed]
    return (found.sum(dim=gone) if gone else found).float()


def _owners(model: HookedModel, site: Site) -> tuple[int, ...]:
    """For each query head, where the head of `site` that it uses stands."""
    there = heads.at(model, site.layer)
    return there.reads if site.stream in KEYS else tuple(range(len(there.query)))


def _reattended(
    model: HookedModel,
    prompts: Prompts,
    targets: Mapping[Site, Tensor],
    patterns: Mapping[Site, Tensor],
    *,
    read: Callable[[Site], Site],
) -> dict[Site, Tensor]:
    """Each layer's scores or attention when that layer's queries or keys alone are replaced.

    In one pass for all layers: behind what is read, every layer gets its own attention back, so
    that the layers above see the plain run.
    """
    seen: dict[Site, Tensor] = {}

    def note(site: Site, back: Tensor | None) -> Callable[[Tensor], Tensor]:
        def edit(activation: Tensor) -> Tensor:
            if site == read(site):
                seen[site] = activation
            return activation if back is None else back

        return edit

    writes: dict[Site, Edit | Callable[[Tensor], Tensor]] = {}
    for site, target in targets.items():
        pattern, scores = pattern_of(site), _scores(site)
        writes[site] = edits.replace(target)
        if read(site) == scores:
            writes[scores] = note(scores, None)
        writes[pattern] = note(pattern, patterns[pattern])
    with intervening(model, writes):
        capture(model, prompts, [pattern_of(max(targets, key=lambda site: site.layer))])
    return seen


def _scores(site: Site) -> Site:
    return Site("scores", site.layer)
