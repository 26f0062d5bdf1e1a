"""All neurons of a model at a glance, and a page's worth on each of some of them."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from workbench.corpora import Corpus
from workbench.models import words
from workbench.neurons import ablation, explaining, grounds
from workbench.neurons.activity import Activity
from workbench.neurons.naming import Neuron
from workbench.neurons.streaming import activity_and_traces
from workbench.neurons.triggers import NO_TOKEN, triggers
from workbench.neurons.writing import out_weights, through_norm
from workbench.results import Result

_WORDS = 8


@dataclass(frozen=True, eq=False)
class Atlas(Result):
    """What every neuron does in a few numbers, and what chosen ones fire at, write and cost.

    `loss` is the change of the mean log-probability of running text when the neuron is
    mean-ablated: negative means that it was helping. NaN: not asked. Its bounds are over rows of
    the text, for each neuron by itself. `score` says how well the explanation predicts the neuron
    on text it was not made from.
    """

    positive: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "share of tokens with an activation above 0"}
    )
    sparsity: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "0: always as strong; near 1: rare"}
    )
    positional: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "share of variance explained by position"}
    )
    largest: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "largest size, first tokens left out"}
    )
    first_largest: Float[Tensor, "layer neuron"] = field(
        metadata={"means": "largest size at a first token"}
    )
    chosen: Int[Tensor, "cell part"] = field(
        metadata={"means": "those with a page: rarest in the first third"}
    )
    histogram: Int[Tensor, "cell bin"] = field(metadata={"means": "tokens in each of 64 bins"})
    reach: Float[Tensor, " cell"] = field(metadata={"means": "bins go from minus to plus this"})
    kinds: Float[Tensor, " cell"] = field(
        metadata={"means": "effective number of tokens it fires at"}
    )
    selectivity: Float[Tensor, " cell"] = field(
        metadata={"means": "of its best token against all others"}
    )
    score: Float[Tensor, " cell"] = field(
        metadata={"means": "how well its explanation predicts it, held out"}
    )
    null: Float[Tensor, " cell"] = field(metadata={"means": "how well others' explanations do"})
    detection: Float[Tensor, " cell"] = field(
        metadata={"means": "does it say in which pieces of text it fires? 0.5: no"}
    )
    fuzzing: Float[Tensor, " cell"] = field(
        metadata={"means": "does it say at which tokens of them? 0.5: no"}
    )
    loss: Float[Tensor, " cell"] = field(
        metadata={"means": "change of the mean log-probability when mean-ablated"}
    )
    loss_low: Float[Tensor, " cell"] = field(metadata={"means": "lower 95 % bound of loss"})
    loss_high: Float[Tensor, " cell"] = field(metadata={"means": "upper 95 % bound of loss"})
    explanation: list[str] = field(metadata={"axis": "cell"})
    contexts: list[list[str]] = field(metadata={"axis": "cell"})
    tokens: list[list[str]] = field(metadata={"axis": "cell"})
    promoted: list[list[str]] = field(metadata={"axis": "cell"})
    suppressed: list[list[str]] = field(metadata={"axis": "cell"})
    dead: int
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def neurons(self) -> list[Neuron]:
        """The neurons that have a page."""
        return [Neuron(*one.tolist()) for one in self.chosen]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        return (
            f"{self.positive.numel():,} neurons of {self.model} on {self.task}: {self.dead} dead. "
            f"Of {len(self.chosen)} looked at closely, {int((self.kinds < 2).sum())} fire at "
            f"effectively one token, and explanations by rules score "
            f"{float(self.score.nanmedian()):.2f} in the median (others' explanations "
            f"{float(self.null.nanmedian()):.2f})."
        )

    def headline(self) -> dict[str, float]:
        """Dead neurons, median score, median kinds of token."""
        return {
            "dead": float(self.dead), "score": float(self.score.nanmedian()),
            "kinds": float(self.kinds.nanmedian()),
        }  # fmt: skip

    def table(self, n: int = 15) -> str:
        """The chosen neurons as text, one a line."""
        lines = [f"{'neuron':<10}{'kinds':>7}{'score':>7}{'loss':>9}  fires at / promotes"]
        for at, one in enumerate(self.neurons[:n]):
            fires, promotes = (
                " ".join(map(repr, some[at][:3])) for some in (self.tokens, self.promoted)
            )
            lines.append(
                f"{one!s:<10}{float(self.kinds[at]):>7.1f}{float(self.score[at]):>7.2f}"
                f"{_shown(float(self.loss[at])):>9}  {fires} / {promotes}"
            )
        return "\n".join(lines)


def atlas(
    model: HookedModel,
    corpus: Corpus,
    *,
    n: int = 24,
    exact: int = 8,
    rows: int = 8,
    seed: int = 0,
) -> Atlas:
    """Look at all neurons, and closely at the `n` that fire most rarely in a third of the corpus.

    The first third of its rows chooses them, so that the rest need not be run again
    (`activity_and_traces`). What is said of them is about all rows.
    The first `exact` of those are also mean-ablated on the first `rows` rows of the corpus.
    """
    seen, traced = activity_and_traces(model, corpus, n=n)
    chosen = traced.neurons
    fires = triggers(model, corpus, chosen, k=_WORDS, seen=traced)
    said = explaining.explain(model, corpus, chosen, seen=traced, seed=seed)
    loss = torch.full((3, len(chosen)), torch.nan)
    if exact:
        few = corpus.chosen(range(min(rows, len(corpus))))
        found = ablation.ablate_each(model, few, chosen[:exact], ablation="mean", seed=seed)
        loss[:, :exact] = torch.stack([found.effect, found.low, found.high])
    promoted, suppressed = _written(model, chosen)
    where = tuple(torch.tensor(chosen).T)
    return Atlas(
        positive=seen.positive.float(), sparsity=seen.sparsity.float(),
        positional=seen.positional.float(), largest=seen.largest,
        first_largest=seen.first_largest.float(), chosen=torch.tensor(chosen),
        histogram=seen.histogram[where], reach=seen.reach[where], kinds=fires.kinds,
        selectivity=fires.selectivity, score=said.score.float(), null=said.null.float(),
        detection=said.detection.float(), fuzzing=said.fuzzing.float(), loss=loss[0],
        loss_low=loss[1], loss_high=loss[2], explanation=said.explanation,
        contexts=_contexts(model, corpus, seen, chosen),
        tokens=[words(model, ids[ids != NO_TOKEN]) for ids in fires.token],
        promoted=promoted, suppressed=suppressed, dead=len(seen.dead), unit="nats per token",
        **grounds.of_corpus(model, corpus),
    )  # fmt: skip


def _shown(loss: float) -> str:
    return "–" if math.isnan(loss) else f"{loss:+.4f}"


def _contexts(model: Any, corpus: Corpus, seen: Activity, chosen: list[Neuron]) -> list[list[str]]:
    return [seen.examples(model, corpus, one, n=_WORDS) or ["(none)"] for one in chosen]


@torch.no_grad()
def _written(model: Any, chosen: list[Neuron]) -> tuple[list[list[str]], list[list[str]]]:
    """The tokens that each chosen neuron promotes and suppresses."""
    matrix = through_norm(model)
    rows = torch.stack([out_weights(model, one.layer)[one.neuron] for one in chosen])
    logits = rows @ matrix.T
    high, low = (logits.topk(_WORDS, dim=1, largest=side).indices for side in (True, False))
    return [words(model, ids) for ids in high], [words(model, ids) for ids in low]
