"""Heads that cannot be removed, and how heads are given."""

import numpy as np
import pytest
import torch

from workbench import effects, heads


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ([(0, 4)], r"head 0\.4 does not exist: z 0 has heads 0 to 3"),
        ([(2, 0)], r"head 2\.0 does not exist: tiny-gqa has layers 0 to 1"),
        ([(-1, 0)], r"head -1\.0 does not exist"),
        ([(0, 1), (1, 1), (0, 1)], r"head 0\.1 is given twice"),
        (
            [(layer, head) for layer in range(2) for head in range(4)],
            r"0\.0, 0\.1, .* are all heads",
        ),
    ],
)
def test_heads_that_cannot_be_removed_are_named(model, gone, message):
    with pytest.raises(ValueError, match=message):
        heads.prune(model, gone)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("gone", "what"),
    [([3], "3"), ((0, 1), "0"), (["0.1"], "'0.1'"), (["01"], "'01'"), ("0.1", "'0'"),
     ([(0, 1, 2)], r"\(0, 1, 2\)"), ([(0,)], r"\(0,\)"), ([(0, 1.5)], r"\(0, 1.5\)")],
)  # fmt: skip
def test_what_is_no_head_is_named_with_how_heads_are_given(model, gone, what):
    with pytest.raises(TypeError, match=rf"^{what} is no head: give a list of \(layer, head\)"):
        heads.prune(model, gone)


@pytest.mark.usefixtures("unchecked_types")
def test_heads_may_come_from_a_generator_or_as_numbers_of_a_tensor(model, pruned, GONE):
    for gone in ((one for one in GONE), torch.tensor(GONE), np.array(GONE)):
        assert heads.prune(model, gone).kept_heads == pruned.kept_heads


@pytest.mark.usefixtures("unchecked_types")
def test_a_mean_over_something_else_than_prompts_says_what_it_takes(model, task):
    for wrong, said in ((task, "over is a task"), (["Mary"], "over .'Mary'. is something else")):
        with pytest.raises(TypeError, match=f"{said}: give the clean or the corrupt prompts"):
            heads.prune(model, [(0, 1)], replace="mean", over=wrong)
        with pytest.raises(TypeError, match=f"{said}: give the clean or the corrupt prompts"):
            effects.Source("mean", over=wrong)


def test_a_head_is_not_removed_twice(pruned):
    message = r"head 0\.1 was removed from tiny-gqa without 4 heads: of z 0 there are left 0, 3"
    with pytest.raises(ValueError, match=message):
        heads.prune(pruned, [(0, 1)])
    with pytest.raises(ValueError, match="are all heads"):
        heads.prune(pruned, [(0, 0), (0, 3), (1, 2), (1, 3)])


def test_a_mean_needs_prompts_and_prompts_need_a_mean(model, task):
    with pytest.raises(ValueError, match="over="):
        heads.prune(model, [(0, 0)], replace="mean")
    with pytest.raises(ValueError, match="over="):
        heads.prune(model, [(0, 0)], over=task.clean)
