import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from hooks import Prompts, Site, capture, edits, heads, intervening
from hooks.conformance import check_model
from workbench import models
from workbench.models import surgery, twins
from workbench.models.bridge import digest

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]
OTHERS = ["Mistral", "Qwen 2", "Gemma 2", "GPT-NeoX, sequential"]
ALL = range(4)

KEPT = {
    "a head of each layer gone": [[0, 1, 3], [0, 2, 3], [1, 2, 3]],
    "whole groups gone": [[0, 1], [2, 3], [0, 1]],
    "uneven groups": [[0, 2, 3], [0, 1, 2], [0, 1, 3]],
    "the first layer gone": [[], [1, 3], [0]],
    "the last layer gone": [[3], [0, 1, 2], []],
    "nearly all gone": [[], [2], []],
}
CASES = [(architecture, name) for architecture in FIVE for name in KEPT]
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


@pytest.fixture(scope="module")
def made():
    """Each twin once; float64 ones are made of the same weights."""
    return {name: twins.make(name)[0] for name in FIVE + OTHERS}


@pytest.fixture(scope="module")
def ragged() -> Prompts:
    tokens = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    return Prompts(tokens, torch.tensor([9, 6, 4]))


def kept_in(model, name: str) -> list[list[int]]:
    return KEPT[name][: model.cfg.n_layers]


def ablated(kept) -> dict:
    gone = {layer: [head for head in ALL if head not in there] for layer, there in enumerate(kept)}
    return {Site("z", layer): edits.zero(heads=heads) for layer, heads in gone.items() if heads}


def relative(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_cutting_heads_out_is_zeroing_them(made, ragged, architecture, name):
    model = made[architecture]
    kept = kept_in(model, name)
    pruned = surgery.cut(model, kept)
    with intervening(model, ablated(kept)):
        expected = model(ragged)
    real = ragged.mask.bool()
    assert relative(pruned(ragged)[real], expected[real]) <= 2e-5
    assert relative(expected[real], model(ragged)[real]) > 1e-2  # zeroing does something


@pytest.mark.parametrize("architecture", FIVE)
def test_in_float64_nothing_but_the_order_of_sums_differs(ragged, architecture):
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
@pytest.mark.parametrize("name", KEPT)
def test_parameters_are_those_counted_by_hand(made, architecture, name):
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
    made, architecture, name
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
    made, architecture, name
):
    model = made[architecture]
    pruned = surgery.cut(model, kept_in(model, name))
    conformance = check_model(pruned)
    assert not [check for check in conformance.checks if check.verdict == "fail"]
    assert pruned.access.refused == model.access.refused


def test_prompts_of_a_padded_batch_are_as_when_run_alone(made, ragged):
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


def test_tensors_hold_the_heads_there_are_and_edits_name_them_as_before(made, ragged):
    model = made["Llama"]
    pruned = surgery.cut(model, [[0, 3], []])
    sites = [Site(stream, layer) for stream in ("z", "k", "pattern") for layer in (0, 1)]
    seen = capture(pruned, ragged, sites)
    shapes = [tuple(seen[site].shape) for site in sites]
    assert shapes == [(3, 9, 2, 8), (3, 9, 0, 8), (3, 9, 2, 8), (3, 9, 0, 8), (3, 2, 9, 9),
                      (3, 0, 9, 9)]  # fmt: skip
    whole = capture(model, ragged, [Site("q", 0)])
    assert capture(pruned, ragged, [Site("q", 0)])[Site("q", 0)].equal(
        whole[Site("q", 0)][:, :, [0, 3]]
    )
    with intervening(pruned, {Site("z", 0): edits.zero(heads=[3])}):
        found = pruned(ragged)
    with intervening(model, ablated([[0], []])):
        assert relative(found, model(ragged)) <= 1e-6


def test_an_edit_of_a_removed_head_is_refused_by_name(made, ragged):
    pruned = surgery.cut(made["Llama"], [[0, 3], []])
    for site, head in ((Site("z", 0), 1), (Site("pattern", 1), 0), (Site("q", 0), 2)):
        with (
            pytest.raises(ValueError, match=rf"head {site.layer}\.{head} was removed from Llama"),
            intervening(pruned, {site: edits.zero(heads=[head])}),
        ):
            pruned(ragged)
    with (
        pytest.raises(ValueError, match="head 4 does not exist: z 0 has heads 0 to 3"),
        intervening(pruned, {Site("z", 0): edits.zero(heads=[4])}),
    ):
        pruned(ragged)


def test_key_value_heads_keep_their_numbers_too(made, ragged):
    pruned = surgery.cut(made["Llama"], [[2, 3], [0, 2]])
    assert heads.at(pruned, 0).key_value == (1,)
    assert heads.at(pruned, 1).reads == (0, 1)
    with intervening(pruned, {Site("k", 0): edits.zero(heads=[1])}):
        pruned(ragged)
    with (
        pytest.raises(ValueError, match=r"head 0\.0 was removed"),
        intervening(pruned, {Site("v", 0): edits.zero(heads=[0])}),
    ):
        pruned(ragged)


def test_a_layer_without_heads_runs_neither_attention_nor_the_norm_before_it(made, ragged):
    for architecture in FIVE:
        model = made[architecture]
        pruned = surgery.cut(model, kept_in(model, "the first layer gone"))
        with torch.profiler.profile() as whole:
            pruned.blocks[0].attn(torch.zeros(1, 5, 32))
        ran = {event.key for event in whole.key_averages()}
        assert not ran & {"aten::mm", "aten::addmm", "aten::bmm", "aten::_softmax", "aten::linear"}
        before = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
        assert pruned.blocks[0].ln1(before) is before


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("name", ["uneven groups", "the first layer gone"])
def test_what_is_saved_is_loaded_bit_for_bit(made, ragged, tmp_path, architecture, name):
    model = made[architecture]
    constant = torch.linspace(-1, 1, 32)
    pruned = surgery.cut(model, kept_in(model, name), constants={0: constant})
    models.save(pruned, tmp_path / "pruned")
    again = models.load(tmp_path / "pruned")
    assert again.origin == pruned.origin
    assert again.kept_heads == pruned.kept_heads
    assert again(ragged).equal(pruned(ragged))
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["kept_heads"] == kept_in(
        model, name
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pruned"]


def test_the_tokenizer_is_saved_too_and_a_model_of_all_its_heads_is_any_library_s(
    tiny, tiny_gqa, tmp_path
):
    models.save(surgery.cut(tiny, [[1], [0, 2]]), tmp_path / "pruned")
    again = models.load(tmp_path / "pruned")
    assert models.prompts(again, "Mary and John").tokens.equal(
        models.prompts(tiny, "Mary and John").tokens
    )
    models.save(tiny_gqa, tmp_path / "whole")
    whole = models.load(tmp_path / "whole")
    assert whole.origin.digest == tiny_gqa.origin.digest
    assert whole.kept_heads is None


def test_float64_comes_back_as_float64(ragged, tmp_path):
    model = twins.make("Llama")[0].double()
    pruned = surgery.cut(model, [[0, 3], [1]])
    models.save(pruned, tmp_path / "pruned")
    again = models.load(tmp_path / "pruned", dtype=torch.float64)
    assert again(ragged).equal(pruned(ragged))


def test_a_flipped_byte_in_what_was_saved_is_found(made, tmp_path):
    models.save(surgery.cut(made["Llama"], [[0, 3], [1]]), tmp_path / "pruned")
    weights = tmp_path / "pruned" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="the folder is damaged"):
        models.load(tmp_path / "pruned")


def test_a_folder_that_is_there_is_not_written_over(made, tmp_path):
    pruned = surgery.cut(made["Llama"], [[0, 3], [1]])
    models.save(pruned, tmp_path / "pruned")
    with pytest.raises(FileExistsError, match="name a new folder"):
        models.save(pruned, tmp_path / "pruned")


def test_what_could_not_be_written_leaves_nothing_behind(made, tmp_path, monkeypatch):
    pruned = surgery.cut(made["Llama"], [[0, 3], [1]])
    monkeypatch.setattr(
        "workbench.models.surgery.saving._to_disk",
        lambda path: (_ for _ in ()).throw(OSError("full")),
    )
    with pytest.raises(OSError, match="full"):
        models.save(pruned, tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_a_digest_of_its_own_and_an_origin_that_says_what_is_gone(made):
    model = made["Llama"]
    pruned = surgery.cut(model, [[0, 3], []])
    assert pruned.origin.digest != model.origin.digest
    assert pruned.origin.name == "Llama without 6 heads"
    assert "without the heads 0.1, 0.2, 1.0, 1.1, 1.2, 1.3" in pruned.origin.source


def test_a_pruned_model_is_pruned_again_by_the_first_numbers(made, ragged):
    model = made["Llama"]
    twice = surgery.cut(surgery.cut(model, [[0, 2, 3], [1]]), [[0, 3], [1]])
    once = surgery.cut(model, [[0, 3], [1]])
    assert twice(ragged).equal(once(ragged))
    assert twice.kept_heads == once.kept_heads
    with pytest.raises(ValueError, match=r"head 0\.1 was removed from Llama without 1 head:"):
        surgery.cut(surgery.cut(model, [[0, 2, 3], ALL]), [[0, 1], [1]])


def test_constants_are_added_to_what_attention_writes(made, ragged):
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


def test_an_architecture_that_is_not_known_is_refused_by_name():
    for architecture, name in (("Phi-3", "Phi3ForCausalLM"), ("BERT", "BertForMaskedLM")):
        model = twins.make(architecture)[0]
        with pytest.raises(ValueError, match=f"heads cannot be removed from {name}"):
            surgery.cut(model, [[0]] * model.cfg.n_layers)


def test_no_head_at_all_and_heads_twice_are_refused(made):
    model = made["Llama"]
    with pytest.raises(ValueError, match="no head of Llama would be left"):
        surgery.cut(model, [[], []])
    with pytest.raises(ValueError, match=r"head 0\.3 is kept twice"):
        surgery.cut(model, [[3, 3], [0]])
    with pytest.raises(ValueError, match="head 7 does not exist: z 1 has heads 0 to 3"):
        surgery.cut(model, [[3], [7]])
    with pytest.raises(ValueError, match="kept heads of 1 layers for a model of 2"):
        surgery.cut(model, [[3]])


def test_a_copy_of_a_pruned_model_is_its_own(made, ragged):
    pruned = surgery.cut(made["Llama"], [[0, 2, 3], []])
    other = copy.deepcopy(pruned)
    assert other(ragged).equal(pruned(ragged))
    before = pruned(ragged)
    other.blocks[0].attn.o.weight.data.zero_()
    assert pruned(ragged).equal(before)


README = (Path(__file__).parents[3] / "README.md").read_text()
LOADING = next(
    block
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if "NoAttention" in block
)
"""What the README gives to those who have transformers alone."""


@pytest.mark.parametrize("architecture", ["Llama", "Qwen 2", "Qwen 3", "Gemma 3"])
@pytest.mark.parametrize("name", ["uneven groups", "the first layer gone", "whole groups gone"])
def test_transformers_alone_loads_what_was_saved(made, tmp_path, architecture, name):
    model = made[architecture]
    constant = torch.linspace(-1, 1, 32)
    pruned = surgery.cut(model, kept_in(model, name), constants={0: constant})
    folder = models.save(pruned, tmp_path / "pruned")
    assert "workbench" not in LOADING
    library: dict = {}
    exec(LOADING, library)
    plain = library["load"](folder)
    tokens = torch.randint(3, 60, (2, 7), generator=torch.Generator().manual_seed(3))
    assert relative(plain(tokens).logits.detach(), pruned(tokens)) <= 1e-5
    given = {"max_new_tokens": 8, "do_sample": False}
    ours = pruned.generate(tokens, verbose=False, stop_at_eos=False, **given)
    theirs = plain.generate(tokens, eos_token_id=None, pad_token_id=0, **given)
    assert theirs.equal(ours)


SINGLE, DOUBLE = (torch.float32, 2e-5), (torch.float64, 1e-9)
AMPLIFIED = pytest.mark.xfail(
    reason="this set misses 2e-5 by rounding (2.9e-5 measured): without these heads the model "
    "amplifies it, and the zeroed model is itself 1.5e-4 from its float64 logits"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "dtype", "limit"),
    [
        (0, *SINGLE), (1, *SINGLE), pytest.param(2, *SINGLE, marks=AMPLIFIED), (3, *SINGLE),
        (4, *SINGLE), (0, *DOUBLE), (1, *DOUBLE), (2, *DOUBLE),
    ],
)  # fmt: skip
def test_the_default_model_without_random_heads_is_the_one_with_them_zeroed(
    default_model, seed, dtype, limit
):
    model = default_model if dtype == torch.float32 else models.load("smollm2-135m", dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(270, generator=generator)[:90].tolist()
    gone = {divmod(index, 9) for index in order} | {(5, head) for head in range(9)}
    gone |= {(7, head) for head in range(3)}  # a whole layer, a whole group, and what came up
    kept = [[head for head in range(9) if (layer, head) not in gone] for layer in range(30)]
    prompts = models.prompts(
        model, ["The capital of France is Paris, and that of Italy", "Snow is"]
    )
    by_layer = {layer: [h for h in range(9) if h not in there] for layer, there in enumerate(kept)}
    zeroed = {Site("z", n): edits.zero(heads=heads) for n, heads in by_layer.items() if heads}
    with intervening(model, zeroed):
        expected = model(prompts)
    pruned = surgery.cut(model, kept)
    real = prompts.mask.bool()
    assert relative(pruned(prompts)[real], expected[real]) <= limit


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
    assert digest(surgery.cut(default_model, [range(9)] * 30).original_model) != ""
    shutil.rmtree(tmp_path / "pruned")
