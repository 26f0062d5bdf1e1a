"""The identities that the small models pass, on the model that people use."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, head_out, intervening, sites
from workbench import models


@pytest.fixture(scope="module")
def pair(default_model) -> tuple[Prompts, Prompts]:
    """Prompts of different lengths, and others of the same lengths."""
    clean = models.prompts(default_model, ["The capital of France is", "Rome is in", "Mary went"])
    corrupt = models.prompts(default_model, ["The king of Spain has", "Snow is white", "Dogs bark"])
    assert corrupt.lengths.equal(clean.lengths)
    return clean, corrupt


def test_replacing_with_itself_changes_nothing_at_all(default_model, pair):
    wanted = [Site(stream, 12) for stream in ("resid_mid", "q", "v", "z", "pattern", "neuron")]
    seen = capture(default_model, pair[0], wanted, logits="all")
    with intervening(default_model, {site: edits.replace(seen[site]) for site in wanted}):
        assert_close(default_model(pair[0]), seen.logits, rtol=0, atol=0)


def test_replacing_the_first_stream_gives_the_other_logits_exactly(default_model, pair):
    clean, corrupt = pair
    site = Site("resid_pre", 0)
    seen = capture(default_model, clean, [site], logits="all")
    with intervening(default_model, {site: edits.replace(seen[site])}):
        assert_close(default_model(corrupt), seen.logits, rtol=0, atol=0)


@pytest.mark.parametrize("stream", ["resid_pre", "resid_mid", "resid_post"])
def test_replacing_a_whole_stream_screens_off_all_that_came_before(default_model, pair, stream):
    clean, corrupt = pair
    site = Site(stream, 5)
    seen = capture(default_model, clean, [site], logits="last")
    with intervening(default_model, {site: edits.replace(seen[site])}):
        found = capture(default_model, corrupt, [], logits="last").logits
    scale = float(seen.logits.abs().max())
    assert float((found - seen.logits).abs().max()) <= 1e-5 * scale


def test_the_residual_stream_is_the_sum_of_what_was_added(default_model, pair):
    parts = [s for name in ("attn_out", "mlp_out") for s in sites.all(default_model, name)]
    seen = capture(default_model, pair[0], [Site("resid_pre", 0), *parts, Site("resid_post", 29)])
    total = seen[Site("resid_pre", 0)] + sum(seen[site] for site in parts)
    last = seen[Site("resid_post", 29)]
    assert float((total - last).abs().max()) <= 1e-5 * float(last.abs().max())


def test_the_heads_outputs_are_what_attention_adds(default_model, pair):
    seen = capture(default_model, pair[0], [Site("z", 7), Site("attn_out", 7)])
    added = seen[Site("attn_out", 7)]
    error = head_out(default_model, seen, 7).sum(dim=2) - added
    assert float(error.abs().max()) <= 1e-5 * float(added.abs().max())


def test_attention_rows_sum_to_one_and_look_only_back(default_model, pair):
    pattern = capture(default_model, pair[0], [Site("pattern", 20)])[Site("pattern", 20)]
    assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
    assert pattern[0].triu(diagonal=1).abs().max() == 0


def test_a_padded_prompt_gives_what_it_gives_alone(default_model, pair):
    site = Site("resid_post", 29)
    together = capture(default_model, pair[0], [site], logits="last")
    for row in range(3):
        alone = capture(default_model, pair[0][row : row + 1], [site], logits="last")
        length = int(pair[0].lengths[row])
        for found, expected in (
            (together[site][row, :length], alone[site][0]),
            (together.logits[row], alone.logits[0]),
        ):
            assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_zeroing_a_head_is_cutting_its_columns_of_the_output_matrix(default_model, pair):
    with intervening(default_model, {Site("z", 3): edits.zero(heads=[4])}):
        ablated = capture(default_model, pair[0], [], logits="last").logits
    weight = default_model.blocks[3].attn.o.weight
    before = weight.detach().clone()
    try:
        weight.data[:, 4 * 64 : 5 * 64] = 0
        cut = capture(default_model, pair[0], [], logits="last").logits
    finally:
        weight.data.copy_(before)
    assert float((ablated - cut).abs().max()) <= 1e-5 * float(cut.abs().max())


def test_no_bit_changes_before_the_first_edited_position(default_model, pair):
    plain = default_model(pair[0])
    with intervening(default_model, {Site("neuron", 10): edits.scale(2.0, positions=[1])}):
        changed = default_model(pair[0])
    assert_close(changed[:, 0], plain[:, 0], rtol=0, atol=0)
    assert not changed[:, 1].equal(plain[:, 1])
