"""Traps that would give other numbers."""

import socket

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, head_out, intervening, sites
from workbench import models
from workbench.models import bridge, tiny, twins

DECODERS = ("GPT-2", "Llama", "Gemma 2", "Gemma 3", "Phi-3", "GPT-NeoX, sequential", "OPT")


def prompts_of(seed: int, rows: int = 2, length: int = 6) -> Prompts:
    drawn = torch.randint(3, 60, (rows, length), generator=torch.Generator().manual_seed(seed))
    return Prompts.of(drawn)


HERE, THERE = prompts_of(1), prompts_of(2)


@pytest.mark.parametrize("gradients", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("architecture", DECODERS)
def test_resid_mid_of_another_run_gives_that_run_with_gradients_on_or_off(architecture, gradients):
    model, site = twins.make(architecture)[0], Site("resid_mid", 1)
    source = capture(model, THERE, [site])[site]
    with gradients(), intervening(model, {site: edits.replace(source)}):
        found = model(HERE)
    assert_close(found, model(THERE), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["BERT", "Llama"])
def test_stopping_early_reads_the_right_layer_and_computes_nothing_above(architecture):
    model, ran = twins.make(architecture)[0], []
    assert model.access  # found out by passes of its own
    with model.hooks(
        [(Site("resid_pre", n).hook_name, lambda x, hook: ran.append(1)) for n in (0, 1)]
    ):
        early = capture(model, HERE, [Site("resid_post", 0)])
    assert len(ran) == 1
    full = capture(model, HERE, sites.all(model, "resid_post"), logits="all")
    assert torch.equal(early[Site("resid_post", 0)], full[Site("resid_post", 0)])


def test_the_last_residual_stream_has_the_width_of_the_stream(llama):
    last = capture(llama, HERE, [Site("resid_post", 1)])[Site("resid_post", 1)]
    assert last.shape == (2, 6, llama.cfg.d_model)


def test_padding_ids_do_not_matter_and_a_padded_prompt_is_as_alone(bert):
    lengths, site = torch.tensor([6, 3]), Site("resid_post", 1)
    first = capture(bert, Prompts(HERE.tokens, lengths), [site], logits="last")
    other = HERE.tokens.clone()
    other[1, 3:] = 9
    again = capture(bert, Prompts(other, lengths), [site], logits="last")
    alone = capture(bert, Prompts.of(HERE.tokens[1:, :3]), [site], logits="last")
    assert torch.equal(first[site][1, :3], again[site][1, :3])
    assert_close(first[site][1, :3], alone[site][0], rtol=1e-5, atol=1e-5)
    assert_close(first.logits[1], alone.logits[0], rtol=1e-5, atol=1e-5)


def test_the_tokenizer_is_kept_with_its_added_tokens_and_no_one_is_called(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    ours = tiny.tokenizer()
    ours.add_tokens(["NEWTOK"])
    with torch.random.fork_rng(devices=[]):
        plain = tiny._gpt2(len(ours))
    tiny.fill(plain, torch.Generator().manual_seed(0))
    model = models.wrap(plain, ours)
    assert model.tokenizer is ours
    found = models.prompts(model, "NEWTOK")
    assert models.words(model, found) == [["NEWTOK"]]


def test_an_edit_takes_place_once_in_a_pass(llama):
    for stream in ("resid_pre", "z", "attn_out", "neuron"):
        site = Site(stream, 1)
        one = torch.ones(capture(llama, HERE, [site])[site].shape[-1])
        before = capture(llama, HERE, [site])[site]
        with intervening(llama, {site: edits.add(one)}):
            after = capture(llama, HERE, [site])[site]
        assert_close(after, before + 1, rtol=1e-5, atol=1e-5)


def test_grouped_queries_keep_their_heads_apart(llama):
    seen = capture(llama, HERE, [Site(s, 0) for s in ("q", "k", "v", "z", "attn_out")])
    heads = {site.stream: x.shape[2] for site, x in seen.items() if site.stream != "attn_out"}
    assert heads == {"q": 4, "k": 2, "v": 2, "z": 4}
    assert_close(head_out(llama, seen, 0).sum(2), seen[Site("attn_out", 0)], rtol=1e-5, atol=1e-5)


def test_half_precision_reads_and_writes_without_an_error(llama):
    llama.original_model.to(torch.bfloat16)
    site = Site("z", 0)
    seen = capture(llama, HERE, [site], logits="last")
    assert seen[site].dtype == torch.bfloat16
    with intervening(llama, {site: edits.replace(seen[site])}):
        assert torch.equal(llama(HERE)[:, -1:], seen.logits)


def test_the_weights_inside_the_bridge_are_those_of_the_reference():
    model, reference = twins.make("GPT-2")
    again, other = twins.make("GPT-2", seed=1)
    assert model.origin.digest == bridge.digest(reference)
    assert again.origin.digest == bridge.digest(other) != model.origin.digest


@pytest.mark.parametrize("positions", [None, 2, [0, 5]])
def test_generation_with_a_cache_sees_edits_at_absolute_positions(tiny_gqa, positions):
    edit = edits.scale(-2.0, positions=positions)
    found = []
    for cached in (True, False):
        with intervening(tiny_gqa, {Site("resid_post", 0): edit}):
            found.append(
                tiny_gqa.generate(
                    HERE.tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False,
                    use_past_kv_cache=cached, verbose=False, return_type="tokens",
                )
            )  # fmt: skip
    assert torch.equal(*found)


def test_backward_hooks_see_the_derivative_by_a_leaf(llama):
    site, seen = Site("z", 0), []
    leaf = capture(llama, HERE, [site])[site].requires_grad_()
    with intervening(llama, {site: lambda _: leaf}):
        with llama.hooks(
            bwd_hooks=[(Site("attn_out", 0).hook_name, lambda g, hook: seen.append(g))]
        ):
            llama(HERE).sum().backward()
    through = torch.einsum("bpm,hdm->bphd", seen[0], llama.blocks[0].attn.W_O)
    assert_close(leaf.grad, through, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["GPT-2", "native", "OPT"])
def test_no_model_comes_up_in_training_mode(architecture):
    model = twins.make(architecture)[0]
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(HERE), model(HERE))
