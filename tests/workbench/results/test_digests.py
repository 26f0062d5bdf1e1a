"""When two results have the same digest."""

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import results
from workbench.statistics import Estimate


def test_the_digest_depends_on_every_field_and_on_nothing_else(effects, Head):
    first = results.digest(effects)
    assert results.digest(dataclasses.replace(effects)) == first
    moved = {
        "effect": -effects.effect,
        "per_prompt": effects.per_prompt.double(),
        "baseline": torch.tensor([1.0, math.nan, math.inf, 0.0]),
        "seconds": 1.25,
        "prompts": ["", "zwei\nZeilen", "日本 🙂", "end"],
        "heads": [Head(0, 1), Head(1, 1)],
        "pieces": [["a"], [" b"], ["\ud800"]],
        "headline_estimate": Estimate(1.0, 0.5, math.nan, 5),
        "note": "",
        "settings": {},
        "method": "mean",
    }
    changed = {results.digest(dataclasses.replace(effects, **{k: v})) for k, v in moved.items()}
    assert len(changed) == len(moved) and first not in changed


def test_the_same_numbers_in_another_precision_have_another_digest(one_field):
    kind = one_field(Float[Tensor, " layer"])
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    assert len({results.digest(kind(torch.ones(2, dtype=one))) for one in kinds}) == 3


def test_what_varies_from_run_to_run_is_stored_and_checked_but_not_part_of_the_digest(tmp_path):
    @dataclass(frozen=True, eq=False)
    class Timed(results.Result):
        found: Float[Tensor, " cell"]
        seconds: Float[Tensor, " cell"] = field(metadata={"varies": "from run to run"})

    one, other = (Timed(torch.ones(2), torch.full((2,), took)) for took in (1.0, 2.0))
    assert results.digest(one) == results.digest(other)
    assert results.digest(one) != results.digest(Timed(torch.zeros(2), one.seconds))
    results.save(one, tmp_path / "timed.nc")
    assert torch.equal(results.load(Timed, tmp_path / "timed.nc").seconds, one.seconds)
