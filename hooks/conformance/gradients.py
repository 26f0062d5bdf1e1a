"""Do backward hooks report the gradient at a site, as calculus defines it?

The definition: let a leaf take the activation's place, and differentiate by the leaf.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hooks.capture import capture
from hooks.conformance.trial import Trial, relative
from hooks.conformance.verdicts import Check, worst
from hooks.intervene import intervening
from hooks.sites import Site

_ROOM = 10  # gradients pass through every layer twice, so they may be off this much more


def gradients(trial: Trial) -> Iterator[Check]:
    """At every writable site a backward hook finds the derivative by a leaf put there."""
    sites = [site for stream in trial.writable for site in trial.sites(stream)]
    seen = capture(trial.model, trial.here, sites)
    with torch.enable_grad():
        hooked = _by_hooks(trial, sites)
        for stream in trial.writable:
            errors = {
                str(site): relative(hooked[site], _by_leaf(trial, site, seen[site]))
                if site in hooked
                else float("nan")
                for site in trial.sites(stream)
            }
            yield worst("gradients", stream, errors, limit=_ROOM * trial.limit, nothing="")


def read_at(site: Site) -> Site:
    """Where a site's gradient is: TransformerLens's resid_mid leads to the MLP alone.

    What reaches resid_mid through all of attn_out is the same, because it is added to it.
    """
    return Site("attn_out", site.layer) if site.stream == "resid_mid" else site


def _by_hooks(trial: Trial, sites: list[Site]) -> dict[Site, Tensor]:
    """The gradients that backward hooks see, all from one backward pass."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor, object], None]:
        def read(gradient: Tensor, hook: object) -> None:
            found[site] = gradient.detach().clone()

        return read

    hooks = [(read_at(site).hook_name, keep(site)) for site in sites]
    first = "embed" if "embed" in trial.writable else "resid_pre"
    leaf = next(iter(trial.all_sites(first)))
    with (
        intervening(trial.model, {leaf: lambda x: x.detach().requires_grad_()}),
        trial.model.hooks(bwd_hooks=hooks),  # type: ignore[call-arg]
    ):
        loss = _loss(trial)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing")  # as it should
            loss.backward()
    return found


def _by_leaf(trial: Trial, site: Site, value: Tensor) -> Tensor:
    leaf = value.clone().requires_grad_()
    with intervening(trial.model, {site: lambda _: leaf}):
        loss = _loss(trial)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def _loss(trial: Trial) -> Tensor:
    """A number that every logit moves, each with a weight of its own."""
    logits = trial.model(trial.here).double()
    return (logits * torch.linspace(-1, 1, logits.numel()).to(logits).reshape(logits.shape)).sum()
