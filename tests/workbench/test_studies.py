"""What several analyses say of one model, where the truth was planted."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, models, plots, results, studies, tasks
from workbench.models import planted

LOGIT = metrics.logit_diff


@pytest.fixture(scope="module")
def backup():
    """A head that writes the answer, and one in the next layer that does when it is gone."""
    model = models.load("planted/backup")
    task = tasks.planted(model, prompts=20, seed=1)
    return model, task, planted.truth(model).roles


@pytest.fixture(scope="module")
def found(backup):
    model, task, _ = backup
    return studies.answer_heads(model, task[:8], search=task[8:], metric=LOGIT, ablation="zero")


def test_a_planted_writer_and_its_planted_backup_are_named(found, backup):
    roles = backup[2]
    assert found.movers() == list(roles["first"])
    assert found.backups() == list(roles["backup"])
    assert found.relenting() == []
    (layer, head), says = roles["backup"][0], found.sentence()
    assert f"by helping the answer: {layer}.{head} (+0.00 nats alone, -8.00 then)." in says
    assert found.headline()["backups"] == f"{layer}.{head}"


def test_a_backup_that_is_held_writes_nothing_and_alone_costs_nothing(found, backup):
    """By hand: the first writes 8 nats; its backup is silent, and does the same when it is gone."""
    roles, search = backup[2], found.takes_over
    first, second = roles["first"][0], roles["backup"][0]
    assert found.writes.effect[first] < -4 and found.writes.effect[second].abs() < 1e-3
    assert search.heads[0] == second
    assert_close(search.alone[0], torch.tensor(0.0), atol=1e-3, rtol=0)
    assert_close(search.then[0], torch.tensor(-8.0), atol=1e-3, rtol=0)
    assert_close(search.then, search.alone + search.growth, atol=1e-4, rtol=0)
    assert bool((search.then_low <= search.then + 1e-4).all())
    assert bool((search.then_high >= search.then - 1e-4).all())


def test_a_head_that_only_works_against_the_answer_less_is_no_backup(found):
    """The same growth, from +9 alone to +1 then: it never helps."""
    search = found.takes_over
    changed = {"alone": search.alone + 9, "then": search.then + 9, "then_high": search.then + 9.5}
    other = dataclasses.replace(found, takes_over=dataclasses.replace(search, **changed))
    assert other.backups() == [] and other.relenting() == search.found()
    assert "Taking over, not shown to help:" in other.sentence()
    assert "by helping" not in other.sentence()


def test_copies_that_add_up_have_no_backups():
    model = models.load("planted/duplicate")
    task = tasks.planted(model, prompts=20, seed=1)
    copies = planted.truth(model).roles["induction"]
    found = studies.answer_heads(
        model, task[:8], search=task[8:], metric=LOGIT, movers=2, ablation="zero"
    )
    assert set(found.movers()) < set(copies)
    assert found.backups() == found.relenting() == []
    assert "no other head is shown to take over" in found.sentence()


def test_a_study_comes_back_from_disk_with_all_its_parts(found, tmp_path):
    results.save(found, tmp_path / "study.nc")
    again = results.load(studies.AnswerHeads, tmp_path / "study.nc")
    assert results.digest(again) == results.digest(found)
    assert again.sentence() == found.sentence() and again.table() == found.table()


def test_prompts_that_name_the_writers_do_not_search(backup):
    model, task, _ = backup
    with pytest.raises(ValueError, match=r"2 of the 12 prompts of the search are also among"):
        studies.answer_heads(model, task[:8], search=task[6:18], metric=LOGIT)


def test_an_answer_that_no_head_writes_for_is_refused(backup):
    model, task, _ = backup
    other = dataclasses.replace(task, answer=task.foil, foil=task.answer)
    with pytest.raises(ValueError, match="no head writes for the answer"):
        studies.answer_heads(model, other[:8], search=other[8:], metric=LOGIT, movers=1)


def test_the_figure_shows_each_head_alone_and_with_the_others_gone(found):
    figure = plots.draw(found)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")[:1] in tuple("abcd")]
    assert len(panels) == 4
    search = found.takes_over
    widths = [bar.get_width() for bar in panels[3].patches]  # pyright: ignore
    diamonds = next(line for line in panels[3].lines if line.get_gid() == "diamonds")
    assert_close(torch.tensor(widths), search.then.double(), check_dtype=False)
    assert_close(torch.as_tensor(diamonds.get_xdata()), search.alone, check_dtype=False)
    names = [label.get_text() for label in panels[3].get_yticklabels()]
    assert names == [f"+ {layer}.{head}" for layer, head in search.heads]
