import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.testing import assert_close
from transformer_lens.tools.analysis.projection_kernel import (
    attention_head_subspace_affinity,
    random_projection_kernel_moments,
)

from hooks import Site, capture, edits, intervening
from workbench import heads, metrics, models, results, statistics, tasks
from workbench.heads import naming
from workbench.heads.likeness import comparing, outputs, patterns, weights

DUPLICATES = [
    "planted/duplicate", "planted/duplicate-gpt2", "planted/duplicate-llama",
    "planted/duplicate-gqa", "planted/duplicate/2",
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0)


@pytest.fixture(scope="module")
def found(model, task):
    return heads.similarity(model, task, seed=0)


def pairs_of(found, *groups):
    """Every pair's place, and whether both of its heads are in one of the groups."""
    a, b = torch.triu_indices(len(found.heads), len(found.heads), offset=1)
    members = [
        any({found.heads[int(x)], found.heads[int(y)]} <= group for group in groups)
        for x, y in zip(a, b, strict=True)
    ]
    return (a, b), torch.tensor(members)


@pytest.mark.parametrize("name", DUPLICATES)
def test_planted_copies_are_the_most_alike_by_every_measure_that_should_see_them(name):
    model = models.load(name)
    roles = models.planted.truth(model).roles
    found = heads.similarity(model, tasks.planted(model, prompts=24, seed=1))
    copies = set(roles["induction"])
    looking, saying = copies | set(roles["same pattern"]), copies | set(roles["same output"])
    before = set(roles["previous token"])
    # The one that says the same looks by position, as the previous-token head does, and that one
    # reads the same values: tokens.
    by_place = before | set(roles["same output"])
    aside = set(roles["orthogonal"]) | set(roles["same pattern"])  # all write where none reads
    alike = {
        "attention": [looking], "output": [copies], "writes": [saying, aside],
        "queries": [looking, by_place],
    }  # fmt: skip
    if "gqa" not in name:  # there, heads of a group share values and keys whatever they do
        alike |= {"values": [saying | before], "keys": [looking, by_place]}
    for by, truth in alike.items():
        at, members = pairs_of(found, *truth)
        scores = found.alike(by)[at]
        there = ~scores.isnan()
        assert statistics.auroc(scores[there], members[there]) == 1.0, by
    one, other, rotated = roles["induction"]
    for head in (other, rotated):
        assert found.of(one, head, by="attention") == pytest.approx(0, abs=1e-6)
        assert found.of(one, head, by="output") == pytest.approx(1, abs=1e-5)
        for by in ("writes", "values", "queries", "keys"):
            assert found.of(one, head, by=by) == pytest.approx(found.of(one, one, by=by), abs=1e-4)


def test_copies_stand_beyond_what_chance_gives():
    model = models.load("planted/duplicate")
    roles = models.planted.truth(model).roles
    found = heads.similarity(model, tasks.planted(model, prompts=24, seed=1))
    looking = {*roles["induction"], *roles["same pattern"]}
    beyond = found.beyond_chance("attention")
    assert all(set(pair) <= looking for pair in beyond[:6]) and len(beyond) >= 6
    for by in heads.MEASURES:
        best = found.most_alike(10, by=by)
        one, other, _ = sorted(roles["induction"])
        assert (one, other) in found.beyond_chance(by)
        assert len(best) == 10


def test_a_head_is_itself(found, model):
    assert_close(found.divergence.diagonal(), torch.zeros(8), rtol=0, atol=1e-6)
    assert_close(found.cka.diagonal(), torch.ones(8), rtol=0, atol=1e-5)
    for overlap in (found.writes, found.values, found.queries, found.keys):
        assert_close(overlap.diagonal(), torch.full((8,), 8.0), rtol=0, atol=1e-4)


def test_every_measure_is_symmetric(found):
    for by in heads.MEASURES:
        assert_close(found.alike(by), found.alike(by).T, rtol=0, atol=1e-5)


def test_heads_of_a_group_share_values_and_keys(found):
    assert found.group == [0, 0, 1, 1] * 2
    assert found.of((1, 0), (1, 1), by="values") == pytest.approx(8, abs=1e-4)
    assert found.of((1, 2), (1, 3), by="keys") == pytest.approx(8, abs=1e-4)
    assert found.of((1, 1), (1, 2), by="values") < 5


def test_the_two_parts_of_the_divergence_are_the_jensen_shannon_divergence(model, task, found):
    total = torch.zeros(8, 8).double()
    rows = 0
    for at in range(len(task)):
        seen = capture(model, task.clean[at], [Site("pattern", 0), Site("pattern", 1)])
        pattern = torch.cat([seen[Site("pattern", layer)][0] for layer in (0, 1)]).double()
        for row in range(1, pattern.shape[1]):
            rows += 1
            for a in range(8):
                for b in range(8):
                    pair = (pattern[one, row, : row + 1].numpy() for one in (a, b))
                    total[a, b] += jensenshannon(*pair) ** 2 if a != b else 0.0
    assert found.rows == rows == int((task.clean.lengths - 1).sum())
    assert_close(
        (found.divergence + found.divergence_first).double(), total / rows, rtol=1e-4, atol=1e-6
    )


def test_rows_that_share_nothing_differ_by_log_two_and_halves_by_hand():
    a = torch.tensor([[1.0, 0.0]]).double()
    b = torch.tensor([[0.0, 1.0]]).double()
    even = torch.tensor([[0.5, 0.5]]).double()
    assert_close(patterns.divergences(a, b)[0, 0], torch.tensor(math.log(2)).double())
    by_hand = 0.5 * (math.log(1 / 0.75)) + 0.5 * (
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    )
    assert_close(patterns.divergences(a, even)[0, 0], torch.tensor(by_hand).double())


def test_the_root_of_the_divergence_obeys_the_triangle():
    rows = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)).double() ** 4
    far = patterns.divergences(rows / rows.sum(1, keepdim=True), rows / rows.sum(1, keepdim=True))
    root = far.sqrt()
    assert (root[:, None] <= root[:, :, None] + root[None] + 1e-9).all()
    assert far.max() <= math.log(2)


def test_shuffling_keeps_rows_and_what_is_on_the_first_token(model, task):
    seen = capture(model, task.clean, [Site("pattern", 1)])
    rows = patterns.Rows.of(model, seen, [(1, 0), (1, 2)])
    moved = patterns.shuffled(rows, torch.Generator().manual_seed(0))
    assert moved[:, rows.is_first].equal(rows.weight[:, rows.is_first])
    assert not moved.equal(rows.weight)
    for row in rows.row.unique():
        here = (rows.row == row) & ~rows.is_first
        assert_close(moved[:, here].sort().values, rows.weight[:, here].sort().values)


def gram(x):
    return outputs.grams(x[None], torch.eye(x.shape[1]).double()[None])


def test_unrelated_outputs_are_unlike_though_the_plain_measure_says_otherwise():
    generator = torch.Generator().manual_seed(0)
    plain, ours = [], []
    for _ in range(10):
        x, y = torch.randn(2, 128, 64, generator=generator).double()
        ours.append(outputs.cka(gram(x), gram(y))[0, 0])
        a, b = (one - one.mean(0) for one in (x, y))
        plain.append((b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))
    assert 0.25 < torch.stack(plain).mean() < 0.4  # at twice as many tokens as dimensions
    assert abs(torch.stack(ours).mean()) < 0.01


def test_similarity_of_outputs_by_its_definition():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 9, 4, generator=generator).double()
    y = y + x[:, [1, 0, 3, 2]]

    def hsic(a, b):  # Song et al. 2012, equation 5
        n = len(a)
        k, kk = (one @ one.T * (1 - torch.eye(n)) for one in (a, b))
        ones = torch.ones(n).double()
        whole = (ones @ k @ ones) * (ones @ kk @ ones) / ((n - 1) * (n - 2))
        mixed = 2 / (n - 2) * (ones @ k @ kk @ ones)
        return (torch.trace(k @ kk) + whole - mixed) / (n * (n - 3))

    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()
    assert_close(outputs.cka(gram(x), gram(y))[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_similarity_of_outputs_does_not_change_with_rotation_scale_or_a_constant():
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 40, 6, generator=generator).double()
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator).double())[0]
    before = outputs.cka(gram(x), gram(y))
    assert_close(outputs.cka(gram(3 * x @ turn + 5), gram(y)), before, rtol=1e-4, atol=1e-5)
    assert_close(outputs.cka(gram(x), gram(x @ turn)), torch.ones(1, 1).double())


def test_outputs_are_what_heads_write_not_their_z(model, task, found):
    z = capture(model, task.clean, [Site("z", 1)])[Site("z", 1)].double()
    real = task.clean.mask.bool()
    real[:, 0] = False
    written = [z[:, :, head][real] @ model.blocks[1].attn.W_O[head].double() for head in (0, 3)]
    expected = outputs.cka(gram(written[0]), gram(written[1]))[0, 0]
    assert found.tokens == int(real.sum())
    assert found.of((1, 0), (1, 3), by="output") == pytest.approx(float(expected), abs=1e-5)


def test_a_head_that_writes_nothing_is_like_none():
    z = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0)).double()
    out = torch.stack([torch.eye(4), torch.zeros(4, 4)]).double()
    grams = outputs.grams(z, out)
    assert outputs.cka(grams, grams).isnan().tolist() == [[False, True], [True, True]]


def test_overlaps_are_those_of_the_library(tiny):
    """It compares what is written with what is read; the kernel is the same for all pairs."""
    order = naming.every(tiny)
    for role in ("Q", "K", "V"):
        theirs = attention_head_subspace_affinity(tiny, target_role=role, layer_order="all")
        both = [*weights.bases(tiny, order, "O"), *weights.bases(tiny, order, role)]
        ours = weights.kernel(both)[: len(order), len(order) :]
        expected = next(
            value for value in vars(theirs).values()
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() == 64
        )  # fmt: skip
        assert_close(ours.float(), expected.reshape(8, 8).float(), rtol=1e-3, atol=1e-3)


def test_random_spaces_overlap_as_the_formula_says():
    mean, most = weights.by_chance(32, 8, 1, level=0.5)
    expected = random_projection_kernel_moments(32, 8)
    assert mean == most == pytest.approx(expected.mean)
    _, high = weights.by_chance(32, 8, 10, level=0.05)
    assert high == pytest.approx(mean + 2.5758 * math.sqrt(expected.variance), rel=1e-3)
    generator = torch.Generator().manual_seed(0)
    spaces = [weights.basis(torch.randn(32, 8, generator=generator)) for _ in range(40)]
    a, b = torch.triu_indices(40, 40, offset=1)
    assert float(weights.kernel(spaces)[a, b].mean()) == pytest.approx(8 * 8 / 32, abs=0.05)


def test_an_orthogonal_space_overlaps_nothing_and_an_empty_one_compares_with_none():
    eye = torch.eye(6)
    found = weights.kernel([weights.basis(one) for one in (eye[:, :2], eye[:, 2:5], 0 * eye)])
    assert_close(found[:2, :2], torch.tensor([[2.0, 0.0], [0.0, 3.0]]).double())
    assert found[2].isnan().all()


def test_chance_limits_hold_for_unrelated_outputs():
    generator = torch.Generator().manual_seed(3)
    beyond, families = 0, 60
    for _ in range(families):
        grams = outputs.grams(
            torch.randn(5, 24, 3, generator=generator).double(),
            torch.eye(3).double().expand(5, 3, 3),
        )
        limit = max(comparing._cka_by_chance(grams, generator)[1] for _ in range(19))
        found = outputs.cka(grams, grams) - torch.eye(5)
        beyond += bool((found > limit).any())
    assert beyond <= 9  # 3 are expected


def test_how_prompts_are_batched_changes_nothing(model, task, found):
    small = heads.similarity(model, task, batch_size=1, seed=0)
    assert_close(small.divergence, found.divergence, rtol=1e-5, atol=1e-6)
    assert_close(small.cka, found.cka, rtol=1e-4, atol=1e-5)


def test_some_heads_are_compared_as_all_are(model, task, found):
    some = heads.similarity(model, task, heads=[(1, 2), (0, 1)], seed=0)
    assert some.names == ["1.2", "0.1"]
    for by in heads.MEASURES:
        expected = found.of((1, 2), (0, 1), by=by)
        assert some.of((1, 2), (0, 1), by=by) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_order_puts_copies_side_by_side():
    model = models.load("planted/duplicate")
    found = heads.similarity(model, tasks.planted(model, prompts=16, seed=1))
    places = sorted(
        found.order().index(found.heads.index(head))
        for head in models.planted.truth(model).roles["induction"]
    )
    assert places[2] - places[0] == 2


def test_similarity_says_what_it_found_and_comes_back_from_a_file(found, tmp_path):
    assert "Of 8 heads of tiny-gqa on ioi" in found.sentence()
    assert len(found.table(4).splitlines()) == 5
    assert set(found.headline()) == {f"alike by {by}" for by in heads.MEASURES}
    results.save(found, tmp_path / "similarity.nc")
    again = results.load(heads.HeadSimilarity, tmp_path / "similarity.nc")
    assert results.digest(again) == results.digest(found) and again.heads == found.heads


def test_heads_that_cannot_be_compared_are_refused(model, task, found):
    with pytest.raises(ValueError, match=r"there is no head 2\.0: layers are 0 to 1, heads 0 to 3"):
        heads.similarity(model, task, heads=[(0, 0), (2, 0)])
    with pytest.raises(ValueError, match=r"head 0\.1 was given twice"):
        heads.similarity(model, task, heads=[(0, 1), (0, 1)])
    with pytest.raises(ValueError, match="similarity needs at least two"):
        heads.similarity(model, task, heads=[(0, 1)])
    with pytest.raises(ValueError, match=r"head 3\.0 was not compared"):
        found.of((3, 0), (0, 0))
    with pytest.raises(Exception, match=r"no measure|Type-check"):
        found.alike("looks")


def test_a_copy_stands_in_fully_and_another_head_as_its_mean_does():
    model = models.load("planted/duplicate")
    roles = models.planted.truth(model).roles
    chosen = [*roles["induction"], roles["same output"][0]]
    task = tasks.planted(model, prompts=64, seed=1)
    found = heads.substitute(model, task, heads=chosen, metric=metrics.logit_diff)
    assert_close(found.effect[:3, :3], torch.zeros(3, 3), rtol=0, atol=1e-3)
    assert_close(found.by_mean[:3], torch.full((3,), -4.0), rtol=0, atol=0.02)
    assert_close(found.effect[:3, 3], found.by_mean[:3], rtol=0, atol=0.3)
    assert_close(found.explained[:3, :3], torch.ones(3, 3), rtol=0, atol=1e-3)
    copies = set(chosen[:3])
    pairs = found.stand_ins()
    assert {pair for pair in pairs[:6]} == {(a, b) for a in copies for b in copies if a != b}
    assert "keeps 100%" in found.sentence()


@pytest.fixture(scope="module")
def replaced(model):
    task = tasks.ioi(model, prompts=12, seed=0)
    chosen = [(0, 1), (1, 2)]
    found = heads.substitute(model, task, heads=chosen, metric=metrics.logit_diff)
    return task, found


def test_a_mean_in_a_heads_place_by_hand(model, replaced):
    task, found = replaced
    fitted_on, measured_on = task[list(range(0, 12, 2))], task[list(range(1, 12, 2))]
    z = capture(model, fitted_on.clean, [Site("z", 1)])[Site("z", 1)]
    real = fitted_on.clean.mask.bool()
    real[:, 0] = False
    clean = capture(model, measured_on.clean, [Site("z", 1)])[Site("z", 1)]
    clean[:, 1:, 2] = z[:, :, 2][real].mean(0)
    before = metrics.logit_diff(model(measured_on.clean), measured_on)
    with intervening(model, {Site("z", 1): edits.replace(clean, heads=[2])}):
        after = metrics.logit_diff(model(measured_on.clean), measured_on)
    assert found.by_mean[1].item() == pytest.approx((after - before).mean().item(), abs=1e-4)
    assert_close(found.baseline, before, rtol=1e-4, atol=1e-4)


def test_a_fit_without_shrinking_is_least_squares():
    from workbench.heads.likeness.standing_in import _fits

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator).double()
    y = x @ torch.randn(3, 3, generator=generator).double() + 2.0
    fits = _fits(torch.stack([x, y]))
    assert_close(fits(x, 1, 0), y, rtol=1e-6, atol=1e-6)
    assert_close(fits.explained(torch.stack([x, y])), torch.ones(2, 2).double())


def test_noise_is_not_fitted():
    from workbench.heads.likeness.standing_in import _fits

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 40, 16, generator=generator).double()
    fresh = torch.randn(2, 4000, 16, generator=generator).double()
    assert _fits(z).explained(fresh)[0, 1] > -0.2  # plain least squares: about -0.6


def test_substitution_says_what_it_found_and_comes_back_from_a_file(replaced, tmp_path):
    _, found = replaced
    assert "Of 2 heads of tiny-gqa on ioi" in found.sentence()
    assert len(found.table().splitlines()) == 3
    results.save(found, tmp_path / "substitution.nc")
    again = results.load(heads.Substitution, tmp_path / "substitution.nc")
    assert results.digest(again) == results.digest(found)


def test_too_little_to_fit_on_is_refused(model, task):
    with pytest.raises(ValueError, match="2 heads and 3 prompts"):
        heads.substitute(model, task[:3], heads=[(0, 0), (0, 1)], metric=metrics.logit_diff)
    with pytest.raises(ValueError, match=r"no head 5\.0"):
        heads.substitute(model, task, heads=[(0, 0), (5, 0)], metric=metrics.logit_diff)
    planted = models.load("planted/duplicate")
    few = tasks.planted(planted, prompts=4, seed=0)
    with pytest.raises(ValueError, match="a fit of 52 numbers from 52 has"):
        heads.substitute(planted, few, heads=[(0, 0), (1, 0)], metric=metrics.logit_diff)
