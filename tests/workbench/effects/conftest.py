import pytest
import torch

from hooks import Prompts
from workbench.models import twins
from workbench.tasks import Task


def task_of(lengths, *, seed=3, width=7) -> Task:
    """Random prompts of a twin's 67 ids; the clean and corrupt ones have nothing in common."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(lengths)
    clean, corrupt = torch.randint(3, 60, (2, rows, width), generator=generator)
    answer, foil = torch.randint(3, 60, (2, rows, 1), generator=generator)
    lengths = torch.tensor(lengths)
    return Task(
        "by hand", Prompts(clean, lengths), Prompts(corrupt, lengths), answer, foil, {},
        torch.zeros(rows, dtype=torch.long),
    )  # fmt: skip


@pytest.fixture
def padded() -> Task:
    return task_of([7, 5, 3])


@pytest.fixture
def even() -> Task:
    return task_of([7, 7, 7])


@pytest.fixture
def blank():
    """Two attention layers without norms, wired by nothing yet: logits = the residual stream.

    The residual stream has 32 dimensions, the 67 logits are its first 32; 4 heads of 8.
    """
    model, _ = twins.make("native, attention only")
    for weight in model.original_model.parameters():
        weight.data.zero_()
    model.original_model.head._original_component.weight.data[:32] = torch.eye(32)
    return model
