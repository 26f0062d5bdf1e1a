"""Each known trap of TransformerLens 4.3 that concerns us, and that we do not fall into it."""

import pytest

from workbench import models
from workbench.models import twins


@pytest.fixture
def llama() -> models.Model:
    return twins.make("Llama")[0]


@pytest.fixture
def bert() -> models.Model:
    return twins.make("BERT")[0]
