"""Which few neurons know a concept: k-sparse probes and shuffled labels (Gurnee et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts, capture, sites
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron
from workbench.results import Result
from workbench.statistics import derive
from workbench.tasks import Task, provenance

_RIDGE, _STEPS = 1e-2, 30


@dataclass(frozen=True, eq=False)
class ConceptNeurons(Result):
    """How well the k best neurons tell two classes of prompts apart, held out. Chance is 0.5.

    `accuracy` is balanced. Neurons are chosen and probes fitted on one half of the prompts and
    judged on the other. `null` does all of it with the labels of the fitting half shuffled:
    choosing among many neurons finds some that fit anything. `p` is the share of shuffles that
    do as well, and `separation` each neuron's standardised difference of the classes' means.
    """

    separation: Float[Tensor, "layer neuron"] = field(metadata={"means": "difference / deviation"})
    accuracy: Float[Tensor, " k"] = field(metadata={"means": "balanced accuracy, held out"})
    null: Float[Tensor, "k shuffle"] = field(metadata={"means": "the same for shuffled labels"})
    p: Float[Tensor, " k"] = field(metadata={"means": "share of shuffles that do as well"})
    ks: Int[Tensor, " k"] = field(metadata={"means": "how many neurons"})
    chosen: Int[Tensor, "cell part"] = field(metadata={"means": "the most neurons, best first"})
    weights: Float[Tensor, " cell"] = field(metadata={"means": "their weights, standardised"})
    concept: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def neurons(self) -> list[Neuron]:
        """The chosen neurons, the one that separates best first."""
        return [Neuron(*one.tolist()) for one in self.chosen]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        one, most = float(self.accuracy[0]), float(self.accuracy[-1])
        return (
            f"{self.concept} on {self.task} in {self.model}: the best {int(self.ks[0])} of "
            f"{self.separation.numel():,} neurons ({self.neurons[0]}) tells it with balanced "
            f"accuracy {one:.2f} (shuffled labels {float(self.null[0].mean()):.2f}, "
            f"p = {float(self.p[0]):.3f}), the best {int(self.ks[-1])} with {most:.2f} "
            f"({float(self.null[-1].mean()):.2f})."
        )

    def headline(self) -> dict[str, float]:
        """The accuracies of the fewest and of the most neurons, and the first's p."""
        return {
            "accuracy": float(self.accuracy[0]), "accuracy_most": float(self.accuracy[-1]),
            "p": float(self.p[0]),
        }  # fmt: skip

    def table(self) -> str:
        """One line for each number of neurons."""
        lines = [f"{'neurons':<10}{'accuracy':>10}{'shuffled':>10}{'p':>8}"]
        for at, k in enumerate(self.ks.tolist()):
            lines.append(
                f"{k:<10}{float(self.accuracy[at]):>10.3f}{float(self.null[at].mean()):>10.3f}"
                f"{float(self.p[at]):>8.3f}"
            )
        return "\n".join(lines)


@torch.no_grad()
def find_concept(
    model: HookedModel,
    task: Task,
    labels: Bool[Tensor, " batch"],
    *,
    concept: str = "the label",
    positions: Int[Tensor, " batch"] | None = None,
    ks: Sequence[int] = (1, 2, 4, 8),
    shuffles: int = 100,
    seed: int = 0,
) -> ConceptNeurons:
    """The few neurons that tell apart the clean prompts with and without a label.

    positions  one for each prompt, such as `task.positions["subject"]`; none: the last token
    """
    at = task.clean.last if positions is None else positions
    x = activations(model, task.clean, at)
    layers, width = grounds.shape(model)
    train = halves(labels, seed=seed)
    found = sparse_probes(x, labels, train=train, ks=ks, shuffles=shuffles, seed=seed)
    chosen, weights, accuracy, null = found
    p = (1 + (null >= accuracy[:, None]).sum(1)) / (1 + shuffles)
    return ConceptNeurons(
        separation=separation(x[train], labels[train]).float().reshape(layers, width),
        accuracy=accuracy, null=null, p=p.float(), ks=torch.tensor(list(ks)),
        chosen=torch.stack([chosen // width, chosen % width], dim=1), weights=weights,
        concept=concept, task=task.name, task_digest=task.digest, **provenance.of_model(model),
    )  # fmt: skip


def activations(
    model: HookedModel, prompts: Prompts, at: Int[Tensor, " batch"], *, batch_size: int = 64
) -> Float[Tensor, "batch feature"]:
    """All neurons of all layers at one position of each prompt."""
    wanted, parts = sites.all(model, "neuron"), []
    for start in range(0, len(prompts), batch_size):
        some = slice(start, start + batch_size)
        seen = capture(model, prompts[some], wanted, positions=at[some])
        parts.append(torch.cat([seen[site][:, 0].float().cpu() for site in wanted], dim=1))
    return torch.cat(parts)


def halves(labels: Bool[Tensor, " batch"], *, seed: int) -> Bool[Tensor, " batch"]:
    """True for a random half of each class, which probes are fitted on."""
    train = torch.zeros_like(labels)
    for side in (True, False):
        rows = (labels == side).nonzero()[:, 0]
        if len(rows) < 4:
            raise ValueError(f"{len(rows)} prompts are labelled {side}: at least 4 are needed")
        order = torch.randperm(len(rows), generator=derive(seed, "halves", str(side)))
        train[rows[order[: len(rows) // 2]]] = True
    return train


def separation(
    x: Float[Tensor, "batch feature"], labels: Bool[Tensor, " batch"]
) -> Float[Tensor, " feature"]:
    """Difference of the classes' means over the standard deviation; 0 where nothing varies."""
    x = x.double()
    spread = x.std(0, unbiased=False)
    difference = x[labels].mean(0) - x[~labels].mean(0)
    return torch.where(spread > 1e-9, difference / spread.clamp(min=1e-9), 0.0)


def sparse_probes(
    x: Float[Tensor, "batch feature"],
    labels: Bool[Tensor, " batch"],
    *,
    train: Bool[Tensor, " batch"],
    ks: Sequence[int],
    shuffles: int,
    seed: int,
) -> tuple[Int[Tensor, " cell"], Float[Tensor, " cell"], Float[Tensor, " k"], Tensor]:
    """Chosen features and weights of the largest k, held-out accuracy of each k, and its null."""
    fit, held = x[train], x[~train]
    right = labels[train]
    accuracy, chosen, weights = _judged(fit, right, held, labels[~train], ks)
    null = torch.empty(len(ks), shuffles)
    for turn in range(shuffles):
        order = torch.randperm(len(right), generator=derive(seed, "shuffle", str(turn)))
        null[:, turn] = _judged(fit, right[order], held, labels[~train], ks)[0]
    return chosen, weights, accuracy, null


def _judged(
    fit: Tensor, right: Tensor, held: Tensor, truth: Tensor, ks: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    order = (-separation(fit, right).abs()).argsort(stable=True)[: max(ks)]
    mean, spread = fit[:, order].double().mean(0), fit[:, order].double().std(0).clamp(min=1e-9)
    here, there = ((part[:, order].double() - mean) / spread for part in (fit, held))
    scores, weights = [], torch.zeros(len(order))
    for k in ks:
        solved = logistic(here[:, :k], right)
        said = there[:, :k] @ solved[:-1] + solved[-1] > 0
        scores.append(((said & truth).sum() / truth.sum()
                       + (~said & ~truth).sum() / (~truth).sum()) / 2)  # fmt: skip
        weights = solved[:-1].float()
    return torch.stack(scores).float(), order[: max(ks)], weights


def logistic(
    x: Float[Tensor, "batch feature"], labels: Bool[Tensor, " batch"]
) -> Float[Tensor, " weight"]:
    """A ridge-penalised logistic fit with both classes counting alike (Newton); bias last."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    y = labels.double()
    share = torch.where(labels, 0.5 / y.mean(), 0.5 / (1 - y).mean()) / len(y)
    penalty = _RIDGE * torch.ones(design.shape[1], dtype=x.dtype)
    penalty[-1] = 1e-9
    weights = torch.zeros(design.shape[1], dtype=x.dtype)
    for _ in range(_STEPS):
        chance = torch.sigmoid(design @ weights)
        slope = design.T @ (share * (chance - y)) + penalty * weights
        curve = (design * (share * chance * (1 - chance))[:, None]).T @ design + penalty.diag()
        step = torch.linalg.solve(curve, slope)
        weights = weights - step
        if float(step.abs().max()) < 1e-10:
            break
    return weights
