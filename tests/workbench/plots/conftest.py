from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text


def bar_lengths(axes):
    return [float(bar.get_width()) for bar in axes.patches]


def bar_names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def filled(axes):
    return [to_hex(bar.get_facecolor()) != "#ffffff" for bar in axes.patches]


def drawn_bounds(axes):
    """Low and high of every line of bounds, in the order in which they were drawn."""
    lines = [one for one in axes.collections if isinstance(one, LineCollection)]
    return np.array([line[:, 0] for one in lines for line in one.get_segments()])


def outlined(axes):
    """Row and column of every outlined cell."""
    boxes = next(one for one in axes.collections if isinstance(one, PatchCollection))
    centres = [path.get_extents().get_points().mean(axis=0) for path in boxes.get_paths()]
    return {(round(y), round(x)) for x, y in centres}


def words(figure):
    return {text.get_text() for axes in figure.axes for text in axes.findobj(Text)}


@pytest.fixture(scope="session")
def seen():
    """What a reader sees of a panel."""
    return SimpleNamespace(
        bar_lengths=bar_lengths,
        bar_names=bar_names,
        filled=filled,
        drawn_bounds=drawn_bounds,
        outlined=outlined,
        words=words,
    )
