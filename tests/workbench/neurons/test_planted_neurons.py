import pytest
import torch

from hooks import Site, capture, edits, intervening
from workbench import corpora, metrics, models, neurons, tasks
from workbench.models.planted.detectors import COST, DETECTED, PROMOTED, PROMOTES

FILLER = "the and then later today here near there while after was still by some".split()


@pytest.fixture(scope="module", params=["planted/neurons", "planted/neurons/3"])
def model(request):
    return models.load(request.param)


@pytest.fixture(scope="module")
def truth(model):
    return {name: some[0] for name, some in models.planted.truth(model).neurons.items()}


@pytest.fixture(scope="module")
def text(model):
    drawn = torch.Generator().manual_seed(0)
    documents = [
        " ".join(FILLER[int(at)] for at in torch.randint(len(FILLER), (40,), generator=drawn))
        for _ in range(12)
    ]
    return corpora.text(model, documents, length=24)


@pytest.fixture(scope="module")
def task(model):
    return tasks.planted(model, prompts=12, seed=0)


def every(model):
    return [(0, n) for n in range(model.cfg.d_mlp)]


def test_the_dead_neuron_is_the_one_that_stays_silent(model, text, truth):
    seen = neurons.activity(model, text, k=3)
    assert neurons.Neuron(*truth["dead"]) in seen.dead
    assert neurons.Neuron(*truth["detector"]) not in seen.dead
    assert seen.largest[truth["dead"]] == 0
    assert seen.positive[truth["dead"]] == 0


def test_the_examples_of_the_detector_are_all_at_its_word(model, text, truth):
    seen = neurons.activity(model, text, k=5)
    assert seen.top[truth["detector"]].tolist() == [1.0] * 5
    lines = seen.examples(model, text, truth["detector"])
    assert all(f"« {DETECTED}»" in line or f"«{DETECTED}»" in line for line in lines)
    share = float((text.rows.tokens == model.tokenizer.convert_tokens_to_ids(DETECTED)).sum())
    inside = text.rows.mask.sum() - len(text)
    assert float(seen.positive[truth["detector"]]) == pytest.approx(share / float(inside), abs=0.01)


def test_the_detector_and_its_double_are_detectors_of_one_token(model, text, truth):
    found = neurons.triggers(model, text, every(model))
    expected = {neurons.Neuron(*truth[name]) for name in ("detector", "duplicate")}
    assert expected <= set(found.detectors)
    at = found.place(truth["detector"])
    assert [word.strip() for word in found.words(model, truth["detector"])] == [DETECTED]
    assert float(found.kinds[at]) == pytest.approx(1.0)
    assert float(found.selectivity[at]) == pytest.approx(1.0)
    assert int(found.covering[at]) == 1
    assert float(found.fires[at, 0]) == 1.0
    before = found.before[at, 0].tolist()
    assert before[1] == int(found.token[at, 0])


def test_the_detector_promotes_what_it_was_wired_to(model, truth):
    written = neurons.writes(model, k=2)
    assert written.words(model, truth["detector"])["promoted"][0].strip() == PROMOTED
    gained = written.promoted_by[truth["detector"]][0]
    mean = PROMOTES / model.cfg.d_vocab
    assert float(gained) == pytest.approx(PROMOTES - mean, abs=1e-5)
    token = int(written.embedding_token[truth["detector"]])
    assert models.words(model, torch.tensor([token]))[0].strip() == DETECTED
    assert float(written.length[truth["detector"]]) == pytest.approx(1.0)


def test_ablating_the_costly_neuron_costs_what_was_planted_and_others_cost_nothing(
    model, task, truth
):
    some = [truth["costly"], truth["detector"], truth["dead"]]
    for how in ("zero", "mean", "resample", "counterfactual"):
        found = neurons.ablate_each(model, task, some, metric=metrics.logit_diff, ablation=how)
        assert found.of(neurons.Neuron(*truth["costly"])) == pytest.approx(-COST, abs=1e-4)
        for name in ("detector", "dead"):
            assert found.of(neurons.Neuron(*truth[name])) == pytest.approx(0, abs=1e-4)
    assert found.headline()["significant"] == 1


def test_the_screen_finds_the_costly_neuron_first(model, task, truth):
    found = neurons.screen(model, task, metric=metrics.logit_diff, n=3)
    assert found.strongest[0] == neurons.Neuron(*truth["costly"])
    assert float(found.estimate[truth["costly"]]) == pytest.approx(-COST, abs=1e-4)


def test_the_direct_effect_is_all_the_costly_neurons(model, task, truth):
    found = neurons.direct_effects(model, task)
    assert found.strongest(1) == [neurons.Neuron(*truth["costly"])]
    assert float(found.effect[truth["costly"]]) == pytest.approx(COST, abs=1e-4)


def test_the_planted_detector_is_explained_and_a_wrong_explanation_scores_nothing(
    model, text, truth
):
    found = neurons.explain(model, text, [truth["detector"], *every(model)[:6]])
    place = found.neurons.tolist().index(list(truth["detector"]))
    assert float(found.score[place]) > 0.9
    assert DETECTED in found.explanation[place]

    def other(examples):
        return neurons.by_rules([(["x", PROMOTED], [0.0, 1.0])])

    wrong = neurons.explain(model, text, [truth["detector"]], explainer=other)
    assert abs(float(wrong.score[0])) < 0.15
    assert float(wrong.null.isnan().sum()) == 1


def test_a_perfect_simulator_scores_one_and_a_constant_one_nothing(model, text, truth):
    calls = []

    def constant(text, tokens):
        calls.append(text)
        return [0.5] * len(tokens)

    found = neurons.explain(model, text, [truth["detector"]], simulator=constant)
    assert float(found.score[0]) == 0
    assert float(found.detection[0]) == 0.5
    assert calls

    def oracle(_, tokens):
        return [float(token.strip() == DETECTED) for token in tokens]

    found = neurons.explain(model, text, [truth["detector"]], simulator=oracle)
    assert float(found.score[0]) == pytest.approx(1.0)
    assert float(found.detection[0]) == 1.0
    with pytest.raises(ValueError, match="gave 1 numbers"):
        neurons.explain(model, text, [truth["detector"]], simulator=lambda *_: [0.0])


def test_detector_and_duplicate_are_each_others_counterparts(model, text, truth):
    found = neurons.universal(model, model, text, layers=[0], other_layers=[0])
    detector, double = truth["detector"][1], truth["duplicate"][1]
    assert float(found.correlation[0, detector]) == pytest.approx(1.0, abs=1e-4)
    assert found.match[0, double, 1].item() in (detector, double)
    assert float(found.correlation[0, truth["dead"][1]]) == 0


def test_what_never_fires_is_no_detector_of_one_token(model, text, truth):
    found = neurons.triggers(model, text, [truth["dead"], truth["detector"]])
    assert found.kinds.isnan().tolist() == [True, False]
    assert not bool(found.detector[0])
    assert "nan" not in found.sentence() and found.headline()["kinds"] < 2


def test_traces_of_another_text_or_other_neurons_are_refused(model, text, truth):
    seen = neurons.traces(model, text, [truth["detector"], truth["dead"]])
    few = text.at_most(100)
    for ask in (neurons.explain, neurons.triggers):
        with pytest.raises(ValueError, match="these traces are of another text"):
            ask(model, few, [truth["dead"]], seen=seen)
        with pytest.raises(ValueError, match=r"neuron .* was not traced; traced: "):
            ask(model, text, [truth["costly"]], seen=seen)
        found = ask(model, text, [truth["dead"]], seen=seen)
        assert found.neurons.tolist() == [list(truth["dead"])]  # those that were asked for alone


@pytest.mark.parametrize("wrong", [(0, 99_999), (0, -1), (-1, 0), (9, 0)])
def test_neurons_that_are_not_there_are_named(model, text, wrong):
    for ask in (
        lambda: neurons.traces(model, text, [wrong]),
        lambda: neurons.composition(model, wrong),
        lambda: neurons.random_sets(model, [wrong], number=1, seed=0),
    ):
        with pytest.raises(ValueError, match=f"there is no neuron {wrong[0]}.{wrong[1]}: layers"):
            ask()


def test_a_permuted_copy_is_matched_neuron_by_neuron(model, text):
    one, other = models.load("planted/neurons"), models.load("planted/neurons/3")
    same = neurons.universal(one, one, text, layers=[0])
    assert (same.correlation[0][same.correlation[0] > 0] > 0.999).all()
    crossed = neurons.universal(one, other, text, layers=[0], other_layers=[0])
    mine, theirs = (models.planted.truth(m).neurons for m in (one, other))
    where = crossed.match[mine["detector"][0]].tolist()
    assert tuple(where) in (theirs["detector"][0], theirs["duplicate"][0])


def test_suppressed_knowledge_is_lost_and_amplified_knowledge_is_not(model, task, truth):
    found = neurons.knowledge(model, task, other=task, steps=8)
    assert neurons.Neuron(*truth["costly"]) in found.neurons
    assert float(found.effect[0]) < -0.2 * found.baseline
    assert found.effect.allclose(found.other, atol=1e-5)  # the same prompts were given twice
    assert found.random.shape == (2, 5)
    assert float(found.effect[1]) > -1e-3  # amplified is not lost
    assert float(found.random[0].min()) > float(found.effect[0])  # no others cost as much


def test_a_replayed_ablation_is_a_full_forward(model, task, truth):
    found = neurons.ablate_each(model, task, [truth["costly"]], metric=metrics.logit_diff)
    with (
        torch.no_grad(),
        intervening(
            model, {Site("neuron", truth["costly"][0]): edits.zero(neurons=[truth["costly"][1]])}
        ),
    ):
        logits = model(task.clean)
    full = metrics.logit_diff(logits, task) - found.baseline
    torch.testing.assert_close(found.per_prompt[0], full, atol=1e-5, rtol=0)
    assert capture(model, task.clean, [Site("neuron", 0)])[Site("neuron", 0)].shape[-1] == 12
