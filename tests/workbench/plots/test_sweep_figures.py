"""Figures of sweeps, rankings and paths show what the results hold, readably."""

import dataclasses

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench import plots
from workbench.patching import PathEffects, Ranking, Sweep, Sweeps, Tracing

WORDS = {"task": "ioi", "task_digest": "t", "model": "tiny", "model_digest": "m"}


def maps(*shape, seed=0):
    """An effect with three prompts around it, bounds that are not symmetric, and p-values."""
    effect = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    p = torch.where(effect.abs() > 1, 0.01, 0.5)
    per_prompt = effect[..., None] + torch.tensor([-0.2, 0.0, 0.2])
    return {
        "effect": effect, "low": effect - 0.1, "high": effect + 0.3, "p": p,
        "per_prompt": per_prompt,
    }  # fmt: skip


def sweep(layers=(0, 1, 2, 3), places=("IO", "S1", "S2"), **changed):
    fields = {
        **maps(len(layers), len(places)),
        "clean": torch.tensor([4.0, 5.0, 4.5]),
        "corrupt": torch.tensor([-5.0, -4.0, -5.4]),
        "layers": list(layers),
        "places": list(places),
        "stream": "attn_out",
        "over": "role",
        "direction": "denoise",
        "source": "counterfactual",
        "metric": "logit_diff",
        "unit": "nats",
        **WORDS,
    }
    return Sweep(**(fields | changed))


def sweeps(*, metrics=("logit_diff",), directions=("denoise", "noise"), layers=4, **changed):
    places = ["IO", "S1", "S2"]
    fields = {
        **maps(len(directions), len(metrics), layers, len(places)),
        "clean": torch.tensor([[4.0, 5.0, 4.5]] * len(metrics)),
        "corrupt": torch.tensor([[-5.0, -4.0, -5.4]] * len(metrics)),
        "directions": list(directions),
        "metrics": list(metrics),
        "units": ["nats"] * len(metrics),
        "layers": list(range(layers)),
        "places": places,
        "stream": "attn_out",
        "over": "role",
        "source": "counterfactual",
        **WORDS,
    }
    return Sweeps(**(fields | changed))


def ranking(count=5, **changed):
    fields = {
        **maps(count),
        "baseline": torch.ones(3),
        "places": [f"neuron 1.{at}" for at in range(count)],
        "what": "mean ablation of single neurons",
        "run": "clean",
        "metric": "logit_diff",
        "unit": "nats",
        **WORDS,
    }
    return Ranking(**(fields | changed))


def path_effects(**changed):
    mlp = {f"mlp_{name}": one for name, one in maps(4, seed=1).items() if name != "effect"}
    fields = {
        **maps(4, 3), **mlp, "mlp": maps(4, seed=1)["effect"],
        "baseline": torch.ones(3), "other": -torch.ones(3), "to": "logits", "between": "free",
        "direction": "noise", "metric": "logit_diff", "unit": "nats", **WORDS,
    }  # fmt: skip
    return PathEffects(**(fields | changed))


def tracing(**changed):
    clean = torch.tensor([4.0, 5.0, 4.5])
    fields = {
        **maps(4, 3), "by_draw": torch.zeros(2, 4, 3), "clean": clean, "noised": clean - 2,
        "total": 2.0, "total_low": 1.5, "total_high": 2.5, "layers": [0, 1, 2, 3],
        "places": ["first", "last", "END"], "stream": "mlp_out", "over": "role", "window": 2,
        "severed": "none", "subject": "country", "noise": 3.0, "deviation": 0.1,
        "metric": "logit_diff", "unit": "nats", **WORDS,
    }  # fmt: skip
    return Tracing(**(fields | changed))


EVERY = {
    "sweep": sweep,
    "sweeps": sweeps,
    "ranking": ranking,
    "paths": path_effects,
    "tracing": tracing,
}


@pytest.fixture(params=EVERY)
def any_result(request):
    return EVERY[request.param]()


def test_the_map_holds_the_effects_with_layers_and_places_on_its_axes():
    result = sweep()
    axes = plots.draw(result).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), result.effect.numpy())
    low, high = axes.images[0].get_clim()
    assert high == -low == result.effect.abs().max()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("role of the token", "layer")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["IO", "S1", "S2"]


def test_rows_are_named_by_the_layers_that_were_swept():
    axes = plots.draw(sweep(layers=[7, 9, 20])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["7", "9", "20"]


@pytest.mark.parametrize(
    ("stream", "over", "name"),
    [
        ("resid_pre", "position", "token position"),
        ("z", "head", "head"),
        ("v", "head", "key-value head"),
        ("neuron", "neuron", "neuron"),
        ("mlp_out", "all", "all positions at once"),
    ],
)
def test_the_axis_says_what_the_columns_are(stream, over, name):
    axes = plots.draw(sweep(stream=stream, over=over)).axes[0]
    assert axes.get_xlabel() == name


def test_cells_with_a_small_corrected_p_are_outlined_and_no_others(seen):
    result = sweep()
    expected = {tuple(cell) for cell in (result.p <= 0.05).nonzero().tolist()}
    assert expected
    assert seen.outlined(plots.draw(result).axes[0]) == expected
    nothing = dataclasses.replace(result, p=torch.ones(4, 3))
    assert seen.outlined(plots.draw(nothing).axes[0]) == set()


def test_bars_are_the_strongest_places_with_their_bounds_filled_where_significant(seen):
    result = sweep()
    axes = plots.draw(result).axes[1]
    cells = sorted(
        ((layer, place) for layer in range(4) for place in range(3)),
        key=lambda cell: -abs(result.effect[cell]),
    )
    assert seen.bar_names(axes) == [f"layer {a}, {result.places[b]}" for a, b in cells]
    np.testing.assert_allclose(seen.bar_lengths(axes), [result.effect[c] for c in cells])
    bounds = [[result.low[c], result.high[c]] for c in cells]
    np.testing.assert_allclose(seen.drawn_bounds(axes), bounds, rtol=1e-5)
    assert seen.filled(axes) == [bool(result.p[c] <= 0.05) for c in cells]
    assert axes.yaxis_inverted()


def test_of_a_residual_stream_each_place_is_shown_once_where_it_is_strongest(seen):
    effect = torch.tensor([[0.0, 3.0], [0.0, 9.0], [0.0, 8.0], [1.0, -2.0]])
    flat = {name: effect for name in ("effect", "low", "high")}
    result = sweep(
        places=("S1", "S2"), stream="resid_pre", **flat, p=torch.ones(4, 2),
        per_prompt=effect[..., None].repeat(1, 1, 3),
    )  # fmt: skip
    assert seen.bar_names(plots.draw(result).axes[1]) == ["layer 1, S2", "layer 3, S1"]


@pytest.mark.parametrize(
    ("direction", "blue_is_positive", "said"),
    [
        ("denoise", True, {"← hurts the answer", "restores it →"}),
        ("noise", False, {"← breaks the answer", "helps it →"}),
    ],
)
def test_blue_carries_the_answer_and_the_colour_bar_says_so(
    seen, direction, blue_is_positive, said
):
    figure = plots.draw(sweep(direction=direction))
    assert said <= seen.words(figure)
    image = figure.axes[0].images[0]
    end = image.get_clim()[1] * (1 if blue_is_positive else -1)
    red, _, blue, _ = image.cmap(image.norm(end))
    assert blue > 2 * red


def test_the_title_of_a_map_says_what_was_edited_and_where_the_metric_stood():
    for direction, expected in (
        ("denoise", "denoise: into corrupt prompts (−4.80 nats)"),
        ("noise", "noise: into clean prompts (+4.50 nats)"),
    ):
        axes = plots.draw(sweep(direction=direction)).axes[0]
        assert axes.get_title(loc="left").startswith(expected)


def test_both_directions_stand_side_by_side_on_one_scale(seen):
    result = sweeps()
    figure = plots.draw(result)
    denoise, noise = figure.axes[:2]
    np.testing.assert_array_equal(denoise.images[0].get_array(), result.effect[0, 0].numpy())
    np.testing.assert_array_equal(noise.images[0].get_array(), result.effect[1, 0].numpy())
    assert denoise.images[0].get_clim() == noise.images[0].get_clim()
    assert denoise.images[0].get_clim()[1] == result.effect.abs().max()
    for at, axes in enumerate((denoise, noise)):
        marked = {tuple(cell) for cell in (result.p[at, 0] <= 0.05).nonzero().tolist()}
        assert seen.outlined(axes) == marked
    assert denoise.get_title(loc="left").startswith("denoise")
    assert noise.get_title(loc="left").startswith("noise")


def test_the_places_strongest_in_either_direction_have_a_bar_for_both(seen):
    result = sweeps()
    figure = plots.draw(result)
    axes = next(one for one in figure.axes if one.get_legend())
    most = result.effect.abs().amax(dim=(0, 1))
    cells = sorted(
        ((layer, place) for layer in range(4) for place in range(3)), key=lambda c: -most[c]
    )
    assert seen.bar_names(axes) == [f"layer {a}, {result.places[b]}" for a, b in cells]
    expected = [result.effect[way, 0, a, b] for way in (0, 1) for a, b in cells]
    np.testing.assert_allclose(seen.bar_lengths(axes), expected)
    marked = [bool(result.p[way, 0, a, b] <= 0.05) for way in (0, 1) for a, b in cells]
    assert seen.filled(axes) == marked
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["denoise", "noise"]


def test_every_metric_has_a_row_with_a_scale_of_its_own():
    result = sweeps(metrics=("logit_diff", "answer_logprob"))
    images = [axes.images[0] for axes in plots.draw(result).axes if axes.images]
    images = [one for one in images if one.get_array().shape == (4, 3)]
    assert len(images) == 4
    limits = [image.get_clim()[1] for image in images]
    expected = result.effect.abs().amax(dim=(0, 2, 3)).tolist()
    np.testing.assert_allclose(limits, np.repeat(expected, 2))


def test_one_direction_alone_is_drawn_too(seen):
    figure = plots.draw(sweeps(directions=("noise",)))
    assert figure.axes[0].get_title(loc="left").startswith("noise")
    assert len([axes for axes in figure.axes if axes.get_xlabel() == "role of the token"]) == 1


def test_labels_of_tokens_do_not_run_into_each_other():
    words = "When Mary and John went to the store , John gave a drink to the other one".split()
    for count in (3, 9, 17, 40, 90):
        places = [f"{at} {words[at % len(words)]}" for at in range(count)]
        figure = plots.draw(sweep(places=places, over="position", **maps(4, count)))
        figure.draw_without_rendering()
        axes = figure.axes[0]
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        assert labels[0].get_text() == places[0]
        lefts = np.array([axes.transData.transform((at, 0))[0] for at in axes.get_xticks()])
        apart = np.diff(lefts)
        size = labels[0].get_window_extent()
        angle = labels[0].get_rotation()
        line = 8 / 72 * figure.dpi  # the height of a line of text
        needed = size.width if angle == 0 else line / np.sin(np.deg2rad(angle))
        assert (apart >= needed * 0.98).all(), (count, angle)
        assert len(labels) == count or count == 90


def test_neurons_by_the_hundred_have_few_labels_and_a_handful_every_one():
    many = [str(at) for at in range(600)]
    axes = plots.draw(sweep(places=many, over="neuron", **maps(4, 600))).axes[0]
    assert len(axes.get_xticks()) < 20
    few = ["3", "77", "105"]
    axes = plots.draw(sweep(places=few, over="neuron", stream="neuron")).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == few


def test_a_ranking_is_bars_from_the_strongest_down(seen):
    result = ranking()
    axes = plots.draw(result).axes[0]
    order = result.effect.abs().argsort(descending=True).tolist()
    assert seen.bar_names(axes) == [result.places[at] for at in order]
    np.testing.assert_allclose(seen.bar_lengths(axes), result.effect[order])
    bounds = torch.stack([result.low[order], result.high[order]], dim=1)
    np.testing.assert_allclose(seen.drawn_bounds(axes), bounds, rtol=1e-5)
    assert seen.filled(axes) == (result.p[order] <= 0.05).tolist()
    assert "(nats)" in axes.get_xlabel()


def test_a_long_ranking_says_how_many_are_left_out(seen):
    axes = plots.draw(ranking(60)).axes[0]
    assert len(seen.bar_names(axes)) == 24
    assert "the 24 strongest of 60" in axes.get_title(loc="left")
    assert "strongest of" not in plots.draw(ranking(5)).axes[0].get_title(loc="left")


def test_paths_show_heads_with_the_mlps_as_the_last_column_and_the_strongest_senders(seen):
    result = path_effects()
    senders, strongest = plots.draw(result).axes[:2]
    both = torch.cat([result.effect, result.mlp[:, None]], dim=1)
    np.testing.assert_array_equal(senders.images[0].get_array(), both.numpy())
    labels = [label.get_text() for label in senders.get_xticklabels()]
    assert labels == ["0", "1", "2", "MLP"]
    p = torch.cat([result.p, result.mlp_p[:, None]], dim=1)
    assert seen.outlined(senders) == {tuple(cell) for cell in (p <= 0.05).nonzero().tolist()}
    order = both.abs().flatten().argsort(descending=True)[:12].tolist()
    names = [f"MLP {at // 4}" if at % 4 == 3 else f"{at // 4}.{at % 4}" for at in order]
    assert seen.bar_names(strongest) == names
    np.testing.assert_allclose(seen.bar_lengths(strongest), both.flatten()[order])


def test_tracing_shows_every_place_and_curves_up_to_all_there_is():
    result = tracing()
    places, curves = plots.draw(result).axes[:2]
    np.testing.assert_array_equal(places.images[0].get_array(), result.effect.numpy())
    drawn = {one.get_label(): one.get_ydata() for one in curves.lines}
    for at, name in enumerate(result.places):
        np.testing.assert_array_equal(drawn[name], result.effect[:, at])
    assert set(drawn["all of it"]) == {2.0}


def test_a_figure_says_task_and_model_and_its_unit(any_result):
    figure = plots.draw(any_result)
    assert "ioi" in figure.get_suptitle() and "tiny" in figure.get_suptitle()
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    assert any("(nats)" in label for label in labels)


def test_nothing_is_written_smaller_than_eight_points(any_result):
    figure = plots.draw(any_result)
    figure.draw_without_rendering()
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert min(sizes) >= 8


def test_no_title_runs_out_of_the_picture_or_into_its_neighbour(any_result):
    figure = plots.draw(any_result)
    figure.draw_without_rendering()
    titles = [axes.title for axes in figure.axes] + [axes._left_title for axes in figure.axes]
    boxes = [one.get_window_extent() for one in titles if one.get_text()]
    assert boxes
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    for one in boxes:
        assert not [o for o in boxes if o is not one and one.overlaps(o)]


def test_an_axes_of_the_caller_gets_the_main_panel(any_result):
    mine = Figure()
    axes = mine.subplots()
    assert plots.draw(any_result, axes) is mine
    assert axes.images or axes.patches
    assert "ioi" in axes.get_title(loc="left")


def test_zero_effects_and_missing_numbers_still_draw():
    for value in (0.0, torch.nan):
        flat = {name: torch.full((4, 3), value) for name in ("effect", "low", "high", "p")}
        for stream in ("z", "resid_pre"):
            assert plots.png(sweep(stream=stream, **flat)).startswith(b"\x89PNG")


def test_drawing_and_saving_leave_pyplot_and_its_settings_alone(any_result, tmp_path):
    before = dict(mpl.rcParams)
    plots.save(any_result, tmp_path / "figure.png")
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_the_same_result_gives_the_same_bytes(any_result):
    assert plots.png(any_result) == plots.png(any_result)
