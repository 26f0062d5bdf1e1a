import pytest
import torch
from torch.testing import assert_close

from hooks import (
    Prompts,
    Site,
    capture,
    edits,
    gradients,
    gradients_without_each_layer,
    intervening,
    sites,
)
from hooks.conformance.check import attached
from hooks.sites import STREAMS
from workbench.models import twins

ARCHITECTURES = ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3", "BERT")

PADDED = Prompts(
    torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1)),
    torch.tensor([7, 5, 2]),
)


def weighted(logits):
    """Every logit of each prompt's last row moves its number, each with a weight of its own."""
    return logits[:, -1] @ torch.linspace(-1, 1, logits.shape[-1]).to(logits)


def everywhere(model):
    return [
        site
        for stream in STREAMS
        if stream in model.access.writable
        for site in sites.all(model, stream)
    ]


def by_leaf(model, prompts, site, value, of):
    """The definition: a leaf in the activation's place, and the derivative by the leaf."""
    leaf = value.clone().requires_grad_()
    with torch.enable_grad(), intervening(model, {site: lambda _: leaf}):
        (found,) = torch.autograd.grad(of(model(prompts)).sum(), leaf)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_prompt_in_a_padded_batch_has_the_gradient_it_has_alone(architecture):
    model, _ = twins.make(architecture)
    wanted = everywhere(model)
    found = gradients(model, PADDED, wanted, of=weighted, logits="last")
    alone, length = PADDED[1], int(PADDED.lengths[1])
    seen = capture(model, alone, wanted)
    for site in wanted:
        expected = by_leaf(model, alone, site, seen[site], weighted)
        here = found[site][1:2]
        for place, axis in enumerate(site.axes):
            if axis in ("pos", "query", "key"):
                here = here.narrow(place, 0, length)
        assert_close(here, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "site", [Site("resid_mid", 0), Site("attn_out", 0), Site("z", 1), Site("neuron", 0),
             Site("pattern", 0), Site("q", 1), Site("embed")], ids=str,
)  # fmt: skip
def test_a_small_step_changes_the_number_by_the_gradient(site):
    model = twins.make("GPT-2")[0].to(torch.float64)
    found = gradients(model, PADDED, [site], of=weighted, logits="last")
    step = torch.randn(found[site].shape, generator=torch.Generator().manual_seed(2)).double()
    size = 1e-5
    ends = []
    for sign in (1, -1):
        target = found.activations[site] + sign * size * step
        with torch.no_grad(), intervening(model, {site: edits.replace(target)}):
            logits = model(PADDED)[torch.arange(3), PADDED.last]
        ends.append(weighted(logits[:, None]))
    expected = (ends[0] - ends[1]) / (2 * size)
    assert_close((found[site] * step).flatten(1).sum(1), expected, rtol=1e-6, atol=1e-9)


def test_the_last_logits_alone_give_the_same_as_all(small, prompts):
    wanted = everywhere(small)
    rows = torch.arange(len(prompts))
    last = gradients(small, prompts, wanted, of=weighted, logits="last")
    all_of_them = gradients(
        small, prompts, wanted, of=lambda logits: weighted(logits[rows, prompts.last][:, None])
    )
    for site in wanted:
        assert_close(last[site], all_of_them[site], rtol=1e-5, atol=1e-6)
    assert_close(last.measured, all_of_them.measured, rtol=1e-5, atol=1e-6)


def test_what_flowed_there_is_what_capture_reads(small, prompts):
    wanted = everywhere(small)
    found, seen = gradients(small, prompts, wanted, of=weighted), capture(small, prompts, wanted)
    for site in wanted:
        assert_close(found.activations[site], seen[site], rtol=0, atol=0)


def test_inside_intervening_the_gradient_is_that_of_the_edited_pass(small, prompts, others):
    low, high = Site("resid_mid", 0), Site("z", 1)
    source = capture(small, others, [low])[low]
    with intervening(small, {low: edits.replace(source)}):
        found = gradients(small, prompts, [low, high], of=weighted)
        seen = capture(small, prompts, [high])[high]
        expected = by_leaf(small, prompts, high, seen, weighted)
    assert_close(found.activations[low], source, rtol=0, atol=1e-6)
    assert_close(found[low], by_leaf(small, prompts, low, source, weighted), rtol=1e-5, atol=1e-6)
    assert_close(found[high], expected, rtol=1e-5, atol=1e-6)


def test_behind_an_edit_that_cuts_it_off_the_gradient_is_zero(small, prompts, others):
    low, high = Site("resid_pre", 0), Site("resid_post", 0)
    source = capture(small, others, [high])[high]
    with intervening(small, {high: edits.replace(source)}):
        found = gradients(small, prompts, [low, high], of=weighted)
    assert not found[low].any() and found[high].any()


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Gemma 3"])
def test_without_a_layer_is_the_gradient_with_its_outputs_written_as_constants(architecture):
    model, _ = twins.make(architecture)
    wanted = everywhere(model)
    layers = []
    for layer, found in gradients_without_each_layer(model, PADDED, wanted, of=weighted):
        layers.append(layer)
        parts = [Site("attn_out", layer), Site("mlp_out", layer)]
        seen = capture(model, PADDED, parts)
        inside = {"attn_out", "mlp_out", "q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z",
                  "neuron_pre", "neuron_up", "neuron"}  # fmt: skip
        with intervening(model, {part: edits.replace(seen[part]) for part in parts}):
            outside = [s for s in wanted if s.layer != layer or s.stream not in inside]
            outside = [s for s in outside if (s.stream, s.layer) != ("resid_mid", layer)]
            expected = gradients(model, PADDED, outside, of=weighted)
        for site in outside:
            assert_close(found[site], expected[site], rtol=1e-5, atol=1e-6)
        for site in wanted:
            if site.layer == layer and site.stream in inside:
                assert not found[site].any()
        middle = Site("resid_mid", layer)
        if middle in wanted:  # only the skip connection is left
            after = found[Site("resid_post", layer)]
            assert_close(found[middle], after, rtol=1e-5, atol=1e-6)
    assert layers == list(range(model.cfg.n_layers))


def test_dropping_a_layer_below_every_site_changes_nothing(tiny, prompts):
    wanted = [Site("z", 1), Site("resid_mid", 1)]
    plain = gradients(tiny, prompts, wanted, of=weighted)
    _, first = next(gradients_without_each_layer(tiny, prompts, wanted, of=weighted))
    for site in wanted:
        assert_close(first[site], plain[site], rtol=0, atol=0)


@torch.no_grad()
def test_the_model_and_its_surroundings_are_as_they_were(tiny_gqa, prompts):
    weights = list(tiny_gqa.original_model.parameters())
    plain, hooks, state = tiny_gqa(prompts), attached(tiny_gqa), torch.get_rng_state()
    wanted = everywhere(tiny_gqa)
    frozen = gradients(tiny_gqa, prompts, wanted, of=weighted)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        trained = gradients(tiny_gqa, prompts, wanted, of=weighted)
        assert all(weight.requires_grad and weight.grad is None for weight in weights)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    for site in wanted:
        assert_close(frozen[site], trained[site], rtol=0, atol=0)
        assert not frozen[site].requires_grad
    assert attached(tiny_gqa) == hooks and not torch.is_grad_enabled()
    assert torch.get_rng_state().equal(state)
    assert_close(tiny_gqa(prompts), plain, rtol=0, atol=0)


def test_it_works_where_gradients_are_switched_off_altogether(tiny, prompts):
    wanted = [Site("embed"), Site("resid_mid", 1)]
    expected = gradients(tiny, prompts, wanted, of=weighted)
    with torch.inference_mode():
        found = gradients(tiny, prompts, wanted, of=weighted)
        dropped = [g for _, g in gradients_without_each_layer(tiny, prompts, wanted, of=weighted)]
    for site in wanted:
        assert_close(found[site], expected[site], rtol=0, atol=0)
    assert len(dropped) == tiny.cfg.n_layers


def test_hooks_are_gone_after_an_exception(tiny, prompts):
    def fail(logits):
        raise ArithmeticError("no")

    before = attached(tiny)
    with pytest.raises(ArithmeticError):
        gradients(tiny, prompts, [Site("z", 0)], of=fail)
    assert attached(tiny) == before


class TestWhatHasNoGradient:
    def test_is_refused_where_writing_changes_nothing(self):
        model, _ = twins.make("BERT")
        with pytest.raises(ValueError, match="pattern cannot be written in BertForMaskedLM"):
            gradients(model, PADDED, [Site("pattern", 0)], of=weighted)

    def test_is_refused_where_blocks_do_not_add_their_parts(self):
        model, _ = twins.make("BERT")
        with pytest.raises(ValueError, match="do not add their parts"):
            next(gradients_without_each_layer(model, PADDED, [Site("z", 0)], of=weighted))

    def test_is_refused_when_the_number_is_a_count(self, tiny, prompts):
        with pytest.raises(ValueError, match="has no gradient: it counts, compares or rounds"):
            gradients(tiny, prompts, [Site("z", 0)], of=lambda x: (x > 0).flatten(1).sum(1).float())

    def test_is_refused_when_there_is_not_one_number_per_prompt(self, tiny, prompts):
        with pytest.raises(ValueError, match=r"one number for each of 3 prompts, it gave \(\)"):
            gradients(tiny, prompts, [Site("z", 0)], of=lambda logits: logits.sum())

    def test_is_refused_for_no_site_and_for_a_model_that_draws(self, tiny, prompts):
        with pytest.raises(ValueError, match="name at least one site"):
            gradients(tiny, prompts, [], of=weighted)
        tiny.original_model.train()
        try:
            with pytest.raises(ValueError, match="training mode"):
                gradients(tiny, prompts, [Site("z", 0)], of=weighted)
        finally:
            tiny.original_model.eval()

    def test_is_named_when_it_is_asked_for(self, tiny, prompts):
        found = gradients(tiny, prompts, [Site("z", 0)], of=weighted)
        with pytest.raises(KeyError, match="no gradient at z 1; differentiated: z 0"):
            found[Site("z", 1)]

    def test_is_named_when_it_is_not_a_number(self, tiny, prompts):
        with pytest.raises(FloatingPointError, match="the gradient at z 0 is NaN or Inf"):
            gradients(tiny, prompts, [Site("z", 0)], of=lambda x: weighted(x).sub(1e9).sqrt())
