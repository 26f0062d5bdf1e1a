"""Models that were never trained have heads of attention by p in one of twenty, and no more."""

import pytest
import torch

from workbench import heads, models, tasks
from workbench.heads.kinds import attending, chance
from workbench.heads.kinds.measured import Measured


def measured(name, effect):
    effect = torch.tensor(effect).double()
    nothing = torch.zeros_like(effect)
    return Measured(name, "attention", "null", 0.3, effect, nothing, nothing, nothing, nothing)


def test_p_is_counted_among_the_copies_and_the_model_itself():
    copies = {"first token": torch.arange(1, 20).double() / 100}
    (found,) = chance.against(
        [measured("first token", [0.5, 0.19, 0.175, 0.0])], copies, together=False
    )
    assert found.p.tolist() == [1 / 20, 2 / 20, 3 / 20, 1.0]


def test_types_are_corrected_together_in_units_of_how_far_their_best_heads_go():
    """The copies of one type go a hundred times as far as those of the other."""
    small, large = torch.full((19,), 0.01).double(), torch.full((19,), 1.0).double()
    small[0], large[1] = 0.02, 2.0
    copies = {"previous token": small, "first token": large}
    seen = [measured("previous token", [0.04, 0.0]), measured("first token", [0.9, 0.0])]
    previous, first = chance.against(seen, copies, together=True)
    assert previous.p.tolist() == [1 / 20, 1.0]
    assert first.p.tolist() == [1.0, 1.0]


def test_a_copy_without_a_number_counts_against():
    copies = {"induction": torch.full((19,), torch.nan).double()}
    (found,) = chance.against([measured("induction", [0.9])], copies, together=False)
    assert found.p.tolist() == [1.0]


def test_as_many_copies_are_made_as_the_level_needs():
    assert [chance.needed(level) for level in (0.05, 0.01, 0.1, 0.04, 0.9)] == [19, 99, 9, 24, 1]


def sure(never_trained, name, count):
    """In how many models that were never trained some head has p <= 0.05, by type and prompts."""
    found = dict.fromkeys(
        [(where, type) for where in ("drawn", "natural") for type in attending.THRESHOLDS], 0
    )
    together = 0
    for seed in range(count):
        model = never_trained(name, seed)
        task = tasks.ioi(model, prompts=12, seed=seed)
        types = heads.types(model, task, prompts=8, seed=seed)
        any_of_them = False
        for type in attending.THRESHOLDS:
            at = types.types.index(type)
            any_of_them |= bool((types.p[at] <= 0.05).any())
            found["drawn", type] += bool((types.p[at] <= 0.05).any())
            found["natural", type] += bool((types.natural_p[at] <= 0.05).any())
        together += any_of_them
    return found, together


@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_heads_that_were_never_trained_are_of_no_type(never_trained, most_by_chance, name):
    found, together = sure(never_trained, name, 3)
    assert max(found.values()) <= most_by_chance(3), found
    assert together <= most_by_chance(3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
def test_of_many_models_never_trained_one_in_twenty_has_heads_of_a_type(
    never_trained, most_by_chance, name
):
    found, together = sure(never_trained, name, 40)
    assert max(found.values()) <= most_by_chance(40), found
    assert together <= most_by_chance(40), together


def test_copies_leave_the_model_as_it_was(tiny, unharmed):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    with unharmed(tiny):
        heads.types(tiny, task, prompts=4)


def test_a_redrawn_model_is_seen_as_by_hand(tiny):
    """The first copy's largest attention to the first token, from a redrawn model read here."""
    from workbench import statistics

    task = tasks.ioi(tiny, prompts=4, seed=0)
    asked = chance.Asked(task.clean, ["first token"])
    among = {type: list(some) for type, some in attending.options(9).items()}
    first, _ = chance.furthest(tiny, asked, asked, among=among, count=1, batch_size=4, seed=5)
    with models.redrawn(tiny) as draw:
        draw(statistics.derive(5, "types", "copy", "0").initial_seed())
        seen = attending.attention(tiny, task.clean, ["first token"], batch_size=2)
    expected = (seen.score - seen.null)[0].mean(1).max()
    assert float(first["first token"][0]) == pytest.approx(max(0.0, float(expected)))
