"""What is each head's fair share of what several heads do together?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import effects, statistics
from workbench.heads import games
from workbench.heads.ablating import Ablating, Ablation, ablating
from workbench.heads.bounding import bounded
from workbench.heads.naming import Head, checked, every, named
from workbench.heads.ranking import Importance, Kind, in_order, labels
from workbench.metrics import Metric
from workbench.tasks import Task


@dataclass(frozen=True, eq=False)
class ShapleyValues(Importance):
    """Each head's share of what the players do for a metric together. Positive: it helps.

    A head's share is what it adds to the heads that are there already, mean over the orders in
    which the players could come; all other heads of the model stay as they are. The shares sum to
    `total`, so that heads that stand in for each other have theirs although each alone costs
    nothing. Where orders were sampled, the bounds are widened by what others might have shown, and
    `error` is the standard error of that: a head that counts in few orders may count in none of
    those drawn, so that few orders say little (`games.sampled_values`). `p` is corrected for all
    players, and the larger of two: sign flips over prompts, and that of other orders. NaN: no
    player.
    """

    value: Float[Tensor, "layer head"] = field(metadata={"means": "share of the metric"})
    low: Float[Tensor, "layer head"] = field(metadata={"means": "lower 95 % bound of value"})
    high: Float[Tensor, "layer head"] = field(metadata={"means": "upper 95 % bound of value"})
    p: Float[Tensor, "layer head"] = field(metadata={"means": "p-value, corrected for all players"})
    alone: Float[Tensor, "layer head"] = field(
        metadata={"means": "what the loss of this head alone costs"}
    )
    error: Float[Tensor, "layer head"] = field(
        metadata={"means": "standard error of value from the sampling of orders"}
    )
    per_prompt: Float[Tensor, "layer head batch"] = field(
        metadata={"means": "share of the metric of each prompt"}
    )
    total: Float[Tensor, " batch"] = field(metadata={"means": "what all players do together"})
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without ablation"})
    orders: int  # 0: all of them
    coalitions: int
    ablation: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def way(self) -> str:
        """How it was measured."""
        return "Shapley value"

    @property
    def kind(self) -> Kind:
        """What it looks at."""
        return "set"

    @property
    def score(self) -> Float[Tensor, "layer head"]:
        """The share."""
        return self.value

    @property
    def score_of_prompts(self) -> Float[Tensor, "layer head batch"]:
        """The share of each prompt's metric."""
        return self.per_prompt

    @property
    def ratio(self) -> float:
        """What the players cost together, over the sum of what each costs alone. 1: they add up.

        Far above 1: they stand in for each other.
        """
        apart = float(self.alone.nansum())
        return float(self.total.mean()) / apart if apart else float("nan")

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        players, best = self.ranked(), self.ranked()[0]
        value, low, high = (float(one[best]) for one in (self.value, self.low, self.high))
        how = f"{self.orders} orders" if self.orders else "all orders"
        return (
            f"{len(players)} heads of {self.model} are worth {float(self.total.mean()):+.2f} "
            f"{self.unit} of {self.metric} on {self.task} together ({self.ablation} in place of "
            f"them; {how}, {self.coalitions} coalitions), {float(self.alone.nansum()):+.2f} summed "
            f"one by one. The largest share is head {named(best)}'s: {value:+.2f} "
            f"[{low:+.2f}, {high:+.2f}]. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The largest share with its bounds, whose it is, and what all are worth together."""
        layer, head = self.ranked()[0]
        value, low, high = (float(one[layer, head]) for one in (self.value, self.low, self.high))
        return {
            "value": value, "low": low, "high": high, "layer": layer, "head": head,
            "total": float(self.total.mean()), "ratio": self.ratio,
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """The players with the largest shares in either direction as text, one a line."""
        lines = [f"{'head':<8}{'share':<10}{'95 % bounds':<20}{'p':<9}alone"]
        for head in in_order(self.value.abs())[:n]:
            value, alone, p = (float(one[head]) for one in (self.value, self.alone, self.p))
            bounds = f"[{float(self.low[head]):+.3f}, {float(self.high[head]):+.3f}]"
            share = f"{value:+.3f}"
            lines.append(f"{named(head):<8}{share:<10}{bounds:<20}{p:<9.4f}{alone:+.3f}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Game:
    """The players, and what is measured of the model when only some of them are there."""

    model: HookedModel
    task: Task
    metric: Metric
    players: list[Head]
    ablating: Ablating

    def worth(
        self, some: list[games.Coalition], memory: str | int, keep: str | Path | None, seed: int
    ) -> tuple[dict[games.Coalition, Float[Tensor, " batch"]], Float[Tensor, " batch"]]:
        """The metric of every prompt for each coalition, and without any ablation."""
        everyone = frozenset(range(len(self.players)))
        fewer = [one for one in some if one != everyone]
        cells = [
            self.ablating.cell(self.players[player] for player in sorted(everyone - one))
            for one in fewer
        ]
        found = effects.exact(
            self.model, self.task, cells, metrics=[self.metric], memory=memory, keep=keep, seed=seed
        )
        worth = dict(zip(fewer, found.values[0], strict=True))
        return {**worth, everyone: found.baseline[0]}, found.baseline[0]


def shapley(
    model: HookedModel,
    task: Task,
    players: Sequence[Head] | None = None,
    *,
    metric: Metric,
    orders: int = 16,
    ablation: Ablation | effects.Source = "zero",
    memory: str | int = "2GB",
    keep: str | Path | None = None,
    seed: int = 0,
) -> ShapleyValues:
    """Estimate the share of each of `players` (all heads, where none are given) by sampling.

    Each of `orders` orders ablates the players one after the other, at all positions of the
    clean prompts, and every second one goes through the one before it backwards. One forward
    pass, or less, for each set of heads on the way; `effects.exact` says what `memory` and `keep`
    do.
    """
    game = _game(model, task, players, metric=metric, ablation=ablation, seed=seed)
    drawn = games.orders(len(game.players), orders, statistics.derive(seed, "shapley orders"))

    def values(worth: dict[games.Coalition, Tensor]) -> games.Sampled:
        return games.sampled_values(worth, drawn, seed=statistics.derive(seed, "shapley bounds"))

    return _shared(
        game, games.needed(drawn), values, memory=memory, keep=keep, seed=seed, drawn=orders
    )


def exact_shapley(
    model: HookedModel,
    task: Task,
    players: Sequence[Head] | None = None,
    *,
    metric: Metric,
    ablation: Ablation | effects.Source = "zero",
    memory: str | int = "2GB",
    keep: str | Path | None = None,
    seed: int = 0,
) -> ShapleyValues:
    """The share of each of `players`, at most 12, from every set of them: no sampling error."""
    game = _game(model, task, players, metric=metric, ablation=ablation, seed=seed)
    count = len(game.players)

    def values(worth: dict[games.Coalition, Tensor]) -> games.Sampled:
        shares, nothing = games.exact_values(worth, count), torch.zeros(count)
        return games.Sampled(shares, nothing, shares.mean(dim=1), shares.mean(dim=1), nothing)

    return _shared(
        game, games.coalitions(count), values, memory=memory, keep=keep, seed=seed, drawn=0
    )


def _game(
    model: HookedModel,
    task: Task,
    players: Sequence[Head] | None,
    *,
    metric: Metric,
    ablation: Ablation | effects.Source,
    seed: int,
) -> _Game:
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    if players is None:
        players = every(model)
    if not players:
        raise ValueError("no players: name the heads between which the metric is to be shared")
    there = checked(model, players)
    return _Game(model, task, metric, there, ablating(model, task, ablation, seed=seed))


def _shared(
    game: _Game,
    some: list[games.Coalition],
    values: Callable[[dict[games.Coalition, Tensor]], games.Sampled],
    *,
    memory: str | int,
    keep: str | Path | None,
    seed: int,
    drawn: int,
) -> ShapleyValues:
    """Measure the coalitions, and those that lack one player; `values` shares their worth."""
    everyone = frozenset(range(len(game.players)))
    without = [everyone - {player} for player in range(len(game.players))]
    worth, baseline = game.worth(list(dict.fromkeys([*some, *without])), memory, keep, seed)
    shared = values(worth)
    shares = shared.shares
    total = worth[everyone].double() - worth[frozenset()].double()
    size = max(1.0, float(shares.abs().sum(dim=0).max()))
    missed = float((shares.sum(dim=0) - total).abs().max())
    assert missed <= 1e-6 * size, f"shares miss what they share by {missed}"
    alone = torch.stack([baseline - worth[one] for one in without]).mean(dim=-1)
    shape = (game.model.cfg.n_layers, game.model.cfg.n_heads)

    def placed(of_players: Tensor) -> Tensor:
        full = torch.full((*shape, *of_players.shape[1:]), torch.nan)
        for head, one in zip(game.players, of_players.float(), strict=True):
            full[head] = one
        return full

    per_prompt = placed(shares)
    mean, low, high, p = bounded(per_prompt, seed=seed)
    return ShapleyValues(
        value=mean,
        low=mean - torch.hypot(mean - low, mean - placed(shared.low)),
        high=mean + torch.hypot(high - mean, placed(shared.high) - mean),
        p=torch.maximum(p, placed(shared.p)),
        alone=placed(alone),
        error=placed(shared.error),
        per_prompt=per_prompt,
        total=total.float(),
        baseline=baseline,
        orders=drawn,
        coalitions=len(worth),
        ablation=game.ablating.source,
        **labels(game.model, game.task, game.metric),
    )
