import pytest

from workbench import models
from workbench.models import twins


@pytest.fixture
def llama() -> models.Model:
    return twins.make("Llama")[0]


@pytest.fixture
def bert() -> models.Model:
    return twins.make("BERT")[0]
