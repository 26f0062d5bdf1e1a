"""The suite: every check in turn, on the model that is given."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from hooks.conformance import numbers, reading, writing
from hooks.conformance.gradients import gradients
from hooks.conformance.trial import Trial, prepare
from hooks.conformance.verdicts import Check, Conformance, judged
from hooks.sites import HookedModel, Site, check_readable

_CHECKS: dict[str, Callable[[Trial], Iterator[Check]]] = {
    "streams": reading.streams,
    "parity": numbers.parity,
    "fires once": reading.fires_once,
    "identity edits": writing.identity,
    "live edits": writing.live,
    "cuts": writing.cuts,
    "residual": reading.residual,
    "heads": reading.heads,
    "attention": reading.attention,
    "causality": numbers.causality,
    "padding": numbers.padding,
    "gradients": gradients,
}


@torch.no_grad()
def check_model(model: HookedModel, reference: Any = None, *, seed: int = 0) -> Conformance:
    """Hold `model` to everything that sites, `capture` and `intervening` promise about it.

    reference   the same weights in the library they come from, un-wrapped, with eager
                attention; without it the logits are compared with nothing.

    Runs a few hundred passes of a few random tokens drawn from `seed`. Models of more than
    four layers are sampled at the first, middle and last where a check runs once for each
    site; the result says so. The model is left as it was.
    """
    check_readable(model, Site("resid_pre", 0))  # a model that was not wrapped ends here
    trial = prepare(model, reference, seed=seed)
    model(trial.here)  # transformers installs hooks of its own on first use
    before = attached(model)
    done = [check for name, run in _CHECKS.items() for check in _guarded(name, run, trial)]
    left = abs(attached(model) - before)
    done.append(judged("inventory", "hooks left behind", float(left), limit=0.0))
    count, looked = model.cfg.n_layers, ", ".join(map(str, trial.layers))
    layers = f"all {count} layers" if len(trial.layers) == count else f"layers {looked} of {count}"
    name = getattr(getattr(model, "origin", None), "name", type(model).__name__)
    architecture = str(getattr(model.cfg, "architecture", "unknown"))
    return Conformance(name, architecture, layers, tuple(done))


def attached(model: Any) -> int:
    """How many hooks sit on the model's modules and hook points."""
    places = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = list(model.modules())
    of_torch = sum(len(getattr(module, place)) for module in modules for place in places)
    of_points = sum(
        len(getattr(module, kind, ())) for module in modules for kind in ("fwd_hooks", "bwd_hooks")
    )
    return of_torch + of_points


def _guarded(name: str, run: Callable[[Trial], Iterator[Check]], trial: Trial) -> Iterator[Check]:
    """The checks of one group; an error in the middle is a failure, not the end of the suite."""
    try:
        yield from run(trial)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        yield Check(name, "could not be run", "fail", None, told)
