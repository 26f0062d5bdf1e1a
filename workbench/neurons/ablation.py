"""Does the model need a neuron? Ablated singly and in sets, on a task or on running text.

Single units and ranked sets of them, as Morcos et al. (2018) and Bau et al. (2018) ablate them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Edit, HookedModel, Site, edits
from hooks.replay import Cell
from workbench import effects, statistics
from workbench.corpora import Corpus
from workbench.metrics import Metric, mean_logprob
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron, by_layer
from workbench.results import Result
from workbench.statistics import derive
from workbench.tasks import Task, provenance

Ablation = Literal["zero", "mean", "resample", "counterfactual"]
"""What stands in an ablated neuron's place at every position: nothing; its mean over the task's
corrupt prompts, first tokens left out; what it is in another one; that in the prompt's pair."""


@dataclass(frozen=True, eq=False)
class NeuronEffects(Result):
    """Change in a metric when neurons are ablated. Negative: they were helping.

    Each cell is one neuron alone, or a set. `p` is corrected for testing all of the cells (sign
    flips, largest |t|); `low` and `high` bound each cell's own mean, uncorrected.
    """

    effect: Float[Tensor, " cell"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, " cell"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, " cell"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, " cell"] = field(metadata={"means": "p-value, corrected for all cells"})
    members: Int[Tensor, " cell"] = field(metadata={"means": "how many neurons the cell ablates"})
    per_prompt: Float[Tensor, "cell batch"] = field(metadata={"means": "change of each prompt"})
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without ablation"})
    names: list[str] = field(metadata={"axis": "cell"})
    metric: str
    unit: str
    ablation: str
    cost: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def of(self, name: object) -> float:
        """The mean effect of one cell by its name, such as "5.312"."""
        if str(name) not in self.names:
            raise KeyError(f"{name} was not ablated; ablated: {', '.join(self.names[:8])} ...")
        return float(self.effect[self.names.index(str(name))])

    def strongest(self, n: int) -> list[str]:
        """The cells with the largest mean effect in either direction."""
        order = self.effect.abs().argsort(descending=True, stable=True)[:n].tolist()
        return [self.names[at] for at in order]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        found = int((self.p <= 0.05).sum())
        text = (
            f"Of {len(self.names)} cells of neurons of {self.model}, {found} change {self.metric} "
            f"on {self.task} when {self.ablation}-ablated (corrected p ≤ 0.05); without ablation "
            f"it is {float(self.baseline.mean()):+.3f} {self.unit}."
        )
        name = self.strongest(1)[0]
        at = self.names.index(name)
        low, high = float(self.low[at]), float(self.high[at])
        text += f" Strongest: {name} ({self.of(name):+.3f} [{low:+.3f}, {high:+.3f}])."
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, float]:
        """The strongest cell's effect with its bounds."""
        at = self.names.index(self.strongest(1)[0])
        return {
            "effect": float(self.effect[at]), "low": float(self.low[at]),
            "high": float(self.high[at]), "significant": float((self.p <= 0.05).sum()),
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """The strongest cells as text, one a line."""
        cells = [(self.names.index(name),) for name in self.strongest(n)]
        return statistics.table(
            cells, result=self, named="neurons", value="effect",
            name=lambda cell: self.names[cell[0]],
        )  # fmt: skip


def ablate_each(
    model: HookedModel,
    task: Task | Corpus,
    neurons: Sequence[tuple[int, int]],
    *,
    metric: Metric | None = None,
    ablation: Ablation | effects.Source = "zero",
    memory: str | int = "2GB",
    seed: int = 0,
) -> NeuronEffects:
    """Ablate each of `neurons` in turn, alone, at all positions; as `ablate_sets` says."""
    sets = {str(Neuron(*one)): [one] for one in neurons}
    return ablate_sets(
        model, task, sets, metric=metric, ablation=ablation, memory=memory, seed=seed
    )


def ablate_sets(
    model: HookedModel,
    task: Task | Corpus,
    sets: Mapping[str, Iterable[tuple[int, int]]],
    *,
    metric: Metric | None = None,
    ablation: Ablation | effects.Source = "zero",
    memory: str | int = "2GB",
    seed: int = 0,
) -> NeuronEffects:
    """Ablate each set of neurons together, exactly: the numbers are those of full forwards.

    On a task the metric must be given. On a corpus it is the mean log-probability of each row's
    tokens (minus the loss), and what means and resamples are taken over are its other rows.
    """
    if isinstance(task, Corpus):
        metric, labels = metric or mean_logprob, grounds.of_corpus(model, task)
        task = as_task(task)
    else:
        labels = provenance.labels(model, task)
    if metric is None:
        raise ValueError("say which metric: metric=metrics.logit_diff")
    members = {name: sorted({Neuron(*one) for one in some}) for name, some in sets.items()}
    _check(model, task, members)
    how = Ablating.of(model, task, ablation, [one for some in members.values() for one in some],
                      seed=seed)  # fmt: skip
    cells = [how.cell(some) for some in members.values()]
    found = effects.exact(model, task, cells, metrics=[metric], memory=memory, seed=seed)
    per_prompt = found.effect[0]
    bounds = statistics.bounds(per_prompt, seed=seed)
    test = statistics.permutation_test(per_prompt, seed=seed)
    return NeuronEffects(
        effect=bounds.mean.float(), low=bounds.low.float(), high=bounds.high.float(),
        p=test.corrected.float(), members=torch.tensor([len(some) for some in members.values()]),
        per_prompt=per_prompt, baseline=found.baseline[0], names=list(members),
        metric=metric.name, unit=metric.unit, ablation=how.source, cost=str(found.cost), **labels,
    )  # fmt: skip


def random_sets(
    model: HookedModel, like: Iterable[tuple[int, int]], *, number: int, seed: int
) -> dict[str, list[Neuron]]:
    """Sets with as many neurons in each layer as `like`, of others: what any neurons would cost."""
    layers, width = by_layer(grounds.checked(model, like)), grounds.shape(model)[1]
    found = {}
    for turn in range(number):
        generator = derive(seed, "random neurons", str(turn))
        some: list[Neuron] = []
        for layer, taken in layers.items():
            free = torch.tensor([n for n in range(width) if n not in set(taken)])
            if len(free) < len(taken):
                raise ValueError(
                    f"layer {layer} has {len(free)} other neurons, {len(taken)} needed"
                )
            order = torch.randperm(len(free), generator=generator)[: len(taken)]
            some += [Neuron(layer, n) for n in free[order].tolist()]
        found[f"random {turn}"] = some
    return found


@dataclass(frozen=True, eq=False)
class Ablating:
    """Sets of neurons to the edits that ablate them together; what is written is found once."""

    source: str
    values: Mapping[Site, Float[Tensor, "..."]]

    def cell(self, neurons: Sequence[Neuron]) -> Cell:
        """The edits that ablate all of `neurons` at all positions."""
        return {
            Site("neuron", layer): self._edit(Site("neuron", layer), some)
            for layer, some in by_layer(list(neurons)).items()
        }

    def _edit(self, site: Site, some: list[int]) -> Edit:
        value = self.values.get(site)
        if value is None:
            return edits.zero(neurons=some)
        write = edits.mean if value.ndim == 1 else edits.replace
        return write(value, neurons=some)

    @classmethod
    def of(
        cls, model: HookedModel, task: Task, ablation: Any, neurons: list[Neuron], *, seed: int
    ) -> "Ablating":
        """What `ablation` writes in the layers of these neurons."""
        over = task.corrupt if ablation == "resample" else None
        source = (
            ablation
            if isinstance(ablation, effects.Source)
            else effects.Source(ablation, over=over, seed=seed)
        )
        wanted = [Site("neuron", layer) for layer in by_layer(neurons)]
        if source.kind == "zero":
            return cls("zero", {})
        if source.kind == "mean":
            over = task.corrupt if source.over is None else source.over
            return cls("mean", effects.mean_over(model, over, wanted))
        found = effects.values(model, task, wanted, source=source)
        # GPT-2's matrices refuse the order in memory that a mixture of prompts comes in.
        return cls(str(source), {site: value.contiguous() for site, value in found.items()})


def as_task(corpus: Corpus) -> Task:
    """Rows of a corpus as prompts without an answer, for metrics that read all their tokens."""
    rows = corpus.rows[(corpus.rows.lengths >= 2).nonzero()[:, 0]]
    one = torch.ones(len(rows), 1, dtype=torch.long)
    return Task(corpus.name, rows, rows, one, 0 * one, {}, torch.zeros(len(rows), dtype=torch.long))


def _check(model: HookedModel, task: Task, members: Mapping[str, Sequence[Neuron]]) -> None:
    layers, width = grounds.shape(model)
    for name, some in members.items():
        if not some:
            raise ValueError(f"set {name!r} has no neurons")
        for one in some:
            if not (0 <= one.layer < layers and 0 <= one.neuron < width):
                raise ValueError(
                    f"there is no neuron {one}: layers are 0 to {layers - 1}, "
                    f"neurons 0 to {width - 1}"
                )
    if not members:
        raise ValueError("no neurons were given")
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
