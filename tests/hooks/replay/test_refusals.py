"""What is refused, in which words; and that nothing is left behind, whatever happens."""

import re

import pytest
import torch

from hooks import EditNeverFired, Prompts, Site, edits, replay
from hooks.replay import Reads
from hooks.replay.recording import Recording
from hooks.replay.tape import Tape

LENGTHS = torch.tensor([7, 5, 3])
PROMPTS = Prompts(torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1)), LENGTHS)
GOOD = {Site("resid_pre", 1): edits.zero()}
NAN = torch.full((32,), torch.nan)


def own(activation):
    return activation * 2


@pytest.mark.parametrize(
    ("cells", "error", "said"),
    [
        ([], ValueError, "no cells were given: a sweep needs at least one set of edits"),
        ([{}], ValueError, "a cell without edits: give each at least one {site: edit}"),
        ([GOOD, {}], ValueError, "a cell without edits"),
        ([{Site("z", 0): []}], ValueError, "no edit was given for z 0"),
        ([{Site("embed"): []}], ValueError, "no edit was given for embed"),
        ([{Site("z", 0): own, Site("v", 1): []}], ValueError, "no edit was given for v 1"),
        ([{Site("z", 2): edits.zero()}], ValueError, "z 2 is not in this model: its layers are"),
        (
            [{Site("embed"): edits.zero(), Site("z", 2): edits.zero()}],
            ValueError, "z 2 is not in this model",
        ),
        (
            [{Site("z", 0): edits.zero(positions=[7])}], EditNeverFired,
            "zero at z 0 never fires: its positions [7] are in none of the prompts, which have 7",
        ),
        (
            [{Site("z", 0): edits.zero(positions=4)}], ValueError,
            "zero at z 0: position 4 of prompt 2 is padding; give one index for each prompt",
        ),
        (
            [{Site("z", 0): [edits.zero(), edits.scale(2.0, positions=torch.tensor([6, 4, 3]))]}],
            ValueError, "scale at z 0: position 3 of prompt 2 is padding",
        ),
        (
            [{Site("z", 0): edits.zero(positions=torch.tensor([1, 1]))}],
            ValueError, "2 positions for 3 prompts",
        ),
        ([{Site("z", 0): edits.zero(heads=[4])}], ValueError, "head 0.4 does not exist"),
        ([{Site("mlp_out", 0): edits.zero(heads=[0])}], ValueError, "heads were chosen, but"),
        (
            [{Site("resid_pre", 0): edits.replace(torch.zeros(3, 6, 32))}],
            ValueError, "cannot patch (3, 6, 32) into (3, 7, 32)",
        ),
        (
            [{Site("resid_pre", 0): edits.replace(torch.zeros(2, 7, 32))}],
            ValueError, "cannot patch (2, 7, 32) into (3, 7, 32)",
        ),
        (
            [{Site("resid_pre", 0): edits.mean(torch.zeros(31))}],
            ValueError, "mean: cannot write (31,) into (3, 7, 32)",
        ),
        (
            [{Site("resid_pre", 0): edits.replace(torch.zeros(3, 7, 32).double())}],
            ValueError, "replace: the value is torch.float64",
        ),
    ],
)  # fmt: skip
def test_cells_that_make_no_sense_are_refused_before_any_cell_is_run(
    twin, unharmed, cells, error, said
):
    model = twin("Llama")
    with unharmed(model), pytest.raises(error, match=re.escape(said)):
        replay.plan(model, PROMPTS, [GOOD, *cells] if cells else cells)


@pytest.mark.parametrize("site", [Site("resid_pre", 1), Site("mlp_out", 0), Site("final")], ids=str)
def test_a_replacement_that_is_no_number_is_an_error_that_names_the_site(
    twin, unharmed, replayed, site
):
    model = twin("Llama")
    with unharmed(model), pytest.raises(FloatingPointError, match=f"{site} gave NaN or Inf"):
        replayed(model, PROMPTS, [GOOD, {site: edits.mean(NAN)}], check=0)


def test_logits_that_are_no_numbers_are_given_as_they_are(twin, naive, replayed):
    """A row of scores that are all minus infinity has no softmax; it is not the base run."""
    model = twin("GPT-2")
    nothing = torch.full((3, 4, 7, 7), -torch.inf)
    cells = [{Site("scores", 1): edits.replace(nothing, positions=torch.tensor([6, 4, 2]))}]
    expected = naive(model, PROMPTS, cells[0], Reads())
    assert torch.isnan(expected).all()
    assert torch.isnan(replayed(model, PROMPTS, cells, check=0).logits[0]).all()


def test_prompts_that_the_model_does_not_take_are_refused_as_a_forward_pass_refuses_them(
    twin, unharmed
):
    model = twin("Llama")
    long = torch.zeros(1, 65, dtype=torch.long)
    with unharmed(model), pytest.raises(ValueError, match="have 65 tokens, this model takes 64"):
        replay.plan(model, long, [GOOD])
    unknown = torch.tensor([[3, 67]])
    with unharmed(model), pytest.raises(ValueError, match="token id 67 is not one of this model's"):
        replay.plan(model, unknown, [GOOD])


def test_prompts_of_the_wrong_kind_are_refused(twin):
    with pytest.raises(Exception, match=r"expected Prompts or a tensor|Type-check"):
        replay.plan(twin("Llama"), "The capital of France is", [GOOD])


@pytest.mark.parametrize(
    "columns", [torch.zeros(2, 1, dtype=torch.long), torch.full((3, 1), 67)], ids=["rows", "ids"]
)
def test_columns_that_do_not_fit_are_refused_before_any_cell_is_run(twin, unharmed, columns):
    model = twin("Llama")
    with unharmed(model), pytest.raises(ValueError, match="columns"):
        replay.plan(model, PROMPTS, [GOOD], reads=Reads("last", columns))


def test_a_sweep_leaves_the_model_as_it_was(twin, unharmed, replayed):
    model = twin("Gemma 3")
    before = model(PROMPTS)
    cells = [
        {Site(stream, 1): edits.scale(0.5, positions=1), Site("embed"): edits.zero()}
        for stream in ("resid_mid", "z", "pattern")
    ]
    with unharmed(model):
        replayed(model, PROMPTS, [GOOD, *cells])
    assert model(PROMPTS).equal(before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("broken"), MemoryError])
@pytest.mark.parametrize("place", ["in a block", "in a metric", "in a pass in full"])
def test_a_sweep_that_breaks_in_the_middle_leaves_the_model_as_it_was(
    twin, unharmed, monkeypatch, error, place
):
    model, calls = twin("Llama"), []
    before = model(PROMPTS)
    cells = [
        {Site("z", 1): edits.zero(), Site("resid_mid", 0): edits.zero()},
        {Site("z", 1): own},
    ]
    plan = replay.plan(model, PROMPTS, cells, check=0)

    def broken(*args, **kwargs):
        calls.append(place)
        raise error

    def reduce(rows, logits):
        return broken() if place == "in a metric" else logits[:, 0]

    if place == "in a block":
        monkeypatch.setattr(Recording, "_cut", broken)
    if place == "in a pass in full":
        monkeypatch.setattr("hooks.replay.checking.last_logits", broken)
    kind = error if isinstance(error, type) else type(error)
    with unharmed(model), pytest.raises(kind):
        replay.run(plan, [0, 1], reduce)
    assert calls
    monkeypatch.undo()
    assert model(PROMPTS).equal(before)


def test_recording_that_breaks_leaves_no_hooks(twin, unharmed, monkeypatch):
    model = twin("Llama")
    monkeypatch.setattr(Tape, "update", lambda *given, **named: 1 / 0)
    with unharmed(model), pytest.raises(ZeroDivisionError):
        replay.plan(model, PROMPTS, [{Site("z", 1): edits.zero()}])


def test_an_edit_is_never_given_what_it_may_harm(twin, replayed):
    """Edits are pure; one that writes into what it is given would harm the recording."""
    model = twin("Llama")
    plan = replay.plan(model, PROMPTS, [GOOD, {Site("z", 0): edits.zero()}])
    kept = [one.clone() for one in (*plan.recording.resid, *plan.recording.seen.values())]
    replay.run(plan, [0, 1], lambda rows, logits: logits[:, 0])
    for before, after in zip(
        kept, (*plan.recording.resid, *plan.recording.seen.values()), strict=True
    ):
        assert after.equal(before)


def test_a_shortage_that_halving_does_not_help_is_told(twin, unharmed, monkeypatch):
    model = twin("Llama")
    plan = replay.plan(model, PROMPTS, [GOOD, GOOD])

    def nothing(self, *args, **kwargs):
        raise MemoryError("none left")

    monkeypatch.setattr(Recording, "run_block", nothing)
    trail = replay.Trail()
    with unharmed(model), pytest.raises(MemoryError, match="none left"):
        replay.run(plan, [0, 1], lambda rows, logits: logits[:, 0], trail=trail)
    assert trail.backoffs == ["no memory for 2 cells at once: halved"]


def test_padding_is_computed_where_edited_attention_may_look_at_it(twin, naive, replayed):
    """Scores of zero look everywhere, also at padding, of which one prompt's was exchanged."""
    model, site = twin("GPT-2"), Site("resid_pre", 0)
    source = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(0))
    real = PROMPTS.mask.bool()
    recorded = replay.plan(model, PROMPTS, [GOOD]).recording.resid[0]
    source[real] = recorded[real]
    cell = {site: edits.replace(source), Site("scores", 1): edits.zero()}
    expected = naive(model, PROMPTS, cell, Reads())
    without = naive(model, PROMPTS, {Site("scores", 1): edits.zero()}, Reads())
    assert (expected - without).abs().max() > 0.01
    found = replayed(model, PROMPTS, [cell], check=0).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
