"""One pass over a corpus that looks at every neuron and keeps only what it adds up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel, Prompts, Site, sites, visit
from hooks.choices import check_choice
from hooks.prompts import check_batch_size
from workbench.corpora import Corpus
from workbench.neurons import counts, grounds, moments
from workbench.neurons.activity import Activity
from workbench.neurons.extremes import Apart
from workbench.neurons.naming import Neurons
from workbench.neurons.states import LayerState
from workbench.neurons.tracing import Tracer, Traces, traces

_CALIBRATION = 8  # rows of the corpus that say how wide histograms are made


@torch.no_grad()
def activity(
    model: HookedModel,
    corpus: Corpus,
    *,
    k: int = 20,
    apart: Apart = "documents",
    stream: Neurons = "neuron",
    batch_size: int = 16,
) -> Activity:
    """What all neurons of `model` do on `corpus`, in one pass and constant memory.

    k           how many of the largest and of the smallest activations are kept of each neuron
    apart       "documents": each document gives a neuron at most one of them; "rows": each row
    stream      "neuron": what enters the MLP's output matrix, for gated MLPs the product of the
                two that follow. "neuron_pre": what is before the non-linearity (the gate).
                "neuron_up": what its result is multiplied by (gated MLPs only)
    batch_size  rows at a time; the numbers are the same bits for any, but for what the model
                itself makes of another batch
    """
    looking = _Pass.begun(model, corpus, k=k, apart=apart, stream=stream, batch_size=batch_size)
    with looking.bar():
        looking.over(looking.batches)
    return looking.found(corpus)


@torch.no_grad()
def activity_and_traces(
    model: HookedModel, corpus: Corpus, *, n: int, batch_size: int = 16
) -> tuple[Activity, Traces]:
    """`activity`, and the traces of `n` neurons that fire most rarely, in one pass and a third.

    They are chosen by what all neurons do in the first third of the rows. The rest is traced as it
    goes by, and the first third is run again.
    """
    looking = _Pass.begun(model, corpus, batch_size=batch_size)
    third = next(at for at, rows in enumerate(looking.batches, 1) if 3 * rows.stop >= len(corpus))
    with looking.bar():
        looking.over(looking.batches[:third])
        first = corpus.chosen(range(looking.batches[third - 1].stop))
        tracer = Tracer.of(looking.found(first).sparsest(n))
        again = traces(model, first, tracer.neurons, batch_size=batch_size)
        looking.over(looking.batches[third:], also=tracer)
    return looking.found(corpus), tracer.found(corpus, behind=again)


@dataclass(eq=False)
class _Pass:
    """A pass over a corpus, a few batches at a time."""

    model: HookedModel
    corpus: Corpus
    batches: list[slice]
    unit: Int[Tensor, " row"]
    k: int
    apart: Apart
    stream: Neurons
    states: dict[int, LayerState] = field(default_factory=dict)
    shown: Any = None

    @classmethod
    def begun(
        cls,
        model: HookedModel,
        corpus: Corpus,
        *,
        k: int = 20,
        apart: Apart = "documents",
        stream: Neurons = "neuron",
        batch_size: int,
    ) -> "_Pass":
        grounds.matches(model, corpus)
        check_choice("apart", apart, Apart)
        check_choice("stream", stream, Neurons)
        check_batch_size(batch_size)
        if k < 1:
            raise ValueError(f"k={k}: keep at least one example of each neuron")
        if int(corpus.rows.lengths.max()) < 2:
            raise ValueError(f"{corpus} has no row of two tokens, and first tokens do not count")
        unit = corpus.document if apart == "documents" else torch.arange(len(corpus))
        batches = list(_batches(len(corpus), batch_size))
        return cls(model, corpus, batches, unit, k, apart, stream)

    def bar(self) -> Any:
        """Progress in tokens, for as long as it is open."""
        self.shown = tqdm(total=self.corpus.tokens, desc="neurons", unit="token", delay=0.5)
        return self.shown

    def over(self, batches: Sequence[slice], also: Tracer | None = None) -> None:
        """Look at some rows; `also` sees them too."""
        wanted = sites.all(self.model, self.stream)
        for rows in batches:
            batch = self.corpus.rows[rows]

            def show(
                site: Site, activation: Tensor, batch: Prompts = batch, rows: slice = rows
            ) -> None:
                self._add(site, activation.cpu(), batch, rows)
                if also is not None:
                    also.see(batch, site, activation)

            visit(self.model, batch, wanted, show)
            self.shown.update(int(batch.lengths.sum()))

    def _add(self, site: Site, activation: Tensor, batch: Prompts, rows: slice) -> None:
        if site.layer not in self.states:
            self.states[site.layer] = LayerState.begun(
                activation, batch.lengths, length=self.corpus.length, k=self.k, name=str(site)
            )
        self.states[site.layer].add(activation, batch.lengths, rows.start, self.unit[rows])

    def found(self, corpus: Corpus) -> Activity:
        """What has been seen so far, which is `corpus`."""
        wanted = sites.all(self.model, self.stream)
        states = [self.states[site.layer] for site in wanted]
        return _finished(self.model, corpus, states, self.apart, self.stream)


def top_activations(
    model: HookedModel, corpus: Corpus, *, k: int = 20, apart: Apart = "documents"
) -> Activity:
    """The `k` largest and smallest activations of every neuron, and all else `activity` counts.

    Geva et al. (2021) say by such examples what a neuron looks for.
    """
    return activity(model, corpus, k=k, apart=apart)


def _batches(rows: int, size: int) -> Iterator[slice]:
    """A first batch of always the same rows, by which histograms are scaled; then `size` each."""
    first = min(_CALIBRATION, rows)
    yield slice(0, first)
    for start in range(first, rows, size):
        yield slice(start, min(start + size, rows))


def _finished(
    model: HookedModel, corpus: Corpus, states: list[LayerState], apart: str, stream: str
) -> Activity:
    lengths = corpus.rows.lengths
    count = int((lengths - 1).sum())
    per_span = torch.tensor(
        [
            int((lengths.clamp(max=end) - start).clamp(min=0).sum())
            for start, end in moments.spans(corpus.length)
        ],
        dtype=torch.float64,
    )
    sums = [state.sums for state in states]
    size, mean, second, third, fourth = torch.stack([one.powers for one in sums], 1) / count
    usual = torch.stack([one.usual for one in sums])
    square = second + 2 * usual * mean + usual**2
    variance = (second - mean**2).clamp(min=0)
    skewness = third - 3 * mean * second + 2 * mean**3
    kurtosis = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    by_span = torch.stack([one.by_span.T for one in sums])
    between = (by_span**2 / per_span.clamp(min=1)).sum(-1) / count - mean**2
    moving = variance > 1e-12 * second.clamp(min=1e-300)
    nothing = torch.full_like(mean, torch.nan)
    sums_first = torch.stack([one.first for one in sums], 1)
    histogram = torch.stack([state.counts for state in states])
    tops, bottoms = [state.top for state in states], [state.bottom for state in states]

    def share(above: Tensor, below: Tensor) -> Tensor:
        return torch.where(moving, above / torch.where(moving, below, 1.0), nothing)

    found: dict[str, Any] = {
        "mean": usual + mean, "deviation": variance.sqrt(), "size": size,
        "skewness": share(skewness, variance**1.5), "kurtosis": share(kurtosis, variance**2),
        "positive": histogram[..., counts.BINS // 2 :].sum(-1).double() / count,
        "sparsity": torch.where(square > 0, 1 - size**2 / square.clamp(min=1e-300), nothing),
        "positional": share(between.clamp(min=0), variance).nan_to_num(nan=0.0).clamp(max=1.0),
        "by_span": usual[..., None] + by_span / per_span.clamp(min=1),
        "first_mean": sums_first[0] / len(lengths),
        "first_size": (sums_first[1] / len(lengths)).sqrt(), "first_largest": sums_first[2],
        "histogram": histogram, "reach": torch.stack([state.reach for state in states]),
        "top": torch.stack([one.value for one in tops]),
        "top_row": torch.stack([one.row for one in tops]),
        "top_position": torch.stack([one.position for one in tops]),
        "bottom": torch.stack([one.value for one in bottoms]),
        "bottom_row": torch.stack([one.row for one in bottoms]),
        "bottom_position": torch.stack([one.position for one in bottoms]),
    }  # fmt: skip
    return Activity(
        **found, tokens=count, apart=apart, stream=stream, **grounds.of_corpus(model, corpus)
    )
