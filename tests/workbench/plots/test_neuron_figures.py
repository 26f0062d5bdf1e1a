import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from workbench import corpora, metrics, models, neurons, plots, tasks


@pytest.fixture(scope="module")
def planted():
    return models.load("planted/neurons")


@pytest.fixture(scope="module")
def found(tiny, planted):
    text = corpora.passages(tiny, length=20, most_tokens=240)
    task, some = tasks.planted(planted, prompts=12, seed=0), [(0, 1), (1, 1)]
    agreement = tasks.agreement(tiny, prompts=16, seed=0)
    plural = torch.tensor([agreement.templates[g].endswith("plural") for g in agreement.group])
    made = [
        neurons.activity(tiny, text, k=2),
        neurons.atlas(tiny, text, n=4, exact=2),
        neurons.explain(tiny, text, [(0, 1), (0, 2)]),
        neurons.triggers(tiny, text, some),
        neurons.writes(tiny),
        neurons.composition(tiny, (0, 3), k=6),
        neurons.universal(tiny, tiny, text, layers=[1]),
        neurons.confidence(tiny, text, n=3),
        neurons.ablate_each(planted, task, some, metric=metrics.logit_diff),
        neurons.direct_effects(planted, task),
        neurons.screen(planted, task, metric=metrics.logit_diff, n=3),
        neurons.knowledge(tiny, agreement[:4], other=agreement[4:8], steps=2),
        neurons.study_concept(
            tiny, agreement,
            neurons.find_concept(
                tiny, agreement, plural, concept="number", shuffles=4,
                positions=agreement.positions["subject"],
            ),
            metric=metrics.logit_diff,
        ),
    ]  # fmt: skip
    return {type(one).__name__: one for one in [*made, made[-1].concept]}


KINDS = (
    "Activity Atlas Explained Triggers Written Composition Universal Confidence "
    "NeuronEffects NeuronAttribution Screen KnowledgeNeurons ConceptStudy ConceptNeurons"
).split()


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_about_neurons_has_a_figure_and_one_panel(found, kind, tmp_path):
    figure = plots.draw(found[kind])
    assert len(plots.png(found[kind])) > 5000
    assert found[kind].model in figure.get_suptitle()
    ax = Figure().subplots()
    assert plots.draw(found[kind], ax) is ax.figure
    assert ax.has_data()


def test_bars_show_the_effects_with_the_significant_ones_filled(found, seen, planted):
    result = found["NeuronEffects"]
    (axes,) = plots.draw(result).axes
    costly = neurons.Neuron(*models.planted.truth(planted).neurons["costly"][0])
    assert seen.bar_names(axes)[0] == str(costly)
    assert seen.bar_lengths(axes)[0] == pytest.approx(-8.0)
    assert seen.filled(axes) == [True, False]


@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_readers_are_a_map_of_the_heads_there_are_beside_bars_of_neurons(name, seen):
    model = models.load(name)
    result = neurons.composition(model, (0, 3), k=6)
    left, right, _ = plots.draw(result).axes
    shown = left.images[0].get_array().filled(np.nan)
    groups = 4 if name == "tiny" else 2  # heads that have keys and values of their own
    expected = [result.heads[0], result.heads[1, :, :groups], result.heads[2, :, :groups]]
    assert np.array_equal(shown, torch.cat(expected, dim=1).numpy(), equal_nan=True)
    labels = [label.get_text() for label in left.get_xticklabels()]
    assert labels == ["q of 0–3", f"k of 0–{groups - 1}", f"v of 0–{groups - 1}"]
    assert left.get_title(loc="left") == "heads (grey: not later)"
    assert seen.bar_names(right) == [str(one) for one in result.readers]
    assert seen.bar_lengths(right) == pytest.approx(result.cosine.tolist())


def test_a_neuron_that_nothing_comes_after_has_a_figure_that_says_so(tiny):
    left, right, _ = plots.draw(neurons.composition(tiny, (1, 0))).axes
    assert left.get_title(loc="left") == "no head is later"
    assert right.get_title(loc="left") == "no neuron is later"
    assert not right.patches
