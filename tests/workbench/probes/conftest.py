from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hooks import Prompts
from workbench import probes
from workbench.models import twins
from workbench.tasks import Task


@pytest.fixture
def noisy() -> Callable[..., probes.Examples]:
    """Correlated activations in layers of growing signal, and noisy labels of some classes."""

    def make(*, layers=2, count=120, width=12, classes=2, seed=0) -> probes.Examples:
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(4, width, generator=generator)
        y = torch.arange(count) % classes
        y = y[torch.randperm(count, generator=generator)]
        centres = torch.randn(classes, width, generator=generator)
        x = torch.randn(layers, count, 4, generator=generator) @ mixing
        x = x + torch.randn(layers, count, width, generator=generator)
        signal = torch.arange(1, layers + 1)[:, None, None] / layers
        return probes.examples(3 * x + signal * centres[y] + 2, y)

    return make


@pytest.fixture
def reference() -> Callable[..., tuple[float, np.ndarray, np.ndarray]]:
    """Scipy's L-BFGS-B on the stated objective, written out once more: loss, weight, bias."""

    def minimised(x, y, l2):
        x, y = x.double().numpy(), y.numpy()
        mean, deviation = x.mean(0), x.std(0)
        x = (x - mean) / deviation
        classes = int(y.max()) + 1
        hot = np.eye(classes)[y]

        def objective(flat):
            weight = flat.reshape(classes, -1)
            scores = x @ weight[:, :-1].T + weight[:, -1]
            scores = scores - scores.max(1, keepdims=True)
            chance = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            loss = -np.log((chance * hot).sum(1)).mean() + l2 / 2 * (weight[:, :-1] ** 2).sum()
            residual = (chance - hot) / len(x)
            slope = residual.T @ x + l2 * weight[:, :-1]
            return loss, np.c_[slope, residual.sum(0)].ravel()

        start = np.zeros(classes * (x.shape[1] + 1))
        options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        weight = found.x.reshape(classes, -1)
        raw = weight[:, :-1] / deviation
        return float(found.fun), raw, weight[:, -1] - raw @ mean

    return minimised


@pytest.fixture(scope="session")
def planted():
    """A model without norms, whose attention adds nothing, and a task on it.

    Coordinate 0 of a noun's embedding is its number, and the logits of tokens 1 and 2 read it;
    coordinate 1 is another bit of the noun, which nothing reads. The nouns are tokens 10 to 49.
    `read` has what each logit reads off the residual stream: the model is linear in it.
    """
    model, _ = twins.make("native, attention only")
    generator = torch.Generator().manual_seed(0)
    number, other = torch.arange(40) % 2, torch.arange(40) // 2 % 2
    with torch.no_grad():
        for name, weight in model.original_model.named_parameters():
            if ".o." in name or name.startswith("pos") or name.endswith("bias"):
                weight.zero_()
            elif "embed" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
                weight[:, :2] = 0
                weight[10:50, 0], weight[10:50, 1] = 2.0 * number - 1, 2.0 * other - 1
            elif name.startswith("head"):
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
                weight[:, :2] = 0
                weight[1, 0], weight[2, 0] = 2.0, -2.0
                read = weight.detach()
    noun = torch.arange(40)
    before = torch.randint(50, 67, (40, 2), generator=generator)
    clean = torch.cat([before, noun[:, None] + 10], dim=1)
    corrupt = torch.cat([before, (noun ^ 1)[:, None] + 10], dim=1)
    answer = torch.where(number == 1, 1, 2)[:, None]
    task = Task(
        "planted number", Prompts.of(clean), Prompts.of(corrupt), answer, 3 - answer,
        {"noun": torch.full((40,), 2)}, torch.zeros(40).long(),
    )  # fmt: skip
    return SimpleNamespace(model=model, task=task, number=number, other=other, read=read)
