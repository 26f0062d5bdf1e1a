"""Sweeps against loops over plain edited forward passes, and laws that hold by definition."""

import dataclasses
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, intervening, last_logits
from workbench import metrics, patching, tasks
from workbench.effects import Source, measure, values
from workbench.patching import Where

DIFF = metrics.logit_diff
BOTH = ("denoise", "noise")


def by_hand(model, task, site, direction, metric=DIFF, **part):
    """The change in the metric by one patch, from two plain forward passes and an edited one."""
    here, there = (
        (task.corrupt, task.clean) if direction == "denoise" else (task.clean, task.corrupt)
    )
    value = capture(model, there, [site])[site]
    plain = metric(last_logits(model, here), task, here)
    with intervening(model, {site: edits.replace(value, **part)}):
        patched = metric(last_logits(model, here), task, here)
    return (patched - plain).detach()


WAYS = {
    "resid_pre position": ("resid_pre", "position", lambda task, at: {"positions": at}, 4),
    "mlp_out role": (
        "mlp_out",
        "role",
        lambda task, at: {"positions": task.positions[("HERE", "END")[at]]},
        2,
    ),
    "z head": ("z", "head", lambda task, at: {"heads": [at]}, 4),
    "k head": ("k", "head", lambda task, at: {"heads": [at]}, 2),
    "v head": ("v", "head", lambda task, at: {"heads": [at]}, 2),
    "pattern head": ("pattern", "head", lambda task, at: {"heads": [at]}, 4),
    "neuron neuron": ("neuron", "neuron", lambda task, at: {"neurons": [(3, 0, 9)[at]]}, 3),
    "attn_out all": ("attn_out", "all", lambda task, at: {}, 1),
}


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("way", WAYS)
def test_every_cell_is_one_edited_forward_pass(tiny_gqa, task, way, direction):
    stream, over, part, columns = WAYS[way]
    where = Where(neurons=[3, 0, 9]) if over == "neuron" else Where()
    found = patching.sweep(
        tiny_gqa, task, stream, metric=DIFF, over=over, direction=direction, where=where
    )
    assert found.effect.shape == (2, columns)
    for layer, at in product(range(2), range(columns)):
        expected = by_hand(tiny_gqa, task, Site(stream, layer), direction, **part(task, at))
        assert_close(found.per_prompt[layer, at], expected, rtol=1e-4, atol=1e-5)
    assert_close(found.effect, found.per_prompt.mean(-1))


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"])
def test_so_it_is_on_other_architectures_with_padded_prompts(twin, random_task, architecture):
    model, task = twin(architecture), random_task()
    for stream, over in (("resid_pre", "position"), ("z", "head")):
        found = patching.sweep(model, task, stream, metric=DIFF, over=over, direction="noise")
        for at in (0, 2):
            part = {"positions": at} if over == "position" else {"heads": [at]}
            expected = by_hand(model, task, Site(stream, 1), "noise", **part)
            assert_close(found.per_prompt[1, at], expected, rtol=1e-4, atol=1e-5)


def test_a_patch_may_be_restricted_to_some_tokens_and_layers(tiny_gqa, task):
    end = task.positions["END"]
    where = Where(layers=[1], positions=end)
    found = patching.sweep(tiny_gqa, task, "z", metric=DIFF, where=where)
    assert found.layers == [1] and found.effect.shape == (1, 4)
    expected = by_hand(tiny_gqa, task, Site("z", 1), "denoise", heads=[2], positions=end)
    assert_close(found.per_prompt[0, 2], expected, rtol=1e-4, atol=1e-5)
    assert found.named((0, 2)) == "head 1.2"


@pytest.mark.parametrize("stream", ["resid_pre", "z", "k", "mlp_out"])
def test_a_run_patched_with_itself_is_itself_exactly(small, task, stream):
    same = dataclasses.replace(task, corrupt=task.clean)
    found = patching.sweeps(small, same, stream, metrics=[DIFF, metrics.answer_logprob])
    assert_close(found.per_prompt, torch.zeros_like(found.per_prompt), rtol=0, atol=0)
    assert not found.one("noise").significant()


def test_what_the_two_prompts_share_changes_nothing_exactly(small, task):
    found = patching.sweep(small, task, "resid_pre", metric=DIFF)
    first = found.per_prompt[:, 0]  # the first tokens are alike, and see nothing else
    assert_close(first, torch.zeros_like(first), rtol=0, atol=0)
    assert bool((found.per_prompt[:, 3].abs() > 0).any())


@pytest.mark.parametrize("direction", BOTH)
def test_all_of_the_stream_is_all_of_the_gap(small, task, direction):
    found = patching.sweep(small, task, "resid_pre", metric=DIFF, over="all", direction=direction)
    gap = found.clean - found.corrupt
    sign = 1 if direction == "denoise" else -1
    assert_close(found.per_prompt[:, 0], sign * gap.expand(2, -1), rtol=1e-5, atol=1e-5)
    share, left_out = found.normalised(least_gap=0.0)
    assert_close(share, torch.ones(2, 1), rtol=1e-5, atol=1e-5)
    assert left_out == 0


def test_both_ends_are_the_metrics_of_the_unedited_prompts(tiny_gqa, task):
    for directions in (["denoise"], ["noise"], BOTH):
        found = patching.sweeps(
            tiny_gqa, task, "z", metrics=[DIFF, metrics.answer_logprob], directions=directions
        )
        for row, metric in enumerate((DIFF, metrics.answer_logprob)):
            clean = measure(tiny_gqa, task, metric=metric)
            corrupt = measure(tiny_gqa, task, metric=metric, prompts=task.corrupt)
            assert_close(found.clean[row], clean, rtol=1e-5, atol=1e-6)
            assert_close(found.corrupt[row], corrupt, rtol=1e-5, atol=1e-6)


def test_several_metrics_from_one_sweep_are_those_of_single_ones(tiny_gqa, task):
    several = [DIFF, metrics.answer_logprob, metrics.accuracy, metrics.mean_logprob]
    together = patching.sweeps(tiny_gqa, task, "resid_pre", metrics=several)
    assert together.metrics == ["logit_diff", "answer_logprob", "accuracy", "mean_logprob"]
    assert together.units == ["nats", "nats", "fraction", "nats per token"]
    for metric, direction in product(several, BOTH):
        alone = patching.sweep(tiny_gqa, task, "resid_pre", metric=metric, direction=direction)
        one = together.one(direction, metric.name)
        for name in ("effect", "low", "high", "p", "per_prompt", "clean", "corrupt"):
            assert_close(getattr(one, name), getattr(alone, name), rtol=1e-5, atol=1e-5)
        assert (one.direction, one.metric, one.unit) == (direction, metric.name, metric.unit)


@pytest.mark.parametrize("kind", ["zero", "mean", "mean per position", "resample"])
def test_other_sources_are_written_by_hand_just_so(tiny_gqa, task, kind):
    site = Site("z", 1)
    longer = Prompts(task.clean.tokens, torch.full((3,), 6))
    source = Source(kind, over=longer if kind == "resample" else None)
    value = values(tiny_gqa, task, [site], source=source)[site]
    plain = measure(tiny_gqa, task, metric=DIFF)
    edit = edits.replace(value, heads=[3])
    expected = measure(tiny_gqa, task, metric=DIFF, edits={site: edit}) - plain
    found = patching.sweep(tiny_gqa, task, "z", metric=DIFF, direction="noise", source=source)
    assert_close(found.per_prompt[1, 3], expected, rtol=1e-4, atol=1e-5)
    assert found.source == kind and kind in found.sentence()


def test_the_two_directions_are_one_on_the_task_with_its_prompts_exchanged(tiny_gqa, task):
    noise = patching.sweep(tiny_gqa, task, "mlp_out", metric=DIFF, direction="noise")
    turned = patching.sweep(tiny_gqa, task.swapped(), "mlp_out", metric=DIFF)
    assert_close(noise.per_prompt, turned.per_prompt, rtol=1e-5, atol=1e-6)
    assert_close(noise.clean, turned.corrupt)


def test_columns_say_what_they_are(tiny_gqa, ioi, task):
    def places(stream, over=None, some=task, **where):
        where = Where(layers=[0], **where)
        found = patching.sweep(tiny_gqa, some, stream, metric=DIFF, over=over, where=where)
        return found.over, found.places

    assert places("z") == ("head", ["0", "1", "2", "3"])
    assert places("v") == ("head", ["0", "1"])  # two key-value heads for four query heads
    assert places("mlp_out", "all") == ("all", ["all"])
    assert places("neuron", "neuron", neurons=[9, 2]) == ("neuron", ["9", "2"])
    assert places("resid_pre", "role") == ("role", ["HERE", "END"])  # as they stand in the prompts
    assert places("resid_pre", "role", ioi)[1][-2:] == ["S2", "END"]
    assert places("resid_pre") == ("position", ["0 …", "1 …", "2 …", "3 …"])


def test_a_position_is_named_by_its_word_or_by_the_role_where_words_differ(tiny):
    words = {"name": "mine", "answer": [" Mary", " Anna"], "foil": [" John", " Tom"]}
    clean = ["When Mary and John went", "When Anna and Tom went"]
    corrupt = ["When Mary and Mary went", "When Anna and Anna went"]
    roles = {"who": ["John", "Tom"]}
    task = tasks.make(tiny, clean, corrupt, **words, positions=roles)
    found = patching.sweep(tiny, task, "resid_pre", metric=DIFF, where=Where(layers=[0]))
    assert found.places == ["0 When", "1 …", "2 and", "3 who", "4 went"]
    assert found.named((0, 3)) == "layer 0, 3 who"


def test_positions_are_swept_as_far_as_all_prompts_reach_and_it_is_said(tiny_gqa, task):
    found = patching.sweep(tiny_gqa, task, "resid_pre", metric=DIFF)
    assert len(found.places) == 4
    assert "4 to 6 tokens; the first 4 positions were swept" in found.caveat
    assert found.caveat in found.sentence()
