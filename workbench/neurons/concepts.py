"""Which few neurons know a concept: k-sparse probes and shuffled labels (Gurnee et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts, capture, sites
from workbench.neurons import grounds
from workbench.neurons.naming import Neuron
from workbench.neurons.sparse import halves, separation, sparse_probes
from workbench.results import Result
from workbench.tasks import Task, provenance


@dataclass(frozen=True, eq=False)
class ConceptNeurons(Result):
    """How well the k best neurons tell two classes of prompts apart, held out. Chance is 0.5.

    `accuracy` is balanced. Neurons are chosen and probes fitted on one half of the `groups` of
    prompts and judged on the other. `null` does all of it with the labels of the fitting half
    shuffled, whole groups (or their part of one label) at once: choosing among many neurons finds
    some that fit anything. `p` is the share of shuffles that do as well, and `separation` each
    neuron's standardised difference of the classes' means.
    """

    separation: Float[Tensor, "layer neuron"] = field(metadata={"means": "difference / deviation"})
    accuracy: Float[Tensor, " k"] = field(metadata={"means": "balanced accuracy, held out"})
    null: Float[Tensor, "k shuffle"] = field(metadata={"means": "the same for shuffled labels"})
    p: Float[Tensor, " k"] = field(metadata={"means": "share of shuffles that do as well"})
    ks: Int[Tensor, " k"] = field(metadata={"means": "how many neurons"})
    chosen: Int[Tensor, "cell part"] = field(metadata={"means": "the most neurons, best first"})
    weights: Float[Tensor, " cell"] = field(metadata={"means": "their weights, standardised"})
    groups: int
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
            f"{self.concept} on {self.task} in {self.model}, judged on other groups of prompts (of "
            f"{self.groups}) than it was found in: the best {int(self.ks[0])} of "
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
    groups: Int[Tensor, " batch"] | None = None,
    ks: Sequence[int] = (1, 2, 4, 8),
    shuffles: int = 100,
    seed: int = 0,
) -> ConceptNeurons:
    """The few neurons that tell apart the clean prompts with and without a label.

    positions  one for each prompt, such as `task.positions["subject"]`; none: the last token
    groups     which prompts belong together (those about one noun, say): none is fitted on in one
               prompt and judged on in another. None: prompts that read the same up to their
               position are one group
    """
    at = task.clean.last if positions is None else positions
    _check(task, labels, at, groups, ks=ks, shuffles=shuffles)
    layers, width = grounds.shape(model)
    if max(ks) > layers * width:
        raise ValueError(f"ks={tuple(ks)}: the model has {layers * width} neurons")
    groups = same_until(task.clean, at) if groups is None else groups
    train = halves(labels, groups, seed=seed)
    x = activations(model, task.clean, at)
    if bool((bad := ~torch.isfinite(x)).any()):
        row, feature = bad.nonzero()[0].tolist()
        raise FloatingPointError(
            f"NaN or Inf in neuron {Neuron(*divmod(feature, width))} at prompt {row} of {task.name}"
        )
    chosen, weights, accuracy, null = sparse_probes(
        x, labels, groups=groups, train=train, ks=ks, shuffles=shuffles, seed=seed
    )
    p = (1 + (null >= accuracy[:, None]).sum(1)) / (1 + shuffles)
    return ConceptNeurons(
        separation=separation(x[train], labels[train]).float().reshape(layers, width),
        accuracy=accuracy, null=null, p=p.float(), ks=torch.tensor(list(ks)),
        chosen=torch.stack([chosen // width, chosen % width], dim=1), weights=weights,
        groups=len(groups.unique()), concept=concept, task=task.name, task_digest=task.digest,
        **provenance.of_model(model),
    )  # fmt: skip


def same_until(prompts: Prompts, at: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """A number for each prompt, the same for those whose tokens are the same up to `at`."""
    kept = torch.arange(prompts.tokens.shape[1]) <= at[:, None].cpu()
    tokens = prompts.tokens.cpu().masked_fill(~kept, -1)
    return tokens.unique(dim=0, return_inverse=True)[1]


def _check(
    task: Task, labels: Tensor, at: Tensor, groups: Tensor | None, *, ks: Sequence[int],
    shuffles: int,
) -> None:  # fmt: skip
    if labels.dtype != torch.bool:
        raise TypeError(f"labels are True or False for each prompt, found {labels.dtype}")
    for what, some in (("labels", labels), ("positions", at), ("groups", groups)):
        if some is not None and some.shape != (len(task),):
            raise ValueError(
                f"{what} of shape {tuple(some.shape)} for {len(task)} prompts: one for each"
            )
    outside = ((at < 0) | (at >= task.clean.lengths)).nonzero()[:, 0].tolist()
    if outside:
        row = outside[0]
        raise ValueError(
            f"position {int(at[row])} of prompt {row}, which has {int(task.clean.lengths[row])} "
            "tokens"
        )
    if not ks or min(ks) < 1 or sorted(set(ks)) != list(ks):
        raise ValueError(f"ks={tuple(ks)}: numbers of neurons from 1 on, each larger than the last")
    if shuffles < 1:
        raise ValueError(f"shuffles={shuffles}: at least one is needed to compare with")


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
