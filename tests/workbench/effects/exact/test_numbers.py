"""Metrics of many cells: those of one forward pass for each."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits
from workbench import effects, metrics, models, tasks
from workbench.metrics import Metric


def test_there_are_as_many_metrics_as_these_tests_think(ALONE):
    assert sorted(one.name for one in ALONE) == [
        "accuracy", "answer_logprob", "answer_prob", "logit_diff", "mean_logprob",
    ]  # fmt: skip


@pytest.mark.parametrize("run", ["clean", "corrupt"])
@pytest.mark.parametrize(
    "chosen",
    [
        slice(None),
        ["accuracy", "logit_diff"],
        ["answer_logprob"],
        ["mean_logprob", "logit_diff"],
    ],
    ids=str,
)
def test_several_metrics_from_one_sweep_are_those_of_a_pass_for_each_cell(
    model, task, run, chosen, cells_of, all_metrics
):
    wanted = all_metrics(model, task)
    if isinstance(chosen, list):
        wanted = [next(one for one in wanted if one.name == name) for name in chosen]
    prompts, others = (task.clean, task.corrupt)[:: 1 if run == "clean" else -1]
    cells = cells_of(model, others)
    found = effects.exact(model, task, cells, metrics=wanted, run=run)
    assert found.values.shape == (len(wanted), len(cells), 3)
    assert found.metrics == tuple(wanted)
    moved = 0
    for which, metric in enumerate(wanted):
        plain = effects.measure(model, task, metric=metric, prompts=prompts)
        assert_close(found.baseline[which], plain, rtol=1e-5, atol=1e-5)
        for index, cell in enumerate(cells):
            expected = effects.measure(model, task, metric=metric, edits=cell, prompts=prompts)
            assert_close(found.values[which, index], expected, rtol=1e-5, atol=1e-5)
            assert_close(found.effect[which, index], expected - plain, rtol=1e-5, atol=2e-5)
            moved += int(not expected.equal(plain))
    assert moved > len(cells) / 2


def test_a_metric_of_ones_own_is_measured_too(model, task):
    def entropy(logits, task, prompts):
        logprobs = logits.log_softmax(dim=-1)
        return -(logprobs.exp() * logprobs).sum(dim=-1)

    mine = Metric("entropy", "nats", "last", "all", entropy)
    cells = [{Site("z", 0): edits.zero(heads=[1])}, {Site("v", 1): edits.zero()}]
    found = effects.exact(model, task, cells, metrics=[mine])
    for index, cell in enumerate(cells):
        expected = effects.measure(model, task, metric=mine, edits=cell)
        assert_close(found.values[0, index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_the_precision_of_the_model_is_kept_and_metrics_are_in_single_precision(name):
    for dtype, close in ((torch.float64, 1e-6), (torch.bfloat16, 0.1)):
        model = models.load(name, dtype=dtype)
        task = tasks.ioi(model, prompts=4, seed=0)
        cells = [{Site("z", layer): edits.zero(heads=[h])} for layer in (0, 1) for h in range(4)]
        found = effects.exact(model, task, cells, metrics=[metrics.answer_logprob])
        assert found.values.dtype == torch.float32
        for index, cell in enumerate(cells):
            expected = effects.measure(model, task, metric=metrics.answer_logprob, edits=cell)
            assert_close(found.values[0, index], expected, rtol=0, atol=close)


def test_a_sweep_leaves_the_model_as_it_was(model, task, unharmed, cells_of, all_metrics):
    before = model(task.clean)
    with unharmed(model):
        effects.exact(model, task, cells_of(model, task.corrupt), metrics=all_metrics(model, task))
    assert model(task.clean).equal(before)


@pytest.mark.slow
def test_on_the_default_model_log_probabilities_are_those_of_full_passes(default_model):
    model = default_model
    task = tasks.ioi(model, prompts=3, seed=0)
    streams = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern",
               "neuron")  # fmt: skip
    sites = [Site(s, layer) for s, layer in zip(streams, (3, 9, 14, 20, 25, 28, 1, 29, 11, 17),
                                                strict=True)]  # fmt: skip
    there = capture(model, task.corrupt, sites)
    at = task.positions["S2"]
    cells = [{site: edits.replace(there[site], positions=at)} for site in sites]
    cells += [{site: edits.replace(there[site])} for site in sites[::2]]
    cells += [{sites[0]: edits.zero(positions=at), sites[7]: edits.zero(heads=[2, 5])}]
    found = effects.exact(
        model, task, cells, metrics=[metrics.answer_logprob, metrics.logit_diff], check=3
    )
    for which, metric in enumerate(found.metrics):
        for index, cell in enumerate(cells):
            expected = effects.measure(model, task, metric=metric, edits=cell)
            assert_close(found.values[which, index], expected, rtol=0, atol=1e-4)
    assert float(found.effect.abs().max()) > 0.5
