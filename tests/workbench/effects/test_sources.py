"""What is put in an activation's place, against means taken by hand, one prompt at a time."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture
from workbench import effects, models, tasks
from workbench.effects import Source

Z, NEURON, PATTERN = Site("z", 1), Site("neuron", 0), Site("pattern", 0)
GROUP = torch.tensor([0, 1, 0, 1])


@pytest.fixture
def task() -> tasks.Task:
    """Four pairs of 6, 4, 5 and 6 tokens, padded with an id that is a word too, in two groups."""
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = torch.randint(5, 200, (2, 4, 7), generator=generator)
    lengths = torch.tensor([6, 4, 5, 6])
    answer, foil = torch.tensor([[7], [8], [9], [10]]), torch.full((4, 1), 11)
    pair = Prompts(clean, lengths), Prompts(corrupt, lengths)
    return tasks.Task("mine", *pair, answer, foil, {"END": lengths - 1}, GROUP)


def alone(model, prompts, site):
    """What each prompt has at a site when it is run by itself, without padding."""
    found = []
    for row in range(len(prompts)):
        tokens = prompts.tokens[row : row + 1, : int(prompts.lengths[row])]
        found.append(capture(model, tokens, [site])[site][0])
    return found


def assert_real(values, expected, prompts, **tolerance):
    """Equal at every real token; what stands at padding does not matter."""
    for row, length in enumerate(prompts.lengths.tolist()):
        assert_close(values[row, :length], expected[row][:length], **tolerance)


TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("site", [Z, NEURON, Site("k", 1), Site("resid_pre", 1)], ids=str)
def test_the_counterfactual_is_what_the_paired_prompt_has_when_run_alone(small, task, site):
    for run, other in (("clean", task.corrupt), ("corrupt", task.clean)):
        found = effects.values(small, task, [site], run=run)[site]
        assert_real(found, alone(small, other, site), other, **TOLERANCE)


@pytest.mark.parametrize("site", [Z, NEURON, Site("v", 1)], ids=str)
def test_the_mean_counts_every_real_token_but_the_first_once(small, task, site):
    rows = torch.cat([row[1:] for row in alone(small, task.corrupt, site)])
    assert len(rows) == 5 + 3 + 4 + 5
    found = effects.values(small, task, [site], source="mean")[site]
    assert_real(found, rows.mean(0).expand(4, 7, *rows.shape[1:]), task.clean, **TOLERANCE)


def test_the_mean_does_not_depend_on_batches(small, task):
    one = effects.mean_over(small, task.clean, [Z])[Z]
    for size in (1, 3):
        assert_close(effects.mean_over(small, task.clean, [Z], batch_size=size)[Z], one)


def test_the_mean_of_a_position_is_over_the_prompts_that_have_a_token_there(small, task):
    rows = alone(small, task.corrupt, Z)
    found = effects.values(small, task, [Z], source="mean per position")[Z]
    for position, having in ((0, [0, 1, 2, 3]), (4, [0, 2, 3]), (5, [0, 3])):
        expected = torch.stack([rows[row][position] for row in having]).mean(0)
        for row in having:
            assert_close(found[row, position], expected, **TOLERANCE)


def test_the_mean_of_a_template_is_over_its_own_prompts_at_that_position(small, task):
    rows = alone(small, task.corrupt, Z)
    found = effects.values(small, task, [Z], source="mean per template")[Z]
    for position, having in ((0, [0, 2]), (3, [1, 3]), (4, [0, 2]), (4, [3]), (5, [0])):
        expected = torch.stack([rows[row][position] for row in having]).mean(0)
        for row in having:
            assert_close(found[row, position], expected, **TOLERANCE)


def test_means_may_be_over_other_prompts_than_the_tasks_own(small, task):
    over = Prompts(task.clean.tokens[:2], torch.tensor([7, 7]))
    rows = torch.stack(alone(small, over, Z))
    by_position = effects.values(small, task, [Z], source=Source("mean per position", over=over))[Z]
    assert_real(by_position, rows.mean(0).expand(4, -1, -1, -1), task.clean, **TOLERANCE)
    plain = effects.values(small, task, [Z], source=Source("mean", over=over))[Z]
    assert_close(plain[0, 0], rows[:, 1:].mean((0, 1)), **TOLERANCE)


def test_a_pattern_has_a_mean_for_every_query_over_the_prompts_that_have_it(tiny, task):
    rows = alone(tiny, task.corrupt, PATTERN)
    found = effects.values(tiny, task, [PATTERN], source="mean per position")[PATTERN]
    expected = torch.stack([rows[row][:, 4, :5] for row in (0, 2, 3)]).mean(0)
    assert_close(found[0, :, 4, :5], expected, **TOLERANCE)
    assert_close(found[0, :, 4, :5].sum(-1), torch.ones(expected.shape[0]), **TOLERANCE)


@pytest.mark.parametrize("site", [Z, NEURON, PATTERN], ids=str)
def test_zero_is_nothing_in_the_shape_of_the_site(tiny, task, site):
    found = effects.values(tiny, task, [site], source="zero")[site]
    assert found.shape == capture(tiny, task.clean, [site])[site].shape
    assert not bool(found.any())


def test_a_resampled_prompt_is_another_one_of_at_least_the_same_length(small, task):
    rows = alone(small, task.corrupt, Z)
    drawn = set()
    for seed in range(12):
        found = effects.values(small, task, [Z], source=Source("resample", seed=seed))[Z]
        for row, length in enumerate(task.clean.lengths.tolist()):
            donors = [
                other
                for other in range(4)
                if len(rows[other]) >= length
                and torch.allclose(found[row, :length], rows[other][:length], **TOLERANCE)
            ]
            assert len(donors) == 1 and donors[0] != row
            drawn.add((row, donors[0]))
    # 0 and 3 have six tokens and 2 has five, 1 has four; all that fit are drawn sooner or later.
    assert drawn == {(0, 3), (3, 0), (2, 0), (2, 3), (1, 0), (1, 2), (1, 3)}


def test_the_same_seed_draws_the_same_prompts_and_another_seed_others(small, task):
    def draw(seed):
        return effects.values(small, task, [Z], source=Source("resample", seed=seed))[Z]

    assert_close(draw(3), draw(3), rtol=0, atol=0)
    assert any(not torch.equal(draw(3), draw(seed)) for seed in range(4, 8))


def test_a_constant_is_the_same_everywhere(small, task):
    constant = torch.randn(capture(small, task.clean, [Z])[Z].shape[2:])
    source = Source("constant", constants={Z: constant})
    found = effects.values(small, task, [Z], source=source)[Z]
    assert_close(found, constant.expand(4, 7, *constant.shape), rtol=0, atol=0)


def test_padding_never_reaches_a_mean(small, task):
    tokens = task.corrupt.tokens.clone()
    for row, length in enumerate(task.corrupt.lengths.tolist()):
        tokens[row, length:] = 3
    other = dataclasses.replace(task, corrupt=Prompts(tokens, task.corrupt.lengths))
    for source in ("mean", "mean per position", "mean per template"):
        one, same = (effects.values(small, t, [Z], source=source)[Z] for t in (task, other))
        assert_real(one, same, task.clean, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: Source("median"), "no source 'median'; there are 'counterfactual'"),
        (lambda: Source("constant"), "effects.optimal_constants"),
        (lambda: Source("mean", constants={}), "constants are given with"),
    ],
)
def test_a_source_that_is_none_is_refused(source, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        source()


def test_what_cannot_be_had_is_refused_with_what_to_do(tiny, task):
    constants = Source("constant", constants={Site("z", 0): torch.zeros(1)})
    short = Prompts(task.clean.tokens[:1], torch.tensor([4]))
    longer = tasks.Task(
        "longest alone", task.clean[:2], task.corrupt[:2], task.answer[:2], task.foil[:2], {},
        GROUP[:2],
    )  # fmt: skip
    asked = [
        (PATTERN, "mean", "take 'mean per position', 'zero', or v or z"),
        (Z, constants, r"no constant was found for z 1; there are z 0"),
        (Z, Source("mean per template", over=task.clean), "leave `over` out"),
        (Z, Source("mean per position", over=short), "no prompt has a token at position"),
        (
            Z,
            Source("mean per position", over=models.prompts(tiny, ["When"])),
            "have 1 tokens, ours",
        ),
    ]
    for site, source, message in asked:
        with pytest.raises(ValueError, match=message):
            effects.values(tiny, task, [site], source=source)
    with pytest.raises(ValueError, match="no other prompt is as long as prompt 0"):
        effects.values(tiny, longer, [Z], source="resample")


@pytest.mark.parametrize("kind", ["counterfactual", "mean per position", "resample"])
def test_values_do_not_depend_on_how_many_prompts_run_at_once(tiny_gqa, kind):
    task = tasks.ioi(tiny_gqa, prompts=5, seed=0)
    sites = [Site("z", 1), Site("resid_pre", 0), Site("pattern", 1)]
    source = effects.Source(kind)
    whole, parts = (
        effects.values(tiny_gqa, task, sites, source=source, batch_size=size) for size in (64, 2)
    )
    for site in sites:
        assert_close(parts[site], whole[site], rtol=1e-5, atol=1e-6)
