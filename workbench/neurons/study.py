"""From neurons that know a concept to whether the model uses them.

Antverg & Belinkov (2022): what is said of neurons by a probe is to be asked once more by ablation.
"""

from dataclasses import dataclass

from hooks import HookedModel
from workbench.metrics import Metric
from workbench.neurons.ablation import Ablation, NeuronEffects, ablate_sets, random_sets
from workbench.neurons.concepts import ConceptNeurons
from workbench.results import Result
from workbench.tasks import Task


@dataclass(frozen=True, eq=False)
class ConceptStudy(Result):
    """Neurons that know a concept, and what a task loses without them, against random neurons.

    Knowing is not using: a concept can be read from neurons that the model does not need.
    """

    concept: ConceptNeurons
    effects: NeuronEffects
    task: str
    task_digest: str
    model: str
    model_digest: str
    unit: str
    caveat: str = ""

    @property
    def random(self) -> float:
        """The mean effect of the random sets."""
        some = [self.effects.of(name) for name in self.effects.names if name.startswith("random")]
        return sum(some) / len(some)

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        return (
            f"{self.concept.sentence()} Without all {len(self.concept.chosen)} of them together "
            f"{self.effects.metric} changes by {self.effects.of('all'):+.3f} {self.unit} (random "
            f"neurons {self.random:+.3f}). {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, float]:
        """Accuracy of the probe and effect of the ablation."""
        at = self.effects.names.index("all")
        return {
            "accuracy": float(self.concept.accuracy[-1]), "effect": self.effects.of("all"),
            "low": float(self.effects.low[at]), "high": float(self.effects.high[at]),
            "random": self.random,
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """Probes, then ablations."""
        return f"{self.concept.table()}\n\n{self.effects.table(n)}"


def study_concept(
    model: HookedModel,
    task: Task,
    found: ConceptNeurons,
    *,
    metric: Metric,
    ablation: Ablation = "mean",
    seed: int = 0,
) -> ConceptStudy:
    """Ablate each of the neurons that `find_concept` found, all of them, and random ones."""
    if found.task_digest != task.digest:
        raise ValueError(f"{found.concept} was found on {found.task}, not on this {task.name}")
    sets = {str(one): [one] for one in found.neurons} | {"all": found.neurons}
    sets |= random_sets(model, found.neurons, number=5, seed=seed)
    cost = ablate_sets(model, task, sets, metric=metric, ablation=ablation, seed=seed)
    return ConceptStudy(
        found, cost, task=task.name, task_digest=task.digest, model=cost.model,
        model_digest=cost.model_digest, unit=cost.unit, caveat=cost.caveat,
    )  # fmt: skip
