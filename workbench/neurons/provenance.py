"""Which model and which text a result came from."""

from typing import Any

from hooks import HookedModel, sites
from workbench import tasks
from workbench.corpora import Corpus


def of_corpus(model: HookedModel, corpus: Corpus) -> dict[str, Any]:
    """The fields that every result about running text carries."""
    return {"task": str(corpus), "task_digest": corpus.digest, **of_model(model)}


def of_task(model: HookedModel, task: tasks.Task) -> dict[str, Any]:
    """The fields that every result about a task carries."""
    found = tasks.solved(model, task)
    caveat = "" if found.is_solved else f"Caveat: {found.sentence()} The effects may be noise."
    return {
        "task": task.name, "task_digest": task.digest, "caveat": caveat, **of_model(model),
    }  # fmt: skip


def of_model(model: HookedModel) -> dict[str, Any]:
    """The model's name and weights."""
    origin = getattr(model, "origin", None)
    return {
        "model": getattr(origin, "name", "a model"), "model_digest": getattr(origin, "digest", ""),
    }  # fmt: skip


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
