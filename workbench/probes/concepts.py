"""Does a concept that activations carry push the model's answer? (TCAV, Kim et al. 2018)"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture, gradients, sites
from hooks.sites import Stream
from workbench import statistics
from workbench.metrics import Metric
from workbench.probes.erasure import ridge_probe
from workbench.probes.probe import check_rows
from workbench.results import Result
from workbench.statistics.randomness import numpy_generator
from workbench.tasks import Task, provenance

LEVEL = 0.05
RIDGE = 1.0
"""Of the classifiers, in units of the mean variance: a concept has few examples."""


@dataclass(frozen=True, eq=False)
class Tcav(Result):
    """How moving towards a concept changes a metric, layer by layer, beside random concepts.

    `sensitivity` is the mean derivative along the concept's direction (length one); positive: more
    of the concept raises the metric. `score` is the share of prompts at which it is positive
    (TCAV). `p` is the chance that a concept of random examples has as large a sensitivity at any
    of the layers. The paper's t-test over runs is `p_of_runs`: its runs share the concept's
    examples, so that it also calls random concepts significant.
    """

    sensitivity: Float[Tensor, " layer"] = field(metadata={"means": "mean derivative"})
    low: Float[Tensor, " layer"] = field(metadata={"means": "lower 95 % bound over prompts"})
    high: Float[Tensor, " layer"] = field(metadata={"means": "upper 95 % bound over prompts"})
    score: Float[Tensor, " layer"] = field(metadata={"means": "share of positive derivatives"})
    p: Float[Tensor, " layer"] = field(metadata={"means": "p-value, corrected for all layers"})
    p_of_runs: Float[Tensor, " layer"] = field(
        metadata={"means": "t-test of scores over runs, as in the paper"}
    )
    accuracy: Float[Tensor, " layer"] = field(
        metadata={"means": "held-out accuracy of the concept's classifiers"}
    )
    random: Float[Tensor, "layer draw"] = field(
        metadata={"means": "sensitivity of random concepts"}
    )
    random_score: Float[Tensor, "layer draw"] = field(
        metadata={"means": "score of random concepts"}
    )
    per_prompt: Float[Tensor, "layer batch"] = field(
        metadata={"means": "derivative along the concept at each prompt"}
    )
    layers: list[int] = field(metadata={"axis": "layer"})
    concept: str
    stream: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    def significant(self, level: float = LEVEL) -> list[int]:
        """The layers at which the concept does more than random ones."""
        return [self.layers[i] for i, p in enumerate(self.p) if p <= level]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        found = self.significant()
        best = int(self.accuracy.argmax())
        text = (
            f"Of {self.concept} and other examples {float(self.accuracy[best]):.0%} are told apart "
            f"at {self.stream} {self.layers[best]} of {self.model}, the best layer (held out)."
        )
        if not found:
            return (
                f"{text} Moving towards the concept changes {self.metric} on {self.task} no more "
                f"than moving towards {self.random.shape[1]} random concepts does, at any layer: "
                "nothing shows that it is used."
            )
        size = self.sensitivity.abs()
        at = max((self.layers.index(one) for one in found), key=lambda i: float(size[i]))
        return (
            f"{text} Moving towards the concept changes {self.metric} on {self.task} more than "
            f"moving towards {self.random.shape[1]} random concepts at {len(found)} of "
            f"{len(self.layers)} layers (corrected p ≤ {LEVEL}); at layer {self.layers[at]} by "
            f"{float(self.sensitivity[at]):+.3f} {self.unit} for each unit of length "
            f"[{float(self.low[at]):+.3f}, {float(self.high[at]):+.3f}], upwards in "
            f"{100 * float(self.score[at]):.0f} % of prompts."
        )

    def headline(self) -> dict[str, Any]:
        """The layer of the smallest p-value, its score and sensitivity."""
        at = int(self.p.argmin())
        return {
            "layer": self.layers[at], "score": float(self.score[at]),
            "sensitivity": float(self.sensitivity[at]), "p": float(self.p[at]),
            "significant": len(self.significant()),
        }  # fmt: skip


def tcav(
    model: HookedModel,
    task: Task,
    concept: Prompts,
    others: Prompts,
    *,
    metric: Metric,
    name: str = "the concept",
    stream: Stream = "resid_post",
    random_concepts: int = 199,
    seed: int = 0,
) -> Tcav:
    """Concept activation vectors at every layer, and the metric's derivative along them.

    Activations are read, and derivatives taken, at the last token: of the concept's prompts, of
    `others` (at least twice as many, without the concept), and of the task's clean prompts. The
    concept is told from as many random others, in 10 runs; a random concept is as many random
    others, told from the rest in the same way, so that it is one more draw of the same kind if the
    concept is one. Classifiers are of least squares with a ridge.
    """
    _check(concept, others, stream, name, random_concepts)
    places = sites.all(model, stream)
    inside, outside = _last(model, concept, places), _last(model, others, places)
    slopes = _slopes(model, task, places, metric)
    draws = _Draws.of(len(concept), len(others), random_concepts, seed)
    found = [_layer(inside[i], outside[i], slopes[i], draws) for i in range(len(places))]
    per_prompt = torch.stack([one.derivative.mean(dim=0) for one in found])
    sensitivity, low, high = statistics.bounds(per_prompt, seed=seed)
    random = torch.stack([one.random.mean(dim=1) for one in found])
    return Tcav(
        sensitivity=sensitivity.float(),
        low=low.float(),
        high=high.float(),
        score=(per_prompt > 0).float().mean(dim=1),
        p=statistics.placebo_test(sensitivity, random.double()).corrected.float(),
        p_of_runs=torch.tensor([one.p_of_runs for one in found]),
        accuracy=torch.tensor([one.accuracy for one in found]),
        random=random.float(),
        random_score=torch.stack([(one.random > 0).float().mean(dim=1) for one in found]),
        per_prompt=per_prompt.float(),
        layers=[site.layer for site in places],
        concept=name,
        stream=stream,
        metric=metric.name,
        unit=metric.unit,
        **provenance.of_task(model, task),
    )


def concept_direction(
    inside: Float[Tensor, "example d_model"], outside: Float[Tensor, "other d_model"]
) -> Float[Tensor, " d_model"]:
    """A concept activation vector: towards `inside`, of length one (Kim et al. 2018)."""
    check_rows(inside, each="concept example")
    check_rows(outside, each="other example")
    if not len(inside) or not len(outside) or inside.shape[1] != outside.shape[1]:
        raise ValueError(
            f"{len(inside)} examples of the concept in {inside.shape[1]} dimensions, "
            f"{len(outside)} others in {outside.shape[1]}: give some of both, of one site"
        )
    x, y = _told_apart(inside, outside)
    weight, _ = ridge_probe(x, y, ridge=RIDGE / len(x))
    towards = weight[1] - weight[0]
    if not bool(towards.norm() > 0):
        raise ValueError(
            "nothing tells the concept's examples from the others: take another layer or position"
        )
    return towards / towards.norm()


def _told_apart(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.cat([inside, outside])
    return x, (torch.arange(len(x), device=x.device) < len(inside)).long()


def _check(concept: Prompts, others: Prompts, stream: Stream, name: str, random: int) -> None:
    if len(concept) < 2:
        raise ValueError(f"{len(concept)} prompt of {name}: held-out accuracy needs 2 or more")
    if len(others) < 2 * len(concept):
        raise ValueError(
            f"{len(others)} other prompts for {len(concept)} of {name}: random concepts need at "
            "least twice as many"
        )
    if random < 19:
        raise ValueError(
            f"{random} random concepts cannot give a p-value of {LEVEL}: take at least 19"
        )
    if Site(stream, 0).axes != ("batch", "pos", "d_model"):
        raise ValueError(
            f"{stream} is {' x '.join(Site(stream, 0).axes)}: a concept is a direction of a stream "
            "that is one vector at each position, such as resid_post"
        )


@dataclass(frozen=True, eq=False)
class _Draws:
    """Which others each run of the concept, and each random concept, is made of."""

    against: Int[Tensor, "run chosen"]
    random: Int[Tensor, "concept chosen"]
    random_against: Int[Tensor, "concept chosen"]

    @classmethod
    def of(cls, size: int, others: int, concepts: int, seed: int) -> "_Draws":
        generator = numpy_generator(statistics.derive(seed, "random concepts"))
        runs = [generator.permutation(others)[:size] for _ in range(10)]
        mixed = [generator.permutation(others)[: 2 * size] for _ in range(concepts)]
        first, second = ([one[part] for one in mixed] for part in (slice(size), slice(size, None)))
        return cls(*(torch.from_numpy(np.stack(one)) for one in (runs, first, second)))


@dataclass(frozen=True, eq=False)
class _Layer:
    derivative: Float[Tensor, "run batch"]
    random: Float[Tensor, "concept batch"]
    p_of_runs: float
    accuracy: float


def _layer(
    inside: Float[Tensor, "example d_model"],
    outside: Float[Tensor, "other d_model"],
    slopes: Float[Tensor, "batch d_model"],
    draws: _Draws,
) -> _Layer:
    own = torch.stack([concept_direction(inside, outside[rows]) for rows in draws.against])
    random = torch.stack([
        concept_direction(outside[one], outside[other])
        for one, other in zip(draws.random, draws.random_against, strict=True)
    ])  # fmt: skip
    derivative, others = (
        einsum(slopes.double(), one, "batch d, run d -> run batch") for one in (own, random)
    )
    scores = [(one > 0).double().mean(dim=1).numpy() for one in (derivative, others)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runs with the same score warn; without spread p is NaN
        found: Any = stats.ttest_ind(*scores, equal_var=False)
    p = float(found.pvalue)
    p = 1.0 if np.isnan(p) else p
    return _Layer(derivative, others, p, _accuracy(inside, outside[draws.against[0]]))


def _accuracy(inside: Tensor, outside: Tensor) -> float:
    """Held out, in five parts."""
    x, y = _told_apart(inside, outside)
    part = torch.cat([torch.arange(len(inside)), torch.arange(len(outside))]) % 5
    right = []
    for fold in range(5):
        test = part == fold
        weight, bias = ridge_probe(x[~test], y[~test], ridge=RIDGE / len(x))
        right.append((x[test].double() @ weight.T + bias).argmax(dim=1) == y[test])
    return float(torch.cat(right).double().mean())


def _last(model: HookedModel, prompts: Prompts, places: list[Site]) -> list[Tensor]:
    found = []
    for part in prompts.batches(32):
        seen = capture(model, part, places, positions=part.last)
        found.append(torch.stack([seen[site][:, 0].cpu() for site in places]))
    return list(torch.cat(found, dim=1))


def _slopes(
    model: HookedModel, task: Task, places: list[Site], metric: Metric
) -> list[Float[Tensor, "batch d_model"]]:
    """The gradient of the metric at the last token of every clean prompt."""
    found = []
    for rows in torch.arange(len(task)).split(16):
        part, prompts = task[rows], task.clean[rows]
        chosen = metric[rows]
        kept = gradients(
            model, prompts, places, of=lambda logits, part=part, m=chosen: m(logits, part),
            logits=chosen.rows,
        )  # fmt: skip
        at = torch.arange(len(prompts))
        found.append(torch.stack([kept[site][at, prompts.last].cpu() for site in places]))
    return list(torch.cat(found, dim=1))
