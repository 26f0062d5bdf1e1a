"""What a result of types says, and what cannot be asked."""

import pytest
import torch

from hooks import Prompts
from workbench import heads, models, results, tasks
from workbench.heads.kinds import attending
from workbench.models import twins


def test_a_result_says_what_it_found_and_comes_back_from_a_file(found, tmp_path):
    assert "Heads of tiny-gqa" in found.sentence()
    assert found.caveat and found.sentence().endswith(found.caveat)
    assert "Not measured: successor" in found.sentence()
    assert set(found.headline()) == set(found.types)
    assert len(found.table(2).splitlines()) == 1 + 2 * len(found.types)
    results.save(found, tmp_path / "types.nc")
    again = results.load(heads.HeadTypes, tmp_path / "types.nc")
    assert results.digest(again) == results.digest(found)
    assert again.shown == found.shown


def test_what_cannot_be_measured_is_said(found):
    planted = models.load("planted/induction-pair")
    without = heads.types(planted, tasks.planted(planted, prompts=4, seed=0), prompts=4)
    with pytest.raises(ValueError, match="name mover was not measured: induction has no role IO"):
        without.of("name mover")
    with pytest.raises(ValueError, match="no type 'nonsense'; there are previous token"):
        found.of("nonsense")


def test_a_head_that_does_not_exist_is_refused(found):
    with pytest.raises(ValueError, match=r"tiny-gqa has no head 1\.4: layers are 0 to 1, heads"):
        found.types_of((1, 4))
    assert found.types_of((1, 3)) == []


def test_impossible_requests_are_refused(model, task):
    with pytest.raises(ValueError, match="1 random prompts: bounds and tests need at least 2"):
        heads.types(model, task, prompts=1)
    with pytest.raises(ValueError, match="ioi has one prompt"):
        heads.types(model, task[0])
    with pytest.raises(ValueError, match=r"level 1\.5 is no chance"):
        heads.types(model, task, level=1.5)
    short = tasks.make(
        model, ["Mary went", "John went"], ["Mary sat", "John sat"], [" to", " to"],
        [" at", " at"], name="short",
    )  # fmt: skip
    with pytest.raises(ValueError, match="short has a prompt of 2 tokens"):
        heads.types(model, short)
    with pytest.raises(ValueError, match="must be"):
        heads.types(model, task, period=(2, 3))


def test_a_model_that_looks_ahead_is_refused():
    bert, _ = twins.make("BERT")
    prompts = Prompts.of(torch.randint(5, 60, (2, 8), generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="attends to later tokens"):
        attending.attention(bert, prompts, ["induction"], batch_size=2)


def test_the_same_seed_gives_the_same_bits(model, task, found):
    again = heads.types(model, task, prompts=6, seed=0)
    assert results.digest(again) == results.digest(found)
