import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close
from transformer_lens import head_detector

from hooks import Prompts, Site, capture, edits, intervening
from workbench import heads, lens, metrics, models, results, statistics, tasks
from workbench.heads.kinds import attending, copying, moving, successors
from workbench.models import tiny as recipe
from workbench.models import twins
from workbench.models.bridge import wrap

PAIRS = [
    "planted/induction-pair", "planted/induction-pair-gpt2", "planted/induction-pair-llama",
    "planted/induction-pair-gqa", "planted/induction-pair/3",
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0)


@pytest.fixture(scope="module")
def found(model, task):
    return heads.types(model, task, prompts=6, seed=0)


@pytest.mark.parametrize("name", PAIRS)
def test_planted_heads_are_named_and_no_others(name):
    model = models.load(name)
    roles = models.planted.truth(model).roles
    found = heads.types(model, tasks.planted(model, prompts=12, seed=1), prompts=8)
    assert found.of("previous token") == list(roles["previous token"])
    assert found.of("induction") == list(roles["induction"])
    assert found.of("copying") == list(roles["induction"])
    assert found.of("positive OV") == list(roles["induction"])
    for type in ("duplicate token", "fixed offset", "copy-suppressing", "negative OV"):
        assert found.of(type) == []


def test_every_copy_of_an_induction_head_is_named():
    model = models.load("planted/duplicate")
    roles = models.planted.truth(model).roles
    found = heads.types(model, tasks.planted(model, prompts=12, seed=1), prompts=8)
    alike = {*roles["induction"], *roles["same pattern"]}
    assert set(found.of("induction")) == alike
    assert found.of("fixed offset") == list(roles["same output"])
    assert int(found.offset[roles["same output"][0]]) == 0
    assert set(found.of("copying")) == {*roles["induction"], *roles["same output"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["planted/induction-1", "planted/induction-4"])
def test_heads_that_learned_induction_are_named(name):
    model = models.load(name)
    roles = models.planted.truth(model).roles
    found = heads.types(model, tasks.planted(model, prompts=16, seed=1), prompts=16)
    assert set(found.of("induction")) == set(roles["induction"])
    if "previous token" in roles:
        assert found.of("previous token") == list(roles["previous token"])


def test_relations_are_where_they_should_be():
    found = attending.relations(Prompts.padded([[9, 5, 6, 5, 6, 7]]))
    pairs = {name: {tuple(at) for at in one[0].nonzero().tolist()} for name, one in found.items()}
    assert pairs["previous token"] == {(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)}
    assert pairs["duplicate token"] == {(3, 1), (4, 2)}
    assert pairs["induction"] == {(3, 2), (4, 3)}
    assert pairs["first token"] == {(at, 0) for at in range(1, 6)}
    assert pairs["3 back"] == {(3, 0), (4, 1), (5, 2)}


def test_relations_are_those_of_the_head_detector():
    tokens = torch.tensor([[3, 7, 8, 9, 7, 8, 9, 7, 5]])
    found = attending.relations(Prompts.of(tokens))
    for name, ours in (
        ("previous_token", "previous token"), ("duplicate_token", "duplicate token"),
        ("induction", "induction"),
    ):  # fmt: skip
        theirs = getattr(head_detector, f"get_{name}_head_detection_pattern")(tokens)
        assert_close(found[ours][0].float(), theirs.float())


def test_scores_are_those_of_the_head_detector(model):
    text = "Mary and John went and Mary and John gave a book to Mary"
    prompts = models.prompts(model, text)
    ours = attending.relations(prompts)["duplicate token"][0].float()
    expected = head_detector.detect_head(model, text, "duplicate_token_head")
    seen = capture(model, prompts, [Site("pattern", 0), Site("pattern", 1)])
    shares = [
        (seen[site][0] * ours).sum((1, 2)) / seen[site][0].sum((1, 2)) for site in sorted(seen)
    ]
    assert_close(torch.stack(shares), expected.to(shares[0]))


def test_scores_and_nulls_by_hand(model):
    prompts = Prompts.padded([[9, 5, 6, 5, 6, 7], [9, 5, 6, 7]])
    found = attending.attention(model, prompts, ["induction", "first token"], batch_size=1)
    pattern = capture(model, prompts, [Site("pattern", 1)])[Site("pattern", 1)][0, 2].double()
    score = (pattern[3, 2] + pattern[4, 3]) / 2
    null = (pattern[3, 1:4].sum() / 3 + pattern[4, 1:5].sum() / 4) / 2
    at = found.heads.index((1, 2))
    assert_close(found.score[0, at, 0], score)
    assert_close(found.null[0, at, 0], null)
    assert found.score[0, :, 1].isnan().all()  # nothing is said twice there
    first = torch.tensor([1 / (row + 1) for row in range(1, 6)]).mean().double()
    assert_close(found.null[1, at, 0], first)


def test_even_attention_is_no_type():
    prompts = Prompts.padded([[9, 5, 6, 5, 6, 7, 5, 6]])
    even = torch.ones(8, 8).tril().double()
    even = (even / even.sum(1, keepdim=True))[None, None]
    for name, relation in attending.relations(prompts).items():
        weights = attending._weights(relation, prompts, name)
        score, null = (attending._under(one[None], even) for one in weights)
        assert_close(score, null, equal_nan=True)  # NaN: none is so far back


def test_shuffled_attention_is_a_type_about_as_often_as_it_should_be():
    """Rows shuffled over earlier tokens: then the null is true, and 5 % of families may err."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(5, 9, (8, 14), generator=generator)
    prompts = Prompts.of(torch.cat([torch.full((8, 1), 3), rows], dim=1))
    relations = attending.relations(prompts)
    names = ("previous token", "duplicate token", "induction")
    weights = [attending._weights(relations[name], prompts, name) for name in names]
    score, null = (torch.stack([one[at] for one in weights]) for at in (0, 1))
    wrong, families = 0, 400
    for _ in range(families):
        sharp = torch.rand(8, 6, 15, 15, generator=generator, dtype=torch.double) ** 8
        pattern = sharp.tril()
        pattern = pattern / pattern.sum(3, keepdim=True)
        beyond = attending._under(score, pattern) - attending._under(null, pattern)
        wrong += bool((statistics.permutation_test(beyond).corrected <= 0.05).any())
    low, high = (
        0.05 - 3 * math.sqrt(0.05 * 0.95 / families),
        0.05 + 3 * math.sqrt(0.0475 / families),
    )
    assert low <= wrong / families <= high


def test_circuits_without_a_direction_err_as_often_as_they_should():
    generator = torch.Generator().manual_seed(1)
    families = [
        copying.rotation_test(torch.randn(10, 6, 6, generator=generator).double(), seed=at)
        for at in range(100)
    ]
    wrong = sum(bool((p <= 0.05).any()) for p in families)
    assert wrong <= 12  # more than that has a chance of 0.2 %


def remade(seed):
    """The tiny model with other random weights."""
    ours = recipe.tokenizer()
    with torch.random.fork_rng(devices=[]):
        made = recipe._gpt2(len(ours)) if seed % 2 else recipe._llama(len(ours))
    recipe.fill(made, torch.Generator().manual_seed(seed))
    return wrap(made, ours, name=f"random {seed}")


@pytest.mark.slow
def test_random_weights_have_heads_of_no_type():
    named, sure = 0, {}
    for seed in range(100, 140):
        model = remade(seed)
        found = heads.types(model, tasks.ioi(model, prompts=12, seed=seed), prompts=12, seed=seed)
        named += any(found.named().values())
        for at, type in enumerate(found.types):
            sure[type] = sure.get(type, 0) + bool((found.p[at] <= 0.05).any())
    # 40 models at 5 % each: more than 5 have a chance of 1.4 %
    assert named <= 5
    # Of the p-values alone: the families whose null holds for random weights.
    assert sum(sure[type] for type in ("copying", "copy-suppressing")) <= 10
    assert sum(sure[type] for type in ("name mover", "negative name mover")) <= 8
    assert sum(sure[type] for type in ("positive OV", "negative OV")) <= 8


def test_a_random_model_has_heads_of_no_type():
    for seed in (1, 2, 3, 4):
        model = remade(seed)
        found = heads.types(model, tasks.ioi(model, prompts=8, seed=0), prompts=8)
        assert not any(found.named().values())


def test_a_circuit_that_repeats_is_positive_and_one_that_negates_is_negative():
    eye = torch.eye(6).double()
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    found = copying.positivity(torch.stack([eye, -2 * eye, torch.block_diag(turn, turn, turn)]))
    assert_close(found, torch.tensor([1.0, -1.0, 0.0]).double())


def test_a_token_is_copied_when_it_is_among_the_most_raised():
    directions = torch.eye(40).double()
    said = torch.zeros(3, 2, 40).double()
    said[0, 0, 0] = said[0, 1, 1] = 1.0  # says what it sees
    said[1, 0, 0] = said[1, 1, 1] = -1.0  # argues against it
    raised, lowered = copying.tops(said, directions, 2)
    assert raised[0].equal(torch.eye(2).double())
    assert lowered[1].equal(torch.eye(2).double())
    assert not raised[1].any() and not raised[2].any() and not lowered[2].any()


def test_a_head_that_counts_on_is_a_successor_head_and_one_that_copies_is_not():
    group = ["days"] * 6 + ["letters"] * 8
    following = torch.zeros(2, 14, 14)
    following[0] = torch.eye(14)  # the logit of each token's own successor
    following[1] = torch.eye(14).roll(1, 0)
    found = successors.judged(following.double(), group, seed=0)
    assert found.named(level=0.05).tolist() == [True, False]
    assert_close(found.null[0], torch.tensor((6 / 6 + 8 / 8) / 14).double())


def test_orders_are_what_the_tokenizer_can_spell(default_model):
    orders = successors.Orders.of(default_model)
    names = models.words(default_model, torch.stack([orders.token, orders.next], dim=1))
    assert [" Monday", " Tuesday"] in names and [" A", " B"] in names
    assert [" Sunday", " Monday"] not in names


def test_what_moves_from_all_tokens_is_the_direct_effect_of_the_head(model):
    task = tasks.ioi(model, prompts=40, seed=0)
    length = int(task.clean.lengths.mode().values)
    task = task[(task.clean.lengths == length).nonzero()[:4, 0]]
    total = torch.zeros(8, len(task)).double()
    for at in range(length):
        here = torch.full((len(task),), at)
        moved = moving.moved(
            model, dataclasses.replace(task, positions={**task.positions, "IO": here}), batch_size=3
        )
        total += moved.attention[0] * moved.direct[0]
    expected = lens.direct_attribution(model, task).head_per_prompt.flatten(0, 1)
    assert_close(total.float(), expected, rtol=1e-4, atol=1e-5)


def test_inhibition_is_what_is_lost_beyond_the_direct_part(model, task):
    moved = moving.moved(model, task, batch_size=4)
    found = moving.inhibition(model, task, moved, memory="1GB", seed=0)
    rows = torch.arange(len(task))
    end, s2 = task.positions["END"], task.positions["S2"]
    seen = capture(model, task.clean, [Site(name, 0) for name in ("z", "v", "pattern")])
    cut = seen[Site("z", 0)].clone()
    weight = seen[Site("pattern", 0)][rows, 3, end, s2]
    cut[rows, end, 3] -= weight[:, None] * seen[Site("v", 0)][rows, s2, 1]  # its group's values
    before = metrics.logit_diff(model(task.clean), task)
    with intervening(model, {Site("z", 0): edits.replace(cut, heads=[3])}):
        lost = before - metrics.logit_diff(model(task.clean), task)
    direct = (moved.attention[1] * moved.direct[1])[3]
    assert_close(found.score[3], (lost.double() - direct).mean(), rtol=1e-3, atol=1e-5)


def test_a_small_effect_is_not_named_however_sure(found):
    at = found.types.index("induction")
    p, effect = torch.zeros_like(found.p), found.effect.clone()
    effect[at] = 0.29
    effect[at, 1, 2] = 0.31
    sure = dataclasses.replace(found, p=p, effect=effect)
    assert sure.of("induction") == [(1, 2)]
    assert dataclasses.replace(sure, p=p + 0.06).of("induction") == []


def test_a_head_that_looks_back_on_random_tokens_alone_is_not_named(found):
    at = found.types.index("previous token")
    ones, zeros = torch.ones_like(found.p), torch.zeros_like(found.p)
    both = dataclasses.replace(found, p=zeros, effect=ones, natural=ones, natural_p=zeros)
    assert len(both.of("previous token")) == 8
    natural = ones.clone()
    natural[at, 0] = 0.1
    assert len(dataclasses.replace(both, natural=natural).of("previous token")) == 4


def test_both_types_of_one_test_have_opposite_effects(found):
    a, b = (found.types.index(type) for type in ("name mover", "negative name mover"))
    assert_close(found.effect[a], -found.effect[b])
    assert_close(found.low[a], -found.high[b])
    assert ((found.p[a] == 1) | (found.p[b] == 1)).all()


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


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"])
def test_every_architecture_is_asked_what_it_can_be(architecture):
    model, _ = twins.make(architecture)
    found = heads.types(model, tasks.induction(model, prompts=4, seed=0, period=(5, 8)), prompts=4,
                        period=(5, 8))  # fmt: skip
    assert found.effect.shape[1:] == (model.cfg.n_layers, model.cfg.n_heads)
    assert not any(found.of(type) for type in attending.THRESHOLDS)
    assert ("copying" in found.left_out) == (architecture == "Gemma 3")


def test_the_values_of_a_token_are_what_the_weights_make_of_its_early_embedding(model):
    tokens = torch.tensor([30, 31, 32])
    from workbench.heads.kinds.reading import values_of_tokens

    values, order = values_of_tokens(model, tokens)
    embedded = model.original_model.model.embed_tokens(tokens)[:, None]
    block = model.blocks[0]
    early = embedded + block.mlp(block.ln2(embedded))
    weight = model.blocks[1].attn.W_V[1]  # heads 2 and 3 share it
    expected = (model.blocks[1].ln1(early)[:, 0] @ weight).double()
    for head in ((1, 2), (1, 3)):
        assert_close(values[order.index(head)], expected, rtol=1e-4, atol=1e-5)


def test_prompts_too_short_to_repeat_anything_are_left_out(model):
    """Of the drawn prompts one has six tokens and a period of five: no token is said twice."""
    repeats = tasks.induction(model, prompts=16, seed=0, period=(5, 8))
    known = attending.attention(
        model, repeats.clean[:8], ["induction", "duplicate token"], batch_size=8
    )
    held = ~known.score[1].isnan().any(dim=0)
    assert int(held.sum()) == 7
    found = heads.types(model, repeats, prompts=8, period=(5, 8))
    expected = known.score[0][:, held].mean(1).reshape(2, 4)
    assert_close(found.score[found.types.index("induction")], expected.float())


def test_the_same_seed_gives_the_same_bits(model, task, found):
    again = heads.types(model, task, prompts=6, seed=0)
    assert results.digest(again) == results.digest(found)


@pytest.mark.slow
def test_the_default_model_has_the_heads_that_move_names(default_model):
    task = tasks.ioi(default_model, prompts=32, seed=0)
    found = heads.types(default_model, task)
    assert set(found.of("induction")) >= {(18, 6), (17, 3), (17, 4), (17, 5)}
    assert set(found.of("previous token")) >= {(16, 0), (11, 1)}
    assert found.of("name mover")[:3] == [(23, 0), (23, 1), (23, 2)]
    assert found.of("negative name mover") == [(24, 4)]
    assert (24, 4) in found.of("copy-suppressing")
    assert found.of("S-inhibition")[0] == (20, 0)
    assert not found.caveat
