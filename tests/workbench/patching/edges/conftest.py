import pytest

from workbench import metrics
from workbench.patching import EdgeScores, attribute_edges

DIFF = metrics.logit_diff


def attribute(model, task, **how) -> EdgeScores:
    return attribute_edges(model, task, metric=DIFF, **how)


@pytest.fixture(scope="session", name="attribute")
def _attribute():
    return attribute
