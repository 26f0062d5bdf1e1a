"""Neurons that set how sure the model is, not what it says (Stolfo et al. 2024).

Entropy neurons write large vectors where the unembedding hardly reads, and act through the last
norm's scale. Token-frequency neurons move the logits towards, or away from, common tokens.
`variance` is the paper's LogitVar, Var(W_U w / (|W_U| |w|)), tiny for entropy neurons; and their
effect is mostly what is lost when the norm's scale is held.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture
from workbench import effects
from workbench.corpora import Corpus
from workbench.effects.fixed_norm import FixedNorm
from workbench.metrics import Metric
from workbench.neurons import grounds
from workbench.neurons.ablation import Ablating, as_task
from workbench.neurons.naming import Neuron, in_order
from workbench.neurons.writing import out_weights, through_norm
from workbench.results import Result
from workbench.tasks import Task

NULL_SHARE = 0.05
"""The directions that the unembedding reads least, this share of all, count as its null space."""


@dataclass(frozen=True, eq=False)
class Confidence(Result):
    """Which neurons look as if they set the entropy, and what mean ablation of the top does to it.

    `null` is the share of w_out's squared length in the 5 % of directions that the unembedding
    reads least; 0.05 is what a random vector has. `total` and `frozen` are mean absolute changes
    of the entropy at rows' last tokens: `frozen` is the direct effect with the last norm's scale
    held, so an entropy neuron of the last layer has a total and hardly a frozen one.
    """

    length: Float[Tensor, "layer neuron"] = field(metadata={"means": "length of w_out"})
    null: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "share of it the unembedding hardly reads"}
    )
    variance: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "variance of cosines with unembeddings"}
    )
    frequency: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "correlation of its logits with log frequency"}
    )
    chosen: Int[Tensor, "cell part"] = field(
        metadata={"means": "the neurons that were ablated, highest null first"}
    )
    total: Float[Tensor, " cell"] = field(metadata={"means": "mean absolute change of the entropy"})
    frozen: Float[Tensor, " cell"] = field(
        metadata={"means": "the same with the norm's scale held, direct path only"}
    )
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def neurons(self) -> list[Neuron]:
        """The ablated neurons, that with the highest share in the null space first."""
        return [Neuron(*one.tolist()) for one in self.chosen]

    def frequent(self, n: int) -> list[Neuron]:
        """The neurons whose logits follow (or oppose) token frequency most."""
        return in_order(self.frequency.abs(), n)

    def sentence(self) -> str:
        """What was found, in a sentence."""
        one, often = self.neurons[0], self.frequent(1)[0]
        return (
            f"Of {self.null.numel():,} neurons of {self.model}, {one} has most of what it writes "
            f"where the unembedding hardly reads ({float(self.null[one]):.0%}): mean-ablating it "
            f"changes the entropy by {float(self.total[0]):.4f} {self.unit} on {self.task}, "
            f"{float(self.frozen[0]):.4f} with the norm's scale held. Strongest on token "
            f"frequency: {often} (correlation {float(self.frequency[often]):+.2f})."
        )

    def headline(self) -> dict[str, float]:
        """The first neuron's effects on the entropy."""
        return {
            "total": float(self.total[0]), "frozen": float(self.frozen[0]),
            "null": float(self.null[self.neurons[0]]),
        }  # fmt: skip


def _entropy_of(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def _entropy(logits: Tensor, task: Task, prompts: Prompts) -> Tensor:
    return _entropy_of(logits)


entropy = Metric("entropy", "nats", "last", "all", _entropy)
"""Entropy of the next token's distribution at the last position; here higher is not better."""


@torch.no_grad()
def confidence(model: HookedModel, corpus: Corpus, *, n: int = 6, seed: int = 0) -> Confidence:
    """Weights of all neurons, and the effect on the entropy of the `n` most in the null space.

    Those are chosen in the last layer, where a neuron can act through the norm alone.
    """
    grounds.matches(model, corpus)
    layers, width = grounds.shape(model)
    matrix = through_norm(model)
    found = _of_weights(model, matrix, _log_frequency(corpus, len(matrix)))
    last = torch.full((layers, width), torch.nan)
    last[-1] = found["null"][-1]
    chosen = in_order(last, n)
    task = as_task(corpus)
    how = Ablating.of(model, task, "mean", chosen, seed=seed)
    cells = [how.cell([one]) for one in chosen]
    exact = effects.exact(model, task, cells, metrics=[entropy], seed=seed)
    frozen = _frozen(model, task, chosen, how)
    return Confidence(
        **found, chosen=torch.tensor(chosen), total=exact.effect[0].abs().mean(-1),
        frozen=frozen, unit="nats", **grounds.of_corpus(model, corpus),
    )  # fmt: skip


def _of_weights(
    model: Any, matrix: Float[Tensor, "vocab d_model"], frequency: Float[Tensor, " vocab"]
) -> dict[str, Tensor]:
    gram = matrix.double().T @ matrix.double()
    directions = torch.linalg.eigh(gram).eigenvectors  # least read first
    null = directions[:, : max(1, round(NULL_SHARE * len(gram)))]
    rows = model.unembed.W_U.double().T
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    centred = rows - rows.mean(0)
    spread = centred.T @ centred / len(rows)
    seen = torch.isfinite(frequency)
    common = torch.where(seen, frequency, 0.0).double()
    common = torch.where(seen, common - common[seen].mean(), 0.0)
    among = matrix[seen].double() - matrix[seen].double().mean(0)
    toward, within = among.T @ common[seen], among.T @ among
    parts: dict[str, list[Tensor]] = {}
    for layer in range(grounds.shape(model)[0]):
        out = out_weights(model, layer).double()
        length = out.norm(dim=1).clamp(min=1e-30)
        size = ((out @ within) * out).sum(1).clamp(min=0).sqrt() * common.norm()
        of_layer = {
            "length": out.norm(dim=1), "null": (out @ null).square().sum(1) / length**2,
            "variance": ((out @ spread) * out).sum(1) / length**2,
            "frequency": (out @ toward) / size.clamp(min=1e-30),
        }  # fmt: skip
        for name, value in of_layer.items():
            parts.setdefault(name, []).append(value.float().cpu())
    return {name: torch.stack(values) for name, values in parts.items()}


def _log_frequency(corpus: Corpus, vocabulary: int) -> Float[Tensor, " vocab"]:
    """Log counts of the corpus's tokens; minus infinity where a token is not there."""
    real = corpus.rows.tokens[corpus.rows.mask.bool()]
    return torch.bincount(real, minlength=vocabulary)[:vocabulary].double().log()


def _frozen(model: Any, task: Task, chosen: list[Neuron], how: Ablating) -> Float[Tensor, " cell"]:
    """Mean absolute change of the entropy by the direct path, the last norm's scale held."""
    wanted = [Site("final"), *{Site("neuron", one.layer) for one in chosen}]
    seen = capture(model, task.clean, wanted, positions=task.clean.last)
    norm = FixedNorm.of(model, seen[Site("final")])
    before = _entropy_of(model.unembed(norm.normed)[:, 0].float())
    found = []
    for one in chosen:
        site = Site("neuron", one.layer)
        change = how.values[site][one.neuron] - seen[site][:, :, one.neuron]
        added = change[..., None] * out_weights(model, one.layer)[one.neuron]
        after = _entropy_of(model.unembed(norm(added))[:, 0].float())
        found.append((after - before).abs().mean().cpu())
    return torch.stack(found)
