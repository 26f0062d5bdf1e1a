import pytest
import torch
from torch.testing import assert_close

from hooks import EditNeverFired, Site, capture, edits, intervening, last_logits, sites

WRITTEN_ALONE = ["embed", "resid_pre", "resid_mid", "resid_post", "final"]


@pytest.mark.parametrize("layer", [0, 1])
def test_replacing_an_activation_with_itself_changes_nothing_at_all(small, prompts, layer):
    plain = small(prompts)
    for stream in sorted(small.access.writable):
        site = Site(stream) if stream in ("embed", "final") else Site(stream, layer)
        seen = capture(small, prompts, [site])
        with intervening(small, {site: edits.replace(seen[site])}):
            assert_close(small(prompts), plain, rtol=0, atol=0)


@pytest.mark.parametrize("stream", ["resid_pre", "resid_mid", "resid_post"])
@pytest.mark.parametrize("layer", [0, 1])
def test_replacing_the_whole_stream_gives_the_other_run(small, prompts, others, stream, layer):
    site = Site(stream, layer)
    seen = capture(small, others, [site], logits="all")
    with intervening(small, {site: edits.replace(seen[site])}):
        found = small(prompts)
    real = prompts.mask.bool()
    assert_close(found[real], seen.logits[real], rtol=1e-5, atol=1e-5)


def test_replacing_the_first_stream_gives_the_other_logits_exactly(small, prompts, others):
    site = Site("resid_pre", 0)
    seen = capture(small, others, [site], logits="all")
    with intervening(small, {site: edits.replace(seen[site])}):
        assert_close(small(prompts), seen.logits, rtol=0, atol=0)


def test_zeroing_a_head_is_the_same_as_cutting_its_rows_of_the_output_matrix(small, prompts):
    with intervening(small, {Site("z", 1): edits.zero(heads=[2])}):
        ablated = small(prompts)
    weight = small.blocks[1].attn.o.weight
    before, width = weight.detach().clone(), small.cfg.d_head
    rows = slice(2 * width, 3 * width)
    try:
        # GPT-2 keeps its matrices as (in, out), Llama as (out, in).
        (weight.data if small.cfg.architecture.startswith("GPT2") else weight.data.T)[rows] = 0
        assert_close(ablated, small(prompts), rtol=1e-5, atol=1e-5)
    finally:
        weight.data.copy_(before)


def test_edits_of_one_site_are_made_in_order(small, prompts):
    site = Site("mlp_out", 0)
    ones = torch.ones(small.cfg.d_model)
    with intervening(small, {site: [edits.zero(), edits.add(ones)]}):
        first = capture(small, prompts, [site])[site]
    with intervening(small, {site: [edits.add(ones), edits.zero()]}):
        second = capture(small, prompts, [site])[site]
    assert (first == 1).all() and (second == 0).all()


def test_an_edit_between_attention_and_mlp_reaches_the_skip_connection(small, prompts):
    site = Site("resid_mid", 0)
    with intervening(small, {site: edits.zero()}):
        seen = capture(small, prompts, [site, Site("mlp_out", 0), Site("resid_post", 0)])
    assert_close(seen[site], torch.zeros_like(seen[site]), rtol=0, atol=1e-6)
    assert_close(seen[Site("resid_post", 0)], seen[Site("mlp_out", 0)], rtol=1e-5, atol=1e-6)


def test_edits_of_all_three_residual_sites_of_a_layer_work_together(small, prompts):
    ones = torch.ones(small.cfg.d_model)
    wanted = [Site("resid_pre", 1), Site("attn_out", 1), Site("resid_mid", 1)]
    with intervening(
        small,
        {wanted[2]: edits.add(ones), wanted[0]: edits.zero(), wanted[1]: edits.scale(0.0)},
    ):
        seen = capture(small, prompts, wanted)
    assert (seen[wanted[0]] == 0).all()
    assert_close(seen[wanted[2]], torch.ones_like(seen[wanted[2]]), rtol=0, atol=1e-6)


def test_no_bit_changes_before_the_first_edited_position(small, prompts):
    plain = small(prompts)
    for stream in ("resid_pre", "z", "neuron", "v"):
        with intervening(small, {Site(stream, 0): edits.scale(3.0, positions=[2])}):
            changed = small(prompts)
        assert_close(changed[:, :2], plain[:, :2], rtol=0, atol=0)
        assert not changed[0, 2:].equal(plain[0, 2:])


def test_ones_own_function_is_an_edit_too_and_cannot_write_in_place(small, prompts):
    def clumsy(activation):
        activation.zero_()
        return activation

    site = Site("mlp_out", 1)
    plain = capture(small, prompts, [Site("resid_mid", 1)])[Site("resid_mid", 1)]
    with intervening(small, {site: clumsy}):
        seen = capture(small, prompts, [Site("resid_mid", 1), Site("resid_post", 1)])
    assert_close(seen[Site("resid_mid", 1)], plain, rtol=0, atol=0)
    assert_close(seen[Site("resid_post", 1)], plain, rtol=1e-6, atol=1e-6)


class TestAnEditThatDidNotTakePlace:
    def test_is_an_error_when_no_forward_pass_ran(self, small):
        with pytest.raises(EditNeverFired, match="no forward pass ran"):
            with intervening(small, {Site("z", 0): edits.zero()}):
                pass

    def test_is_an_error_when_the_pass_ended_below_it(self, small, prompts):
        with pytest.raises(EditNeverFired, match="zero at z 1 never fired in 1 forward"):
            with intervening(small, {Site("z", 1): edits.zero()}):
                capture(small, prompts, [Site("resid_post", 0)])

    def test_is_an_error_when_its_positions_do_not_exist(self, small, prompts):
        with pytest.raises(EditNeverFired, match=r"positions \[50\] were in none"):
            with intervening(small, {Site("z", 1): edits.zero(positions=[50])}):
                small(prompts)

    def test_does_not_hide_an_exception_of_the_body(self, small):
        with pytest.raises(ZeroDivisionError), intervening(small, {Site("z", 0): edits.zero()}):
            raise ZeroDivisionError


@pytest.mark.parametrize("positions", [5, [0, 5], torch.tensor([6, 4, 5])])
def test_an_edit_of_padding_is_refused_because_it_would_change_nothing(small, prompts, positions):
    site = Site("resid_post", 0)
    with pytest.raises(ValueError, match=r"position 5 of prompt [12] is padding.*prompts\.last"):
        with intervening(small, {site: edits.zero(positions=positions)}):
            small(prompts)
    with intervening(small, {site: edits.zero(positions=prompts.last)}):
        small(prompts)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda x: x[:, :1], ValueError, "returned shape"),
        (lambda x: x.double(), ValueError, "returned dtype"),
        (lambda x: x / 0, FloatingPointError, "gave NaN or Inf"),
        (lambda x: None, TypeError, "returned NoneType"),
    ],
)
def test_an_edit_that_returns_something_else_is_refused(small, prompts, edit, error, message):
    with pytest.raises(error, match=message), intervening(small, {Site("mlp_out", 0): edit}):
        small(prompts)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_may_be_minus_infinity_and_nothing_else_that_is_no_number(small, prompts, value):
    site = Site("scores", 0)
    with pytest.raises(FloatingPointError, match="scale at scores 0 gave NaN or Inf"):
        with intervening(small, {site: edits.scale(value, heads=[0], positions=[0])}):
            small(prompts)

    def mask(scores):
        hidden = torch.arange(scores.shape[-1]) == 0
        return scores.masked_fill(
            hidden & (torch.arange(scores.shape[-2]) > 0)[:, None], -torch.inf
        )

    with intervening(small, {site: mask}):
        pattern = capture(small, prompts, [Site("pattern", 0)])[Site("pattern", 0)]
    assert (pattern[:, :, 1:, 0] == 0).all()


def test_numbers_that_are_not_finite_pass_where_that_is_asked_for(tiny, prompts):
    with intervening(tiny, {Site("mlp_out", 1): edits.scale(torch.inf)}, not_finite="keep"):
        assert not tiny(prompts).isfinite().any()


class TestBlocksInBlocks:
    def test_the_outer_edits_come_first(self, small, prompts):
        ones = torch.ones(small.cfg.d_model)
        for stream in ("mlp_out", "resid_mid"):
            site = Site(stream, 1)
            plain = capture(small, prompts, [site])[site]
            with intervening(small, {site: edits.add(ones)}):
                with intervening(small, {site: edits.scale(2.0)}):
                    found = capture(small, prompts, [site])[site]
            assert_close(found, 2 * (plain + 1), rtol=1e-5, atol=1e-5)

    def test_a_stream_between_is_written_on_top_of_what_an_outer_block_wrote(self, small, prompts):
        target = torch.randn(3, 7, small.cfg.d_model, generator=torch.Generator().manual_seed(0))
        site, ones = Site("resid_mid", 1), torch.ones(small.cfg.d_model)
        with intervening(small, {Site("resid_pre", 1): edits.add(ones)}):
            with intervening(small, {site: edits.replace(target)}):
                found = capture(small, prompts, [site])[site]
        assert_close(found, target, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("stream", ["resid_pre", "attn_out"])
    def test_an_inner_block_cannot_undo_it_unseen(self, small, prompts, stream):
        outer, inner = {Site("resid_mid", 1): edits.zero()}, {Site(stream, 1): edits.zero()}
        with pytest.raises(ValueError, match=f"{stream} 1 would change resid_mid 1"):
            with intervening(small, outer), intervening(small, inner):
                small(prompts)
        with intervening(small, inner), intervening(small, outer):
            small(prompts)


def test_what_cannot_be_written_is_refused(tiny, prompts):
    with pytest.raises(ValueError, match="k_rot cannot be written in GPT2"):
        with intervening(tiny, {Site("k_rot", 0): edits.zero()}):
            tiny(prompts)
    with pytest.raises(ValueError, match="no edit was given"):
        with intervening(tiny, {Site("z", 0): []}):
            tiny(prompts)


class TestGenerate:
    """Positions are absolute: with the cache, a step sees one token and knows where it is."""

    @pytest.mark.parametrize("positions", [None, [2], [6], [8], [2, 7]])
    def test_gives_the_same_tokens_with_and_without_the_cache(self, small, prompts, positions):
        site = Site("resid_post", 0)
        push = 5 * torch.randn(small.cfg.d_model, generator=torch.Generator().manual_seed(0))
        found = []
        for cached in (True, False):
            with intervening(small, {site: edits.add(push, positions=positions)}):
                found.append(
                    small.generate(
                        prompts.tokens[:1],
                        max_new_tokens=4,
                        use_past_kv_cache=cached,
                        do_sample=False,
                        stop_at_eos=False,
                        verbose=False,
                    )
                )
        assert found[0].equal(found[1])

    def test_an_edit_behind_the_last_step_never_fired(self, small, prompts):
        site = Site("resid_post", 0)
        with pytest.raises(EditNeverFired), intervening(small, {site: edits.zero(positions=[40])}):
            small.generate(prompts.tokens[:1], max_new_tokens=2, verbose=False)


def test_an_edit_made_for_one_batch_does_not_fit_another(small, prompts):
    site = Site("z", 0)
    source = capture(small, prompts, [site])[site]
    with pytest.raises(ValueError, match="same length and batch size"):
        with intervening(small, {site: edits.replace(source)}):
            last_logits(small, prompts[:2])


def test_every_writable_stream_can_be_zeroed_in_every_layer(small, prompts):
    plain = small(prompts)
    for stream in sorted(small.access.writable - {"scores"}):
        for site in sites.all(small, stream):
            with intervening(small, {site: edits.zero()}):
                assert not small(prompts).equal(plain), site
