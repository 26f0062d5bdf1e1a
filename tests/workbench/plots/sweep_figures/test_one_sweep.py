"""What a reader sees of one sweep."""

import dataclasses

import numpy as np
import pytest
import torch

from workbench import plots


def test_the_map_holds_the_effects_with_layers_and_places_on_its_axes(sweep):
    result = sweep()
    axes = plots.draw(result).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), result.effect.numpy())
    low, high = axes.images[0].get_clim()
    assert high == -low == result.effect.abs().max()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("role of the token", "layer")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["IO", "S1", "S2"]


def test_rows_are_named_by_the_layers_that_were_swept(sweep):
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
def test_the_axis_says_what_the_columns_are(stream, over, name, sweep):
    axes = plots.draw(sweep(stream=stream, over=over)).axes[0]
    assert axes.get_xlabel() == name


def test_cells_with_a_small_corrected_p_are_outlined_and_no_others(seen, sweep):
    result = sweep()
    expected = {tuple(cell) for cell in (result.p <= 0.05).nonzero().tolist()}
    assert expected
    assert seen.outlined(plots.draw(result).axes[0]) == expected
    nothing = dataclasses.replace(result, p=torch.ones(4, 3))
    assert seen.outlined(plots.draw(nothing).axes[0]) == set()


def test_bars_are_the_strongest_places_with_their_bounds_filled_where_significant(seen, sweep):
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


def test_of_a_residual_stream_each_place_is_shown_once_where_it_is_strongest(seen, sweep):
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
    seen, direction, blue_is_positive, said, sweep
):
    figure = plots.draw(sweep(direction=direction))
    assert said <= seen.words(figure)
    image = figure.axes[0].images[0]
    end = image.get_clim()[1] * (1 if blue_is_positive else -1)
    red, _, blue, _ = image.cmap(image.norm(end))
    assert blue > 2 * red


def test_the_title_of_a_map_says_what_was_edited_and_where_the_metric_stood(sweep):
    for direction, expected in (
        ("denoise", "denoise: into corrupt prompts (−4.80 nats)"),
        ("noise", "noise: into clean prompts (+4.50 nats)"),
    ):
        axes = plots.draw(sweep(direction=direction)).axes[0]
        assert axes.get_title(loc="left").startswith(expected)


def test_labels_of_tokens_do_not_run_into_each_other(maps, sweep):
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


def test_neurons_by_the_hundred_have_few_labels_and_a_handful_every_one(maps, sweep):
    many = [str(at) for at in range(600)]
    axes = plots.draw(sweep(places=many, over="neuron", **maps(4, 600))).axes[0]
    assert len(axes.get_xticks()) < 20
    few = ["3", "77", "105"]
    axes = plots.draw(sweep(places=few, over="neuron", stream="neuron")).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == few


def test_zero_effects_and_missing_numbers_still_draw(sweep):
    for value in (0.0, torch.nan):
        flat = {name: torch.full((4, 3), value) for name in ("effect", "low", "high", "p")}
        for stream in ("z", "resid_pre"):
            assert plots.png(sweep(stream=stream, **flat)).startswith(b"\x89PNG")
