import pytest
import torch

from hooks import Prompts, Site, capture, edits, intervening
from workbench import corpora, metrics, models, neurons, tasks
from workbench.models import twins
from workbench.neurons.ablation import Ablating
from workbench.neurons.confidence import entropy
from workbench.neurons.writing import norm_weight, out_weights, through_norm


@pytest.fixture
def task(small):
    return tasks.ioi(small, prompts=6, seed=0)


def test_neurons_and_bias_add_up_to_their_mlp(small, task):
    found = neurons.direct_effects(small, task)
    torch.testing.assert_close(found.neurons_summed + found.bias, found.mlp, atol=1e-5, rtol=1e-5)
    assert found.total.allclose(metrics.logit_diff(small(task.clean), task).detach(), atol=1e-4)


@pytest.mark.parametrize("name", ["GPT-NeoX", "Gemma 3", "Qwen 3", "OPT"])
def test_they_add_up_in_other_architectures_too(name):
    model, _ = twins.make(name)
    tokens = torch.randint(5, 30, (4, 6), generator=torch.Generator().manual_seed(0))
    ids = torch.arange(4)[:, None]
    task = tasks.Task(
        "made up", Prompts.of(tokens), Prompts.of(tokens), ids + 5, ids + 12, {},
        torch.zeros(4, dtype=torch.long),
    )  # fmt: skip
    found = neurons.direct_effects(model, task)
    torch.testing.assert_close(found.neurons_summed + found.bias, found.mlp, atol=1e-5, rtol=1e-4)


def test_logits_that_are_capped_are_refused():
    model, _ = twins.make("Gemma 2")
    prompts = Prompts.of(torch.randint(5, 30, (2, 6), generator=torch.Generator().manual_seed(0)))
    ids = torch.arange(2)[:, None]
    group = torch.zeros(2, dtype=torch.long)
    task = tasks.Task("made up", prompts, prompts, ids + 5, ids + 12, {}, group)
    with pytest.raises(ValueError, match="soft cap"):
        neurons.direct_effects(model, task)


def test_a_direct_effect_is_what_removing_the_neuron_from_the_last_norms_input_takes(small, task):
    layer = small.cfg.n_layers - 1
    found = neurons.direct_effects(small, task)
    one = found.strongest(1)[0]
    site = Site("neuron", one.layer)
    seen = capture(small, task.clean, [site, Site("final")], positions=task.clean.last)
    final = seen[Site("final")][:, 0].double()
    wrote = seen[site][:, 0, one.neuron, None].double() * out_weights(small, one.layer)[one.neuron]
    norm = small.ln_final
    centred = (
        final - final.mean(-1, keepdim=True) if small.cfg.normalization_type == "LN" else final
    )
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    inner = wrote - wrote.mean(-1, keepdim=True) if small.cfg.normalization_type == "LN" else wrote
    logits = (inner / scale * norm.weight.double()) @ small.unembed.W_U.double()
    answer = logits.gather(1, task.answer) - logits.gather(1, task.foil)
    assert layer >= one.layer
    assert float(answer.mean()) == pytest.approx(float(found.effect[one]), rel=1e-3)


def test_what_a_neuron_writes_is_its_row_through_norm_and_unembedding(small):
    written = neurons.writes(small, k=3)
    weight, centres = norm_weight(small.ln_final, small.unembed.W_U)
    torch.testing.assert_close(weight, small.ln_final.weight.detach(), rtol=1e-3, atol=1e-4)
    out = small.blocks[1].mlp.W_out[5].detach()
    assert centres == (small.cfg.normalization_type == "LN")
    out = out - out.mean() if centres else out
    logits = (out * weight) @ small.unembed.W_U.detach()
    logits = logits - logits.mean()
    best = logits.topk(3)
    assert written.promoted[1, 5].tolist() == best.indices.tolist()
    torch.testing.assert_close(written.promoted_by[1, 5], best.values, rtol=1e-4, atol=1e-5)
    assert float(written.spread[1, 5]) == pytest.approx(float(logits.std(correction=0)), rel=1e-4)


@pytest.mark.parametrize("how", ["zero", "mean", "resample", "counterfactual"])
def test_every_ablation_by_replay_is_a_full_forward(small, task, how):
    sets = {"two": [(0, 3), (1, 5)], "one": [(0, 7)]}
    found = neurons.ablate_sets(small, task, sets, metric=metrics.logit_diff, ablation=how)
    members = [neurons.Neuron(*one) for some in sets.values() for one in some]
    ablating = Ablating.of(small, task, how, members, seed=0)
    for row, some in enumerate(sets.values()):
        cell = ablating.cell([neurons.Neuron(*one) for one in some])
        with torch.no_grad(), intervening(small, cell):
            full = metrics.logit_diff(small(task.clean), task) - found.baseline
        torch.testing.assert_close(found.per_prompt[row], full, atol=1e-5, rtol=0)


def test_on_running_text_the_metric_is_minus_the_loss(small, corpus):
    few = corpus.chosen(range(4))
    found = neurons.ablate_each(small, few, [(1, 2)], ablation="zero")
    with torch.no_grad(), intervening(small, {Site("neuron", 1): edits.zero(neurons=[2])}):
        logits = small(few.rows)
    task = tasks.Task(
        "x", few.rows, few.rows, torch.ones(4, 1).long(), torch.zeros(4, 1).long(), {},
        torch.zeros(4).long(),
    )  # fmt: skip
    full = metrics.mean_logprob(logits, task) - found.baseline
    torch.testing.assert_close(found.per_prompt[0], full, atol=1e-5, rtol=0)


def test_random_sets_are_like_the_set_and_share_nothing_with_it(small):
    like = [(0, 1), (0, 2), (1, 3)]
    drawn = neurons.random_sets(small, like, number=4, seed=0)
    for some in drawn.values():
        assert sorted(one.layer for one in some) == [0, 0, 1]
        assert not set(some) & set(map(tuple, like))
    assert len({tuple(some) for some in drawn.values()}) == 4
    assert drawn == neurons.random_sets(small, like, number=4, seed=0)


def test_wrong_neurons_are_refused_by_name(small, task):
    with pytest.raises(ValueError, match=r"no neuron 7\.0: layers are 0 to 1"):
        neurons.ablate_each(small, task, [(7, 0)], metric=metrics.logit_diff)
    with pytest.raises(ValueError, match="say which metric"):
        neurons.ablate_each(small, task, [(0, 0)])
    with pytest.raises(ValueError, match="no neurons"):
        neurons.ablate_sets(small, task, {"a": []}, metric=metrics.logit_diff)


def test_the_mean_ablation_of_a_constant_neuron_changes_nothing():
    model = models.load("planted/neurons")
    task = tasks.planted(model, prompts=6, seed=0)
    dead = models.planted.truth(model).neurons["dead"][0]
    found = neurons.ablate_each(model, task, [dead], metric=metrics.logit_diff, ablation="mean")
    assert found.per_prompt.abs().max() == 0


def test_the_entropy_of_even_odds_is_the_logarithm_of_their_number(tiny):
    task = tasks.ioi(tiny, prompts=2, seed=0)
    assert entropy(torch.zeros(2, 1, 16), task).tolist() == pytest.approx([2.7725887] * 2)


def test_a_vector_in_the_null_space_is_found_there(tiny, corpus_of_tiny):
    found = neurons.confidence(tiny, corpus_of_tiny, n=3)
    matrix = through_norm(tiny).double()
    least = torch.linalg.eigh(matrix.T @ matrix).eigenvectors[:, :2]
    out = out_weights(tiny, 1).double()
    share = (out @ least).square().sum(1) / out.square().sum(1)
    torch.testing.assert_close(found.null[1], share.float(), rtol=1e-3, atol=1e-4)
    assert found.neurons[0].layer == 1
    assert float(found.null[found.neurons[0]]) == float(found.null[1].max())


@pytest.fixture
def corpus_of_tiny(tiny):
    return corpora.passages(tiny, length=16, most_tokens=200)


def test_a_reader_of_exactly_what_is_written_has_cosine_one(tiny):
    found = neurons.composition(tiny, (0, 3), k=4)
    out, reads = out_weights(tiny, 0)[3], tiny.blocks[1].mlp.W_in.detach().T
    cosine = torch.nn.functional.cosine_similarity(reads, out[None], dim=1)
    assert found.readers[0].neuron == int(cosine.abs().argmax())
    assert float(found.cosine[0]) == pytest.approx(float(cosine[cosine.abs().argmax()]), abs=1e-5)
    assert found.heads[:, 0].isnan().all()
    last = neurons.composition(tiny, (1, 0))
    assert last.heads.isnan().all()
    assert not last.readers
    assert "No head comes after" in last.sentence()
