"""Figures of what a model uses show the numbers of the result, and what is significant."""

import matplotlib.image
import pytest
import torch

from hooks import Site
from workbench import metrics, plots, probes, tasks
from workbench.plots.style import new_figure


@pytest.fixture(scope="module")
def found(tiny):
    task = tasks.agreement(tiny, prompts=8, seed=0)
    y = [int(task.templates[group].endswith("plural")) for group in task.group]
    site = Site("resid_post", 0)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    few = probes.Placebos(count=19)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    x = torch.randn(40, 6, generator=generator) + 2 * labels[:, None]
    sets = {name: probes.examples(x + shift, labels) for name, shift in (("a", 0.0), ("b", 0.1))}
    return {
        "amnesia": probes.amnesic(
            tiny, task, probes.features(tiny, task.clean, y), metric=metrics.logit_diff,
            against=few,
        ),
        "use": probes.use(
            tiny, task, probes.Push(vector), site=site, metric=metrics.logit_diff, against=few
        ),
        "tcav": probes.tcav(
            tiny, task, task.clean[:3], task.corrupt, metric=metrics.logit_diff,
            random_concepts=19,
        ),
        "steering": probes.steer(
            tiny, task, vector, site=site, metric=metrics.logit_diff, corpus=task.clean,
            starts=["The dog"], strengths=(0.0, 1.0),
        ),
        "transfer": probes.transfer(sets, layer=0),
        "completeness": probes.completeness(
            tiny, task, {"one": vector, "other": vector.roll(1), "third": vector.flip(0)},
            site=site, mean=torch.zeros(32), metric=metrics.logit_diff,
        ),
        "pairs": probes.minimal_pairs(tiny, tasks.grammar(tiny, prompts=4, seed=0)),
    }  # fmt: skip


KINDS = ("amnesia", "use", "tcav", "steering", "transfer", "pairs", "completeness")


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_has_a_figure_that_names_its_model(found, kind, tmp_path):
    path = tmp_path / "figure.png"
    plots.save(found[kind], path)
    assert matplotlib.image.imread(path).std() > 0.01
    figure = plots.draw(found[kind])
    assert found[kind].model in figure.get_suptitle()


@pytest.mark.parametrize("kind", KINDS)
def test_its_main_panel_is_drawn_into_axes_that_are_given(found, kind):
    axes = new_figure(width=5.0, height=4.0).subplots()
    assert plots.draw(found[kind], ax=axes) is axes.figure
    assert axes.has_data()


def test_bars_of_minimal_pairs_start_at_one_half(found, seen):
    result = found["pairs"]
    axes = plots.draw(result).axes[0]
    expected = sorted((result.accuracy - 0.5).tolist(), reverse=True)
    assert seen.bar_lengths(axes) == pytest.approx(expected, abs=1e-6)


def test_what_is_written_stands_beside_the_curve(found, seen):
    words = " ".join(seen.words(plots.draw(found["steering"])))
    assert "The dog" in words and "+1:" in words


def test_bars_of_completeness_follow_each_other_up_to_all_of_them(found, seen):
    result = found["completeness"]
    axes = plots.draw(result).axes[0]
    parts = sorted(result.shapley.tolist(), reverse=True)
    assert seen.bar_lengths(axes) == pytest.approx([*parts, result.completeness], abs=1e-6)
    starts = [bar.get_x() for bar in axes.patches]
    assert starts[1] == pytest.approx(parts[0], abs=1e-6)
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends[-2] == pytest.approx(result.completeness, abs=1e-5)
    assert seen.bar_names(axes)[-1] == f"all of them  {result.completeness:.2f}"
