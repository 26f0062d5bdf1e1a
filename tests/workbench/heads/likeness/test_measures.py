"""Measures of likeness and their chance limits, by definition and by hand."""

import math
import statistics

import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from torch.testing import assert_close
from transformer_lens.tools.analysis.projection_kernel import (
    attention_head_subspace_affinity,
    random_projection_kernel_moments,
)

from hooks import Site, capture
from workbench.heads import naming
from workbench.heads.likeness import outputs, patterns, weights


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


def plain_cka(x, y):
    """Kornblith et al. 2019, equation 5."""
    x, y = (one - one.mean(0) for one in (x, y))
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


@pytest.mark.parametrize(
    ("dimensions", "tokens", "draws", "plain"),
    [
        ((32, 32), 64, 40, 1 / 3),  # twice as many tokens as dimensions
        ((32, 19), 64, 40, 0.276),  # sqrt(32 x 19) / sqrt((64 + 32) (64 + 19))
        ((8, 8), 800, 60, 1 / 101),  # a hundred times as many
    ],
)
def test_unrelated_outputs_are_unlike_though_the_plain_measure_says_otherwise(
    dimensions, tokens, draws, plain
):
    """By hand: ||Y^T X||^2 is n d e on average, ||X^T X||^2 is n d (n + d)."""
    generator = torch.Generator().manual_seed(0)
    theirs, ours = [], []
    for _ in range(draws):
        x, y = (torch.randn(tokens, one, generator=generator).double() for one in dimensions)
        theirs.append(float(plain_cka(x, y)))
        ours.append(float(outputs.cka(gram(x), gram(y))[0, 0]))
    assert statistics.fmean(theirs) == pytest.approx(plain, rel=0.05)
    assert abs(statistics.fmean(ours)) < 0.1 * plain
    assert abs(statistics.fmean(ours)) < 4 * statistics.stdev(ours) / draws**0.5


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
        both = [*weights.spaces(tiny, order, "O").bases, *weights.spaces(tiny, order, role).bases]
        ours = weights.kernel(both)[: len(order), len(order) :]
        expected = next(
            value for value in vars(theirs).values()
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() == 64
        )  # fmt: skip
        assert_close(ours.float(), expected.reshape(8, 8).float(), rtol=1e-3, atol=1e-3)


def test_random_spaces_overlap_as_the_formula_says():
    mean, middle = weights.by_chance(32, 8, 1, level=0.5)
    expected = random_projection_kernel_moments(32, 8)
    assert mean == pytest.approx(expected.mean) and middle == pytest.approx(mean, rel=0.01)
    _, high = weights.by_chance(32, 8, 1, level=stats.norm.sf(1))  # where skewness matters least
    assert high == pytest.approx(mean + math.sqrt(expected.variance), rel=0.01)
    generator = torch.Generator().manual_seed(0)
    spaces = [weights.basis(torch.randn(32, 8, generator=generator)) for _ in range(40)]
    a, b = torch.triu_indices(40, 40, offset=1)
    assert float(weights.kernel(spaces)[a, b].mean()) == pytest.approx(8 * 8 / 32, abs=0.05)


def test_the_limit_of_random_spaces_is_passed_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    spaces = torch.linalg.qr(torch.randn(20_000, 32, 8, generator=generator))[0]
    overlap = spaces[:, :8].square().sum((1, 2))  # with the space of the first eight axes
    _, limit = weights.by_chance(32, 8, 28, level=0.05 * 2.8)  # one pair's level: 0.005
    assert 0.003 < (overlap > limit).double().mean() < 0.006  # a normal tail: 0.0066
    assert weights.by_chance(32, 32, 28, level=0.05) == (32, 32)


def test_an_orthogonal_space_overlaps_nothing_and_an_empty_one_compares_with_none():
    eye = torch.eye(6)
    found = weights.kernel([weights.basis(one) for one in (eye[:, :2], eye[:, 2:5], 0 * eye)])
    assert_close(found[:2, :2], torch.tensor([[2.0, 0.0], [0.0, 3.0]]).double())
    assert found[2].isnan().all()


def test_heads_that_share_keys_share_their_space(model):
    found = weights.spaces(model, [(0, 0), (0, 3), (1, 1), (0, 1), (1, 0)], "K")
    assert found.of == [0, 1, 2, 0, 2] and found.pairs == 3
    assert found.kernel()[0, 3] == pytest.approx(8, abs=1e-4)
    assert len(weights.spaces(model, [(0, 0), (0, 1)], "Q").bases) == 2


def test_the_kernel_is_the_squared_overlap_of_the_bases():
    generator = torch.Generator().manual_seed(0)
    bases = [weights.basis(torch.randn(150, 8, generator=generator)) for _ in range(3)]
    expected = torch.stack(
        [torch.stack([(one.T @ other).square().sum() for other in bases]) for one in bases]
    )
    assert_close(weights.kernel(bases), expected, rtol=1e-4, atol=1e-4)


def test_shuffled_rows_differ_as_their_definition_says(model, task):
    seen = capture(model, task.clean[:2], [Site("pattern", 1)])
    rows = patterns.Rows.of(model, seen, [(1, 0), (1, 2)])
    found = patterns.by_shuffling(rows, torch.Generator().manual_seed(0), draws=1)
    moved = patterns.shuffled(rows, torch.Generator().manual_seed(0))
    total = 0.0
    for row in rows.row.unique():
        here = rows.row == row
        total += jensenshannon(rows.weight[0, here].numpy(), moved[1, here].numpy()) ** 2
    first = 0.0
    for at in rows.is_first.nonzero()[:, 0]:
        a, b = rows.weight[:, at]
        mixed = (a + b) / 2
        first += (a * (a / mixed).log() + b * (b / mixed).log()) / 2
    assert float(found[0, 1]) == pytest.approx(float(total - first) / rows.rows, rel=1e-4)
