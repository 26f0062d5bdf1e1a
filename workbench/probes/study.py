"""What can be read off each layer, beside everything that it has to be held against."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from workbench import statistics
from workbench.probes import controls
from workbench.probes.description import online_code
from workbench.probes.examples import Examples
from workbench.probes.fitting import L2
from workbench.probes.information import without
from workbench.probes.nested import Nested, nested, nested_each
from workbench.probes.probe import decided
from workbench.probes.report import ProbeStudy
from workbench.probes.scores import auroc, balanced_accuracy, bits, calibration_error
from workbench.probes.splits import Splits, held_out, k_fold
from workbench.statistics import derive

Scores = Float[Tensor, "repeat layer labels example class"]


def study(
    examples: Examples,
    *,
    task: str,
    folds: int | str = 5,
    baselines: Mapping[str, Examples] | None = None,
    l2: Sequence[float] = L2,
    repeats: int = 3,
    shuffles: int = 20,
    control_sets: int = 3,
    seed: int = 0,
) -> ProbeStudy:
    """A logistic probe on every layer, judged on groups it never saw, with all its controls.

    folds         how many, or "held out": each group in turn
    baselines     other activations of the same examples (an untrained model's, say) for the same
                  protocol; what types and positions alone give is always among them
    repeats       how often the folds are drawn anew ("held out": once)
    shuffles      label sets in random order, in the first folds: what p-values come from
    control_sets  label sets drawn type by type
    """
    examples.check_one_position("a study")
    if repeats < 1 or shuffles < 1:
        raise ValueError(f"{repeats} repeats, {shuffles} shuffles: a study needs one of each")
    draw = derive(seed, "labels")
    mixed = controls.shuffled_labels(examples, count=shuffles, generator=draw)
    labels = examples.y[None]
    if examples.types is not None:
        drawn = controls.control_labels(examples, count=control_sets, generator=draw)
        labels = torch.cat([labels, drawn])
    every = _splits(examples, folds, repeats, seed)
    seeds = [derive(seed, "inner", str(n)) for n in range(len(every))]
    found = nested_each(examples, every, l2=l2, seeds=seeds, label_sets=labels)
    by_chance = nested(examples, every[0], l2=l2, seed=derive(seed, "inner", "0"), label_sets=mixed)
    right = _right(found, labels, examples.classes)
    shuffled = _right([by_chance], mixed, examples.classes)[0].double().mean(dim=-1)
    others = {**_identities(examples), **(baselines or {})}
    beside = [_baseline(one, examples, every, l2=l2, seed=seed) for one in others.values()]
    return ProbeStudy(
        **_scores(examples, right[:, :, 0], found, every, seed=seed),
        **_against(examples, right, seed),
        **_chance(examples, every[0], seed),
        **_described(examples, torch.cat([labels[:2], mixed[:1]]), seed),
        p=_p(right[0, :, 0].double().mean(dim=-1), shuffled),
        shuffled=shuffled.float().cpu(),
        baseline=torch.stack(beside) if beside else torch.zeros(0, len(examples.x)),
        baselines=list(others),
        l2=found[0].l2[:, 0].float(),
        layers=list(examples.layers),
        splits=every[0].how,
        classes=examples.classes,
        examples=len(examples),
        groups=len(examples.groups.unique()),
        task=task,
        what=examples.what,
        stream=examples.stream,
        model=examples.model or "no model",
        model_digest=examples.model_digest,
        caveat=_caveat(shuffles),
    )


def _caveat(shuffles: int) -> str:
    if shuffles >= 19:
        return ""
    return (
        f"Caveat: {shuffles} shuffles allow no p below {1 / (1 + shuffles):.2g}; take 19 or more."
    )


def _splits(examples: Examples, folds: int | str, repeats: int, seed: int) -> list[Splits]:
    if folds == "held out":
        return [held_out(examples)]
    if not isinstance(folds, int):
        raise ValueError(f'folds is a number or "held out", not {folds!r}')
    return [k_fold(examples, folds, seed=derive(seed, "folds", str(n))) for n in range(repeats)]


def _identities(examples: Examples) -> dict[str, Examples]:
    """What an example is of, and where it stands, as the only feature."""
    known = {"type alone": examples.types, "position alone": examples.positions}
    return {
        name: examples.seen_as(controls.one_hot(values).to(examples.x))
        for name, values in known.items()
        if values is not None and len(values.unique()) > 1
    }


def _right(
    found: Sequence[Nested], labels: Int[Tensor, "labels example"], classes: int
) -> Bool[Tensor, "repeat layer labels example"]:
    return torch.stack([decided(one.scores, classes) == labels for one in found])


def _baseline(
    other: Examples, examples: Examples, every: Sequence[Splits], *, l2: Sequence[float], seed: int
) -> Float[Tensor, " layer"]:
    if len(other) != len(examples) or len(other.x) not in (1, len(examples.x)):
        raise ValueError(
            f"a baseline has {len(other.x)} layers of {len(other)} examples; the study has "
            f"{len(examples.x)} of {len(examples)}: the same examples, in one layer or as many"
        )
    same = examples.seen_as(other.x.to(examples.x))
    found = nested(same, every[0], l2=l2, seed=derive(seed, "inner", "0"))
    right = decided(found.scores[:, 0], examples.classes) == examples.y
    return right.float().mean(dim=-1).expand(len(examples.x)).cpu()


def _scores(
    examples: Examples,
    right: Bool[Tensor, "repeat layer example"],
    found: Sequence[Nested],
    every: Sequence[Splits],
    *,
    seed: int,
) -> dict[str, Any]:
    y = examples.y
    scores = torch.stack([one.scores[:, 0] for one in found]).mean(dim=0)
    names = {"balanced": balanced_accuracy, "auroc": auroc, "calibration": calibration_error}
    each = {
        name: torch.tensor([statistic(one, y) for one in scores])
        for name, statistic in names.items()
    }
    cost = torch.stack([bits(one.scores[:, 0], y) for one in found]).mean(dim=0)
    own = torch.arange(len(y), device=y.device)
    picked = torch.stack(
        [
            one[result.inside[:, 0].argmin(dim=0)[split.fold], own]
            for one, result, split in zip(right, found, every, strict=True)
        ]
    )
    middle, low, high = bounded(right, examples, seed)
    nested_one = bounded(picked[:, None], examples, seed)
    return {
        "accuracy": middle, "low": low, "high": high,
        "correct": right.float().mean(dim=0).cpu(),
        "information": (without(examples, every[0]) - cost).mean(dim=-1).float().cpu(),
        **each,
        "chosen": float(nested_one[0][0]),
        "chosen_low": float(nested_one[1][0]),
        "chosen_high": float(nested_one[2][0]),
    }  # fmt: skip


def bounded(
    values: Bool[Tensor, "repeat cell example"] | Float[Tensor, "repeat cell example"],
    examples: Examples,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and bounds of every cell: bootstrap over groups, and the spread over repeats added.

    Values are shares, or differences of shares. The two half-widths are added in squares: groups
    are resampled, repeats are not independent of them, so this errs on the wide side.
    """
    each = values.double().cpu()
    found = statistics.bounds(each.mean(dim=0), groups=examples.groups.cpu(), seed=seed)
    count = len(each)
    extra = torch.zeros_like(found.mean)
    if count > 1:
        spread = each.mean(dim=-1).std(dim=0)
        extra = spread / count**0.5 * float(stats.t.ppf(0.975, count - 1))
    low = found.mean - ((found.mean - found.low).square() + extra.square()).sqrt()
    high = found.mean + ((found.high - found.mean).square() + extra.square()).sqrt()
    low, high = (one.clamp(-1 if bool((each < 0).any()) else 0, 1) for one in (low, high))
    return found.mean.float(), low.float(), high.float()


def _p(
    seen: Float[Tensor, " layer"], shuffled: Float[Tensor, "layer shuffle"]
) -> Float[Tensor, " layer"]:
    """How often shuffled labels do as well in any layer: corrected for looking at all of them.

    Not from the answers' own spread: held-out answers of one study share their probes, and vary
    more together than so many coins.
    """
    most = shuffled.max(dim=0).values
    reached = (most[None] >= seen[:, None] - 1e-12).sum(dim=1)
    return ((1 + reached) / (1 + len(most))).float().cpu()


def _against(
    examples: Examples, right: Bool[Tensor, "repeat layer labels example"], seed: int
) -> dict[str, Any]:
    """The control task, and the task's lead over it."""
    control = right[:, :, 1:].float()
    if not control.shape[2]:
        return {}
    found: dict[str, Any] = {}
    rates = control.mean(dim=2)
    lead = right[:, :, 0].float() - rates
    for name, values in zip(("control", "selectivity"), (rates, lead), strict=True):
        middle, low, high = bounded(values, examples, seed)
        found |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    return found


def _chance(examples: Examples, splits: Splits, seed: int) -> dict[str, Any]:
    """The most frequent label, and random directions."""
    guess = controls.majority_guess(examples, splits).gather(0, splits.fold[None])[0]
    drawn = controls.random_directions(
        examples, splits, count=20, generator=derive(seed, "directions")
    )
    return {
        "majority": float((guess == examples.y).double().mean()),
        "random_direction": drawn.mean(dim=1).float().cpu(),
    }


def _described(
    examples: Examples, labels: Int[Tensor, "labels example"], seed: int
) -> dict[str, Any]:
    """How many times shorter than uniform labels are told: the task's, a control's, shuffled."""
    code = online_code(examples, label_sets=labels, generator=derive(seed, "code"))
    short = code.compression.float().cpu()
    found = {"compression": short[:, 0], "shuffled_compression": short[:, -1]}
    return found | ({"control_compression": short[:, 1]} if len(labels) == 3 else {})
