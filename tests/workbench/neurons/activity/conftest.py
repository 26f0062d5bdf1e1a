from collections.abc import Callable

import pytest
from torch import Tensor

from workbench import corpora, neurons


@pytest.fixture
def seen(small, corpus) -> neurons.Activity:
    return neurons.activity(small, corpus, k=4, batch_size=5)


def _real(corpus: corpora.Corpus, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inside = corpus.rows.mask.bool().clone()
    inside[:, 0] = False
    rows, positions = inside.nonzero().T
    return whole[:, rows, positions], rows, positions


@pytest.fixture(scope="session")
def real() -> Callable[[corpora.Corpus, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """`real(corpus, whole)`: (layer, token, neuron) of all tokens but first ones, and each token's
    row and position."""
    return _real
