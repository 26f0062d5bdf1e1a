"""Steering vectors, and what pushing along one does as it gets stronger."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture, edits, intervening
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.probes.use import text_loss
from workbench.results import Result
from workbench.tasks import Task, provenance


@dataclass(frozen=True, eq=False)
class SteeringCurve(Result):
    """What adding a vector does by strength: a metric, the loss on text, and what is written.

    `effect` is the change in the metric, `placebo` that by random vectors as long; `loss` the
    change in nats per token on running text. `texts` has, for each strength, what the model
    writes after each of `starts`.
    """

    strengths: Float[Tensor, " strength"] = field(metadata={"means": "times the vector"})
    effect: Float[Tensor, " strength"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, " strength"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, " strength"] = field(metadata={"means": "upper 95 % bound of effect"})
    placebo: Float[Tensor, "draw strength"] = field(
        metadata={"means": "mean change by random vectors as long"}
    )
    loss: Float[Tensor, " strength"] = field(metadata={"means": "mean change in loss on text"})
    loss_low: Float[Tensor, " strength"] = field(metadata={"means": "lower 95 % bound of loss"})
    loss_high: Float[Tensor, " strength"] = field(metadata={"means": "upper 95 % bound of loss"})
    texts: list[list[str]]
    starts: list[str]
    baseline: float
    length: float
    site: str
    vector: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    def beyond_placebo(self) -> list[float]:
        """The strengths at which the vector does more than every random one as long."""
        most = self.placebo.abs().amax(dim=0)
        chosen = (self.effect.abs() > most) & (self.strengths != 0)
        return self.strengths[chosen].tolist()

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        at = int(self.strengths.argmax())
        found = self.beyond_placebo()
        more = (
            f"more than {len(self.placebo)} random vectors as long at strengths "
            f"{', '.join(f'{one:g}' for one in found)}"
            if found
            else f"never more than {len(self.placebo)} random vectors as long"
        )
        return (
            f"{self.vector} at {self.site} of {self.model}, {float(self.strengths[at]):g} times, "
            f"changes {self.metric} on {self.task} by {float(self.effect[at]):+.2f} {self.unit} "
            f"[{float(self.low[at]):+.2f}, {float(self.high[at]):+.2f}] from "
            f"{self.baseline:+.2f}, and the loss on running text by {float(self.loss[at]):+.3f} "
            f"nats per token: {more}."
        )

    def headline(self) -> dict[str, Any]:
        """The effect and the loss at the greatest strength."""
        at = int(self.strengths.argmax())
        return {
            "strength": float(self.strengths[at]), "effect": float(self.effect[at]),
            "low": float(self.low[at]), "high": float(self.high[at]), "loss": float(self.loss[at]),
        }  # fmt: skip

    def table(self) -> str:
        """Strength, effect, loss and what is written after the first start, one a line."""
        lines = [f"strength  {self.metric} ({self.unit})  loss (nats per token)  text"]
        for i, strength in enumerate(self.strengths.tolist()):
            text = " ".join(self.texts[i][0].split())[:60] if self.starts else ""
            lines.append(
                f"{strength:<+8g}  {float(self.effect[i]):+.3f}  {float(self.loss[i]):+.4f}  {text}"
            )
        return "\n".join(lines)


@torch.no_grad()
def steering_vector(
    model: HookedModel, positive: Prompts, negative: Prompts, *, site: Site
) -> Float[Tensor, " d_model"]:
    """From where `negative` prompts are to where `positive` ones are, at their last tokens.

    The difference of the means (contrastive activation addition, Rimsky et al. 2024).
    """
    means = []
    for prompts in (positive, negative):
        seen = [capture(model, one, [site], positions=one.last) for one in prompts.batches(32)]
        means.append(torch.cat([one[site][:, 0] for one in seen]).mean(dim=0))
    return means[0] - means[1]


def steer(
    model: Any,
    task: Task,
    vector: Float[Tensor, " d_model"],
    *,
    site: Site,
    metric: Metric,
    corpus: Prompts,
    starts: Sequence[str] = (),
    strengths: Sequence[float] = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0),
    seed: int = 0,
) -> SteeringCurve:
    """Add `vector` at every position, in each strength, and measure what it does and costs.

    starts   texts that the model continues for 20 tokens, greedily, while it is steered
    """
    if len(set(strengths)) != len(strengths) or not strengths:
        raise ValueError(f"strengths {list(strengths)} are to be given, each once")
    generator = statistics.derive(seed, "steering")
    random = torch.randn(19, len(vector), generator=generator)
    random = random / random.norm(dim=1, keepdim=True) * vector.norm().cpu()
    vectors = [vector, *random.to(vector)]
    cells = [{site: edits.add(one, strength=s)} for one in vectors for s in strengths]
    found = effects.exact(model, task, cells, metrics=[metric], check=1, seed=seed)
    every = found.effect[0].reshape(len(vectors), len(strengths), len(task))
    effect, low, high = statistics.bounds(every[0], seed=seed)
    plain = text_loss(model, corpus)
    costs = [
        text_loss(model, corpus, {site: edits.add(vector, strength=s)}) - plain for s in strengths
    ]
    loss, loss_low, loss_high = statistics.bounds(torch.stack(costs), seed=seed)
    return SteeringCurve(
        strengths=torch.tensor(list(strengths)),
        effect=effect.float(),
        low=low.float(),
        high=high.float(),
        placebo=every[1:].mean(dim=2),
        loss=loss.float(),
        loss_low=loss_low.float(),
        loss_high=loss_high.float(),
        texts=[_written(model, starts, site, vector, strength) for strength in strengths],
        starts=list(starts),
        baseline=float(found.baseline[0].mean()),
        length=float(vector.norm()),
        site=str(site),
        vector="the steering vector",
        metric=metric.name,
        unit=metric.unit,
        **provenance.of_task(model, task),
    )  # fmt: skip


def _written(
    model: Any, starts: Sequence[str], site: Site, vector: Tensor, strength: float
) -> list[str]:
    """What the model writes after each start while it is steered."""
    found = []
    for start in starts:
        tokens = torch.tensor([model.tokenizer(start)["input_ids"]])
        tokens = tokens.to(next(model.original_model.parameters()).device)
        with intervening(model, {site: edits.add(vector, strength=strength)}):
            out = model.generate(tokens, max_new_tokens=20, do_sample=False, verbose=False)
        found.append(model.tokenizer.decode(out[0, tokens.shape[1] :].tolist()))
    return found
