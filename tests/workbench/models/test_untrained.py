"""An untrained model is the same architecture with nothing of the trained weights in it."""

import math

import pytest
import torch
from torch.testing import assert_close

from workbench import models, tasks
from workbench.models import twins


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "Qwen 3"])
def test_it_has_the_same_shapes_and_none_of_the_same_matrices(architecture):
    _, reference = twins.make(architecture)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(3.0)  # what training might leave behind
    trained = models.wrap(reference, name="trained")
    fresh = models.untrained(trained, seed=0)
    theirs = dict(trained.original_model.named_parameters())
    ours = dict(fresh.original_model.named_parameters())
    assert {name: one.shape for name, one in ours.items()} == {
        name: one.shape for name, one in theirs.items()
    }
    for name, weight in ours.items():
        if weight.ndim > 1:
            count = weight.numel()
            assert abs(float(weight.mean())) < 5 * 0.02 / math.sqrt(count)
            assert float(weight.std()) == pytest.approx(0.02, rel=4 / math.sqrt(2 * count))
        else:
            assert weight.unique().tolist() in ([0.0], [1.0]), name  # of norms and biases


def test_it_guesses_every_next_token_nearly_alike(tiny):
    fresh = models.untrained(tiny, seed=0)
    task = tasks.capitals(tiny, prompts=4, seed=0)
    with torch.no_grad():
        chances = fresh(task.clean).log_softmax(dim=-1)
    spread = (chances + math.log(chances.shape[-1])).abs().max()
    assert float(spread) < 1
    with torch.no_grad():
        known = tiny(task.clean).log_softmax(dim=-1)
    assert float((known + math.log(known.shape[-1])).abs().max()) > 2


def test_the_seed_alone_decides_and_the_global_generator_is_left_as_it_was(tiny):
    state = torch.get_rng_state()
    one, same, other = (models.untrained(tiny, seed=seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(state)
    for name, weight in one.original_model.named_parameters():
        assert_close(dict(same.original_model.named_parameters())[name], weight, rtol=0, atol=0)
    digests = {model.origin.digest for model in (one, other, tiny)}
    assert len(digests) == 3
    assert one.origin.name == "tiny, untrained"


def test_the_trained_model_is_not_touched(tiny):
    before = [one.clone() for one in tiny.original_model.parameters()]
    models.untrained(tiny, seed=0)
    for one, was in zip(tiny.original_model.parameters(), before, strict=True):
        assert_close(one, was, rtol=0, atol=0)


def test_it_keeps_the_tokenizer_and_the_precision(tiny):
    half = models.load("tiny", dtype=torch.bfloat16)
    fresh = models.untrained(half, seed=0)
    assert fresh.tokenizer is half.tokenizer
    assert {one.dtype for one in fresh.original_model.parameters()} == {torch.bfloat16}


def test_a_model_without_a_configuration_of_the_library_is_refused():
    model, _ = twins.make("native")
    with pytest.raises(ValueError, match=r"no configuration .* give its activations"):
        models.untrained(model, seed=0)
