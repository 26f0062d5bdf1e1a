from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench import plots
from workbench.heads import HeadEffects
from workbench.lens import DirectAttribution, LogitLens

WORDS = {"task": "ioi", "task_digest": "t", "model": "tiny", "model_digest": "m"}


def spread(mean):
    """Three prompts around each mean, and bounds that are not symmetric."""
    per_prompt = mean[..., None] + torch.tensor([-0.2, 0.0, 0.2])
    return per_prompt, mean - 0.1, mean + 0.3


@pytest.fixture
def effects():
    mean = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    per_prompt, low, high = spread(mean)
    p = torch.ones(5, 4)
    p[3, 1], p[0, 2] = 0.01, 0.05
    return HeadEffects(
        effect=mean,
        low=low,
        high=high,
        p=p,
        per_prompt=per_prompt,
        baseline=torch.tensor([1.0, 2.0, 3.0]),
        metric="logit_diff",
        unit="nats",
        ablation="zero",
        **WORDS,
    )


@pytest.fixture
def lens():
    per_prompt, low, high = spread(torch.tensor([-9.0, -5.0, -1.0]))
    return LogitLens(
        logprob=per_prompt.mean(dim=1),
        low=low,
        high=high,
        per_prompt=per_prompt,
        foil=torch.tensor([[-9.0, -8.0, -7.0], [-6.0, -6.0, -6.0], [-3.0, -3.0, -6.0]]),
        rank=torch.tensor([[99, 9, 999], [9, 9, 9], [0, 0, 1]]),
        unit="nats",
        **WORDS,
    )


@pytest.fixture
def direct():
    head, low, high = spread(torch.tensor([[2.0, -1.0], [0.5, 0.25]]))
    mlp, mlp_low, mlp_high = spread(torch.tensor([1.0, -2.0]))
    return DirectAttribution(
        effect=head.mean(dim=-1),
        low=low,
        high=high,
        attention=torch.tensor([1.125, 0.875]),
        attention_low=torch.tensor([1.0, 0.75]),
        attention_high=torch.tensor([1.5, 1.25]),
        mlp=mlp.mean(dim=-1),
        mlp_low=mlp_low,
        mlp_high=mlp_high,
        p=torch.tensor([[0.01, 0.2], [1.0, 1.0]]),
        head_per_prompt=head,
        mlp_per_prompt=mlp,
        bias_per_prompt=torch.full((2, 3), 0.125),
        embed_per_prompt=torch.zeros(3),
        constant=torch.zeros(3),
        total=torch.ones(3),
        unit="nats",
        **WORDS,
    )


@pytest.fixture(params=["effects", "lens", "direct"])
def any_result(request):
    return request.getfixturevalue(request.param)


def bar_lengths(axes):
    return [float(bar.get_width()) for bar in axes.patches]


def drawn_bounds(axes):
    """Low and high of every line of bounds, from the top of the list down."""
    lines = [one for one in axes.collections if isinstance(one, LineCollection)]
    return np.array([line[:, 0] for one in lines for line in one.get_segments()])


def outlined(axes):
    """Layer and head of every outlined cell."""
    boxes = next(one for one in axes.collections if isinstance(one, PatchCollection))
    centres = [path.get_extents().get_points().mean(axis=0) for path in boxes.get_paths()]
    return {(round(y), round(x)) for x, y in centres}


def test_the_map_of_heads_holds_the_effects_and_is_centred_on_zero(effects):
    axes = plots.draw(effects).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), effects.effect.numpy())
    low, high = axes.images[0].get_clim()
    assert high == -low == effects.effect.abs().max()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")


def test_heads_with_a_small_corrected_p_are_outlined_and_no_others(effects):
    assert outlined(plots.draw(effects).axes[0]) == {(3, 1), (0, 2)}


def test_bars_show_the_twelve_strongest_heads_strongest_first_with_their_bounds(effects):
    axes = plots.draw(effects).axes[1]
    order = effects.effect.abs().flatten().argsort(descending=True)[:12]
    names = [f"{int(at) // 4}.{int(at) % 4}" for at in order]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert axes.yaxis_inverted()
    np.testing.assert_allclose(bar_lengths(axes), effects.effect.flatten()[order])
    expected = torch.stack([effects.low.flatten()[order], effects.high.flatten()[order]], dim=1)
    np.testing.assert_allclose(drawn_bounds(axes), expected)


def test_only_bars_of_significant_heads_are_filled(effects):
    axes = plots.draw(effects).axes[1]
    names = [label.get_text() for label in axes.get_yticklabels()]
    filled = {
        name
        for name, bar in zip(names, axes.patches, strict=True)
        if bar.get_facecolor() != (1, 1, 1, 1)
    }
    assert filled == {"3.1", "0.2"} & set(names)


def test_the_colour_bar_says_in_words_what_the_colours_mean(effects, direct):
    def words(figure):
        return {text.get_text() for axes in figure.axes for text in axes.findobj(Text)}

    assert {"← the head helps", "gets in the way →"} <= words(plots.draw(effects))
    assert {"← against answer", "for answer →"} <= words(plots.draw(direct))


def test_blue_is_what_helps_whatever_the_sign(effects, direct):
    for figure, helping in ((plots.draw(effects), -1.0), (plots.draw(direct), 1.0)):
        image = figure.axes[0].images[0]
        red, _, blue, _ = image.cmap(image.norm(helping * image.get_clim()[1]))
        assert blue > 2 * red


def test_the_logit_lens_shows_the_answer_its_bounds_and_the_mean_foil(lens):
    axes = plots.draw(lens).axes[0]
    answer, foil = (line.get_ydata() for line in axes.lines)
    np.testing.assert_array_equal(answer, lens.logprob)
    np.testing.assert_allclose(foil, [-8.0, -6.0, -4.0])
    band = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices}
    edges = [(depth, float(v)) for each in (lens.low, lens.high) for depth, v in enumerate(each)]
    assert set(edges) <= band


def test_ranks_are_counted_from_one_with_the_best_on_top(lens):
    axes = plots.draw(lens).axes[1]
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), [100, 10, 1])
    assert axes.yaxis_inverted() and axes.get_yscale() == "log"


def test_direct_attribution_shows_heads_layers_and_the_strongest_heads(direct):
    heads, layers, strongest = plots.draw(direct).axes[:3]
    np.testing.assert_array_equal(heads.images[0].get_array(), direct.effect.numpy())
    assert outlined(heads) == {(0, 0)}
    # attention, then the MLPs
    np.testing.assert_allclose(bar_lengths(layers), [1.125, 0.875, 1.0, -2.0])
    expected = [[1.0, 1.5], [0.75, 1.25], [0.9, 1.3], [-2.1, -1.7]]
    np.testing.assert_allclose(drawn_bounds(layers), expected, rtol=1e-6)
    np.testing.assert_allclose(bar_lengths(strongest), [2.0, -1.0, 0.5, 0.25])
    np.testing.assert_allclose(drawn_bounds(strongest)[0], [1.9, 2.3], rtol=1e-6)


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


def test_an_axes_of_the_caller_gets_the_main_panel(any_result):
    mine = Figure()
    axes = mine.subplots()
    assert plots.draw(any_result, axes) is mine
    assert axes.images or axes.lines
    assert "ioi" in axes.get_title(loc="left")


def test_equal_effects_of_zero_and_missing_numbers_still_draw(effects):
    zero = torch.zeros(5, 4)
    broken = zero.clone()
    broken[1, 1] = torch.nan
    for values in (zero, broken):
        changed = {**effects.__dict__, "effect": values, "low": values, "high": values}
        assert plots.png(HeadEffects(**changed)).startswith(b"\x89PNG")


def test_drawing_and_saving_leave_pyplot_and_its_settings_alone(any_result, tmp_path):
    before = dict(mpl.rcParams)
    for ending in ("png", "pdf", "svg"):
        plots.save(any_result, tmp_path / f"figure.{ending}")
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_a_failed_save_leaves_the_settings_alone(effects, tmp_path):
    before = dict(mpl.rcParams)
    with pytest.raises(OSError):
        plots.save(effects, tmp_path / "missing" / "figure.png")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_same_result_gives_the_same_bytes_whatever_the_users_settings(
    effects, ending, tmp_path
):
    plots.save(effects, tmp_path / f"one.{ending}")
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "pdf.fonttype": 3}):
        plots.save(effects, tmp_path / f"two.{ending}")
    one, two = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_pdf_carries_its_fonts_as_outlines_that_journals_accept(effects, tmp_path):
    plots.save(effects, tmp_path / "figure.pdf")
    written = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in written and b"/Type3" not in written


def test_an_svg_needs_no_font_and_no_other_file(effects, tmp_path):
    plots.save(effects, tmp_path / "figure.svg")
    written = (tmp_path / "figure.svg").read_text()
    assert "<text" not in written and "font-family" not in written and "@import" not in written


def test_a_png_is_at_least_a_thousand_dots_wide(effects):
    from PIL import Image

    assert Image.open(BytesIO(plots.png(effects))).width >= 1000


def test_a_figure_that_is_already_drawn_can_be_saved_too(effects, tmp_path):
    plots.save(plots.draw(effects), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == plots.png(effects)


def test_another_ending_is_refused_with_those_that_there_are(effects, tmp_path):
    with pytest.raises(ValueError, match=r"'jpg'.*png, pdf, svg"):
        plots.save(effects, tmp_path / "figure.jpg")
    assert not list(tmp_path.iterdir())


def test_a_result_without_a_figure_says_so_and_what_to_do():
    class Unseen:
        pass

    with pytest.raises(NotImplementedError, match=r"Unseen.*HeadEffects.*draw\.register"):
        plots.draw(Unseen())


def test_results_and_figures_show_themselves_in_a_notebook(effects):
    assert 'src="data:image/png;base64,' in effects._repr_html_()
    assert plots.draw(effects)._repr_png_() == plots.png(effects)
