import pytest
import torch
from torch.testing import assert_close

from hooks import edits
from hooks.places import Window

Z = torch.arange(2 * 3 * 2 * 4, dtype=torch.float32).reshape(2, 3, 2, 4) + 1  # batch pos head d
RESID = Z.reshape(2, 3, 8)
PATTERN = Window(("batch", "head", "query", "key"))


def all_edits():
    generator = torch.Generator().manual_seed(0)
    return {
        "zero": edits.zero(),
        "mean": edits.mean(torch.full((8,), 7.0)),
        "replace": edits.replace(-RESID),
        "resample": edits.resample(RESID * 2, generator=generator),
        "add": edits.add(torch.ones(8)),
        "scale": edits.scale(0.5),
        "project_out": edits.project_out(torch.eye(8)[:2]),
    }


@pytest.mark.parametrize("name", all_edits())
def test_an_edit_does_not_touch_its_input(name):
    before = RESID.clone()
    after = all_edits()[name](before)
    assert_close(before, RESID, rtol=0, atol=0)
    assert not after.equal(RESID)


def test_zeroing_a_head_leaves_the_others():
    after = edits.zero(heads=[1])(Z)
    assert after[:, :, 1].abs().max() == 0
    assert_close(after[:, :, 0], Z[:, :, 0], rtol=0, atol=0)


def test_positions_are_the_same_for_all_prompts_or_one_for_each():
    after = edits.zero(positions=[0, 2])(RESID)
    assert (after[:, [0, 2]] == 0).all() and after[:, 1].equal(RESID[:, 1])
    after = edits.zero(positions=torch.tensor([1, 2]))(RESID)
    assert (after[0, 1] == 0).all() and (after[1, 2] == 0).all()
    assert int((after == 0).all(dim=-1).sum()) == 2


def test_positions_count_from_the_start_of_the_prompt_when_a_cache_holds_the_rest():
    step = Window(("batch", "pos", "d_model"), start=5)
    one = RESID[:, :1]
    assert edits.zero(positions=[5])(one, step).abs().max() == 0
    assert edits.zero(positions=[4])(one, step).equal(one)
    assert not edits.zero(positions=[4]).reaches(one, step)


def test_a_source_is_read_at_the_same_absolute_position():
    source = torch.arange(6.0).reshape(1, 6, 1).expand(2, 6, 8).contiguous()
    step = Window(("batch", "pos", "d_model"), start=4)
    assert_close(edits.replace(source)(RESID[:, :1], step), torch.full((2, 1, 8), 4.0))
    behind = Window(("batch", "pos", "d_model"), start=6)
    assert edits.replace(source)(RESID[:, :1], behind).equal(RESID[:, :1])


def test_attention_patterns_are_edited_by_head_and_query():
    pattern = torch.rand(2, 3, 4, 4)
    after = edits.zero(heads=[2], positions=[1])(pattern, PATTERN)
    assert after[:, 2, 1].abs().max() == 0
    after[:, 2, 1] = pattern[:, 2, 1]
    assert after.equal(pattern)


def test_a_mean_may_differ_between_positions():
    per_position = torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 8)
    assert_close(edits.mean(per_position)(RESID)[0, :, 0], torch.tensor([1.0, 2.0, 3.0]))


def test_a_single_captured_position_is_written_where_chosen():
    source = torch.full((2, 1, 8), 9.0)
    after = edits.replace(source, positions=torch.tensor([0, 2]))(RESID)
    assert (after[0, 0] == 9).all() and (after[1, 2] == 9).all()
    assert int((after == 9).all(dim=-1).sum()) == 2


def test_resampling_gives_every_prompt_the_row_of_another():
    source = torch.arange(16.0).reshape(16, 1, 1).expand(16, 2, 8).contiguous()
    after = edits.resample(source, generator=torch.Generator().manual_seed(3))(source)
    drawn = after[:, 0, 0]
    assert sorted(drawn.tolist()) == list(range(16))
    assert not (drawn == torch.arange(16.0)).any()
    again = edits.resample(source, generator=torch.Generator().manual_seed(3))(source)
    assert again.equal(after)


def test_projecting_out_leaves_nothing_along_the_directions_and_the_rest_alone():
    directions = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    after = edits.project_out(directions)(RESID)
    assert_close(after @ directions.T, torch.zeros(2, 3, 3), rtol=0, atol=1e-4)
    again = edits.project_out(directions)(after)
    assert_close(again, after, rtol=1e-5, atol=1e-4)
    removed = RESID - after
    solved = torch.linalg.lstsq(directions.T, removed.reshape(-1, 8).T).solution
    assert_close(directions.T @ solved, removed.reshape(-1, 8).T, rtol=1e-4, atol=1e-3)


def test_scaling_by_one_and_adding_nothing_change_nothing():
    assert edits.scale(1.0)(RESID).equal(RESID)
    assert edits.add(torch.ones(8), strength=0.0)(RESID).equal(RESID)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edits.zero(heads=[2]), r"head 2 does not exist: this site has heads 0 to 1"),
        (edits.zero(heads=[]), "no heads were chosen"),
        (edits.zero(neurons=[0]), "neurons were chosen, but this site has the axes"),
        (edits.zero(positions=-1), r"indices from 0"),
        (edits.zero(positions=torch.tensor([0, 1, 2])), "3 positions for 2 prompts"),
        (edits.replace(torch.zeros(1, 1, 2, 4)), "same length and batch size"),
        (edits.replace(Z.double()), r"move it with \.to"),
        (edits.mean(torch.zeros(3)), "mean: cannot write"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        edit(Z)


def test_a_role_by_name_is_refused_with_what_to_write():
    with pytest.raises(Exception, match=r"task\.positions\['IO'\]|positions"):
        edits.zero(positions="IO")(Z)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "edit",
    [
        edits.zero, lambda heads: edits.mean(torch.zeros(4), heads=heads),
        lambda heads: edits.replace(Z, heads=heads), lambda heads: edits.scale(2.0, heads=heads),
        lambda heads: edits.add(torch.zeros(4), heads=heads),
    ],
)  # fmt: skip
def test_a_head_or_neuron_that_is_given_twice_is_refused_by_name(edit):
    with pytest.raises(ValueError, match="head 1 is given twice: give each head once"):
        edit(heads=[0, 1, 1])
    with pytest.raises(ValueError, match="neuron 7 is given twice: give each neuron once"):
        edits.zero(neurons=[7, 2, 7])


def test_directions_that_span_nothing_are_refused():
    with pytest.raises(ValueError, match="independent and not zero"):
        edits.project_out(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="independent and not zero"):
        edits.project_out(torch.ones(2, 8))
    with pytest.raises(ValueError, match="at least two prompts"):
        edits.resample(RESID[:1], generator=torch.Generator())


def test_what_an_edit_gives_is_laid_out_in_memory_as_a_model_would():
    """GPT-2's matrices refuse a tensor that was broadcast over prompts."""
    per_position = edits.mean(torch.ones(3, 8))(RESID)
    broadcast = edits.replace(torch.ones(1, 1, 8).expand(2, 3, 8))(RESID)
    assert per_position.is_contiguous() and broadcast.is_contiguous()
