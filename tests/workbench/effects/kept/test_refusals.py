"""What cannot be kept."""

from dataclasses import replace

import pytest

from hooks import Edit, Site, edits
from workbench import effects, metrics
from workbench.metrics import Metric


def own(activation):
    return activation * 2


@pytest.mark.parametrize("given", [own, [edits.zero(), own]], ids=["alone", "among edits"])
def test_own_functions_cannot_be_kept(sweep, tmp_path, unharmed, given):
    cells = [*sweep.cells, {Site("z", 1): given}]
    said = "the edit at z 1 is a function of your own, whose results cannot be kept"
    with unharmed(sweep.model), pytest.raises(ValueError, match=said):
        replace(sweep, cells=cells)(tmp_path / "kept")
    assert len(replace(sweep, cells=cells)().values[0]) == 11


def test_an_edit_of_ones_own_making_cannot_be_kept(sweep, tmp_path):
    """Nobody can tell what its function does, although it calls itself by a name of ours."""
    mine = Edit("zero", lambda activation, window: activation * 2)
    with pytest.raises(ValueError, match="the edit at z 1 is a function of your own, whose"):
        replace(sweep, cells=[{Site("z", 1): mine}])(tmp_path / "kept")


def test_a_metric_of_ones_own_cannot_be_kept(sweep, tmp_path):
    """Another function under the same name would be given the first one's results."""
    mine = Metric("mine", "nats", "last", "all", lambda logits, task, prompts: logits[:, 0])
    with pytest.raises(ValueError, match="the metric mine is a function of your own, whose"):
        replace(sweep, metrics=[metrics.logit_diff, mine])(tmp_path / "kept")
    assert len(replace(sweep, metrics=[mine])().values) == 1


def test_where_nobody_asked_for_it_what_cannot_be_kept_is_not_and_nothing_is_said(
    sweep, tmp_path, ran
):
    def first(logits, task, prompts):
        return logits[:, 0]

    def second(logits, task, prompts):
        return logits[:, 1]

    found = []
    with effects.keeping(tmp_path / "kept"):
        for function in (first, second):
            mine = Metric("mine", "nats", "last", "all", function)
            found.append(replace(sweep, metrics=[mine])())
    assert not found[0].values.equal(found[1].values)
    assert found[1].cost.resumed == 0


def test_a_folder_that_holds_something_else_is_refused(sweep, tmp_path, unharmed):
    (tmp_path / "thesis.tex").write_text("")
    with (
        unharmed(sweep.model),
        pytest.raises(ValueError, match=r"holds 'thesis\.tex' and no shelf"),
    ):
        sweep(tmp_path)
