import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, capture_batches, head_out, last_logits, sites


def every_site(model):
    return [site for stream in sorted(model.access.readable) for site in sites.all(model, stream)]


def test_what_is_captured_is_what_transformer_lens_caches(small, prompts):
    wanted = every_site(small)
    seen = capture(small, prompts, wanted)
    _, cache = small.run_with_cache(
        prompts.tokens,
        attention_mask=prompts.mask,
        names_filter=[site.hook_name for site in wanted],
    )
    assert len(seen) == len(wanted)
    for site in wanted:
        assert_close(seen[site], cache[site.hook_name], rtol=0, atol=0)


def test_a_padded_prompt_gives_what_it_gives_alone(small, prompts):
    wanted = every_site(small)
    together = capture(small, prompts, wanted, logits="last")
    for row, length in enumerate(prompts.lengths.tolist()):
        alone = capture(small, prompts[row : row + 1], wanted, logits="last")
        for site in wanted:
            found, expected = together[site][row], alone[site][0]
            real = found[tuple(slice(0, size) for size in expected.shape)]
            assert_close(real, expected, rtol=1e-5, atol=1e-5)
        assert_close(together.logits[row], alone.logits[0], rtol=1e-5, atol=1e-5)
        assert length == alone.prompts.tokens.shape[1]


def test_what_stands_in_the_padding_does_not_matter(small, prompts):
    changed = Prompts(
        torch.where(prompts.mask.bool(), prompts.tokens, torch.tensor(9)), prompts.lengths
    )
    site = Site("resid_post", 1)
    a, b = (capture(small, p, [site], positions=p.last)[site] for p in (prompts, changed))
    assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_last_logits_are_those_of_the_full_pass(small, prompts):
    full = small(prompts)
    rows = torch.arange(3)
    expected = full[rows, prompts.last][:, None]
    assert_close(capture(small, prompts, [], logits="last").logits, expected)
    assert_close(last_logits(small, prompts), expected)
    assert_close(capture(small, prompts, [], logits="all").logits, full, rtol=0, atol=0)


@pytest.mark.parametrize("stream", ["resid_post", "z", "neuron", "pattern"])
def test_chosen_positions_are_those_of_the_full_capture(small, prompts, stream):
    site = Site(stream, 1)
    full = capture(small, prompts, [site])[site]
    axis = 2 if stream == "pattern" else 1
    one = capture(small, prompts, [site], positions=2)[site]
    assert_close(one, full.narrow(axis, 2, 1), rtol=0, atol=0)
    last = capture(small, prompts, [site], positions=prompts.last)[site]
    for row, at in enumerate(prompts.last.tolist()):
        assert_close(last[row], full[row].narrow(axis - 1, at, 1), rtol=0, atol=0)
    two = capture(small, prompts, [site], positions=[0, 2])[site]
    assert_close(two, full.index_select(axis, torch.tensor([0, 2])), rtol=0, atol=0)


def test_nothing_above_the_last_needed_site_is_computed(small, prompts):
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(small.blocks)
    ]
    handles.append(small.unembed.register_forward_hook(lambda *_: ran.append("unembed")))
    capture(small, prompts, [Site("resid_post", 0)])
    for handle in handles:
        handle.remove()
    assert ran in ([], [0])  # the block's own hook fires inside it


def test_captured_tensors_are_copies(small, prompts):
    site = Site("resid_pre", 1)
    seen = capture(small, prompts, [site], logits="all")
    seen[site].zero_()
    assert_close(small(prompts), seen.logits, rtol=0, atol=0)


def test_capturing_takes_and_leaves_no_gradients(small, prompts):
    with torch.enable_grad():
        seen = capture(small, prompts, [Site("z", 0)], logits="all")
    assert not seen[Site("z", 0)].requires_grad
    assert not seen.logits.requires_grad


def test_batches_together_are_the_whole(small, prompts):
    site = Site("resid_post", 1)
    whole = capture(small, prompts, [site], positions=0)[site]
    parts = [seen[site] for seen in capture_batches(small, prompts.batches(2), [site], positions=0)]
    assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)


def test_attention_rows_sum_to_one_and_look_only_back(small, prompts):
    pattern = capture(small, prompts, [Site("pattern", 1)])[Site("pattern", 1)]
    assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
    assert pattern.triu(diagonal=1)[0].abs().max() == 0


def test_the_heads_outputs_and_the_bias_are_what_attention_adds(small, prompts):
    for layer in range(2):
        seen = capture(small, prompts, [Site("z", layer), Site("attn_out", layer)])
        total = head_out(small, seen, layer).sum(dim=2)
        bias = small.blocks[layer].attn.b_O
        total = total if bias is None else total + bias
        assert_close(total, seen[Site("attn_out", layer)], rtol=1e-5, atol=1e-5)


def test_the_residual_stream_is_the_sum_of_what_was_added(small, prompts):
    parts = [s for name in ("attn_out", "mlp_out") for s in sites.all(small, name)]
    seen = capture(small, prompts, [Site("resid_pre", 0), *parts, Site("resid_post", 1)])
    total = seen[Site("resid_pre", 0)] + sum(seen[site] for site in parts)
    assert_close(total, seen[Site("resid_post", 1)], rtol=1e-5, atol=1e-5)


def test_a_site_never_captured_is_named_in_the_error(small, prompts):
    seen = capture(small, prompts, [Site("z", 0)])
    with pytest.raises(KeyError, match="z 1 was not captured; captured: z 0"):
        seen[Site("z", 1)]
    with pytest.raises(ValueError, match="no logits were kept"):
        _ = seen.logits


def test_what_cannot_be_captured_is_refused(small, prompts):
    with pytest.raises(ValueError, match="nothing to capture"):
        capture(small, prompts, [])
    with pytest.raises(ValueError, match="prompt 2 has 3 tokens, asked for position 3"):
        capture(small, prompts, [Site("z", 0)], positions=3)
    with pytest.raises(ValueError, match=r"indices from 0.*prompts\.last"):
        capture(small, prompts, [Site("z", 0)], positions=-1)
    with pytest.raises(ValueError, match="2 positions for 3 prompts"):
        capture(small, prompts, [Site("z", 0)], positions=torch.tensor([1, 1]))


def test_not_a_number_is_an_error_that_names_the_place(tiny, prompts):
    weight = tiny.blocks[1].mlp.out.weight
    before = weight.detach().clone()
    try:
        weight.data.view(-1)[0] = torch.nan
        with pytest.raises(FloatingPointError, match=r"mlp_out 1, prompt 0, position 0"):
            capture(tiny, prompts, [Site("mlp_out", 1)])
        kept = capture(tiny, prompts, [Site("mlp_out", 1)], not_finite="keep")
        assert kept[Site("mlp_out", 1)].isnan().any()
    finally:
        weight.data.copy_(before)


def test_logits_that_are_not_a_number_are_an_error_too(tiny, prompts):
    weight = tiny.ln_final.weight
    before = weight.detach().clone()
    try:
        weight.data[0] = torch.nan
        for kept in ("last", "all"):
            position = 6 if kept == "last" else 0
            with pytest.raises(
                FloatingPointError, match=f"the logits, prompt 0, position {position}"
            ):
                capture(tiny, prompts, [Site("z", 0)], logits=kept)
            seen = capture(tiny, prompts, [], logits=kept, not_finite="keep")
            assert seen.logits.isnan().all()
        (seen,) = capture_batches(tiny, [prompts], [], logits="last", not_finite="keep")
        assert seen.logits.isnan().all()
    finally:
        weight.data.copy_(before)


def test_several_positions_may_be_chosen_for_each_prompt(small, prompts):
    site = Site("resid_post", 1)
    whole = capture(small, prompts, [site])[site]
    rows = torch.tensor([[6, 0], [4, 1], [2, 1]])
    chosen = capture(small, prompts, [site], positions=rows)
    for prompt, row in enumerate(rows.tolist()):
        assert chosen[site][prompt].equal(whole[prompt, row])
    again = capture(small, prompts, [site], positions=chosen.positions)
    assert again[site].equal(chosen[site])
    first = capture(small, prompts, [site], positions=torch.tensor(1))
    assert first[site].equal(whole[:, 1:2])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.tensor([1.0, 1.0, 1.0]), r"not torch\.float32 of shape \(3,\)|Type-check"),
        (torch.tensor([True, False, True]), r"not torch\.bool of shape \(3,\)|Type-check"),
        (torch.ones(2, 1, dtype=torch.long), "2 positions for 3 prompts"),
        ([1.5], r"cannot be interpreted as an integer|Type-check"),
    ],
)
def test_positions_that_are_no_whole_numbers_of_these_prompts_are_refused(
    small, prompts, positions, message
):
    with pytest.raises(Exception, match=message):
        capture(small, prompts, [Site("z", 0)], positions=positions)


@pytest.mark.parametrize("choice", [{"logits": "first"}, {"not_finite": "ignore"}])
def test_a_choice_that_there_is_not_is_refused(small, prompts, choice):
    with pytest.raises(Exception, match=r"choose one of|Type-check"):
        capture(small, prompts, [Site("z", 0)], **choice)
