"""Does `gradients` report the gradient at a site, as calculus defines it?

The definition: let a leaf take the activation's place, and differentiate by the leaf.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hooks.capture import capture
from hooks.conformance.trial import Trial, relative
from hooks.conformance.verdicts import Check, worst
from hooks.gradients import gradients as differentiated
from hooks.intervene import intervening
from hooks.sites import Site

_ROOM = 10  # gradients pass through every layer twice, so they may be off this much more


def gradients(trial: Trial) -> Iterator[Check]:
    """At every writable site, all from one pass back, the derivative by a leaf put there."""
    sites = [site for stream in trial.writable for site in trial.sites(stream)]
    seen = capture(trial.model, trial.here, sites)
    with torch.enable_grad():
        found = differentiated(trial.model, trial.here, sites, of=_weighted)
        for stream in trial.writable:
            errors = {
                str(site): relative(found[site], _by_leaf(trial, site, seen[site]))
                for site in trial.sites(stream)
            }
            yield worst("gradients", stream, errors, limit=_ROOM * trial.limit, nothing="")


def _by_leaf(trial: Trial, site: Site, value: Tensor) -> Tensor:
    leaf = value.clone().requires_grad_()
    with intervening(trial.model, {site: lambda _: leaf}):
        loss = _weighted(trial.model(trial.here)).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def _weighted(logits: Tensor) -> Tensor:
    """A number per prompt that every logit moves, each with a weight of its own."""
    flat = logits.double().flatten(1)
    return flat @ torch.linspace(-1, 1, flat.shape[1]).to(flat)
