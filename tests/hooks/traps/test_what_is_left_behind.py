"""Traps that would leave something behind: hooks, weights, memory, drawn numbers."""

import gc
import hashlib
import resource
import weakref

import pytest
import torch

from hooks import EditNeverFired, Prompts, Site, capture, edits, intervening
from hooks.conformance.check import attached
from workbench import models
from workbench.models import bridge, twins


def prompts_of(seed: int, rows: int = 2, length: int = 6) -> Prompts:
    drawn = torch.randint(3, 60, (rows, length), generator=torch.Generator().manual_seed(seed))
    return Prompts.of(drawn)


HERE, THERE = prompts_of(1), prompts_of(2)


def _raise(error: BaseException):
    def edit(activation: torch.Tensor) -> torch.Tensor:
        raise error

    return edit


Z = Site("z", 0)


def _with(edit, at: Site = Z, prompts: Prompts = HERE):
    def run(model: models.Model) -> None:
        with intervening(model, {at: edit}):
            model(prompts)

    return run


def _body_raises(model: models.Model) -> None:
    with intervening(model, {Site("z", 0): edits.zero()}):
        model(HERE)
        raise LookupError("the body's own")


def _no_pass(model: models.Model) -> None:
    with intervening(model, {Site("z", 0): edits.zero()}):
        pass


WAYS_TO_FAIL = {
    "bad site": (_with(edits.zero(), Site("z", 9)), ValueError),
    "refused site": (_with(edits.zero(), Site("q_rot", 0)), ValueError),
    "edit raises": (_with(_raise(ArithmeticError("no"))), ArithmeticError),
    "interrupt": (_with(_raise(KeyboardInterrupt())), KeyboardInterrupt),
    "wrong shape": (_with(lambda x: x[:1]), ValueError),
    "never fired": (_no_pass, EditNeverFired),
    "body raises": (_body_raises, LookupError),
    "bad token": (_with(edits.zero(), prompts=Prompts.of(torch.full((1, 3), 10**6))), ValueError),
    "not finite": (_with(lambda x: x / 0), FloatingPointError),
}


@pytest.mark.parametrize("way", WAYS_TO_FAIL)
def test_after_any_way_to_fail_hooks_weights_and_random_state_are_as_before(tiny, way):
    run, error = WAYS_TO_FAIL[way]
    plain = tiny(HERE)
    before = attached(tiny), bridge.digest(tiny.original_model), _random_state()
    with pytest.raises(error):
        run(tiny)
    assert (attached(tiny), bridge.digest(tiny.original_model), _random_state()) == before
    assert torch.equal(tiny(HERE), plain)


def _random_state() -> str:
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()


def test_making_a_twin_leaves_the_global_random_state_alone():
    before = _random_state()
    for architecture in ("GPT-2", "native"):
        twins.make(architecture)
    models.load("tiny")
    assert _random_state() == before


def test_hooks_that_transformers_installs_on_first_use_do_not_grow(llama):
    llama.run_with_cache(HERE.tokens, attention_mask=HERE.mask)
    before = attached(llama)
    for _ in range(5):
        _use(llama)
        llama.run_with_cache(HERE.tokens, attention_mask=HERE.mask)
    assert attached(llama) == before


def test_a_later_write_in_place_does_not_reach_what_was_captured(llama):
    wanted = [Site("resid_post", 0), Site("resid_post", 1)]
    plain = capture(llama, HERE, wanted)

    def ruin(activation: torch.Tensor) -> torch.Tensor:
        return activation.zero_()

    with intervening(llama, {Site("resid_pre", 1): ruin}):
        seen = capture(llama, HERE, wanted)
    assert torch.equal(seen[wanted[0]], plain[wanted[0]])
    assert not torch.equal(seen[wanted[1]], plain[wanted[1]])


def test_a_hundred_calls_keep_no_memory_and_a_dropped_model_is_freed():
    model = twins.make("Llama")[0]
    for _ in range(20):
        _use(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        _use(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024  # KiB on Linux
    gone = weakref.ref(model.original_model)
    del model
    gc.collect()
    assert gone() is None


def _use(model: models.Model) -> None:
    seen = capture(model, HERE, [Site("z", 0), Site("resid_post", 1)])
    with intervening(model, {Site("z", 0): edits.replace(seen[Site("z", 0)])}):
        model(HERE)
