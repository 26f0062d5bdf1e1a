"""Metrics of many cells: those of one forward pass for each."""

import re
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from hooks import EditNeverFired, Prompts, Site, capture, edits, last_logits
from hooks.replay.cells import for_prompts
from workbench import effects, metrics, models, tasks
from workbench.metrics import Metric
from workbench.models import twins
from workbench.tasks import Task

STREAMS = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z", "neuron")
ALONE = [one for one in vars(metrics).values() if isinstance(one, Metric)]


@pytest.fixture(scope="module")
def model():
    return twins.make("Llama")[0]


@pytest.fixture
def task(padded) -> Task:
    """Answers and foils that are sets of up to three ids, some shorter than others."""
    answer = torch.tensor([[5, 9, -1], [11, -1, -1], [3, 20, 30]])
    foil = torch.tensor([[7, -1], [50, 51], [12, 5]])
    return replace(padded, answer=answer, foil=foil)


def cells_of(model, others):
    """Every stream: one position of each prompt patched from others, and all of them scaled."""
    sites = [Site(stream, index % model.cfg.n_layers) for index, stream in enumerate(STREAMS)]
    there = capture(model, others, sites)
    at = torch.tensor([5, 1, 2])
    cells = [{site: edits.replace(there[site], positions=at)} for site in sites]
    cells += [{site: edits.scale(0.5)} for site in sites[::2]]
    return [*cells, {Site("embed"): edits.zero(positions=0)}, {sites[0]: torch.zeros_like}]


def all_metrics(model, task):
    return [*ALONE, metrics.minus_kl(last_logits(model, task.corrupt)[:, 0])]


def test_there_are_as_many_metrics_as_these_tests_think():
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
def test_several_metrics_from_one_sweep_are_those_of_a_pass_for_each_cell(model, task, run, chosen):
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


def test_the_cost_says_what_was_done_and_how_it_was_checked(model, task, capsys):
    cells = [
        {Site("resid_pre", 0): edits.zero(positions=torch.tensor([3, 2, 1]))},
        {Site("z", 1): edits.scale(1.0)},
        {Site("embed"): edits.zero()},
    ]
    planned = effects.plan(model, task, cells, metrics=[metrics.logit_diff])
    found = effects.exact(model, task, cells, metrics=[metrics.logit_diff], check=5)
    assert capsys.readouterr().err == f"{str(planned).rsplit(',', 1)[0]}, about 0 s\n"
    # 2 layers; positions 3, 2 and 1 of 7 on; and a whole pass of 3 x 7 tokens.
    by_hand = (2 * (4 + 5 + 6) + 2 * 21) / (2 * 21)
    assert found.cost.forwards == planned.forwards == pytest.approx(by_hand)
    assert (found.cost.cells, found.cost.checked, found.cost.resumed) == (3, 1, 0)
    assert found.cost.largest_difference < 1e-5 and found.cost.backoffs == ""
    said = str(found.cost)
    assert said.startswith("3 cells, 1.7 forward passes (saves layers, positions, reads); 1 cells")
    assert found.values[0, 1].equal(found.baseline[0])


def test_a_shortage_of_memory_is_in_the_cost(model, task, monkeypatch):
    from hooks.replay.recording import Recording

    real = Recording.run_block

    def run_block(self, layer, hidden, **how):
        if len(hidden) > 6:
            raise MemoryError
        return real(self, layer, hidden, **how)

    cells = [{Site("resid_pre", 0): edits.zero(positions=[at])} for at in (0, 0, 0, 0)]
    whole = effects.exact(model, task, cells, metrics=[metrics.logit_diff])
    monkeypatch.setattr(Recording, "run_block", run_block)
    found = effects.exact(model, task, cells, metrics=[metrics.logit_diff])
    assert str(found.cost).endswith("; no memory for 4 cells at once: halved")
    assert_close(found.values, whole.values, rtol=1e-5, atol=1e-5)


def least(model, task, cells):
    """The budget that the error of one that is too small advises."""
    with pytest.raises(MemoryError) as caught:
        effects.plan(model, task, cells, metrics=ALONE, memory="1KB")
    advised = re.search(r"give memory=(\w+)", str(caught.value))
    assert advised
    return advised[1]


def test_prompts_that_do_not_fit_at_once_are_run_in_parts_to_the_same_numbers(
    model, task, tmp_path
):
    wanted, cells = all_metrics(model, task), cells_of(model, task.corrupt)[:-1]
    whole = effects.exact(model, task, cells, metrics=wanted)
    first = torch.tensor([0])
    tight = least(model, task[first], [for_prompts(cell, first) for cell in cells])
    with pytest.raises(MemoryError, match="is too small for one cell"):
        effects.plan(model, task, cells, metrics=wanted, memory=tight)
    found, again = (
        effects.exact(model, task, cells, metrics=wanted, memory=tight, keep=tmp_path / "kept")
        for _ in range(2)
    )
    assert found.values.shape == whole.values.shape
    assert_close(found.values, whole.values, rtol=1e-5, atol=1e-5)
    assert_close(found.baseline, whole.baseline, rtol=1e-5, atol=1e-5)
    assert "no room for 3 prompts at once: halved" in str(found.cost)
    assert found.cost.checked >= 3 and found.cost.forwards == pytest.approx(whole.cost.forwards)
    assert again.values.equal(found.values) and again.cost.resumed == len(cells)
    own = [*cells, {Site("z", 0): torch.zeros_like}]
    with pytest.raises(MemoryError, match="is too small for one cell"):
        effects.exact(model, task, own, metrics=wanted, memory=tight)


def test_effects_do_not_depend_on_memory_or_the_order_of_prompts(model, task):
    cells = [{Site("mlp_out", n): edits.scale(s)} for n in (0, 1) for s in (0.0, 0.5, 2.0)]
    whole = effects.exact(model, task, cells, metrics=ALONE)
    tight = least(model, task, cells)
    assert len(effects.plan(model, task, cells, metrics=ALONE, memory=tight).batches) > 1
    small = effects.exact(model, task, cells, metrics=ALONE, memory=tight)
    assert_close(small.values, whole.values, rtol=1e-5, atol=1e-5)
    order = torch.tensor([2, 0, 1])
    turned = effects.exact(model, task[order], cells, metrics=ALONE)
    assert_close(turned.values, whole.values[..., order], rtol=1e-5, atol=1e-5)


def wrong(function) -> Metric:
    return Metric("mine", "nats", "last", "all", function)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"metrics": []}, ValueError, "no metric was given: name at least one, such as"),
        (
            {"metrics": [wrong(lambda logits, task, prompts: logits[:, :2])]},
            ValueError, "metric mine returned shape (3, 2); it must return one number for each",
        ),
        (
            {"metrics": [metrics.logit_diff, wrong(lambda logits, task, prompts: logits.mean())]},
            ValueError, "metric mine returned shape ()",
        ),
        (
            {"metrics": [wrong(lambda logits, task, prompts: logits[:, 0] * torch.inf)]},
            FloatingPointError, "metric mine is NaN or Inf for prompt 0",
        ),
        ({"cells": []}, ValueError, "no cells were given"),
        ({"cells": [{}]}, ValueError, "a cell without edits"),
        (
            {"cells": [{Site("z", 0): edits.zero(positions=[9])}]}, EditNeverFired,
            "never fires: its positions [9]",
        ),
        (
            {"cells": [{Site("z", 0): edits.zero(positions=[5])}]}, ValueError,
            "position 5 of prompt 1 is padding",
        ),
        (
            {"cells": [{Site("resid_pre", 1): edits.mean(torch.full((32,), torch.nan))}]},
            FloatingPointError, "resid_pre 1 gave NaN or Inf",
        ),
        (
            {"cells": [{Site("resid_pre", 0): edits.replace(torch.zeros(3, 6, 32))}]},
            ValueError, "cannot patch (3, 6, 32) into (3, 7, 32)",
        ),
        ({"memory": "1KB"}, MemoryError, "is too small for one cell"),
        ({"memory": "much"}, ValueError, "memory 'much' is no size"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_leaves_nothing_behind(
    model, task, unharmed, asked, error, said
):
    asked = {"cells": [{Site("z", 0): edits.zero()}], "metrics": [metrics.logit_diff], **asked}
    cells = asked.pop("cells")
    with unharmed(model), pytest.raises(error, match=re.escape(said)):
        effects.exact(model, task, cells, **asked)


def test_a_metric_without_a_list_is_refused_and_does_not_run_for_ever(model, task, unchecked_types):
    cells = [{Site("z", 0): edits.zero()}]
    for ask in (effects.exact, effects.plan):
        with pytest.raises(TypeError, match=r"logit_diff \(nats\): give a list: metrics=\[...\]"):
            ask(model, task, cells, metrics=metrics.logit_diff)
        with pytest.raises(TypeError, match="is no metric"):
            ask(model, task, cells, metrics=[abs])
    with pytest.raises(TypeError, match="is no metric"):
        effects.measure(model, task, metric=[metrics.logit_diff])
    with pytest.raises(TypeError, match="is no metric"):
        effects.attribute(model, task, [Site("z", 0)], metric=abs)


def test_an_unknown_run_is_refused(model, task, unchecked_types):
    cells = [{Site("z", 0): edits.zero()}]
    with pytest.raises(ValueError, match="no run 'dirty': edits are made in the 'clean' or"):
        effects.exact(model, task, cells, metrics=[metrics.logit_diff], run="dirty")


def test_pairs_of_unequal_length_are_refused_by_name(task):
    longer = Prompts(task.corrupt.tokens, torch.tensor([7, 6, 3]))
    with pytest.raises(ValueError, match="by hand: clean prompt 1 has 5 tokens, its corrupt one 6"):
        replace(task, corrupt=longer)


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 2, 0]])
def test_a_reference_of_other_prompts_is_refused(model, task, unharmed, rows):
    reference = last_logits(model, task.clean)[rows, 0]
    said = f"minus_kl has a reference of {len(rows)} prompts for 3: choose the same rows"
    with unharmed(model), pytest.raises(ValueError, match=said):
        effects.exact(
            model, task, [{Site("z", 0): edits.zero()}], metrics=[metrics.minus_kl(reference)]
        )


def test_a_sweep_leaves_the_model_as_it_was(model, task, unharmed):
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
