import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench import plots
from workbench.patching import PathEffects, Tracing

WORDS = {"task": "ioi", "task_digest": "t", "model": "tiny", "model_digest": "m"}


@pytest.fixture
def paths():
    effect = torch.tensor([[0.0, -1.0, 0.25], [-3.0, 2.0, 0.5]])
    mlp = torch.tensor([0.75, -4.0])
    return PathEffects(
        effect=effect, low=effect - 0.1, high=effect + 0.3,
        p=torch.tensor([[1.0, 0.01, 1.0], [0.01, 0.5, 1.0]]),
        per_prompt=effect[..., None].repeat(1, 1, 3), mlp=mlp, mlp_low=mlp - 0.2,
        mlp_high=mlp + 0.2, mlp_p=torch.tensor([0.5, 0.001]),
        mlp_per_prompt=mlp[..., None].repeat(1, 3), baseline=torch.full((3,), 2.0),
        other=torch.full((3,), -1.0), to="23.3 q", between="free", direction="noise",
        metric="logit_diff", unit="nats", **WORDS,
    )  # fmt: skip


@pytest.fixture
def tracing():
    effect = torch.tensor([[0.0, 1.0, 0.1, 0.2], [-0.5, 0.2, 0.3, 0.0], [0.1, 1.5, 0.0, 0.9]])
    return Tracing(
        effect=effect, low=effect - 0.1, high=effect + 0.3, p=(effect < 1).float(),
        per_prompt=effect[..., None].repeat(1, 1, 3), by_draw=effect[None].repeat(5, 1, 1),
        clean=torch.full((3,), -0.5), noised=torch.full((3,), -2.5), total=2.0, total_low=1.5,
        total_high=2.5, layers=[0, 1, 2], places=["country", "is", "of", "END"],
        stream="mlp_out", over="role", window=5, severed="none", subject="country", noise=3.0,
        deviation=0.1, metric="answer_logprob", unit="nats", **WORDS,
    )  # fmt: skip


@pytest.fixture(params=["paths", "tracing"])
def any_result(request):
    return request.getfixturevalue(request.param)


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_senders_are_heads_with_their_layers_mlp_beside_them(paths):
    axes = plots.draw(paths).axes[0]
    drawn = np.asarray(axes.images[0].get_array())
    np.testing.assert_array_equal(drawn[:, :3], paths.effect.numpy())
    np.testing.assert_array_equal(drawn[:, 3], paths.mlp.numpy())
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "MLP"]


def test_the_strongest_senders_have_bars_with_their_own_bounds(paths):
    axes = plots.draw(paths).axes[1]
    assert names(axes)[:4] == ["MLP 1", "1.0", "1.1", "0.1"]
    lines = [one for one in axes.collections if isinstance(one, LineCollection)]
    ends = [line[:, 0].tolist() for one in lines for line in one.get_segments()]
    np.testing.assert_allclose(ends[:2], [[-4.2, -3.8], [-3.1, -2.7]], rtol=1e-6)


def test_a_path_that_helps_is_blue_in_either_direction(paths):
    for direction, helping in (("noise", -1), ("denoise", 1)):
        turned = PathEffects(**{**paths.__dict__, "direction": direction})
        image = plots.draw(turned).axes[0].images[0]
        red, _, blue, _ = image.cmap(image.norm(helping * image.get_clim()[1]))
        assert blue > 2 * red


def test_tracing_shows_the_three_strongest_places_by_layer_and_what_there_is_to_restore(tracing):
    left, right = plots.draw(tracing).axes[:2]
    np.testing.assert_array_equal(left.images[0].get_array(), tracing.effect.numpy())
    curves = {line.get_label(): line.get_ydata() for line in right.lines}
    assert {"country", "is", "END", "all of it"} <= set(curves) and "of" not in curves
    np.testing.assert_allclose(curves["is"], tracing.effect[:, 1])
    np.testing.assert_allclose(curves["all of it"], 2.0)


def test_a_figure_says_what_was_asked_in_letters_that_can_be_read(any_result):
    figure = plots.draw(any_result)
    figure.draw_without_rendering()
    assert "ioi" in figure.get_suptitle() and "tiny" in figure.get_suptitle()
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    assert any("(nats)" in label for label in labels)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8


def test_an_axes_of_the_caller_gets_the_map(any_result):
    mine = Figure()
    axes = mine.subplots()
    assert plots.draw(any_result, axes) is mine
    assert axes.images and "ioi" in axes.get_title(loc="left")
