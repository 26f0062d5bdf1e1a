"""Sweeps that make no sense say so, and leave nothing behind."""

import re
from dataclasses import replace

import pytest
import torch

from hooks import EditNeverFired, Prompts, Site, edits, last_logits
from workbench import effects, metrics
from workbench.metrics import Metric


def wrong(function) -> Metric:
    return Metric("mine", "nats", "last", "all", function)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"metrics": []}, ValueError, "no metric was given: name at least one, such as"),
        (
            {"metrics": [wrong(lambda logits, task, prompts: logits[:, :2])]},
            ValueError, "metric mine returned shape (3, 2); it must return one number for each",
        ),
        (
            {"metrics": [metrics.logit_diff, wrong(lambda logits, task, prompts: logits.mean())]},
            ValueError, "metric mine returned shape ()",
        ),
        (
            {"metrics": [wrong(lambda logits, task, prompts: logits[:, 0] * torch.inf)]},
            FloatingPointError, "metric mine is NaN or Inf for prompt 0",
        ),
        ({"cells": []}, ValueError, "no cells were given"),
        ({"cells": [{}]}, ValueError, "a cell without edits"),
        (
            {"cells": [{Site("z", 0): edits.zero(positions=[9])}]}, EditNeverFired,
            "never fires: its positions [9]",
        ),
        (
            {"cells": [{Site("z", 0): edits.zero(positions=[5])}]}, ValueError,
            "position 5 of prompt 1 is padding",
        ),
        (
            {"cells": [{Site("resid_pre", 1): edits.mean(torch.full((32,), torch.nan))}]},
            FloatingPointError, "resid_pre 1 gave NaN or Inf",
        ),
        (
            {"cells": [{Site("resid_pre", 0): edits.replace(torch.zeros(3, 6, 32))}]},
            ValueError, "cannot patch (3, 6, 32) into (3, 7, 32)",
        ),
        ({"memory": "1KB"}, MemoryError, "is too small for one cell"),
        ({"memory": "much"}, ValueError, "memory 'much' is no size"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_leaves_nothing_behind(
    model, task, unharmed, asked, error, said
):
    asked = {"cells": [{Site("z", 0): edits.zero()}], "metrics": [metrics.logit_diff], **asked}
    cells = asked.pop("cells")
    with unharmed(model), pytest.raises(error, match=re.escape(said)):
        effects.exact(model, task, cells, **asked)


def test_a_metric_without_a_list_is_refused_and_does_not_run_for_ever(model, task, unchecked_types):
    cells = [{Site("z", 0): edits.zero()}]
    for ask in (effects.exact, effects.plan):
        with pytest.raises(TypeError, match=r"logit_diff \(nats\): give a list: metrics=\[...\]"):
            ask(model, task, cells, metrics=metrics.logit_diff)
        with pytest.raises(TypeError, match="is no metric"):
            ask(model, task, cells, metrics=[abs])
    with pytest.raises(TypeError, match="is no metric"):
        effects.measure(model, task, metric=[metrics.logit_diff])
    with pytest.raises(TypeError, match="is no metric"):
        effects.attribute(model, task, [Site("z", 0)], metric=abs)


def test_an_unknown_run_is_refused(model, task, unchecked_types):
    cells = [{Site("z", 0): edits.zero()}]
    with pytest.raises(ValueError, match="no run 'dirty': edits are made in the 'clean' or"):
        effects.exact(model, task, cells, metrics=[metrics.logit_diff], run="dirty")


def test_pairs_of_unequal_length_are_refused_by_name(task):
    longer = Prompts(task.corrupt.tokens, torch.tensor([7, 6, 3]))
    with pytest.raises(ValueError, match="by hand: clean prompt 1 has 5 tokens, its corrupt one 6"):
        replace(task, corrupt=longer)


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 2, 0]])
def test_a_reference_of_other_prompts_is_refused(model, task, unharmed, rows):
    reference = last_logits(model, task.clean)[rows, 0]
    said = f"minus_kl has a reference of {len(rows)} prompts for 3: choose the same rows"
    with unharmed(model), pytest.raises(ValueError, match=said):
        effects.exact(
            model, task, [{Site("z", 0): edits.zero()}], metrics=[metrics.minus_kl(reference)]
        )
