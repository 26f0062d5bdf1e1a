"""A model without some heads computes what it does with them held at zero."""

import copy
import shutil

import pytest
import torch

from hooks import Prompts, Site, edits, intervening
from hooks.conformance import check_model
from workbench import models
from workbench.models import surgery, twins

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]
OTHERS = ["Mistral", "Qwen 2", "Gemma 2", "GPT-NeoX, sequential"]
ALL = range(4)
NAMES = (
    "a head of each layer gone",
    "whole groups gone",
    "uneven groups",
    "the first layer gone",
    "the last layer gone",
    "nearly all gone",
)


CASES = [(architecture, name) for architecture in FIVE for name in NAMES]
CASES += [(architecture, "uneven groups") for architecture in OTHERS]
CASES += [(architecture, "the first layer gone") for architecture in OTHERS]


# (numbers of a query head, of a key-value head, what goes with the last head of a layer)
BY_HAND = {
    "GPT-2": (4 * 32 * 8 + 3 * 8, 0, 2 * 32),  # q, k, v and o with biases; a LayerNorm
    "GPT-NeoX": (4 * 32 * 8 + 3 * 8, 0, 2 * 32),
    "Llama": (2 * 32 * 8, 2 * 32 * 8, 32),  # q and o; k and v; an RMSNorm
    "Qwen 3": (2 * 32 * 16, 2 * 32 * 16, 32 + 2 * 16),  # and the norms of queries and keys
    "Gemma 3": (2 * 32 * 8, 2 * 32 * 8, 32 + 2 * 8),
}


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_cutting_heads_out_is_zeroing_them(
    made, ragged, architecture, name, kept_in, ablated, relative
):
    model = made[architecture]
    kept = kept_in(model, name)
    pruned = surgery.cut(model, kept)
    with intervening(model, ablated(kept)):
        expected = model(ragged)
    real = ragged.mask.bool()
    assert relative(pruned(ragged)[real], expected[real]) <= 2e-5
    assert relative(expected[real], model(ragged)[real]) > 1e-2  # zeroing does something


@pytest.mark.parametrize("architecture", FIVE)
def test_in_float64_nothing_but_the_order_of_sums_differs(
    ragged, architecture, KEPT, kept_in, ablated, relative
):
    model = twins.make(architecture)[0].double()
    ragged = Prompts(ragged.tokens, torch.tensor([9, 7, 6]))  # in windows of 4, no row is masked
    for name in KEPT:
        kept = kept_in(model, name)
        with intervening(model, ablated(kept)):
            expected = model(ragged)
        assert relative(surgery.cut(model, kept)(ragged), expected) <= 1e-9


@pytest.mark.parametrize("architecture", FIVE + OTHERS)
def test_cutting_nothing_is_the_same_model_bit_for_bit(made, ragged, architecture):
    model = made[architecture]
    same = surgery.cut(model, [ALL] * model.cfg.n_layers)
    assert same is not model
    assert same.origin == model.origin
    assert same(ragged).equal(model(ragged))


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_counted_by_hand(made, architecture, name, kept_in):
    model = made[architecture]
    kept = kept_in(model, name)
    query, key_value, last = BY_HAND[architecture]
    shared = 1 if key_value == 0 else 2
    removed = 0
    for there in kept:
        groups = {head // shared for head in there}
        removed += query * (4 - len(there)) + key_value * (4 // shared - len(groups))
        removed += 0 if there else last
    pruned = surgery.cut(model, kept)
    assert surgery.parameters(model) - surgery.parameters(pruned) == removed


def test_parameters_of_the_whole_model_are_those_of_its_library(made):
    for architecture in FIVE:
        _, reference = twins.make(architecture)
        assert surgery.parameters(made[architecture]) == sum(
            one.numel() for one in reference.parameters()
        )


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("name", ["uneven groups", "the first layer gone", "the last layer gone"])
def test_it_generates_with_and_without_a_cache_what_the_ablated_model_does(
    made, architecture, name, kept_in, ablated
):
    model = made[architecture]
    kept = kept_in(model, name)
    pruned = surgery.cut(model, kept)
    tokens = torch.randint(3, 60, (2, 5), generator=torch.Generator().manual_seed(2))
    given = {"max_new_tokens": 12, "do_sample": False, "verbose": False, "stop_at_eos": False}
    cached = pruned.generate(tokens, **given)
    assert cached.shape == (2, 17)
    assert pruned.generate(tokens, use_past_kv_cache=False, **given).equal(cached)
    with intervening(model, ablated(kept)):
        assert model.generate(tokens, **given).equal(cached)


SEVERAL = [("GPT-2", "the first layer gone"), ("Llama", "uneven groups")]
CHECKED = [
    pytest.param(one, name, marks=() if (one, name) in SEVERAL else pytest.mark.slow)
    for one in FIVE
    for name in ("uneven groups", "the first layer gone")
]


@pytest.mark.parametrize(("architecture", "name"), CHECKED)
def test_it_does_all_that_sites_promise_and_lacks_nothing_more_than_before(
    made, architecture, name, kept_in
):
    model = made[architecture]
    pruned = surgery.cut(model, kept_in(model, name))
    conformance = check_model(pruned)
    assert not [check for check in conformance.checks if check.verdict == "fail"]
    assert pruned.access.refused == model.access.refused


def test_prompts_of_a_padded_batch_are_as_when_run_alone(made, ragged, kept_in, relative):
    pruned = surgery.cut(made["Llama"], kept_in(made["Llama"], "uneven groups"))
    together = pruned(ragged)
    for row, length in enumerate(ragged.lengths.tolist()):
        alone = pruned(Prompts.of(ragged.tokens[row : row + 1, :length]))
        assert relative(together[row, :length], alone[0]) <= 1e-5


def test_the_original_is_left_as_it_was(made, ragged, unharmed):
    model = made["Llama"]
    with unharmed(model):
        pruned = surgery.cut(model, [[0, 3], []])
        pruned(ragged)
    before = model(ragged)
    pruned.blocks[0].attn.o.weight.data.zero_()
    assert model(ragged).equal(before)


def test_a_layer_without_heads_runs_neither_attention_nor_the_norm_before_it(made, ragged, kept_in):
    for architecture in FIVE:
        model = made[architecture]
        pruned = surgery.cut(model, kept_in(model, "the first layer gone"))
        with torch.profiler.profile() as whole:
            pruned.blocks[0].attn(torch.zeros(1, 5, 32))
        ran = {event.key for event in whole.key_averages()}
        assert not ran & {"aten::mm", "aten::addmm", "aten::bmm", "aten::_softmax", "aten::linear"}
        before = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
        assert pruned.blocks[0].ln1(before) is before


def test_constants_are_added_to_what_attention_writes(made, ragged, relative):
    for architecture in ("GPT-2", "Llama"):
        model = made[architecture]
        constant = torch.linspace(-1, 1, 32)
        cut = surgery.cut(model, [[0, 3], []], constants={0: constant, 1: -constant})
        steer = {
            Site("attn_out", 0): edits.add(constant),
            Site("attn_out", 1): edits.add(-constant),
        }
        plain = surgery.cut(model, [[0, 3], []])
        with intervening(plain, steer):
            assert relative(cut(ragged), plain(ragged)) <= 1e-5


def test_a_copy_of_a_pruned_model_is_its_own(made, ragged):
    pruned = surgery.cut(made["Llama"], [[0, 2, 3], []])
    other = copy.deepcopy(pruned)
    assert other(ragged).equal(pruned(ragged))
    before = pruned(ragged)
    other.blocks[0].attn.o.weight.data.zero_()
    assert pruned(ragged).equal(before)


AMPLIFIED = pytest.mark.xfail(
    reason="this set misses 2e-5 by rounding (2.9e-5 measured): without these heads the model "
    "amplifies it, and the zeroed model is itself 1.5e-4 from its float64 logits",
)
SENTENCES = ["The capital of France is Paris, and that of Italy", "Snow is"]


def check_default(model, seed: int, *, sentences, limit: float, random_sets, relative) -> None:
    """Heads at random, a whole layer and a whole group, cut out and zeroed."""
    kept = random_sets(30, 9, seed=seed, whole=(5,), groups=((7, range(3)),))
    prompts = models.prompts(model, sentences)
    by_layer = {layer: [h for h in range(9) if h not in there] for layer, there in enumerate(kept)}
    zeroed = {Site("z", n): edits.zero(heads=heads) for n, heads in by_layer.items() if heads}
    with intervening(model, zeroed):
        expected = model(prompts)
    real = prompts.mask.bool()
    assert relative(surgery.cut(model, kept)(prompts)[real], expected[real]) <= limit


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=AMPLIFIED), 3, 4])
def test_the_default_model_without_random_heads_is_the_one_with_them_zeroed(
    default_model, seed, random_sets, relative
):
    check_default(
        default_model, seed, sentences=SENTENCES, limit=2e-5, random_sets=random_sets,
        relative=relative,
    )  # fmt: skip


@pytest.mark.slow
def test_so_it_is_in_float64_also_for_the_set_that_rounding_spoils(random_sets, relative):
    model = models.load("smollm2-135m", dtype=torch.float64)
    check_default(
        model, 2, sentences=SENTENCES[1:], limit=1e-9, random_sets=random_sets, relative=relative
    )


@pytest.mark.slow
def test_two_thirds_of_the_default_model_s_heads_are_17_694_720_numbers(default_model, tmp_path):
    pruned = surgery.cut(default_model, [range(3)] * 30)
    removed = surgery.parameters(default_model) - surgery.parameters(pruned)
    assert removed == 30 * (2 * 384 * 576 + 2 * 128 * 576) == 17_694_720
    assert surgery.parameters(default_model) == 134_515_008
    models.save(pruned, tmp_path / "pruned")
    again = models.load(tmp_path / "pruned")
    tokens = torch.tensor([[1, 200, 300, 400]])
    assert again(tokens).equal(pruned(tokens))
    shutil.rmtree(tmp_path / "pruned")
    same = surgery.cut(default_model, [range(9)] * 30)
    assert same is not default_model
    assert same.origin == default_model.origin
    assert same(tokens).equal(default_model(tokens))
