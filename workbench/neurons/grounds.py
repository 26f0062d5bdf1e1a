"""Which text a result came from, and whether model and text are what an analysis needs."""

from collections.abc import Iterable
from typing import Any

from hooks import HookedModel, sites
from workbench.corpora import Corpus
from workbench.neurons.naming import Neuron
from workbench.tasks.provenance import of_model


def of_corpus(model: HookedModel, corpus: Corpus) -> dict[str, Any]:
    """The fields that every result about running text carries."""
    return {"task": str(corpus), "task_digest": corpus.digest, **of_model(model)}


def shape(model: HookedModel) -> tuple[int, int]:
    """Layers, and neurons in each; refused where the model has no neurons that can be read."""
    layers = len(sites.all(model, "neuron"))
    # Not from the configuration: for some architectures TransformerLens guesses it there.
    return layers, model.blocks[0].mlp.W_out.shape[0]


def checked(model: HookedModel, neurons: Iterable[tuple[int, int]]) -> list[Neuron]:
    """These neurons, or an error that names one that the model does not have."""
    layers, width = shape(model)
    listed = [Neuron(*one) for one in neurons]
    for one in listed:
        if not (0 <= one.layer < layers and 0 <= one.neuron < width):
            raise ValueError(
                f"there is no neuron {one}: layers are 0 to {layers - 1}, neurons 0 to {width - 1}"
            )
    return listed


def matches(model: HookedModel, corpus: Corpus) -> None:
    """Raise where the corpus was made with another tokenizer."""
    own = getattr(model.origin, "tokenizer", "")
    if own != corpus.tokenizer:
        raise ValueError(
            f"{corpus.name} is in the tokens of another tokenizer than {model.origin.name}'s: "
            "make the corpus with this model"
        )
