"""What a reader sees of several sweeps, rankings, paths and tracings."""

import numpy as np
import torch

from workbench import plots


def test_both_directions_stand_side_by_side_on_one_scale(seen, sweeps):
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


def test_the_places_strongest_in_either_direction_have_a_bar_for_both(seen, sweeps):
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


def test_every_metric_has_a_row_with_a_scale_of_its_own(sweeps):
    result = sweeps(metrics=("logit_diff", "answer_logprob"))
    images = [axes.images[0] for axes in plots.draw(result).axes if axes.images]
    images = [one for one in images if one.get_array().shape == (4, 3)]
    assert len(images) == 4
    limits = [image.get_clim()[1] for image in images]
    expected = result.effect.abs().amax(dim=(0, 2, 3)).tolist()
    np.testing.assert_allclose(limits, np.repeat(expected, 2))


def test_one_direction_alone_is_drawn_too(seen, sweeps):
    figure = plots.draw(sweeps(directions=("noise",)))
    assert figure.axes[0].get_title(loc="left").startswith("noise")
    assert len([axes for axes in figure.axes if axes.get_xlabel() == "role of the token"]) == 1


def test_a_ranking_is_bars_from_the_strongest_down(seen, ranking):
    result = ranking()
    axes = plots.draw(result).axes[0]
    order = result.effect.abs().argsort(descending=True).tolist()
    assert seen.bar_names(axes) == [result.places[at] for at in order]
    np.testing.assert_allclose(seen.bar_lengths(axes), result.effect[order])
    bounds = torch.stack([result.low[order], result.high[order]], dim=1)
    np.testing.assert_allclose(seen.drawn_bounds(axes), bounds, rtol=1e-5)
    assert seen.filled(axes) == (result.p[order] <= 0.05).tolist()
    assert "(nats)" in axes.get_xlabel()


def test_a_long_ranking_says_how_many_are_left_out(seen, ranking):
    axes = plots.draw(ranking(60)).axes[0]
    assert len(seen.bar_names(axes)) == 24
    assert "the 24 strongest of 60" in axes.get_title(loc="left")
    assert "strongest of" not in plots.draw(ranking(5)).axes[0].get_title(loc="left")


def test_paths_show_heads_with_the_mlps_as_the_last_column_and_the_strongest_senders(
    seen, path_effects
):
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


def test_tracing_shows_every_place_and_curves_up_to_all_there_is(tracing):
    result = tracing()
    places, curves = plots.draw(result).axes[:2]
    np.testing.assert_array_equal(places.images[0].get_array(), result.effect.numpy())
    drawn = {one.get_label(): one.get_ydata() for one in curves.lines}
    for at, name in enumerate(result.places):
        np.testing.assert_array_equal(drawn[name], result.effect[:, at])
    assert set(drawn["all of it"]) == {2.0}
