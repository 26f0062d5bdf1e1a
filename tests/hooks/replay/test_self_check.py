"""A replay that goes wrong is noticed, and what a model does not allow is not done."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, replay
from hooks.replay import ReplayMismatch
from hooks.replay.recording import Recording
from hooks.replay.tape import Tape
from workbench.models import twins

PROMPTS = Prompts(
    torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1)),
    torch.tensor([7, 5, 3]),
)
CELLS = [
    {Site("resid_pre", 0): edits.zero(positions=2)},
    {Site("z", 1): edits.zero(positions=1)},
    {Site("v", 0): edits.zero(positions=torch.tensor([5, 3, 2]))},
]


def _other_prompt(real):
    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        rows, self.rows = self.rows, None if self.rows is None else (self.rows + 1) % 3
        try:
            return real(self, key_states, value_states, layer_idx, *args, **kwargs)
        finally:
            self.rows = rows

    return update


def _shifted(real):
    """The rotary tables of the first positions, for whatever positions are run."""

    def cut(self, value, *, rows, start, size, keys):
        if isinstance(value, torch.Tensor) and value.ndim == 3:
            return value[:, :size]
        return real(self, value, rows=rows, start=start, size=size, keys=keys)

    return cut


def _unmasked(real):
    def cut(self, value, *, rows, start, size, keys):
        found = real(self, value, rows=rows, start=start, size=size, keys=keys)
        masked = isinstance(value, torch.Tensor) and value.ndim == 4
        return torch.zeros_like(found) if masked else found

    return cut


WRONG = {
    "keys and values of another prompt": (Tape, "update", _other_prompt),
    "rotary tables of other positions": (Recording, "_cut", _shifted),
    "no mask": (Recording, "_cut", _unmasked),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("architecture", ["Llama", "Gemma 3"])
def test_a_replay_that_goes_wrong_is_an_error_that_names_the_cell(
    twin, replayed, monkeypatch, architecture, what
):
    model, (owner, name, wrong) = twin(architecture), WRONG[what]
    plan = replay.plan(model, PROMPTS, CELLS[:1], check=1)
    [(_, prompt)] = plan.checked
    monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))
    said = rf"cell 0 \(resid_pre 0\), prompt {prompt}: replay and a full forward pass differ by"
    with pytest.raises(ReplayMismatch, match=said):
        replay.run(plan, [0], lambda rows, logits: logits[:, 0])


def test_the_error_says_what_to_do_and_which_architecture_it_is(twin, monkeypatch):
    model = twin("Llama")
    plan = replay.plan(model, PROMPTS, CELLS)
    monkeypatch.setattr(Recording, "_cut", _shifted(Recording._cut))
    with pytest.raises(ReplayMismatch) as caught:
        replay.run(plan, [0, 1, 2], lambda rows, logits: logits[:, 0])
    assert "run it with effects.measure" in str(caught.value)
    assert "report the architecture LlamaForCausalLM" in str(caught.value)


def test_as_many_cells_are_checked_as_was_asked_for_drawn_by_the_seed(twin, replayed):
    model = twin("Llama")
    many = [{Site("z", 0): edits.zero(heads=[h], positions=p)} for h in range(4) for p in (0, 1)]
    first, again, other = (replayed(model, PROMPTS, many, check=3, seed=s) for s in (0, 0, 1))
    assert len(first.trail.checked) == 3
    assert list(first.trail.checked) == list(first.plan.checked)
    assert first.plan.checked == again.plan.checked != other.plan.checked
    assert 0 < first.trail.largest_difference < 1e-5
    assert first.trail.largest_difference == max(first.trail.checked.values())
    assert replayed(model, PROMPTS, many, check=0).trail.checked == {}
    assert len(replayed(model, PROMPTS, many, check=99).trail.checked) == 8


def test_a_check_draws_only_prompts_that_the_cell_changes(twin):
    tokens = PROMPTS.tokens.clone()
    model, site = twin("Llama"), Site("resid_pre", 1)
    tokens[1, 2] += 1
    source = capture(model, Prompts(tokens, PROMPTS.lengths), [site])[site]
    cells = [{site: edits.replace(source)}]
    for seed in range(5):
        assert replay.plan(model, PROMPTS, cells, seed=seed).checked == ((0, 1),)


def test_every_prompt_of_a_checked_cell_is_compared_under_its_own_edits(twin, replayed):
    """Edits with another position and value for each prompt, checked in one pass together."""
    model = twin("Gemma 2")
    value = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(3))
    cells = [
        {Site("resid_pre", 1): edits.replace(value, positions=torch.tensor(at))}
        for at in ([6, 4, 2], [1, 2, 0], [0, 0, 1])
    ]
    for seed in range(4):
        found = replayed(model, PROMPTS, cells, check=3, seed=seed)
        assert len(found.trail.checked) == 3 and found.trail.largest_difference < 1e-5


def wrong_suffix(real):
    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        keys, values = real(self, key_states, value_states, layer_idx, *args, **kwargs)
        return keys, values * 2 if self.start else values

    return update


def test_a_model_that_gives_other_numbers_from_the_middle_is_run_from_the_first_position(
    naive, replayed, monkeypatch
):
    model = twins.make("Llama", seed=1)[0]
    with monkeypatch.context() as patch:
        patch.setattr(Tape, "update", wrong_suffix(Tape.update))
        found = [replayed(model, PROMPTS, CELLS, check=3) for _ in range(2)]
    for one in found:
        assert "not positions: a suffix gives other numbers" in str(one.plan.savings)
        assert not one.plan.savings.positions and one.plan.savings.layers
        for cell, logits in zip(CELLS, one.logits, strict=True):
            expected = naive(model, PROMPTS, cell, replay.Reads())
            assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_model_whose_blocks_give_other_numbers_alone_is_run_in_full(naive, replayed, monkeypatch):
    model = twins.make("Llama", seed=2)[0]
    real = Recording.run_block
    monkeypatch.setattr(
        Recording,
        "run_block",
        lambda self, layer, hidden, **how: 2 * real(self, layer, hidden, **how),
    )
    found = replayed(model, PROMPTS, CELLS)
    assert str(found.plan.savings) == (
        "saves nothing; not layers: its blocks give other numbers alone"
    )
    assert found.plan.in_full == (0, 1, 2) and found.plan.forwards == 3
    for cell, logits in zip(CELLS, found.logits, strict=True):
        assert_close(logits, naive(model, PROMPTS, cell, replay.Reads()), rtol=0, atol=0)


def test_what_a_model_allows_is_found_out_on_its_longest_prompt(naive, replayed, monkeypatch):
    """One that is shorter than half of the others would not show what a suffix gives."""
    model = twins.make("Llama", seed=3)[0]
    prompts = Prompts(PROMPTS.tokens.flip(0), torch.tensor([2, 5, 7]))
    monkeypatch.setattr(Tape, "update", wrong_suffix(Tape.update))
    found = replayed(model, prompts, [{Site("z", 0): edits.zero(positions=1)}], check=0)
    assert "not positions: a suffix gives other numbers" in str(found.plan.savings)


def test_prompts_of_one_token_do_not_decide_what_longer_ones_may(naive, replayed, monkeypatch):
    model = twins.make("Llama", seed=4)[0]
    monkeypatch.setattr(Tape, "update", wrong_suffix(Tape.update))
    single = Prompts(PROMPTS.tokens[:, :1], torch.tensor([1, 1, 1]))
    cells = [{Site("z", 0): edits.zero(positions=0)}]
    found = replayed(model, single, cells)
    assert_close(
        found.logits[0], naive(model, single, cells[0], replay.Reads()), rtol=1e-5, atol=1e-5
    )
    longer = replayed(model, PROMPTS, CELLS, check=0)
    assert "not positions" in str(longer.plan.savings)
