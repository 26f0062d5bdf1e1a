"""Which heads does a task need, which suffice for it, which get in its way?"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel
from hooks.choices import check_index
from workbench import effects, statistics
from workbench.heads.ablating import Ablation, ablating
from workbench.heads.descent import ENOUGH, Descent, Gated
from workbench.heads.naming import Head, named
from workbench.heads.ranking import Importance, Kind, in_order, labels
from workbench.metrics import Metric
from workbench.tasks import Task

Role = Literal["facilitating", "irrelevant", "interfering"]
ROLES: tuple[Role, ...] = get_args(Role)

KEPT = 0.1
"""A gate that pressure to shut leaves above this is kept, if only in part."""

_START = 2.0  # the mean logit at first: from a model that all but does the task
_ROOM = 5.0  # the largest logit: gates go from 0.007 to 0.993


@dataclass(frozen=True, eq=False)
class CausalGating(Importance):
    """What each head does for a task: +1 it facilitates, 0 it is irrelevant, -1 it interferes.

    Causal head gating (Nam et al. 2025, https://arxiv.org/abs/2505.13737): a soft gate on every
    head is fitted to the task, then once more under pressure to open (`opened`, their G+) and
    under pressure to shut (`shut`, their G-). A head that stays open against pressure
    facilitates; one that stays shut against pressure interferes; one that follows either is
    irrelevant. The score is opened + shut - 1. Heads that can stand in for each other share the
    load: all are open in part, and none is necessary.
    """

    opened: Float[Tensor, "seed layer head"] = field(
        metadata={"means": "gate under pressure to open (G+)"}
    )
    shut: Float[Tensor, "seed layer head"] = field(
        metadata={"means": "gate under pressure to shut (G-)"}
    )
    metric_opened: Float[Tensor, "seed batch"] = field(
        metadata={"means": "the metric under the opened gates"}
    )
    metric_shut: Float[Tensor, "seed batch"] = field(
        metadata={"means": "the metric under the shut gates"}
    )
    metric_sufficient: Float[Tensor, "seed batch"] = field(
        metadata={"means": "the metric when all heads but the sufficient ones are ablated"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without gates"})
    floor: Float[Tensor, " batch"] = field(metadata={"means": "the metric without any head"})
    penalty: float
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
        return "causal gating"

    @property
    def kind(self) -> Kind:
        """What it looks at."""
        return "gating"

    @property
    def score(self) -> Float[Tensor, "layer head"]:
        """Facilitating less interfering, mean over seeds."""
        return (self.opened + self.shut - 1).mean(dim=0)

    @property
    def roles(self) -> Int[Tensor, "seed layer head"]:
        """Each head's place in `ROLES` in each seed: the largest of its three scores; -1: gone."""
        scores = torch.stack([self.shut, self.opened * (1 - self.shut), 1 - self.opened])
        return scores.argmax(dim=0).masked_fill(self.shut.isnan(), -1)

    @property
    def stability(self) -> Float[Tensor, "layer head"]:
        """In what share of the seeds a head has the role that it has most often."""
        counts = torch.stack([(self.roles == place).sum(dim=0) for place in range(len(ROLES))])
        return (counts.amax(dim=0) / len(self.shut)).masked_fill(self.score.isnan(), torch.nan)

    def necessary(self, level: float = 0.5) -> list[Head]:
        """The heads that no seed could shut: their gate stays above `level` in all of them."""
        least = self.shut.amin(dim=0)
        return [head for head in in_order(least) if least[head] > level]

    def sufficient(self, seed: int = 0) -> list[Head]:
        """The heads that the `seed`-th fit kept open, if only in part, the widest open first."""
        check_index("seed", seed, len(self.shut))
        gate = self.shut[seed]
        return [head for head in in_order(gate) if gate[head] > KEPT]

    def interfering(self, level: float = 0.5) -> list[Head]:
        """The heads that no seed could open: their gate stays below `level` in all of them."""
        most = self.opened.amax(dim=0)
        return [head for head in in_order(-most) if most[head] < level]

    @property
    def lost(self) -> list[int]:
        """The seeds that lost the task: under either gates less than half of what heads do is left.

        Under pressure a gate may fall past the point at which its head stops working at once,
        and no slope leads back.
        """
        half = (float(self.baseline.mean()) + float(self.floor.mean())) / 2
        least = torch.minimum(self.metric_opened.mean(dim=1), self.metric_shut.mean(dim=1))
        return (least < half).nonzero()[:, 0].tolist()

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        lost = f"In {len(self.lost)} of them the fit lost the task. " if self.lost else ""
        sizes = [len(self.sufficient(seed)) for seed in range(len(self.shut))]
        kept = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        need = ", ".join(named(head) for head in self.necessary()[:8]) or "none"
        return (
            f"Of {len(self.ranked())} heads of {self.model}, {len(self.necessary())} are necessary "
            f"for {self.task} ({need}) and {len(self.interfering())} interfere, in all of "
            f"{len(self.shut)} seeds; {kept} suffice in one: {self.metric} is "
            f"{float(self.metric_sufficient.mean()):+.2f} {self.unit} with them alone, "
            f"{float(self.baseline.mean()):+.2f} with all. Heads keep their role in "
            f"{float(self.stability.nanmean()):.0%} of the seeds. {lost}{self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """How many heads are necessary, suffice, interfere, and how stable that is."""
        sizes = [float(len(self.sufficient(seed))) for seed in range(len(self.shut))]
        return {
            "necessary": len(self.necessary()),
            "sufficient": sum(sizes) / len(sizes),
            "interfering": len(self.interfering()),
            "stability": float(self.stability.nanmean()),
        }

    def table(self, n: int = 15) -> str:
        """The heads that are least irrelevant as text, one a line."""
        roles, lines = self.roles.mode(dim=0).values, []
        for head in in_order(self.score.abs())[:n]:
            opened, shut = (float(one.mean(dim=0)[head]) for one in (self.opened, self.shut))
            stable = f"{float(self.stability[head]):.0%}"
            lines.append(
                f"{named(head):<8}{opened:<8.2f}{shut:<8.2f}{ROLES[int(roles[head])]:<15}{stable}"
            )
        return "\n".join([f"{'head':<8}{'G+':<8}{'G-':<8}{'role':<15}of seeds", *lines])


def causal_gating(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    penalty: float = 0.1,
    ablation: Ablation | effects.Source = "zero",
    seeds: int = 5,
    descent: Descent = ENOUGH,
    seed: int = 0,
) -> CausalGating:
    """Fit gates to the task, then under pressure to open and to shut, from several seeds.

    The loss is minus the metric, less `penalty` times the sum of the gates' logits (plus it, to
    shut them), which are held between -5 and 5. Each of the three fits has
    the steps of `descent`. Seeds differ in where the gates start.
    """
    if not penalty > 0 or seeds < 1:
        raise ValueError(f"penalty {penalty} and {seeds} seeds: the pressure must be above 0")
    how = ablating(model, task, ablation, seed=seed)
    gated = Gated(model, task, metric, how)
    pairs = []
    for number in tqdm(range(seeds), desc="gating heads", disable=None):
        generator = statistics.derive(seed, "causal gating", str(number))
        start = _START + torch.randn(gated.shape, generator=generator)
        fitted = _fit(gated, start, 0.0, descent, generator)
        both = [_fit(gated, fitted, sign * penalty, descent, generator) for sign in (1.0, -1.0)]
        pairs.append([one.sigmoid() for one in both])
    gone = ~gated.there
    opened, shut = (
        torch.stack(side).masked_fill(gone, torch.nan) for side in zip(*pairs, strict=True)
    )
    return CausalGating(
        opened=opened,
        shut=shut,
        metric_opened=torch.stack([gated.measured(gates) for gates in opened]),
        metric_shut=torch.stack([gated.measured(gates) for gates in shut]),
        metric_sufficient=torch.stack([gated.measured((gates > KEPT).float()) for gates in shut]),
        baseline=effects.measure(model, task, metric=metric),
        floor=gated.measured(torch.zeros(gated.shape)),
        penalty=penalty,
        ablation=how.source,
        **labels(model, task, metric),
    )


def _fit(
    gated: Gated,
    start: Float[Tensor, "layer head"],
    pressure: float,
    descent: Descent,
    generator: torch.Generator,
) -> Float[Tensor, "layer head"]:
    """The gates' logits after fitting; positive `pressure` opens, negative shuts."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        logits = start.clone().requires_grad_()
        adam = torch.optim.Adam([logits], lr=descent.rate)
        for _ in range(descent.steps):
            rows = descent.rows(gated.task, generator)
            gates = logits.sigmoid().expand(len(rows), *gated.shape)
            _, slope = gated.slopes(gates, rows)
            adam.zero_grad()
            (-(gates * slope).sum() / len(rows) - pressure * logits[gated.there].sum()).backward()
            adam.step()
            # Kept within reach: beyond it a gate would no longer feel the pressure.
            logits.data.clamp_(-_ROOM, _ROOM)
    return logits.detach()
