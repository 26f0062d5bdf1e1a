"""How much of what a site does goes through given concepts?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Edit, HookedModel, Site, edits
from workbench import effects
from workbench.metrics import Metric
from workbench.probes.erasure import projection
from workbench.results import Result
from workbench.tasks import Task, provenance


@dataclass(frozen=True, eq=False)
class Completeness(Result):
    """Share of a metric that is left when only the span of the concepts gets through a site.

    1: the concepts carry all that the rest of the model needs; 0: no more than the mean
    activation does (Yeh et al. 2020). `shapley` says what each concept contributes; they add up to
    `completeness`.
    """

    completeness: float
    shapley: Float[Tensor, " concept"] = field(metadata={"means": "contribution to the share"})
    concepts: list[str] = field(metadata={"axis": "concept"})
    whole: float
    empty: float
    site: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    def sentence(self) -> str:
        """What was found, in one sentence."""
        order = self.shapley.argsort(descending=True).tolist()
        shares = ", ".join(f"{self.concepts[i]} {float(self.shapley[i]):+.2f}" for i in order[:5])
        return (
            f"When only the span of {len(self.concepts)} concepts gets through {self.site} of "
            f"{self.model}, {self.completeness:.2f} of {self.metric} on {self.task} is left "
            f"({self.whole:+.2f} {self.unit} with everything, {self.empty:+.2f} with the mean "
            f"alone): {shares}."
        )

    def headline(self) -> dict[str, float]:
        """The share that is left."""
        return {"completeness": self.completeness}


def completeness(
    model: HookedModel,
    task: Task,
    concepts: Mapping[str, Float[Tensor, " d_model"]],
    *,
    site: Site,
    mean: Float[Tensor, " d_model"],
    metric: Metric,
    positions: int | Int[Tensor, " batch"] | None = None,
    seed: int = 0,
) -> Completeness:
    """Keep only what lies in the span of the concepts, around `mean`, at the last token.

    All subsets of the concepts are run, for exact Shapley values: at most 10 concepts. `mean` is
    the mean activation at the same place.
    """
    names = list(concepts)
    if not 1 <= len(names) <= 10:
        raise ValueError(f"{len(names)} concepts: give 1 to 10, as all subsets of them are run")
    at = task.clean.last if positions is None else positions
    rows = torch.stack(list(concepts.values()))
    every = range(len(names))
    subsets = [one for size in range(len(names) + 1) for one in combinations(every, size)]
    cells = [{site: _only(rows[list(one)], mean, at)} for one in subsets]
    found = effects.exact(model, task, cells, metrics=[metric], seed=seed)
    value = dict(zip(subsets, found.values[0].double().mean(dim=1).tolist(), strict=True))
    whole, empty = float(found.baseline[0].double().mean()), value[()]
    if abs(whole - empty) < 1e-6:
        raise ValueError(
            f"{metric.name} on {task.name} is {whole:.4f} with and without what flows at {site} "
            "there: nothing is left to share out. Take another site or other positions"
        )
    share = {one: (number - empty) / (whole - empty) for one, number in value.items()}
    return Completeness(
        completeness=share[tuple(range(len(names)))],
        shapley=torch.tensor(_shapley(share, len(names))),
        concepts=names,
        whole=whole,
        empty=empty,
        site=str(site),
        metric=metric.name,
        unit=metric.unit,
        **provenance.of_task(model, task),
    )


def _only(
    rows: Float[Tensor, "concept d_model"], mean: Tensor, at: int | Int[Tensor, " batch"]
) -> Edit:
    """Takes away everything but the span of `rows`."""
    rest = torch.eye(len(mean), dtype=torch.float64)
    if len(rows):
        basis = projection(rows.double().cpu()).read
        _, _, all_rows = torch.linalg.svd(basis, full_matrices=True)
        rest = all_rows[len(basis) :]
    if not len(rest):
        return edits.scale(1.0, positions=at)
    return edits.erase(rest, rest, mean=mean.double().cpu(), positions=at)


def _shapley(share: Mapping[tuple[int, ...], float], count: int) -> Sequence[float]:
    """The mean gain by each concept over all orders in which they come."""
    found = [0.0] * count
    for subset, number in share.items():
        for one in set(range(count)) - set(subset):
            weight = 1 / (count * comb(count - 1, len(subset)))
            found[one] += weight * (share[tuple(sorted((*subset, one)))] - number)
    return found
