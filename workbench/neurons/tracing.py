"""What some chosen neurons did at every token of a corpus, kept whole."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import HookedModel, Prompts, Site, visit
from hooks.choices import check_choice
from workbench.corpora import Corpus
from workbench.neurons import grounds
from workbench.neurons.naming import End, Neuron, Neurons, by_layer


@dataclass(frozen=True, eq=False)
class Traces:
    """Activations of chosen neurons at all tokens but rows' first ones, in the corpus's order."""

    neurons: list[Neuron]
    value: Float[Tensor, "token neuron"]
    token: Int[Tensor, " token"]
    before: Int[Tensor, " token"]  # the token before
    after: Int[Tensor, " token"]  # the token after, -1 at the end of a row
    row: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    document: Int[Tensor, " token"]
    corpus: str  # its digest

    def of(self, neuron: tuple[int, int]) -> Float[Tensor, " token"]:
        """One neuron's activations."""
        if Neuron(*neuron) not in self.neurons:
            raise KeyError(f"{Neuron(*neuron)} was not traced; traced: {self.neurons[:5]}")
        return self.value[:, self.neurons.index(Neuron(*neuron))]

    def within(self, chosen: Bool[Tensor, " token"]) -> "Traces":
        """Some of the tokens."""
        tokens = ("value", "token", "before", "after", "row", "position", "document")
        return replace(self, **{name: getattr(self, name)[chosen] for name in tokens})

    def of_end(self, end: End) -> "Traces":
        """The same for the top; for the bottom with every sign turned."""
        check_choice("end", end, End)
        return self if end == "top" else replace(self, value=-self.value)

    def those_of(self, corpus: Corpus, neurons: list[Neuron]) -> "Traces":
        """The traces of `neurons` alone; refused unless they are there, and of `corpus`."""
        if self.corpus != corpus.digest:
            raise ValueError(f"these traces are of another text than {corpus.name}: trace it anew")
        missing = [one for one in neurons if one not in self.neurons]
        if missing:
            raise ValueError(
                f"neuron {missing[0]} was not traced; traced: {', '.join(map(str, self.neurons))}"
            )
        columns = [self.neurons.index(one) for one in neurons]
        return replace(self, neurons=neurons, value=self.value[:, columns])


@torch.no_grad()
def traces(
    model: HookedModel,
    corpus: Corpus,
    neurons: Sequence[tuple[int, int]],
    *,
    stream: Neurons = "neuron",
    batch_size: int = 16,
) -> Traces:
    """Every activation of some neurons; memory grows with tokens times neurons.

    stream  "neuron": what they give, for gated MLPs the product. "neuron_pre" and "neuron_up" are
            what it is made of: the gate before its non-linearity, and what that multiplies
    """
    grounds.matches(model, corpus)
    listed = grounds.checked(model, neurons)
    if not listed:
        raise ValueError("no neurons were given")
    tracer = Tracer.of(listed)
    wanted = [Site(stream, layer) for layer in tracer.layers]
    for batch in corpus.rows.batches(batch_size):
        visit(model, batch, wanted, partial(tracer.see, batch))
    return tracer.found(corpus)


@dataclass(frozen=True, eq=False)
class Tracer:
    """Keeps what chosen neurons do while batches go by, in the order of the corpus."""

    neurons: list[Neuron]
    layers: dict[int, list[int]]
    parts: dict[int, list[Tensor]]

    @classmethod
    def of(cls, neurons: list[Neuron]) -> "Tracer":
        """Nothing yet."""
        layers = by_layer(neurons)
        return cls(neurons, layers, {layer: [] for layer in layers})

    def see(self, batch: Prompts, site: Site, activation: Tensor) -> None:
        """What flowed through a site; of layers without a chosen neuron nothing is kept."""
        if site.layer in self.layers:
            some = activation[..., self.layers[site.layer]].cpu()
            self.parts[site.layer].append(some[_inside(batch)].float())

    def found(self, corpus: Corpus, *, behind: Traces | None = None) -> Traces:
        """The traces of `corpus`: all rows that have gone by, `behind` those that were traced."""
        order = [Neuron(layer, one) for layer, some in self.layers.items() for one in some]
        columns = torch.tensor([order.index(one) for one in self.neurons])
        value = [] if behind is None else [behind.value]
        if any(self.parts.values()):
            seen = torch.cat([torch.cat(self.parts[layer]) for layer in self.layers], dim=1)
            value.append(seen[:, columns])
        return _placed(corpus, self.neurons, torch.cat(value))


def _inside(prompts: Prompts) -> Bool[Tensor, "row pos"]:
    inside = prompts.mask.bool().clone()
    inside[:, 0] = False
    return inside


def _placed(corpus: Corpus, listed: list[Neuron], value: Tensor) -> Traces:
    inside = _inside(corpus.rows)
    rows, positions = inside.nonzero().T
    tokens = corpus.rows.tokens
    following = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -1)], dim=1)
    last = positions == corpus.rows.lengths[rows] - 1
    after = torch.where(last, -1, following[rows, positions])
    return Traces(
        listed, value, tokens[rows, positions], tokens[rows, positions - 1], after, rows,
        positions, corpus.document[rows], corpus.digest,
    )  # fmt: skip
