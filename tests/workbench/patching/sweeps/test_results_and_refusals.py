"""What a sweep says, where it goes, and what cannot be asked."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits
from workbench import metrics, patching, results
from workbench.effects import measure
from workbench.patching import Running, Where

DIFF = metrics.logit_diff


def hand_made(clean, corrupt, effect, direction="denoise"):
    per_prompt = torch.tensor(effect)[None, None]
    mean = per_prompt.mean(-1)
    return patching.Sweep(
        effect=mean, low=mean, high=mean, p=torch.ones_like(mean), per_prompt=per_prompt,
        clean=torch.tensor(clean), corrupt=torch.tensor(corrupt), layers=[4], places=["S2"],
        stream="resid_pre", over="role", direction=direction, source="counterfactual",
        metric="logit_diff", unit="nats", task="mine", task_digest="", model="m", model_digest="",
    )  # fmt: skip


def test_the_normalised_effect_is_a_ratio_of_means_over_prompts_with_a_gap():
    sweep = hand_made([3.0, 5.0, 1.0], [-1.0, 1.0, 0.95], [2.0, 4.0, 9.0])
    share, left_out = sweep.normalised()
    # (2 + 4) / (4 + 4); the third prompt's gap is 0.05
    assert_close(share, torch.tensor([[0.75]]))
    assert left_out == 1
    everything, none = sweep.normalised(least_gap=0.01)
    assert_close(everything, torch.tensor([[15 / 8.05]]))
    assert none == 0


def test_breaking_everything_is_one_in_noise_too():
    sweep = hand_made([3.0, 5.0], [-1.0, 1.0], [-4.0, -4.0], direction="noise")
    assert_close(sweep.normalised()[0], torch.ones(1, 1))


@pytest.mark.parametrize("corrupt", [[2.95, 5.02], [7.0, 1.0]], ids=["small", "cancelling"])
def test_too_small_a_gap_is_refused(corrupt):
    sweep = hand_made([3.0, 5.0], corrupt, [1.0, 1.0])
    with pytest.raises(ValueError, match=r"there is no gap to normalise by. Choose a corruption"):
        sweep.normalised()


def test_a_sweep_says_its_strongest_place_and_how_many_are_significant():
    sweep = dataclasses.replace(
        hand_made([3.0, 5.0], [-1.0, 1.0], [4.0, 4.5]), p=torch.tensor([[0.01]])
    )
    assert sweep.strongest(1) == sweep.significant() == [(0, 0)]
    assert "1 of 1 places change it (corrected p ≤ 0.05)" in sweep.sentence()
    assert "The strongest is layer 4, S2: +4.25" in sweep.sentence()
    assert "into the corrupt prompts, where logit_diff is +0.00 nats (+4.00" in sweep.sentence()
    assert sweep.headline() == {
        "effect": 4.25, "low": 4.25, "high": 4.25, "place": "layer 4, S2", "significant": 1,
    }  # fmt: skip
    assert "layer 4, S2" in sweep.table()
    assert not sweep.significant(level=0.001)


def test_results_come_back_from_disk_as_they_were(tiny_gqa, task, tmp_path):
    found = patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF, metrics.accuracy])
    chosen = patching.neurons(tiny_gqa, task, [(0, 3), (1, 5)], metric=DIFF)
    for result in (found, found.one("noise", "accuracy"), chosen):
        results.save(result, tmp_path / "result.nc")
        again = results.load(type(result), tmp_path / "result.nc")
        assert results.digest(again) == results.digest(result)
        assert again.sentence() == result.sentence() and again.table() == result.table()


def test_neurons_are_the_columns_of_a_sweep_over_neurons(tiny_gqa, task):
    where = Where(neurons=[3, 9])
    options = {"metric": DIFF, "direction": "noise", "source": "mean"}
    swept = patching.sweep(tiny_gqa, task, "neuron", over="neuron", where=where, **options)
    found = patching.neurons(tiny_gqa, task, [(1, 9), (0, 3)], **options)
    assert found.places == ["neuron 1.9", "neuron 0.3"]
    expected = torch.stack([swept.per_prompt[1, 1], swept.per_prompt[0, 0]])
    assert_close(found.per_prompt, expected, rtol=1e-5, atol=1e-6)
    assert_close(found.baseline, measure(tiny_gqa, task, metric=DIFF), rtol=1e-5, atol=1e-6)


def test_sets_of_edits_with_names_are_ranked_by_what_they_do(tiny_gqa, task):
    zero = {Site("z", 0): edits.zero(heads=[1])}
    both = zero | {Site("mlp_out", 1): edits.zero()}
    found = patching.each(tiny_gqa, task, {"one": zero, "both": both}, metric=DIFF, what="Sets")
    for name, cell in (("one", zero), ("both", both)):
        expected = measure(tiny_gqa, task, metric=DIFF, edits=cell) - found.baseline
        at = found.places.index(name)
        assert_close(found.per_prompt[at], expected, rtol=1e-4, atol=1e-5)
    larger = "both" if abs(found.effect[1]) > abs(found.effect[0]) else "one"
    assert found.strongest(1) == [larger]
    assert found.headline()["place"] == larger
    assert "Sets of tiny-gqa on the clean prompts of mine" in found.sentence()


def test_the_seed_draws_the_bounds_and_nothing_else(tiny_gqa, task):
    def swept(seed):
        running = Running(seed=seed)
        return patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], running=running)

    one, same, other = swept(0), swept(0), swept(1)
    assert results.digest(one) == results.digest(same)
    assert_close(one.per_prompt, other.per_prompt, rtol=0, atol=0)


def test_a_sweep_that_was_kept_is_read_back(tiny_gqa, task, tmp_path):
    running = Running(keep=tmp_path / "kept")
    one, again = (
        patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], running=running) for _ in range(2)
    )
    assert_close(one.per_prompt, again.per_prompt, rtol=0, atol=0)
    assert "8 cells, 8 of them kept from an earlier run" in again.cost
    assert "kept" not in one.cost


@pytest.mark.parametrize(
    ("stream", "options", "message"),
    [
        ("resid_post", {"over": "heads"}, "no axis 'heads': a sweep is over position, role, head"),
        ("resid_pre", {"over": "head"}, "resid_pre has no heads; those that have are q, k, v"),
        (
            "z",
            {"over": "neuron"},
            "z has no neurons; those that have are neuron, neuron_pre, neuron_up",
        ),
        ("embed", {}, "embed exists once; a sweep is over layers: take resid_pre 0"),
        ("z", {"direction": "restore"}, "no direction 'restore'; there are 'denoise' and 'noise'"),
        ("z", {"source": "median"}, "no source 'median'; there are 'counterfactual'"),
        ("rsid_pre", {"over": "all"}, "rsid_pre"),
        ("z", {"where": Where(layers=[7])}, "7"),
    ],
)
def test_bad_questions_are_refused(tiny_gqa, task, unchecked_types, stream, options, message):
    with pytest.raises(ValueError, match=message):
        patching.sweep(tiny_gqa, task, stream, metric=DIFF, **options)


def test_what_is_no_list_of_metrics_is_refused(tiny_gqa, task, unchecked_types):
    with pytest.raises(TypeError, match=r"give a list: metrics=\[...\]"):
        patching.sweeps(tiny_gqa, task, "z", metrics=DIFF)
    with pytest.raises(TypeError, match="is no metric: give one, such as"):
        patching.sweep(tiny_gqa, task, "z", metric=[DIFF])


def test_roles_of_a_task_that_has_none_one_prompt_and_no_metric_are_refused(tiny_gqa, task):
    bare = dataclasses.replace(task, positions={})
    with pytest.raises(ValueError, match="mine has no roles to sweep over; take over='position'"):
        patching.sweep(tiny_gqa, bare, "resid_pre", metric=DIFF, over="role")
    with pytest.raises(ValueError, match="mine has one prompt: bounds and tests need at least two"):
        patching.sweep(tiny_gqa, task[0], "z", metric=DIFF)
    with pytest.raises(ValueError, match="no metric was given"):
        patching.sweeps(tiny_gqa, task, "z", metrics=[])
    with pytest.raises(ValueError, match="no neurons were chosen"):
        patching.neurons(tiny_gqa, task, [], metric=DIFF)
    found = patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], directions=["noise"])
    with pytest.raises(KeyError, match="no direction 'denoise' in this sweep; there are noise"):
        found.one("denoise")


def test_an_empty_word_is_not_the_usual_axis(tiny_gqa, task, unchecked_types):
    with pytest.raises(ValueError, match="no axis ''"):
        patching.sweep(tiny_gqa, task, "z", metric=DIFF, over="")
