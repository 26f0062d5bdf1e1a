"""How alike heads are that were never trained, and that they are not called alike."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture
from workbench import heads, models, tasks
from workbench.heads.likeness import chance, outputs
from workbench.heads.likeness.result import MEASURES
from workbench.models import twins


def called_alike(never_trained, name, count):
    """By each measure, how many models that were never trained have a pair beyond chance."""
    found = dict.fromkeys(MEASURES, 0)
    for seed in range(count):
        model = never_trained(name, seed)
        task = tasks.ioi(model, prompts=3, seed=seed)
        alike = heads.similarity(model, task, seed=seed)
        for by in MEASURES:
            found[by] += bool(alike.beyond_chance(by))
    return found


@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_heads_that_were_never_trained_are_not_called_alike(never_trained, most_by_chance, name):
    found = called_alike(never_trained, name, 4)
    assert max(found.values()) <= most_by_chance(4), found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_of_many_models_never_trained_one_in_twenty_has_heads_called_alike(
    never_trained, most_by_chance, name
):
    found = called_alike(never_trained, name, 40)
    assert max(found.values()) <= most_by_chance(40), found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_models_as_training_starts_with_them_have_no_heads_called_alike(most_by_chance, name):
    """Their attention is nearly even, and all heads write nearly the same."""
    like, found = models.load(name), dict.fromkeys(MEASURES, 0)
    for seed in range(12):
        model = models.untrained(like, seed=seed)
        alike = heads.similarity(model, tasks.ioi(model, prompts=3, seed=seed), seed=seed)
        for by in MEASURES:
            found[by] += bool(alike.beyond_chance(by))
    assert max(found.values()) <= most_by_chance(12), found


def test_a_limit_is_the_most_alike_pair_of_all_copies(model, task, found):
    most = []
    with models.redrawn(model) as draw:
        for at in range(19):
            draw(chance.seed_of(0, at))
            copy = capture(model, task.clean, [Site("z", layer) for layer in (0, 1)])
            real = task.clean.mask.bool()
            real[:, 0] = False
            z = [copy[Site("z", layer)][:, :, head][real] for layer, head in found.heads]
            out = [model.blocks[layer].attn.W_O[head] for layer, head in found.heads]
            grams = outputs.grams(torch.stack(z).double(), torch.stack(out).double())
            most.append(float(outputs.cka(grams, grams).fill_diagonal_(-1).max()))
    assert found.tokens == int(real.sum())
    assert float(found.limit[1]) == pytest.approx(max(most), abs=1e-5)


def test_heads_of_a_group_are_not_among_the_most_alike_by_what_they_share(found):
    for by in ("values", "keys"):
        pairs = found.most_alike(28, by=by)
        assert len(pairs) == 24 and ((0, 0), (0, 1)) not in pairs
        assert ((0, 0), (0, 1)) not in found.beyond_chance(by)
    assert len(found.most_alike(28, by="queries")) == 28
    assert found.shared.sum() == 16


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Gemma 3", "native"])
def test_a_redrawn_model_writes_with_its_new_weights_and_is_itself_again(
    architecture, prompts, unharmed
):
    model, _ = twins.make(architecture)
    prompts = type(prompts)(prompts.tokens % 60 + 3, prompts.lengths)
    before = model(prompts)
    with unharmed(model), pytest.raises(RuntimeError, match="stop"):
        with models.redrawn(model) as draw:
            draw(1)
            one = model(prompts)
            draw(2)
            other = model(prompts)
            draw(1)
            assert model(prompts).equal(one) and not other.equal(one) and not before.equal(one)
            raise RuntimeError("stop")
    assert model(prompts).equal(before)


def test_redrawn_matrices_keep_their_mean_and_spread_and_vectors_their_entries(tiny):
    weights = dict(tiny.named_parameters())
    own = {name: one.data.clone() for name, one in weights.items()}
    with models.redrawn(tiny) as draw:
        draw(0)
        for name, one in weights.items():
            if one.ndim == 1:
                assert_close(one.sort().values, own[name].sort().values)
            elif one.numel() > 1000:
                assert_close(one.std(), own[name].std(), rtol=0.1, atol=0)
                assert not one.equal(own[name])
    assert all(one.equal(own[name]) for name, one in weights.items())


def test_outputs_of_a_redrawn_model_add_up_to_what_attention_writes(small, prompts):
    with models.redrawn(small) as draw:
        draw(0)
        seen = capture(small, prompts, [Site("z", 1), Site("attn_out", 1)])
        written = torch.stack([small.blocks[1].attn.W_O[head] for head in range(4)])
        out = torch.einsum("bphd,hdm->bpm", seen[Site("z", 1)], written)
        out = out - out[:1, :1] + seen[Site("attn_out", 1)][:1, :1]
    assert_close(out, seen[Site("attn_out", 1)], rtol=1e-4, atol=1e-4)
