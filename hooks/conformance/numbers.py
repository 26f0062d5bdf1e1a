"""Are the logits those of the model itself, whatever is padded, and causal where it says so?"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hooks import edits
from hooks.capture import capture
from hooks.conformance.trial import Trial, relative
from hooks.conformance.verdicts import Check, judged, worst
from hooks.intervene import intervening
from hooks.prompts import Prompts
from hooks.sites import Site

_BIDIRECTIONAL = "this model is bidirectional"


def parity(trial: Trial) -> Iterator[Check]:
    """Logits against the reference: the un-wrapped model with eager attention."""
    if trial.reference is None:
        yield Check("parity", "logits", "refused", None, "no reference was given")
        return
    if getattr(trial.reference, "training", False):
        raise ValueError("the reference is in training mode: call reference.eval() first")
    limit = 1e-6 if trial.limit <= 1e-5 else trial.limit
    for name, prompts in (("logits", trial.here), ("logits, padded", trial.ragged)):
        expected, found = _logits_of(trial.reference, prompts), trial.model(prompts)
        real = prompts.mask.bool()
        yield judged("parity", name, relative(found[real], expected[real]), limit=limit)


def causality(trial: Trial) -> Iterator[Check]:
    """An edit at a position changes no bit before it, and something from there on."""
    if not is_causal(trial.model):
        yield Check("causality", "edit at a position", "refused", None, _BIDIRECTIONAL)
        return
    at = trial.here.tokens.shape[1] // 2
    wanted = [Site("resid_post", layer) for layer in trial.every_layer]
    plain = capture(trial.model, trial.here, wanted, logits="all")
    width = trial.model.cfg.d_model
    push = torch.linspace(0.5, 1.5, width).to(plain[wanted[0]])
    with intervening(trial.model, {Site("resid_pre", 0): edits.add(push, positions=at)}):
        pushed = capture(trial.model, trial.here, wanted, logits="all")
    errors = {str(site): relative(pushed[site][:, :at], plain[site][:, :at]) for site in wanted}
    errors["logits"] = relative(pushed.logits[:, :at], plain.logits[:, :at])
    yield worst("causality", "nothing before an edit moves", errors, limit=0.0, nothing="")
    moved = relative(pushed.logits[:, at:], plain.logits[:, at:])
    yield Check(
        "causality", "something after it does", "pass" if moved > 0 else "fail", moved, "not 0"
    )


def padding(trial: Trial) -> Iterator[Check]:
    """What is read from a padded prompt is what it gives alone, whatever the padding's ids."""
    wanted = [site for stream in trial.readable for site in trial.sites(stream)]
    together = capture(trial.model, trial.ragged, wanted, logits="all")
    alone: dict[str, float] = {}
    for row, length in enumerate(trial.ragged.lengths.tolist()):
        single = capture(trial.model, trial.ragged[row : row + 1], wanted, logits="all")
        for site in wanted:
            real = _real(together[site][row], site.axes[1:], length)
            error = relative(real, single[site][0])
            alone[str(site)] = max(alone.get(str(site), 0.0), error)
        error = relative(together.logits[row, :length], single.logits[0])
        alone["logits"] = max(alone.get("logits", 0.0), error)
    yield worst("padding", "padded as alone", alone, limit=trial.limit, nothing="")
    yield _other_padding(trial, wanted, together)


def _other_padding(trial: Trial, wanted: list[Site], together: Any) -> Check:
    ragged = trial.ragged
    other = torch.where(
        ragged.mask.bool(), ragged.tokens, (ragged.tokens + 1) % trial.model.cfg.d_vocab
    )
    again = capture(trial.model, Prompts(other, ragged.lengths), wanted, logits="all")
    errors: dict[str, float] = {}
    for row, length in enumerate(ragged.lengths.tolist()):
        for site in wanted:
            pair = (_real(seen[site][row], site.axes[1:], length) for seen in (again, together))
            errors[str(site)] = max(errors.get(str(site), 0.0), relative(*pair))
        error = relative(again.logits[row, :length], together.logits[row, :length])
        errors["logits"] = max(errors.get("logits", 0.0), error)
    return worst("padding", "other padding ids", errors, limit=0.0, nothing="")


def is_causal(model: Any) -> bool:
    """Whether the model promises that no position sees a later one."""
    return getattr(model.cfg, "attention_dir", "causal") == "causal"


def _real(activation: Tensor, axes: tuple[str, ...], length: int) -> Tensor:
    """One prompt's activation without its padding."""
    for axis, name in enumerate(axes):
        if name in ("pos", "query", "key"):
            activation = activation.narrow(axis, 0, length)
    return activation


def _logits_of(reference: Any, prompts: Prompts) -> Tensor:
    found = reference(prompts.tokens, attention_mask=prompts.mask)
    return getattr(found, "logits", found)
