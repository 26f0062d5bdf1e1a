import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = '''"""Is noise zero on average?

Question   Is it?
Method     Draw and average.
Compare    With zero.
Read       Far from zero: no.
Caveat     It is noise.
"""

import logging
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from workbench import models, plots, runs
from workbench.results import Result


@dataclass(frozen=True)
class Config:
    """What is drawn."""

    model: str = "tiny"
    size: int = 4  # how many numbers are drawn
    shift: float = 0.0
    way: Literal["plain", "fail", "warn", "discard", "slow", "break"] = "plain"
    seed: int = 0

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size is {self.size}: draw at least one number")


@dataclass(frozen=True, eq=False)
class Answer(Result):
    """The mean of what was drawn."""

    draws: Float[Tensor, " batch"]
    low: Float[Tensor, " batch"]
    high: Float[Tensor, " batch"]
    model: str
    model_digest: str

    def sentence(self):
        return f"The mean is {self.draws.mean():.3f}."

    def headline(self):
        mean = float(self.draws.mean())
        return {"mean": mean, "low": mean - 1, "high": mean + 1, "count": len(self.draws)}

    def table(self):
        return "a table of draws"


@plots.draw.register(Answer)
def _draw(result, ax=None):
    from matplotlib.figure import Figure
    return Figure()


def run(config: Config) -> Answer:
    """draws -> their mean"""
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{config.seed}\\n")
    model = models.load(config.model)
    if config.way == "fail":
        raise ValueError("this cell cannot be measured")
    if config.way == "warn":
        for _ in range(3):
            warnings.warn("the paint is wet", UserWarning)
        logging.getLogger("transformers.somewhere").warning("the floor is wet")
    if config.way == "discard":
        warnings.warn("The edit is discarded and does not affect the model's output.", UserWarning)
    if config.way == "slow":
        time.sleep(float(os.environ.get("SLOWLY", "60")))
    if config.way == "break":
        with torch.no_grad():
            next(model.original_model.parameters()).add_(1.0)
    size = config.size
    wide = torch.randn(size, 300) @ torch.randn(300, 300)
    draws = wide.mean(1) + float(numpy.random.rand()) + config.shift
    return Answer(draws, draws - 1, draws + 1, config.model, model.origin.digest)


if __name__ == "__main__":
    runs.main(run, Config)
'''


@pytest.fixture
def calls(tmp_path, monkeypatch) -> Path:
    """A file with one line for each time that the experiment was really run."""
    file = tmp_path / "calls"
    file.touch()
    monkeypatch.setenv("CALLS", str(file))
    return file


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty runs folder."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def noise(tmp_path, monkeypatch, calls, home) -> ModuleType:
    """An experiment in the folder `experiments` of the current directory."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "noise.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    package = importlib.import_module("experiments")
    monkeypatch.setattr(package, "__path__", [str(tmp_path / "experiments"), *package.__path__])
    sys.modules.pop("experiments.noise", None)
    yield importlib.import_module("experiments.noise")
    sys.modules.pop("experiments.noise", None)
