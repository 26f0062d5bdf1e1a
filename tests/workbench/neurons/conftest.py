import pytest
import torch

from hooks import Site, capture
from workbench import corpora, models


@pytest.fixture(scope="session")
def small_models(tiny, tiny_gqa) -> dict[str, models.Model]:
    return {"tiny": tiny, "tiny-gqa": tiny_gqa}


@pytest.fixture
def corpus(small) -> corpora.Corpus:
    return corpora.passages(small, length=24)


@pytest.fixture(scope="session")
def everything():
    """Every activation of every neuron, kept whole: (layer, row, pos, neuron)."""

    def read(model, corpus, stream="neuron"):
        wanted = [Site(stream, layer) for layer in range(model.cfg.n_layers)]
        seen = capture(model, corpus.rows, wanted)
        return torch.stack([seen[site] for site in wanted])

    return read
