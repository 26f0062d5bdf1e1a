"""What a sweep costs, and that little memory changes the cost and no number."""

import re

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits
from hooks.replay.cells import for_prompts
from workbench import effects, metrics


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


def least(model, task, cells, wanted):
    """The budget that the error of one that is too small advises."""
    with pytest.raises(MemoryError) as caught:
        effects.plan(model, task, cells, metrics=wanted, memory="1KB")
    advised = re.search(r"give memory=(\w+)", str(caught.value))
    assert advised
    return advised[1]


def test_prompts_that_do_not_fit_at_once_are_run_in_parts_to_the_same_numbers(
    model, task, tmp_path, cells_of, all_metrics, ALONE
):
    wanted, cells = all_metrics(model, task), cells_of(model, task.corrupt)[:-1]
    whole = effects.exact(model, task, cells, metrics=wanted)
    first = torch.tensor([0])
    tight = least(model, task[first], [for_prompts(cell, first) for cell in cells], ALONE)
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


def test_effects_do_not_depend_on_memory_or_the_order_of_prompts(model, task, ALONE):
    cells = [{Site("mlp_out", n): edits.scale(s)} for n in (0, 1) for s in (0.0, 0.5, 2.0)]
    whole = effects.exact(model, task, cells, metrics=ALONE)
    tight = least(model, task, cells, ALONE)
    assert len(effects.plan(model, task, cells, metrics=ALONE, memory=tight).batches) > 1
    small = effects.exact(model, task, cells, metrics=ALONE, memory=tight)
    assert_close(small.values, whole.values, rtol=1e-5, atol=1e-5)
    order = torch.tensor([2, 0, 1])
    turned = effects.exact(model, task[order], cells, metrics=ALONE)
    assert_close(turned.values, whole.values[..., order], rtol=1e-5, atol=1e-5)
