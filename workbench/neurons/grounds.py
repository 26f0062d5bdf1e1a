"""Which text a result came from, and whether model and text are what an analysis needs."""

from typing import Any

from hooks import HookedModel, sites
from workbench.corpora import Corpus
from workbench.tasks.provenance import of_model


def of_corpus(model: HookedModel, corpus: Corpus) -> dict[str, Any]:
    """The fields that every result about running text carries."""
    return {"task": str(corpus), "task_digest": corpus.digest, **of_model(model)}


def shape(model: HookedModel) -> tuple[int, int]:
    """Layers, and neurons in each; refused where the model has no neurons that can be read."""
    layers = len(sites.all(model, "neuron"))
    # Not from the configuration: for some architectures TransformerLens guesses it there.
    return layers, model.blocks[0].mlp.W_out.shape[0]


def matches(model: HookedModel, corpus: Corpus) -> None:
    """Raise where the corpus was made with another tokenizer."""
    own = getattr(model.origin, "tokenizer", "")
    if own != corpus.tokenizer:
        raise ValueError(
            f"{corpus.name} is in the tokens of another tokenizer than {model.origin.name}'s: "
            "make the corpus with this model"
        )
