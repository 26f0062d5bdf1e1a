"""Does every site hold what its name says, once in a pass?"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hooks.activations import head_out
from hooks.capture import capture
from hooks.conformance.numbers import is_causal
from hooks.conformance.trial import Trial, relative
from hooks.conformance.verdicts import Check, judged, worst
from hooks.heads import at
from hooks.sites import STREAMS, Site, Stream


def streams(trial: Trial) -> Iterator[Check]:
    """What the model has and has not; nothing is run."""
    access = trial.model.access
    for stream in (*STREAMS, "head_out"):
        reason = access.refused.get(stream)
        if reason is None:
            yield Check("streams", stream, "pass", None, "read and written")
        else:
            verb = "cannot be written" if stream in access.readable else "cannot be read"
            yield Check("streams", stream, "refused", None, f"{verb}: {reason}")


def fires_once(trial: Trial) -> Iterator[Check]:
    """Every readable site of every layer is passed exactly once."""
    sites = [site for stream in trial.readable for site in trial.all_sites(stream)]
    counts = dict.fromkeys(sites, 0)

    def counting(site: Site) -> Callable[[Tensor, object], None]:
        def count(activation: Tensor, hook: object) -> None:
            counts[site] += 1

        return count

    with trial.model.hooks(fwd_hooks=[(site.hook_name, counting(site)) for site in sites]):
        trial.model(trial.here)
    errors = {str(site): abs(count - 1.0) for site, count in counts.items()}
    yield worst(
        "fires once", f"{len(sites)} sites", errors, limit=0.0, nothing="no site is readable"
    )


def residual(trial: Trial) -> Iterator[Check]:
    """Blocks hand on what they were given, and what they add adds up."""
    names: tuple[Stream, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    have: list[Stream] = [name for name in names if name in trial.model.access.readable]
    seen = capture(
        trial.model, trial.here, [Site(name, n) for name in have for n in trial.every_layer]
    )
    last = trial.model.cfg.n_layers - 1
    handed = {
        str(Site("resid_pre", n)): relative(
            seen[Site("resid_pre", n)], seen[Site("resid_post", n - 1)]
        )
        for n in range(1, last + 1)
    }
    yield worst(
        "residual", "blocks hand it on", handed, limit=0.0, nothing="there is only one block"
    )
    parts: list[Stream] = [name for name in ("attn_out", "mlp_out") if name in have]
    refused = trial.model.access.refused.get("attn_out")
    if refused:
        yield Check("residual", "sum of all parts", "refused", None, refused)
        return
    total = seen[Site("resid_pre", 0)].double() + sum(
        seen[Site(name, n)].double() for name in parts for n in trial.every_layer
    )
    yield judged(
        "residual",
        "sum of all parts",
        relative(total, seen[Site("resid_post", last)]),
        limit=trial.limit,
    )
    yield _between(trial, have, seen)


def _between(trial: Trial, have: list[Stream], seen: Any) -> Check:
    if "resid_mid" not in have:
        reason = trial.model.access.refused["resid_mid"]
        return Check("residual", "resid_mid", "refused", None, reason)
    errors = {}
    for n in trial.every_layer:
        expected = seen[Site("resid_pre", n)].double() + seen[Site("attn_out", n)].double()
        errors[str(Site("resid_mid", n))] = relative(seen[Site("resid_mid", n)], expected)
    return worst("residual", "resid_mid", errors, limit=trial.limit, nothing="")


def heads(trial: Trial) -> Iterator[Check]:
    """What the heads add, and the bias, is what attention adds."""
    refused = trial.model.access.refused.get("head_out")
    if refused:
        yield Check("heads", "sum of head_out", "refused", None, refused)
        return
    errors = {}
    for n in trial.every_layer:
        seen = capture(trial.model, trial.here, [Site("z", n), Site("attn_out", n)])
        total = head_out(trial.model, seen, n).sum(dim=-2)
        bias = trial.model.blocks[n].attn.b_O
        total = total if bias is None else total + bias
        errors[str(Site("z", n))] = relative(total, seen[Site("attn_out", n)])
    yield worst("heads", "sum of head_out", errors, limit=trial.limit, nothing="")


def attention(trial: Trial) -> Iterator[Check]:
    """Rows of the pattern sum to one and look at nothing later; z is the values it mixes."""
    missing = [s for s in ("pattern", "v", "z") if s not in trial.model.access.readable]
    if missing:
        reason = f"{missing[0]}: {trial.model.access.refused[missing[0]]}"
        yield Check("attention", "pattern", "refused", None, reason)
        return
    rows: dict[str, float] = {}
    later: dict[str, float] = {}
    mixed: dict[str, float] = {}
    for n in (site.layer for site in trial.all_sites("pattern")):
        wanted = [Site("pattern", n), Site("v", n), Site("z", n)]
        seen = capture(trial.model, trial.here, wanted)
        pattern, place = seen[wanted[0]], str(wanted[0])
        rows[place] = relative(pattern.double().sum(-1), torch.ones_like(pattern[..., 0]))
        later[place] = float(pattern.triu(diagonal=1).abs().max())
        mixed[str(wanted[2])] = relative(
            _mixed(pattern, seen[wanted[1]][:, :, at(trial.model, n).reads]), seen[wanted[2]]
        )
    yield worst("attention", "rows sum to one", rows, limit=trial.limit, nothing="")
    if is_causal(trial.model):
        yield worst("attention", "nothing later is seen", later, limit=0.0, nothing="")
    yield worst("attention", "z is what it mixes", mixed, limit=trial.limit, nothing="")


def _mixed(
    pattern: Float[Tensor, "batch head query key"], v: Float[Tensor, "batch key head d_head"]
) -> Float[Tensor, "batch query head d_head"]:
    """Values mixed by attention, those of each query head's key-value head."""
    mixed = einsum(
        pattern.double(), v.double(),
        "batch head query key, batch key head d_head -> batch head query d_head",
    )  # fmt: skip
    return rearrange(mixed, "batch head query d_head -> batch query head d_head")
