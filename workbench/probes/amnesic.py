"""Decodable, and used? Erase a property at each layer and see what becomes of the task."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Edit, HookedModel, Site, capture, edits
from hooks.sites import Stream
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.probes.erasure import Eraser, Erasure, eraser, ridge_probe
from workbench.probes.examples import Examples
from workbench.probes.placebos import Placebos
from workbench.probes.splits import k_fold
from workbench.results import Result
from workbench.tasks import Task, provenance

LEVEL = 0.05
SHRINKAGE = 0.1
"""Towards a ball: there are seldom as many prompts as dimensions."""

RIDGE = 0.1
"""Of the probes that are asked before and after, in units of the mean variance."""


@dataclass(frozen=True, eq=False)
class Amnesia(Result):
    """Held-out accuracy of a probe at each layer, and what erasing the property does to a metric.

    Negative effects: the metric is lower without the property. `p` is the chance that random
    changes of the same size do as much at any of the layers; `given_back` is the effect when
    each prompt's own class mean is put back after erasing, which recovers what the label alone
    carries. Decodable without an effect is no sign of use.
    """

    accuracy: Float[Tensor, " layer"] = field(metadata={"means": "held-out accuracy"})
    accuracy_low: Float[Tensor, " layer"] = field(metadata={"means": "lower 95 % bound"})
    accuracy_high: Float[Tensor, " layer"] = field(metadata={"means": "upper 95 % bound"})
    accuracy_after: Float[Tensor, " layer"] = field(
        metadata={"means": "held-out accuracy of a new probe after erasing"}
    )
    chance: float
    effect: Float[Tensor, " layer"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, " layer"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, " layer"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, " layer"] = field(metadata={"means": "p-value, corrected for all layers"})
    given_back: Float[Tensor, " layer"] = field(
        metadata={"means": "mean change when the class means are put back"}
    )
    placebo: Float[Tensor, "layer draw"] = field(
        metadata={"means": "mean change by each random erasure"}
    )
    per_prompt: Float[Tensor, "layer batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without erasing"})
    layers: list[int] = field(metadata={"axis": "layer"})
    rank: int
    stream: str
    method: str
    placebo_kind: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    def decodable(self) -> list[int]:
        """The layers at which the probe is better than the commonest class, by its lower bound."""
        return [self.layers[i] for i, low in enumerate(self.accuracy_low) if low > self.chance]

    def used(self, level: float = LEVEL) -> list[int]:
        """The layers at which erasing does more than random changes of the same size."""
        return [self.layers[i] for i, p in enumerate(self.p) if p <= level]

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        best = int(self.accuracy.argmax())
        used = self.used()
        text = (
            f"At {self.stream} of {self.model} the label is decodable at {len(self.decodable())} "
            f"of {len(self.layers)} layers (best {self.layers[best]}: "
            f"{float(self.accuracy[best]):.2f} held out, commonest class {self.chance:.2f})."
        )
        if not used:
            return (
                f"{text} Erasing it ({self.method}) does no more to {self.metric} on {self.task} "
                "than random changes of the same size, at any layer: nothing shows that it is "
                "used there."
            )
        at = self.layers.index(max(used, key=lambda one: abs(self.effect[self.layers.index(one)])))
        idle = len(set(self.decodable()) - set(used))
        return (
            f"{text} Erasing it ({self.method}) does more to {self.metric} on {self.task} than "
            f"random changes of the same size at {len(used)} layers, most at {self.layers[at]}: "
            f"{float(self.effect[at]):+.2f} {self.unit} [{float(self.low[at]):+.2f}, "
            f"{float(self.high[at]):+.2f}] from {float(self.baseline.mean()):+.2f}, random "
            f"{float(self.placebo[at].mean()):+.2f}; {float(self.given_back[at]):+.2f} with the "
            f"label given back. At {idle} layers it is decodable and nothing shows that it is used."
        )

    def headline(self) -> dict[str, Any]:
        """The strongest effect with its bounds, and how many layers decode and use."""
        at = int(self.effect.abs().argmax())
        return {
            "effect": float(self.effect[at]), "low": float(self.low[at]),
            "high": float(self.high[at]), "layer": self.layers[at],
            "decodable": len(self.decodable()), "used": len(self.used()),
        }  # fmt: skip


def amnesic(
    model: HookedModel,
    task: Task,
    examples: Examples,
    *,
    metric: Metric,
    stream: Stream = "resid_post",
    positions: int | Int[Tensor, " batch"] | None = None,
    method: Erasure = "leace",
    against: Placebos = Placebos("norm", 39),  # noqa: B008
    seed: int = 0,
) -> Amnesia:
    """Erase the labels of `examples` at each of their layers, one at a time (Elazar et al. 2021).

    `examples` are those of the task's clean prompts, `features(model, task.clean, y,
    stream=stream, positions=positions)`, with groups that no probe may see on both sides. The
    eraser is fitted to all of them and works at `positions` (the last) of the clean prompts.
    """
    examples.check_one_position("erasing")
    at = task.clean.last if positions is None else positions
    at = torch.full((len(task),), at) if isinstance(at, int) else at
    _check_same(model, task, examples, Site(stream, examples.layers[0]), at)
    generator = statistics.derive(seed, "amnesic")
    cells, ranks = [], []
    for layer, x in zip(examples.layers, examples.x, strict=True):
        site, taken = Site(stream, layer), _eraser(x, examples.y, method)
        others = [against.of(taken, x, generator=generator) for _ in range(against.count)]
        cells.append({site: taken.edit(positions=at)})
        cells.append({site: [taken.edit(positions=at), _class_means(taken, x, examples.y, at)]})
        cells += [{site: one.edit(positions=at)} for one in others]
        ranks.append(taken.rank)
    found = effects.exact(model, task, cells, metrics=[metric], seed=seed)
    every = found.effect[0].reshape(len(examples.layers), against.count + 2, len(task))
    measured = _Measured(every[:, 0], every[:, 1], every[:, 2:], found.baseline[0], max(ranks))
    texts = {
        "stream": stream, "method": method, "placebo_kind": against.kind, "metric": metric.name,
        "unit": metric.unit, **provenance.of_task(model, task),
    }  # fmt: skip
    return _result(examples, measured, method=method, seed=seed, texts=texts)


@dataclass(frozen=True, eq=False)
class _Measured:
    erased: Float[Tensor, "layer batch"]
    given_back: Float[Tensor, "layer batch"]
    placebo: Float[Tensor, "layer placebo batch"]
    baseline: Float[Tensor, " batch"]
    rank: int


def _result(
    examples: Examples, measured: _Measured, *, method: Erasure, seed: int, texts: dict[str, str]
) -> Amnesia:
    right, after = _decoded(examples, method, seed=seed)
    accuracy = statistics.bounds(right, groups=examples.groups, seed=seed)
    effect, low, high = statistics.bounds(measured.erased, seed=seed)
    placebo = measured.placebo.double().mean(dim=2)
    counts = torch.bincount(examples.y)
    return Amnesia(
        accuracy=accuracy.mean.float(),
        accuracy_low=accuracy.low.float(),
        accuracy_high=accuracy.high.float(),
        accuracy_after=after.float().mean(dim=1),
        chance=float(counts.max() / counts.sum()),
        effect=effect.float(),
        low=low.float(),
        high=high.float(),
        p=statistics.placebo_test(effect, placebo).corrected.float(),
        given_back=measured.given_back.mean(dim=1),
        placebo=placebo.float(),
        per_prompt=measured.erased,
        baseline=measured.baseline,
        layers=list(examples.layers),
        rank=measured.rank,
        **texts,
    )


def _eraser(x: Tensor, y: Tensor, method: Erasure) -> Eraser:
    found = eraser(x, y, method=method, shrinkage=SHRINKAGE)
    if not found.rank:
        raise ValueError("the labels cannot be read off these activations: nothing to erase")
    return found


def _class_means(taken: Eraser, x: Tensor, y: Tensor, at: Tensor) -> Edit:
    """Puts back, for each prompt, what was taken from its class on average."""
    removed = taken.removed(x)
    means = torch.stack([removed[y == one].mean(dim=0) for one in range(int(y.max()) + 1)])
    return edits.add(means[y][:, None].to(x), positions=at)


def _decoded(examples: Examples, method: Erasure, *, seed: int) -> tuple[Tensor, Tensor]:
    """Whether each example is read right by a probe of the other folds, before and after."""
    splits = k_fold(examples, min(5, len(examples.groups.unique())), seed=seed)
    right = torch.zeros(len(examples.x), len(examples), dtype=torch.bool)
    after = right.clone()
    for layer, x in enumerate(examples.x):
        for train, test in splits:
            y = examples.y[train]
            taken = eraser(x[train], y, method=method, shrinkage=SHRINKAGE)
            for kept, seen in ((right, x), (after, taken(x))):
                weight, bias = ridge_probe(seen[train], y, ridge=RIDGE)
                found = (seen[test].double() @ weight.T + bias).argmax(dim=1)
                kept[layer, test] = (found == examples.y[test]).cpu()
    return right, after


def _check_same(model: HookedModel, task: Task, examples: Examples, site: Site, at: Tensor) -> None:
    if len(examples) != len(task):
        raise ValueError(
            f"{len(examples)} examples for {len(task)} prompts of {task.name}: give those of its "
            "clean prompts, in their order"
        )
    seen = capture(model, task.clean[:1], [site], positions=at[:1])[site].flatten()
    if not torch.allclose(seen.cpu(), examples.x[0, 0].cpu(), rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"the examples are not what flows at {site} at these positions of {task.name}: give "
            "`features` and this function the same prompts, stream and positions"
        )
