"""Does the model use a direction? Take it out, or push along it, and compare with random ones."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, Positions, Prompts, Site, capture, edits, intervening
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.probes.erasure import Eraser
from workbench.probes.placebos import Placebos
from workbench.results import Result
from workbench.tasks import Task, provenance

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Push:
    """Adds a vector: steering, as strong as the vector is long."""

    vector: Float[Tensor, " d_model"]
    kind: str = "push"

    def edit(self, *, positions: Positions | None = None) -> Edit:
        """The same as an edit of a residual stream."""
        return edits.add(self.vector, positions=positions)


@dataclass(frozen=True, eq=False)
class Use(Result):
    """Change in a metric when a direction is taken out or pushed along, beside random ones.

    `p` is the chance that a random direction of the kind that `placebo_kind` names changes the
    metric as much (either way). `low` and `high` bound the mean over prompts. The loss is that
    of running text in nats per token, positive where the change harms; NaN where none was given.
    """

    effect: float
    low: float
    high: float
    p: float
    per_prompt: Float[Tensor, " batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    placebo: Float[Tensor, " draw"] = field(
        metadata={"means": "mean change by each random direction"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without a change"})
    loss: float
    loss_p: float
    loss_placebo: Float[Tensor, " draw_on_text"] = field(
        metadata={"means": "change in loss on running text by random directions"}
    )
    change: str
    site: str
    placebo_kind: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def is_used(self) -> bool:
        """Whether the direction does more than random ones, at the 5 % level."""
        return self.p <= LEVEL

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        size = self.placebo.abs()
        verdict = (
            "the model uses it here"
            if self.is_used
            else "no more than random directions do: nothing shows that the model uses it here"
        )
        text = (
            f"{self.change} at {self.site} of {self.model} changes {self.metric} on {self.task} by "
            f"{self.effect:+.3f} {self.unit} [{self.low:+.3f}, {self.high:+.3f}] from "
            f"{float(self.baseline.mean()):+.3f}; {len(size)} random ones ({self.placebo_kind}) by "
            f"{float(size.median()):.3f} (median), {float(size.max()):.3f} (most); "
            f"p = {self.p:.3f}: {verdict}."
        )
        if self.loss == self.loss:
            text += (
                f" Loss on running text changes by {self.loss:+.4f} nats per token, by random "
                f"ones by {float(self.loss_placebo.mean()):+.4f} (p = {self.loss_p:.3f})."
            )
        return text

    def headline(self) -> dict[str, Any]:
        """The effect with its bounds, the p-value, the loss on text."""
        return {
            "effect": self.effect, "low": self.low, "high": self.high, "p": self.p,
            "loss": self.loss,
        }  # fmt: skip


def use(
    model: HookedModel,
    task: Task,
    change: Eraser | Push,
    *,
    site: Site,
    metric: Metric,
    positions: Positions | None = None,
    corpus: Prompts | None = None,
    against: Placebos = Placebos(),  # noqa: B008
    seed: int = 0,
) -> Use:
    """Whether `change` at `site` moves the metric more than the same change along random ones.

    change      an `Eraser` (`probes.projection(direction)` projects one out), or a `Push`
    positions   where in the clean prompts; none given means everywhere
    corpus      running text, changed everywhere: what the change costs there, beside the first
                19 of the placebos
    """
    generator = statistics.derive(seed, "placebos", change.kind)
    x = _activations(model, task.clean, site)
    others = [_placebo(change, against, x, generator) for _ in range(against.count)]
    cells = [{site: one.edit(positions=positions)} for one in (change, *others)]
    found = effects.exact(model, task, cells, metrics=[metric], check=1, seed=seed)
    effect = found.effect[0]
    means = effect.double().mean(dim=1)
    test = statistics.placebo_test(means[:1], means[None, 1:])
    bounds = statistics.bounds(effect[0], seed=seed)
    loss = _losses(model, corpus, site, [change, *others[:19]])
    return Use(
        effect=float(means[0]),
        low=float(bounds.low),
        high=float(bounds.high),
        p=float(test.p),
        per_prompt=effect[0],
        placebo=means[1:],
        baseline=found.baseline[0],
        loss=float(loss[0]),
        loss_p=float("nan") if corpus is None else float(
            statistics.placebo_test(loss[:1], loss[None, 1:]).p
        ),
        loss_placebo=loss[1:],
        change=change.kind,
        site=str(site),
        placebo_kind=against.kind,
        metric=metric.name,
        unit=metric.unit,
        **provenance.of_task(model, task),
    )  # fmt: skip


@torch.no_grad()
def text_loss(
    model: HookedModel, corpus: Prompts, edits: dict[Site, Edit] | None = None
) -> Float[Tensor, " batch"]:
    """Nats per token of each text from its second token on, under edits or without."""
    if int(corpus.lengths.min()) < 2:
        row = int(corpus.lengths.argmin())
        raise ValueError(f"text {row} has one token: a loss needs at least two")
    if edits:
        with intervening(model, edits):
            logits = model(corpus)
    else:
        logits = model(corpus)
    corpus = corpus.to(logits.device)
    following = corpus.tokens[:, 1:, None]
    each = -logits[:, :-1].float().log_softmax(dim=-1).gather(2, following)[..., 0]
    real = corpus.mask[:, 1:].to(each.dtype)
    return ((each * real).sum(dim=1) / real.sum(dim=1)).cpu()


def _losses(
    model: HookedModel, corpus: Prompts | None, site: Site, changes: list[Eraser | Push]
) -> Float[Tensor, " change"]:
    if corpus is None:
        return torch.full((1,), torch.nan)
    plain = text_loss(model, corpus)
    return torch.stack([
        (text_loss(model, corpus, {site: one.edit()}) - plain).mean() for one in changes
    ])  # fmt: skip


def _activations(
    model: HookedModel, prompts: Prompts, site: Site
) -> Float[Tensor, "example d_model"]:
    """What flows at every real token but the first, whose like there is nowhere else."""
    found = []
    for part in prompts.batches(32):
        seen = capture(model, part, [site])
        real = seen.prompts.mask.bool()
        real[:, 0] = False
        found.append(seen[site][real])
    return torch.cat(found)


def _placebo(
    change: Eraser | Push, against: Placebos, x: Tensor, generator: torch.Generator
) -> Eraser | Push:
    if isinstance(change, Eraser):
        return against.of(change, x, generator=generator)
    row = against.directions(1, x, generator=generator)[0]
    return Push((row * change.vector.double().norm().cpu()).to(change.vector), change.kind)
