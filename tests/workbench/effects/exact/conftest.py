"""Effects of cells, exact: a twin, a task whose answers are sets, and cells of every stream."""

from dataclasses import replace

import pytest
import torch

from hooks import Site, capture, edits, last_logits
from workbench import metrics
from workbench.metrics import Metric
from workbench.models import twins
from workbench.tasks import Task

STREAMS = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z", "neuron")
ALONE = [one for one in vars(metrics).values() if isinstance(one, Metric)]


@pytest.fixture(scope="session", name="ALONE")
def _alone():
    """The metrics that need nothing besides."""
    return ALONE


@pytest.fixture(scope="module")
def model():
    return twins.make("Llama")[0]


@pytest.fixture
def task(padded) -> Task:
    """Answers and foils that are sets of up to three ids, some shorter than others."""
    answer = torch.tensor([[5, 9, -1], [11, -1, -1], [3, 20, 30]])
    foil = torch.tensor([[7, -1], [50, 51], [12, 5]])
    return replace(padded, answer=answer, foil=foil)


def _cells_of(model, others):
    """Every stream: one position of each prompt patched from others, and all of them scaled."""
    sites = [Site(stream, index % model.cfg.n_layers) for index, stream in enumerate(STREAMS)]
    there = capture(model, others, sites)
    at = torch.tensor([5, 1, 2])
    cells = [{site: edits.replace(there[site], positions=at)} for site in sites]
    cells += [{site: edits.scale(0.5)} for site in sites[::2]]
    return [*cells, {Site("embed"): edits.zero(positions=0)}, {sites[0]: torch.zeros_like}]


@pytest.fixture(scope="session")
def cells_of():
    return _cells_of


def _all_metrics(model, task):
    return [*ALONE, metrics.minus_kl(last_logits(model, task.corrupt)[:, 0])]


@pytest.fixture(scope="session")
def all_metrics():
    return _all_metrics
