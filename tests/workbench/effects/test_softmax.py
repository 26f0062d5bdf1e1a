import pytest
import torch
from einops import repeat
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, gradients, intervening
from workbench import effects, metrics
from workbench.effects.softmax import one_key_at_a_time
from workbench.models import twins
from workbench.tasks import Task

DIFF = metrics.logit_diff


def test_one_key_at_a_time_is_a_softmax_with_one_column_exchanged():
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 6, 6)
    masked = torch.ones(6, 6, dtype=torch.bool).triu(1)
    for size in (1.0, 30.0, 3000.0):
        draw = [torch.randn(shape, generator=generator).double() * size for _ in range(2)]
        scores, changed = (one.masked_fill(masked, torch.finfo(torch.float32).min) for one in draw)
        gradient = torch.randn(shape, generator=generator).double()
        found = one_key_at_a_time(scores, changed, gradient)
        for key in range(6):
            alone = scores.clone()
            alone[..., key] = changed[..., key]
            moved = (alone.softmax(-1) - scores.softmax(-1)) * gradient
            assert_close(found[:, key], moved.sum((2, 3)), rtol=1e-9, atol=1e-12)


def test_masks_may_be_infinite_and_rows_may_have_one_key_or_none():
    no = -torch.inf
    scores = torch.tensor([[[[0.0, no], [1.0, 2.0], [no, no]]]])
    changed = torch.tensor([[[[9.0, no], [1.0, 2.0], [no, no]]]])
    gradient = torch.tensor([[[[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]]])
    found = one_key_at_a_time(scores, changed, gradient)
    assert_close(found, torch.zeros(1, 2, 1, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stream", ["q", "k"])
@pytest.mark.parametrize(
    "architecture", ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 2", "Gemma 3"]
)
def test_every_query_and_key_has_the_attention_that_the_model_gives_it(
    architecture, stream, padded
):
    """Another route: write each head's q or k at each position, and read the pattern."""
    model, _ = twins.make(architecture)
    last = model.cfg.n_layers - 1
    wanted = [Site(stream, layer) for layer in (0, last)]
    found = effects.attribute(model, padded, wanted, metric=DIFF, method="exact softmax")
    for site in wanted:
        pattern = Site("pattern", site.layer)
        g = gradients(model, padded.clean, [pattern], of=lambda x: DIFF(x, padded), logits="last")
        source = capture(model, padded.corrupt, [site])[site]
        for head in range(source.shape[2]):
            for position in (0, 2, 6):
                row = [position < length for length in padded.clean.lengths]
                at = torch.tensor([position if real else 0 for real in row])
                edit = edits.replace(source, heads=[head], positions=at)
                with intervening(model, {site: edit}):
                    new = capture(model, padded.clean, [pattern])[pattern]
                expected = ((new - g.activations[pattern]) * g[pattern]).sum((1, 2, 3))
                rows = torch.tensor(row)
                assert_close(
                    found[site][position, head][rows], expected[rows], rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("stream", ["q", "k", "q_rot", "k_rot"])
def test_all_positions_together_have_the_attention_that_the_model_gives_them(stream, padded):
    model, _ = twins.make("Llama")
    site, pattern = Site(stream, 1), Site("pattern", 1)
    found = effects.attribute(
        model, padded, [site], metric=DIFF, method="exact softmax", summed=["pos"]
    )
    g = gradients(model, padded.clean, [pattern], of=lambda x: DIFF(x, padded), logits="last")
    source = capture(model, padded.corrupt, [site])[site]
    for head in range(source.shape[2]):
        with intervening(model, {site: edits.replace(source, heads=[head])}):
            new = capture(model, padded.clean, [pattern])[pattern]
        expected = ((new - g.activations[pattern]) * g[pattern]).sum((1, 2, 3))
        assert_close(found[site][head], expected, rtol=1e-4, atol=1e-5)
    together = effects.attribute(
        model, padded, [site], metric=DIFF, method="exact softmax", summed=["pos", "head"]
    )
    assert_close(together[site], found[site].sum(0), rtol=1e-5, atol=1e-6)


def saturated(blank) -> Task:
    """Head 0.0 at the last token looks at the first with a score of +40 or -40, 0 at itself.

    The token it looks at (1) is worth +1 to the answer (id 5). Query tokens: 2 looks for token
    1, 3 away from it; token 4 is worth as much, but its key is the other way round.
    """
    embed = blank.original_model.tok_embed._original_component.weight.data
    embed[1, 0], embed[2, 1], embed[3, 2], embed[4, 3] = 1.0, 1.0, 1.0, 1.0
    attention = blank.blocks[0].attn
    strength = 40 * 8**0.5  # scores are divided by the root of d_head
    attention.q.weight.data[0, 1], attention.q.weight.data[0, 2] = strength, -strength
    attention.k.weight.data[0, 0], attention.k.weight.data[0, 3] = 1.0, -1.0
    attention.v.weight.data[0, 0] = attention.v.weight.data[0, 3] = 1.0
    attention.o.weight.data[5, 0] = 1.0

    def rows(*ids):
        return Prompts.of(torch.tensor([ids, ids]))

    two = torch.tensor([[5], [5]])
    return Task("by hand", rows(1, 2), rows(1, 3), two, two + 1, {}, torch.zeros(2).long())


def test_attention_that_is_saturated_has_no_slope_but_its_exact_effect(blank):
    task, site = saturated(blank), Site("q", 0)
    there = capture(blank, task.corrupt, [site])[site]
    edit = {site: edits.replace(there, heads=[0])}
    plain = effects.measure(blank, task, metric=DIFF)
    exact = effects.measure(blank, task, metric=DIFF, edits=edit) - plain
    assert_close(exact, torch.tensor([-1.0, -1.0]), rtol=1e-5, atol=1e-6)
    slope = effects.attribute(blank, task, [site], metric=DIFF)
    fixed = effects.attribute(blank, task, [site], metric=DIFF, method="exact softmax")
    assert slope[site].abs().max() < 1e-12
    assert_close(fixed[site][1, 0], exact, rtol=1e-5, atol=1e-6)
    assert not fixed[site][0].any() and not fixed[site][:, 1:].any()


def test_keys_of_a_saturated_head_too(blank):
    task, site = saturated(blank), Site("k", 0)
    corrupt = Prompts.of(torch.tensor([[4, 2], [4, 2]]))
    task = Task("by hand", task.clean, corrupt, task.answer, task.foil, {}, task.group)
    slope = effects.attribute(blank, task, [site], metric=DIFF)
    fixed = effects.attribute(
        blank, task, [site], metric=DIFF, method="exact softmax", summed=["pos"]
    )
    assert slope[site].abs().max() < 1e-12
    assert_close(fixed[site][0], torch.tensor([-1.0, -1.0]), rtol=1e-5, atol=1e-6)


def test_other_sites_are_estimated_as_ever(padded):
    model, _ = twins.make("Llama")
    wanted = [Site("z", 0), Site("v", 1), Site("q", 1)]
    plain = effects.attribute(model, padded, wanted, metric=DIFF)
    fixed = effects.attribute(model, padded, wanted, metric=DIFF, method="exact softmax")
    for site in wanted[:2]:
        assert_close(fixed[site], plain[site], rtol=0, atol=0)
    assert not torch.allclose(fixed[wanted[2]], plain[wanted[2]])


def test_a_change_of_nothing_has_no_effect(padded):
    model, _ = twins.make("Llama")
    same = Task("by hand", padded.clean, padded.clean, padded.answer, padded.foil, {}, padded.group)
    wanted = [Site("q", 0), Site("k", 0), Site("q_rot", 1), Site("k_rot", 1)]
    found = effects.attribute(model, same, wanted, metric=DIFF, method="exact softmax")
    for site in wanted:
        assert_close(found[site], torch.zeros_like(found[site]), rtol=0, atol=1e-9)


def test_where_attention_cannot_be_recomputed_it_is_refused(padded):
    def ask(architecture, site, **how):
        model, _ = twins.make(architecture)
        effects.attribute(model, padded, [site], metric=DIFF, method="exact softmax", **how)

    with pytest.raises(ValueError, match="pattern cannot be written in OPTForCausalLM"):
        ask("OPT", Site("q", 0))
    with pytest.raises(ValueError, match="keys of single positions need the scores"):
        ask("native", Site("k", 0))
    ask("native", Site("k", 0), summed=["pos"])
    ask("native", Site("q", 0))
    with pytest.raises(ValueError, match="q_rot cannot be written in GPTNeoXForCausalLM"):
        ask("GPT-NeoX", Site("q_rot", 0))


def test_the_shape_of_repeated_heads_is_that_of_the_model():
    """Query head h uses key head h // 2 in the Llama twin: by its own values."""
    model, _ = twins.make("Llama")
    prompts = Prompts.of(torch.arange(3, 9)[None])
    seen = capture(model, prompts, [Site("pattern", 0), Site("v", 0), Site("z", 0)])
    values = repeat(seen[Site("v", 0)], "b p g d -> b p (g s) d", s=2)
    expected = torch.einsum("bhqk,bkhd->bqhd", seen[Site("pattern", 0)], values)
    assert_close(seen[Site("z", 0)], expected, rtol=1e-5, atol=1e-6)
