"""Each known trap of TransformerLens 4.3 that concerns us, and that we do not fall into it."""

import gc
import hashlib
import resource
import socket
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from transformers import BatchEncoding

from hooks import EditNeverFired, Prompts, Site, capture, edits, head_out, intervening, sites
from hooks.conformance.check import attached
from workbench import models
from workbench.models import bridge, tiny, twins

DECODERS = ("GPT-2", "Llama", "Gemma 2", "Gemma 3", "Phi-3", "GPT-NeoX, sequential", "OPT")


@pytest.fixture
def llama() -> models.Model:
    return twins.make("Llama")[0]


@pytest.fixture
def bert() -> models.Model:
    return twins.make("BERT")[0]


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


def _raise(error: BaseException):
    def edit(activation: torch.Tensor) -> torch.Tensor:
        raise error

    return edit


Z = Site("z", 0)


def _with(edit, at: Site = Z, prompts: Prompts = HERE):
    def run(model: models.Model) -> None:
        with intervening(model, {at: edit}):
            model(prompts)

    return run


def _body_raises(model: models.Model) -> None:
    with intervening(model, {Site("z", 0): edits.zero()}):
        model(HERE)
        raise LookupError("the body's own")


def _no_pass(model: models.Model) -> None:
    with intervening(model, {Site("z", 0): edits.zero()}):
        pass


WAYS_TO_FAIL = {
    "bad site": (_with(edits.zero(), Site("z", 9)), ValueError),
    "refused site": (_with(edits.zero(), Site("q_rot", 0)), ValueError),
    "edit raises": (_with(_raise(ArithmeticError("no"))), ArithmeticError),
    "interrupt": (_with(_raise(KeyboardInterrupt())), KeyboardInterrupt),
    "wrong shape": (_with(lambda x: x[:1]), ValueError),
    "never fired": (_no_pass, EditNeverFired),
    "body raises": (_body_raises, LookupError),
    "bad token": (_with(edits.zero(), prompts=Prompts.of(torch.full((1, 3), 10**6))), ValueError),
    "not finite": (_with(lambda x: x / 0), FloatingPointError),
}


@pytest.mark.parametrize("way", WAYS_TO_FAIL)
def test_after_any_way_to_fail_hooks_weights_and_random_state_are_as_before(tiny, way):
    run, error = WAYS_TO_FAIL[way]
    plain = tiny(HERE)
    before = attached(tiny), bridge.digest(tiny.original_model), _random_state()
    with pytest.raises(error):
        run(tiny)
    assert (attached(tiny), bridge.digest(tiny.original_model), _random_state()) == before
    assert torch.equal(tiny(HERE), plain)


def _random_state() -> str:
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()


def test_making_a_twin_leaves_the_global_random_state_alone():
    before = _random_state()
    for architecture in ("GPT-2", "native"):
        twins.make(architecture)
    models.load("tiny")
    assert _random_state() == before


def test_hooks_that_transformers_installs_on_first_use_do_not_grow(llama):
    llama.run_with_cache(HERE.tokens, attention_mask=HERE.mask)
    before = attached(llama)
    for _ in range(5):
        _use(llama)
        llama.run_with_cache(HERE.tokens, attention_mask=HERE.mask)
    assert attached(llama) == before


def test_a_later_write_in_place_does_not_reach_what_was_captured(llama):
    wanted = [Site("resid_post", 0), Site("resid_post", 1)]
    plain = capture(llama, HERE, wanted)

    def ruin(activation: torch.Tensor) -> torch.Tensor:
        return activation.zero_()

    with intervening(llama, {Site("resid_pre", 1): ruin}):
        seen = capture(llama, HERE, wanted)
    assert torch.equal(seen[wanted[0]], plain[wanted[0]])
    assert not torch.equal(seen[wanted[1]], plain[wanted[1]])


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


def test_the_weights_inside_the_bridge_are_those_of_the_reference():
    model, reference = twins.make("GPT-2")
    again, other = twins.make("GPT-2", seed=1)
    assert model.origin.digest == bridge.digest(reference)
    assert again.origin.digest == bridge.digest(other) != model.origin.digest


def test_a_hundred_calls_keep_no_memory_and_a_dropped_model_is_freed():
    model = twins.make("Llama")[0]
    for _ in range(20):
        _use(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        _use(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024  # KiB on Linux
    gone = weakref.ref(model.original_model)
    del model
    gc.collect()
    assert gone() is None


def _use(model: models.Model) -> None:
    seen = capture(model, HERE, [Site("z", 0), Site("resid_post", 1)])
    with intervening(model, {Site("z", 0): edits.replace(seen[Site("z", 0)])}):
        model(HERE)


def test_a_source_on_another_device_is_refused_in_words(llama):
    source = torch.empty(2, 6, 4, 8, device="meta")
    with pytest.raises(ValueError, match="move it with"):
        with intervening(llama, {Site("z", 0): edits.replace(source)}):
            llama(HERE)


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


@pytest.mark.parametrize("architecture", ["GPT-2", "native", "OPT"])
def test_no_model_comes_up_in_training_mode(architecture):
    model = twins.make(architecture)[0]
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(HERE), model(HERE))
