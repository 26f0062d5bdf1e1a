"""What is put in an activation's place: of another prompt, nothing, or a mean.

A `Source` is a frozen value. All analyses that ablate or patch take one, and all mean the same
by it: means count real tokens only, and leave the first token out (attention sinks make it
unlike all others) unless they are taken for each position.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture
from hooks.choices import check_choice
from hooks.prompts import check_batch_size
from workbench.effects.exact import Run
from workbench.tasks import Task

Kind = Literal[
    "counterfactual", "zero", "mean", "mean per position", "mean per template", "resample",
    "constant",
]  # fmt: skip

MEANING: Mapping[Kind, str] = {
    "counterfactual": "what the paired prompt has there (Vig et al. 2020, Geiger et al. 2021)",
    "zero": "nothing",
    "mean": "the mean over all real tokens but the first ones",
    "mean per position": "the mean over prompts at that position (Wang et al. 2022)",
    "mean per template": "the mean over the prompts of that template at that position",
    "resample": "what another prompt, drawn at random, has there (Chan et al. 2022)",
    "constant": "a constant found beforehand (optimal ablation, Li & Janson 2024)",
}


@dataclass(frozen=True, eq=False)
class Source:
    """Where the replacement comes from; `MEANING` says what each kind is.

    over       the prompts that means and resamples are taken over; None is the other run's: the
               corrupt prompts when edits are made in the clean ones, and the other way round
    seed       draws the prompts of "resample"
    constants  the values of "constant", by site, with the axes of the site but batch and pos
    """

    kind: Kind = "counterfactual"
    over: Prompts | None = None
    seed: int = 0
    constants: Mapping[Site, Float[Tensor, "..."]] | None = None

    def __post_init__(self) -> None:
        if self.kind not in MEANING:
            raise ValueError(f"no source {self.kind!r}; there are {', '.join(map(repr, MEANING))}")
        if self.kind == "constant" and not self.constants:
            raise ValueError(
                "source 'constant' needs its constants: effects.optimal_constants(model, task, "
                "sites, metric=...) finds them and gives the source to be used"
            )
        if self.kind != "constant" and self.constants is not None:
            raise ValueError(f"constants are given with Source('constant'), not with {self.kind!r}")
        if self.over is not None:
            _check_prompts(self.over)

    def __str__(self) -> str:
        return self.kind

    @classmethod
    def of(cls, source: "Source | Kind") -> "Source":
        """The source itself, or the plain one of that kind."""
        return source if isinstance(source, Source) else cls(source)


def values(
    model: HookedModel,
    task: Task,
    sites: Iterable[Site],
    *,
    source: Source | Kind = "counterfactual",
    run: Run = "clean",
    batch_size: int = 64,
) -> dict[Site, Float[Tensor, "batch pos ..."]]:
    """What `source` puts at each site when `run` is edited, for every prompt and position.

    To be written with `edits.replace(values[site], heads=..., positions=...)`. Constant values
    are views, and take no memory for each prompt.
    """
    check_choice("run", run, Run)
    source, wanted = Source.of(source), list(dict.fromkeys(sites))
    check_batch_size(batch_size)
    here, there = (task.clean, task.corrupt) if run == "clean" else (task.corrupt, task.clean)
    device = next(model.original_model.parameters()).device
    if source.kind == "constant":
        assert source.constants is not None
        return {site: _spread(_constant(source, site), here, site) for site in wanted}
    over = there if source.over is None else source.over
    if source.kind == "zero":
        one = capture(model, here[:1], wanted)
        return {site: _nothing(one[site], here, site) for site in wanted}
    if source.kind == "mean":
        means = mean_over(model, over, wanted, batch_size=batch_size)
        return {site: _spread(means[site], here, site) for site in wanted}
    if source.kind == "counterfactual":
        return _captured(model, there, wanted, batch_size)
    rows = _rows(source, here, over, task, own=source.over is None)
    found = _captured(model, over, wanted, batch_size)
    weights = rows.to(device)
    return {site: _mixed(found[site], weights, over, here, site) for site in wanted}


def _captured(
    model: HookedModel, prompts: Prompts, sites: Iterable[Site], batch_size: int
) -> dict[Site, Tensor]:
    """What flows through the sites, from passes of so many prompts, all as wide as the widest."""
    wanted, count = list(sites), len(prompts)
    if count <= batch_size:
        seen = capture(model, prompts, wanted)
        return {site: seen[site] for site in wanted}
    found: dict[Site, Tensor] = {}
    for rows in torch.arange(count).split(batch_size):
        seen = capture(model, Prompts(prompts.tokens[rows], prompts.lengths[rows]), wanted)
        for site in wanted:
            if site not in found:
                found[site] = seen[site].new_empty(count, *seen[site].shape[1:])
            found[site][rows] = seen[site]
    return found


def mean_over(
    model: HookedModel, prompts: Prompts, sites: Iterable[Site], *, batch_size: int = 64
) -> dict[Site, Float[Tensor, "..."]]:
    """The mean at each site over all real tokens but the prompts' first ones.

    Attention patterns have no such mean: their keys are other tokens in every prompt.
    """
    _check_prompts(prompts)
    wanted = list(dict.fromkeys(sites))
    attention = [site for site in wanted if "query" in site.axes]
    if attention:
        raise ValueError(
            f"{attention[0]} has no mean over tokens, its keys are other tokens in every row: "
            "take 'mean per position', 'zero', or v or z instead"
        )
    if int(prompts.lengths.min()) < 2:
        raise ValueError("a mean over tokens needs prompts of at least two tokens")
    totals: dict[Site, Tensor] = {}
    count = 0.0
    for part in prompts.batches(batch_size):
        seen = capture(model, part, wanted)
        real = seen.prompts.mask.clone()
        real[:, 0] = 0
        count += float(real.sum())
        for site in wanted:
            total = torch.einsum("bp...,bp->...", seen[site].double(), real.double())
            totals[site] = totals[site] + total if site in totals else total
    dtype = next(model.original_model.parameters()).dtype
    return {site: (total / count).to(dtype) for site, total in totals.items()}


def _check_prompts(over: object) -> None:
    if not isinstance(over, Prompts):
        what = "is a task" if isinstance(over, Task) else f"{over!r:.60} is something else"
        raise TypeError(
            f"means and resamples are taken over prompts, but over {what}: give the clean or the "
            "corrupt prompts of a task, or models.prompts(model, texts)"
        )


def _constant(source: Source, site: Site) -> Tensor:
    constants = source.constants or {}
    if site not in constants:
        have = ", ".join(map(str, sorted(constants))) or "none"
        raise ValueError(f"no constant was found for {site}; there are {have}")
    return constants[site]


def _spread(value: Tensor, prompts: Prompts, site: Site) -> Tensor:
    """The same value for every prompt and position."""
    if "query" in site.axes:
        raise ValueError(f"{site} has no constant value: its keys are other tokens in every row")
    batch, length = prompts.tokens.shape
    return value.expand(batch, length, *value.shape)


def _nothing(like: Tensor, prompts: Prompts, site: Site) -> Tensor:
    """Zeros of the shape that `like`, of one prompt, has for all of them."""
    batch, length = prompts.tokens.shape
    if "query" in site.axes:
        return like.new_zeros(1).expand(batch, like.shape[1], length, length)
    return like.new_zeros(1).expand(batch, length, *like.shape[2:])


def _rows(
    source: Source, here: Prompts, over: Prompts, task: Task, *, own: bool
) -> Float[Tensor, "batch other"]:
    """How much of each of `over`'s prompts goes into the value of each of ours."""
    batch, others = len(here), len(over)
    if source.kind == "resample":
        return _drawn(here, over, torch.Generator().manual_seed(source.seed), own=own)
    if source.kind == "mean per position":
        return torch.ones(batch, others)
    if not own:
        raise ValueError("'mean per template' is over the task's own prompts: leave `over` out")
    return (task.group[:, None] == task.group[None]).float()


def _drawn(
    here: Prompts, over: Prompts, generator: torch.Generator, *, own: bool
) -> Float[Tensor, "batch other"]:
    """One other prompt of at least the same length for each of ours, never its own pair."""
    chosen = torch.zeros(len(here), len(over))
    for row in range(len(here)):
        fits = over.lengths >= here.lengths[row]
        if own:
            fits[row] = False
        able = fits.nonzero()[:, 0]
        if not len(able):
            raise ValueError(
                f"no other prompt is as long as prompt {row} ({int(here.lengths[row])} tokens), "
                "so none can be drawn for it: give Source('resample', over=...) longer prompts"
            )
        chosen[row, able[torch.randint(len(able), (1,), generator=generator)]] = 1
    return chosen


def _mixed(
    activation: Float[Tensor, "other pos ..."],
    weights: Float[Tensor, "batch other"],
    over: Prompts,
    here: Prompts,
    site: Site,
) -> Float[Tensor, "batch pos ..."]:
    """Weighted means over prompts at every position, over those that have a token there."""
    length = here.tokens.shape[1]
    if over.tokens.shape[1] < length:
        raise ValueError(
            f"the prompts to take it from have {over.tokens.shape[1]} tokens, ours {length}"
        )
    attention = "query" in site.axes
    if attention:
        activation = rearrange(activation, "o head query key -> o query head key")[..., :length]
    real = over.mask[:, :length].to(weights.device).double()
    share = rearrange(weights.double(), "b o -> b o 1") * rearrange(real, "o p -> 1 o p")
    total = share.sum(dim=1)
    inside = here.mask.bool().to(total.device)
    if bool((total == 0)[inside].any()):
        row, position = ((total == 0) & inside).nonzero()[0].tolist()
        raise ValueError(f"no prompt has a token at position {position}, where prompt {row} has")
    share = share / rearrange(total.clamp(min=1e-30), "b p -> b 1 p")
    mixed = activation.new_empty(len(here), length, *activation.shape[2:])
    for position in range(length):  # one at a time, so that little is in double precision
        there = activation[:, position].double()
        mixed[:, position] = torch.einsum("o...,bo->b...", there, share[..., position]).to(mixed)
    return rearrange(mixed, "b query head key -> b head query key") if attention else mixed
