"""Does what is written at a site take the place of what was there, for everything after it?"""

from collections.abc import Iterator

from torch import Tensor

from hooks import edits
from hooks.capture import capture
from hooks.conformance.streams import changed_at_random
from hooks.conformance.trial import Trial, relative
from hooks.conformance.verdicts import Check, judged, worst
from hooks.intervene import intervening
from hooks.sites import Site, Stream

ALONE: tuple[Stream, ...] = ("embed", "resid_pre", "resid_mid", "resid_post", "final")
"""Streams that everything goes through: one layer of them is a cut."""

TOGETHER: tuple[tuple[Stream, ...], ...] = (
    ("attn_out", "mlp_out"),
    ("z", "neuron"),
    ("q", "k", "v", "mlp_out"),
    ("q", "k", "v", "neuron"),
    ("q_rot", "k_rot", "v", "mlp_out"),
    ("scores", "v", "mlp_out"),
    ("pattern", "v", "mlp_out"),
)
"""Streams that together, in all layers, carry everything one position learns from others.

They leave the residual stream that enters the first block as it is. Replacing that too would
prove nothing, because it alone determines the rest; so the logits are compared at positions
whose token is the same in both runs.
"""

_MLP: frozenset[str] = frozenset({"mlp_out", "neuron"})


def identity(trial: Trial) -> Iterator[Check]:
    """Replacing an activation by itself changes no bit of the logits."""
    plain = trial.model(trial.here)
    for stream in trial.writable:
        with intervening(trial.model, dict.fromkeys(trial.all_sites(stream), _same)):
            error = relative(trial.model(trial.here), plain)
        culprit = "" if error == 0 else _first_not_neutral(trial, stream, plain)
        yield judged("identity edits", stream, error, limit=0.0, where=culprit)


def live(trial: Trial) -> Iterator[Check]:
    """Writing something else changes the logits, at every site."""
    plain = trial.model(trial.here)
    for stream in trial.writable:
        least, where = min(
            (_moved_by(trial, site, plain), str(site)) for site in trial.sites(stream)
        )
        verdict = "pass" if least > 0 else "fail"
        yield Check("live edits", stream, verdict, least, "not 0", where)


def cuts(trial: Trial) -> Iterator[Check]:
    """All of a cut taken from another run gives that run's logits."""
    plain, target = trial.model(trial.here), trial.model(trial.there)
    for stream in ALONE:
        yield _cut_alone(trial, stream, (plain, target))
    for several in dict.fromkeys(_without_missing_mlp(trial, cut) for cut in TOGETHER):
        yield _cut_together(trial, several, (plain, target))


def _cut_alone(trial: Trial, stream: Stream, ends: tuple[Tensor, Tensor]) -> Check:
    _, target = ends
    refusal = _refusal(trial, (stream,), relative(*ends))
    if refusal:
        return Check("cuts", stream, "refused", None, refusal)
    errors = {}
    for site in trial.sites(stream):
        source = capture(trial.model, trial.there, [site])
        with intervening(trial.model, {site: edits.replace(source[site])}):
            errors[str(site)] = relative(trial.model(trial.here), target)
    return worst("cuts", stream, errors, limit=trial.limit, nothing="")


def _cut_together(trial: Trial, several: tuple[Stream, ...], ends: tuple[Tensor, Tensor]) -> Check:
    name, last = " + ".join(several), slice(-trial.shared, None)
    plain, target = (logits[:, last] for logits in ends)
    refusal = _refusal(trial, several, relative(plain, target))
    if refusal:
        return Check("cuts", name, "refused", None, refusal)
    sites = [site for stream in several for site in trial.all_sites(stream)]
    source = capture(trial.model, trial.there, sites)
    with intervening(trial.model, {site: edits.replace(source[site]) for site in sites}):
        found = trial.model(trial.here)
    return judged("cuts", name, relative(found[:, last], target), limit=trial.limit)


def _refusal(trial: Trial, several: tuple[Stream, ...], apart: float) -> str:
    """Why this cut says nothing here; empty when it does."""
    access = trial.model.access
    for stream in several:
        if stream not in access.writable:
            return f"{stream}: {access.refused[stream]}"
    if not apart > 10 * trial.limit:
        return f"the two runs differ by {apart:.0e} without any edit: nothing to learn"
    return ""


def _without_missing_mlp(trial: Trial, several: tuple[Stream, ...]) -> tuple[Stream, ...]:
    """The cut for this model: one that has no MLPs at all needs none of them."""
    attention_only = bool(getattr(trial.model.cfg, "attn_only", False))
    return tuple(s for s in several if not (attention_only and s in _MLP))


def _same(activation: Tensor) -> Tensor:
    return activation.clone()


def _first_not_neutral(trial: Trial, stream: Stream, plain: Tensor) -> str:
    for site in trial.all_sites(stream):
        with intervening(trial.model, {site: _same}):
            if relative(trial.model(trial.here), plain) != 0:
                return str(site)
    return f"{stream}, several layers together"


def _moved_by(trial: Trial, site: Site, plain: Tensor) -> float:
    with intervening(trial.model, {site: changed_at_random}):
        return relative(trial.model(trial.here), plain)
