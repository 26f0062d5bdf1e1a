import numpy as np
import pytest
import torch

from workbench import statistics


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture(scope="session", name="vector")
def _vector():
    return vector


def coverage(samples: np.ndarray, truth: float, groups: list[int] | None = None) -> float:
    """The share of data sets (rows) whose bounds hold the truth; resamples change every 100."""
    blocks = [
        torch.from_numpy(samples[start : start + 100]) for start in range(0, len(samples), 100)
    ]
    found = [statistics.bounds(one, groups=groups, seed=n) for n, one in enumerate(blocks)]
    held = [(one.low <= truth) & (truth <= one.high) for one in found]
    return torch.cat(held).double().mean().item()


@pytest.fixture(scope="session", name="coverage")
def _coverage():
    return coverage
