"""Encoders without a head: their activations are the library's, and they have no logits."""

import copy

import pytest
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from hooks import Prompts, Site, capture, edits, intervening
from workbench import models
from workbench.models import cache, minilm
from workbench.models.encoder import NoLogits
from workbench.models.tiny import fill


@pytest.fixture(scope="module")
def pair():
    config = BertConfig(
        vocab_size=67, max_position_embeddings=64, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=48,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        plain = BertModel(config)
    plain.set_attn_implementation("eager")
    fill(plain, torch.Generator().manual_seed(0))
    reference = copy.deepcopy(plain).eval()
    return models.wrap_encoder(plain, name="an encoder"), reference


@pytest.fixture
def uneven():
    tokens = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    return Prompts(tokens, torch.tensor([7, 5, 3]))


def _library(reference, prompts):
    with torch.no_grad():
        return reference(
            prompts.tokens, attention_mask=prompts.mask, output_hidden_states=True
        ).hidden_states


def test_what_leaves_each_layer_is_what_the_library_computes(pair, uneven):
    model, reference = pair
    states = _library(reference, uneven)
    seen = capture(model, uneven, [Site("resid_post", layer) for layer in (0, 1)])
    real = uneven.mask.bool()
    for layer in (0, 1):
        assert_close(seen[Site("resid_post", layer)][real], states[layer + 1][real])


def test_asking_for_logits_is_an_error_that_says_what_to_do(pair, uneven):
    model, _ = pair
    with pytest.raises(NoLogits, match=r"without a language-model head.*capture"):
        model(uneven)
    with pytest.raises(NoLogits, match="no logits"):
        capture(model, uneven, [Site("resid_post", 0)], logits="last")


def test_the_head_stays_absent_after_the_sites_were_found_out(pair, uneven):
    model, _ = pair
    assert {"resid_post", "z", "neuron"} <= model.access.writable
    assert "final" not in model.access.readable
    with pytest.raises(NoLogits):
        model(uneven)


def test_an_edit_below_is_seen_above(pair, uneven):
    model, _ = pair
    top = Site("resid_post", 1)
    plain = capture(model, uneven, [top])[top]
    with intervening(model, {Site("z", 0): edits.zero()}):
        changed = capture(model, uneven, [top])[top]
    assert not torch.allclose(plain, changed)


def test_a_sentence_vector_is_the_mean_over_real_tokens_alone(pair, uneven):
    model, reference = pair
    found = models.embed(model, uneven, batch_size=2)
    for row in range(3):
        alone = _library(reference, uneven[row])[-1][0].mean(dim=0)
        assert_close(found[row], alone / alone.norm())


def test_what_is_no_encoder_is_refused(tiny, unchecked_types):
    with pytest.raises(TypeError, match="expected a BertModel, got a"):
        models.wrap_encoder(tiny.original_model)


@pytest.mark.slow
def test_minilm_gives_the_sentence_vectors_of_plain_transformers():
    model = models.load("minilm-l6")
    assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_model) == (6, 12, 384)
    texts = ["A man is eating food.", "Someone eats.", "The girl is carrying a baby in her arms."]
    found = models.embed(model, models.prompts(model, texts))
    folder = cache.root() / minilm._ENTRY
    plain = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        for row, text in enumerate(texts):
            encoded = model.tokenizer(text, return_tensors="pt")
            mean = plain(**encoded).last_hidden_state[0].mean(dim=0)
            assert_close(found[row], mean / mean.norm(), atol=1e-5, rtol=1e-4)
    near, far = (found @ found.T)[0, 1:].tolist()
    assert near > 0.5 > far
    with pytest.raises(NoLogits):
        model(models.prompts(model, texts))
