import pytest
import torch
from torch.testing import assert_close
from transformer_lens.tools.analysis import logit_lens as their_lens

from workbench import lens, metrics, models, tasks
from workbench.models import twins


@pytest.fixture(scope="module", params=["tiny", "tiny-gqa"])
def model(request):
    return models.load(request.param)


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0)


@pytest.fixture(scope="module")
def parts(model, task):
    return lens.direct_attribution(model, task)


def test_what_was_written_adds_up_to_the_logit_difference(model, task, parts):
    expected = metrics.logit_diff(model(task.clean), task)
    heads = parts.head_per_prompt.sum(dim=(0, 1)) + parts.bias_per_prompt.sum(0)
    total = heads + parts.mlp_per_prompt.sum(0) + parts.embed_per_prompt + parts.constant
    assert_close(total, expected, rtol=1e-5, atol=1e-4)
    assert_close(parts.total, expected, rtol=1e-5, atol=1e-5)
    whole = parts.head_per_prompt.sum(1) + parts.bias_per_prompt
    assert_close(parts.attention, whole.mean(1), rtol=1e-5, atol=1e-5)
    assert (parts.attention_low <= parts.attention).all()


def test_a_head_whose_output_is_cut_off_writes_nothing(model, task):
    weight = model.blocks[1].attn.o.weight
    before = weight.detach().clone()
    try:
        weight.data.zero_()
        found = lens.direct_attribution(model, task)
    finally:
        weight.data.copy_(before)
    assert found.head_per_prompt[1].abs().max() == 0


def test_the_last_layers_mlp_has_the_effect_that_was_attributed(task, model, parts):
    """Predicted, then made: with the norm's scale held fixed, removing it costs just that."""
    from hooks import Site, capture, edits, intervening

    last = model.cfg.n_layers - 1
    seen = capture(model, task.clean, [Site("final")], positions=task.clean.last)
    final = seen[Site("final")]
    with intervening(model, {Site("mlp_out", last): edits.zero(positions=task.clean.last)}):
        without = capture(model, task.clean, [Site("final")], positions=task.clean.last)
    norm = model.ln_final
    scale = final.std(-1, unbiased=False) if model.cfg.architecture.startswith("GPT2") else (
        final.square().mean(-1).sqrt()
    )  # fmt: skip
    delta = final - without[Site("final")]
    if model.cfg.architecture.startswith("GPT2"):
        delta = delta - delta.mean(-1, keepdim=True)
    wrote = delta / scale[..., None] * norm.weight
    direction = model.unembed.W_U.T[task.answer[:, 0]] - model.unembed.W_U.T[task.foil[:, 0]]
    expected = (wrote[:, 0] * direction).sum(-1)
    assert_close(parts.mlp_per_prompt[last], expected, rtol=1e-3, atol=1e-4)


def test_the_lens_after_the_last_layer_is_the_model_itself(model, task):
    found = lens.logit_lens(model, task)
    expected = metrics.answer_logprob(model(task.clean), task)
    assert_close(found.per_prompt[-1], expected, rtol=1e-5, atol=1e-4)
    assert found.per_prompt.shape == (model.cfg.n_layers + 1, len(task))
    best = model(task.clean)[torch.arange(len(task)), task.clean.last].log_softmax(-1)
    ranks = (best > best.gather(1, task.answer)).sum(-1)
    assert found.rank[-1].equal(ranks)


def test_every_depth_reads_what_transformer_lens_reads(model, task):
    found = lens.logit_lens(model, task)
    theirs = their_lens(
        model, task.clean.tokens[:1, : int(task.clean.lengths[0])],
        positions=-1, targets=int(task.answer[0, 0]), return_type="log_probs",
    )  # fmt: skip
    values = theirs.values.reshape(len(theirs.labels), -1)[:, 0]
    pre = [i for i, label in enumerate(theirs.labels) if "pre" in label or "post" in label]
    assert_close(found.per_prompt[:, 0], values[pre], rtol=1e-4, atol=1e-4)


def test_where_nothing_adds_up_it_is_refused(model):
    several = tasks.greater_than(model, prompts=4, seed=0)
    with pytest.raises(ValueError, match="sets of answers or foils, whose logits do not add up"):
        lens.direct_attribution(model, several)


def test_heads_whose_sum_is_normalised_are_refused():
    model, _ = twins.make("Gemma 3")
    own = tasks.Task(
        "by hand", *(2 * [model_prompts()]), torch.tensor([[5], [6]]), torch.tensor([[7], [8]]),
        {}, torch.zeros(2, dtype=torch.long),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"no output of their own|not add"):
        lens.direct_attribution(model, own)


def model_prompts():
    from hooks import Prompts

    return Prompts.of(torch.arange(1, 9).reshape(2, 4))
