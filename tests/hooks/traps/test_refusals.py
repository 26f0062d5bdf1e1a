"""Traps that are refused."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BatchEncoding

from hooks import Prompts, Site, capture, edits, head_out, intervening
from workbench import models
from workbench.models import bridge, twins


def prompts_of(seed: int, rows: int = 2, length: int = 6) -> Prompts:
    drawn = torch.randint(3, 60, (rows, length), generator=torch.Generator().manual_seed(seed))
    return Prompts.of(drawn)


HERE, THERE = prompts_of(1), prompts_of(2)


@pytest.mark.parametrize("architecture", ["OPT", "BERT"])
@pytest.mark.parametrize("stream", ["scores", "pattern"])
def test_an_edit_that_would_be_discarded_is_refused(architecture, stream):
    model = twins.make(architecture)[0]
    with pytest.raises(ValueError, match=f"{stream} cannot be written"):
        with intervening(model, {Site(stream, 0): edits.zero()}):
            pass


def test_scores_that_are_the_pattern_are_not_called_scores(bert):
    with pytest.raises(ValueError, match="holds the pattern, after the softmax"):
        capture(bert, HERE, [Site("scores", 0)])


def test_a_hook_that_never_fires_is_refused():
    model = twins.make("GPT-NeoX")[0]
    with pytest.raises(ValueError, match="never fires"):
        capture(model, HERE, [Site("q_rot", 0)])


def test_a_typing_error_in_a_list_of_sites_is_an_error(llama):
    with pytest.raises(ValueError, match="is no site of ours"):
        capture(llama, HERE, [Site("resid_post", 0), Site.from_name("blocks.1.hook_resid_pots")])
    with pytest.raises(ValueError, match="its layers are 0 to 1"):
        capture(llama, HERE, [Site("resid_post", 0), Site("resid_post", 2)])
    with pytest.raises(ValueError, match="nothing to capture"):
        capture(llama, HERE, [])


def test_parts_that_are_not_added_are_refused(bert):
    for stream in ("attn_out", "mlp_out", "resid_mid"):
        with pytest.raises(ValueError, match="do not add their parts"):
            capture(bert, HERE, [Site(stream, 0)])


def test_heads_whose_sum_is_normalised_have_no_output_of_their_own():
    model = twins.make("Gemma 3")[0]
    seen = capture(model, HERE, [Site("z", 0)])
    with pytest.raises(ValueError, match="normalised before it joins"):
        head_out(model, seen, 0)


def test_two_bos_tokens_are_refused_and_none_is_added(tiny):
    ours = models.prompts(tiny, "the").tokens
    assert ours.shape == (1, 1)
    doubled = SimpleNamespace(tokenizer=_WithBos(), cfg=tiny.cfg, origin=tiny.origin)
    with pytest.raises(ValueError, match="starts with two"):
        models.prompts(doubled, "<s> w")


class _WithBos:
    """A tokenizer that always puts a BOS first, also before a text that spells one."""

    bos_token_id, bos_token, pad_token_id = 1, "<s>", 0

    def __call__(self, text: str) -> BatchEncoding:
        return BatchEncoding({"input_ids": [1, *(1 if w == "<s>" else 7 for w in text.split())]})


def test_compatibility_mode_which_hides_nan_and_moves_logits_is_refused(llama):
    with pytest.raises(ValueError, match="keeps its raw weights"):
        llama.enable_compatibility_mode()
    reference = twins.make("Llama")[1]
    theirs = bridge._bridge(reference)
    theirs.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ValueError, match="compatibility mode"):
        models.wrap(theirs)


def test_a_weight_that_is_not_a_number_is_named_by_the_site_it_spoils(llama):
    with torch.no_grad():
        llama.original_model.model.layers[0].self_attn.q_proj.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN or Inf at q 0, prompt 0, position 0"):
        capture(llama, HERE, [Site("q", 0)])
    with pytest.raises(FloatingPointError, match="NaN or Inf at resid_post 1"):
        capture(llama, HERE, [Site("resid_post", 1)])
    kept = capture(llama, HERE, [Site("q", 0)], not_finite="keep")
    assert kept[Site("q", 0)].isnan().any()


def test_a_source_on_another_device_is_refused_in_words(llama):
    source = torch.empty(2, 6, 4, 8, device="meta")
    with pytest.raises(ValueError, match="move it with"):
        with intervening(llama, {Site("z", 0): edits.replace(source)}):
            llama(HERE)


ABUSE = {
    "shorter batch": lambda x: x[:1],
    "shorter prompt": lambda x: x[:, :3],
    "missing axis": lambda x: x[..., 0],
    "more axes": lambda x: x[None],
    "other dtype": lambda x: x.double(),
    "not a tensor": lambda x: x.tolist(),
    "nothing": lambda x: None,
    "not a number": lambda x: x * torch.nan,
}


@pytest.mark.parametrize("way", ABUSE)
def test_an_edit_that_returns_something_else_is_an_error_that_names_the_site(bert, way):
    with pytest.raises((ValueError, TypeError, FloatingPointError), match="resid_pre 1"):
        with intervening(bert, {Site("resid_pre", 1): ABUSE[way]}):
            bert(HERE)
