"""What holds for every figure of sweeps."""

import matplotlib as mpl
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench import plots


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


def test_drawing_and_saving_leave_pyplot_and_its_settings_alone(any_result, tmp_path):
    before = dict(mpl.rcParams)
    plots.save(any_result, tmp_path / "figure.png")
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_the_same_result_gives_the_same_bytes(any_result):
    assert plots.png(any_result) == plots.png(any_result)
