"""Path patching against forward passes with plain hooks, theorems, and TransformerLens."""

import pytest
from torch.testing import assert_close
from transformer_lens.patching import get_act_patch_direct_path

from hooks import Site, capture
from workbench import lens, metrics, patching
from workbench.models import twins
from workbench.patching import path_patching


@pytest.mark.parametrize("between", ["free", "frozen"])
def test_to_the_logits_it_is_one_full_pass_with_all_other_heads_held(
    model, between, task_of, naive, assert_same
):
    task = task_of()
    found = patching.paths(model, task, to="logits", metric=metrics.logit_diff, between=between)
    assert_same(found, naive(model, task, "logits", between), model, task)


RECEIVERS = [
    (Site("q", 2), 1),
    (Site("q", 2), 3),
    (Site("k", 2), 0),
    Site("v", 1),
    Site("mlp_out", 1),
]


TOLD = {Site("q", 2): [1, 3], Site("k", 2): [0], Site("v", 1): None, Site("mlp_out", 1): None}


@pytest.mark.parametrize("between", ["free", "frozen"])
def test_to_heads_and_mlps_it_is_two_full_passes(model, between, task_of, naive, assert_same):
    """Several receivers in several layers, among them single key-value heads, all at once."""
    task = task_of()
    found = patching.paths(model, task, to=RECEIVERS, metric=metrics.logit_diff, between=between)
    assert_same(found, naive(model, task, TOLD, between), model, task)


@pytest.mark.parametrize("stream", ["q", "k", "v"])
def test_one_input_of_one_head_can_be_told_alone_in_either_direction(
    stream, model_of, task_of, naive, assert_same
):
    model, task = model_of("Llama"), task_of(lengths=(8, 8, 8))
    found = patching.paths(
        model, task, to=(Site(stream, 2), 1), metric=metrics.logit_diff, direction="denoise"
    )
    expected = naive(model, task, {Site(stream, 2): [1]}, "free", "denoise")
    assert_same(found, expected, model, task)


def test_a_metric_that_reads_all_tokens_is_told_at_all_of_them(model_of, task_of, naive):
    model, task = model_of("GPT-2"), task_of()
    for between in ("free", "frozen"):
        found = patching.paths(
            model, task, to="logits", metric=metrics.mean_logprob, between=between
        )
        expected = naive(model, task, "logits", between, metric=metrics.mean_logprob)
        assert_close(found.per_prompt, expected[:, :-1], rtol=0, atol=1e-5)


def scale(model, prompts):
    """By what the last norm divides."""
    final = capture(model, prompts, [Site("final")], positions=prompts.last)[Site("final")]
    if "GPT2" in model.cfg.architecture:
        return final.std(dim=-1, unbiased=False)[:, 0]
    return final.square().mean(dim=-1).sqrt()[:, 0]


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_with_the_last_norms_scale_held_it_is_the_change_in_direct_attribution(
    name, model_of, task_of
):
    model, task = model_of(name), task_of()
    found = patching.paths(model, task, to="logits", metric=metrics.logit_diff, between="linear")
    before, after = (lens.direct_attribution(model, one) for one in (task, task.swapped()))
    same = scale(model, task.corrupt) / scale(model, task.clean)  # each was read at its own scale
    room = 1e-5 * float(model(task.clean).abs().max())
    heads = after.head_per_prompt * same - before.head_per_prompt
    assert_close(found.per_prompt, heads, rtol=0, atol=room)
    mlps = after.mlp_per_prompt * same - before.mlp_per_prompt
    assert_close(found.mlp_per_prompt, mlps, rtol=0, atol=room)
    assert heads.abs().max() > 1000 * room


def test_without_a_norm_holding_its_scale_changes_nothing(task_of):
    model, _ = twins.make("native, attention only")
    task = task_of()
    one, other = (
        patching.paths(model, task, to="logits", metric=metrics.logit_diff, between=between)
        for between in ("linear", "frozen")
    )
    assert_close(one.per_prompt, other.per_prompt, rtol=1e-5, atol=1e-5)
    assert one.per_prompt.abs().max() > 0.01
    assert (one.mlp_per_prompt == 0).all()


@pytest.mark.parametrize("stream", ["q", "k", "v"])
def test_transformer_lens_finds_the_same_direct_paths(stream, model_of, task_of):
    model, task = model_of("GPT-2"), task_of(lengths=(7, 7, 7))
    base, other = task.corrupt.tokens, task.clean.tokens
    theirs = get_act_patch_direct_path(
        model, base, model.run_with_cache(other)[1], model.run_with_cache(base)[1],
        lambda logits: metrics.logit_diff(logits, task).mean(), 0, 2, component=stream,
        verbose=False,
    )  # fmt: skip
    for layer, head in ((1, 0), (2, 3)):
        ours = patching.paths(
            model, task, to=(Site(stream, layer), head), metric=metrics.logit_diff,
            between="frozen", direction="denoise",
        )  # fmt: skip
        change = theirs[layer, head] - ours.baseline.mean()
        assert_close(ours.effect[0, 2], change, rtol=1e-3, atol=1e-5)


def test_senders_that_come_after_the_receiver_have_an_effect_of_exactly_zero(model_of, task_of):
    found = patching.paths(
        model_of("GPT-NeoX"), task_of(), to=Site("mlp_out", 1), metric=metrics.logit_diff
    )
    assert (found.per_prompt[1:] == 0).all() and (found.mlp_per_prompt[1:] == 0).all()
    assert (found.p[1:] == 1).all() and (found.per_prompt[0] != 0).any()
    sequential = patching.paths(
        model_of("GPT-2"), task_of(), to=Site("mlp_out", 1), metric=metrics.logit_diff
    )
    assert (sequential.per_prompt[1] != 0).any()  # the MLP reads its own block's heads there


def test_a_small_memory_gives_the_same_numbers_in_several_parts(monkeypatch, model_of, task_of):
    model, task = model_of("Llama"), task_of()
    to = (Site("q", 2), 1)
    whole = patching.paths(model, task, to=to, metric=metrics.logit_diff)
    monkeypatch.setattr(path_patching, "size", lambda memory: 50_000)  # of bytes, for messages
    parts = patching.paths(model, task, to=to, metric=metrics.logit_diff)
    assert parts.cost.count("also run in full") == 5 and whole.cost.count("also run in full") == 1
    assert_close(parts.per_prompt, whole.per_prompt, rtol=1e-5, atol=1e-5)
