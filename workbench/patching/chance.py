"""Is a circuit better than chance? (Circuits drawn at random, after Shi et al. 2024)"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench.effects import Source
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.faithfulness import faithfulness
from workbench.results import Result
from workbench.tasks import Task


@dataclass(frozen=True, eq=False)
class AgainstChance(Result):
    """Faithfulness of a circuit, and of circuits of as many edges drawn at random. 1: the model.

    `p` is the share of all of them, the circuit included, that are at least as close to 1.
    """

    found: float
    by_chance: Float[Tensor, " draw"] = field(metadata={"means": "faithfulness of random circuits"})
    p: float
    circuit: str
    size: int
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def sentence(self) -> str:
        """What was found, in a sentence."""
        middle = float(self.by_chance.median())
        return (
            f"{self.circuit} keeps {self.found:.0%} of {self.metric} on {self.task} in "
            f"{self.model}; {len(self.by_chance)} random circuits of its {self.size} edges keep "
            f"{middle:.0%} in the middle (p = {self.p:.3f}). {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """Faithfulness found and by chance, and the p-value."""
        middle = float(self.by_chance.median())
        return {"faithfulness": self.found, "by_chance": middle, "p": self.p}


def against_chance(
    model: HookedModel,
    task: Task,
    circuit: Circuit,
    *,
    metric: Metric,
    draws: int = 100,
    source: Source | Kind = "counterfactual",
    batch_size: int = 16,
    seed: int = 0,
) -> AgainstChance:
    """Is the circuit more faithful than circuits of the same number of edges drawn at random?"""
    if draws < 1:
        raise ValueError(f"{draws} random circuits tell nothing: draw 20 or more")
    generator = torch.Generator().manual_seed(seed)
    graph, size = circuit.graph, len(circuit)
    others = [Circuit.random(graph, size, generator=generator) for _ in range(draws)]
    found = faithfulness(
        model, task, [circuit, *others],
        metric=metric, source=source, batch_size=batch_size,
    )  # fmt: skip
    distance = (found.faithfulness - 1).abs()
    return AgainstChance(
        found=float(found.faithfulness[0]),
        by_chance=found.faithfulness[1:],
        p=float((distance <= distance[0]).sum() / (draws + 1)),
        circuit=circuit.name,
        size=size,
        source=str(Source.of(source)),
        metric=found.metric,
        unit=found.unit,
        task=found.task,
        task_digest=found.task_digest,
        model=found.model,
        model_digest=found.model_digest,
        caveat=found.caveat,
    )
