import pytest

from workbench import heads, models, tasks


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0)


@pytest.fixture(scope="module")
def found(model, task):
    return heads.similarity(model, task, seed=0)
