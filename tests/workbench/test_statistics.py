import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from workbench import statistics


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def coverage(samples: np.ndarray, truth: float, groups: list[int] | None = None) -> float:
    """The share of data sets (rows) whose bounds hold the truth; resamples change every 100."""
    blocks = [
        torch.from_numpy(samples[start : start + 100]) for start in range(0, len(samples), 100)
    ]
    found = [statistics.bounds(one, groups=groups, seed=n) for n, one in enumerate(blocks)]
    held = [(one.low <= truth) & (truth <= one.high) for one in found]
    return torch.cat(held).double().mean().item()


# Bounds


@pytest.mark.parametrize("n", [4, 8, 16, 64])
def test_bounds_of_normal_data_cover_the_true_mean_at_their_rate(n):
    samples = np.random.default_rng(n).normal(3.0, 2.0, size=(2000, n))
    assert 0.93 <= coverage(samples, 3.0) <= 0.97


@pytest.mark.parametrize("n", [16, 32])
def test_bounds_of_skewed_data_cover_the_true_mean(n):
    samples = np.random.default_rng(n).exponential(size=(2000, n))
    assert 0.92 <= coverage(samples, 1.0) <= 0.97


def test_a_skewed_sample_has_its_longer_bound_on_the_side_of_its_long_tail():
    found = statistics.estimate(torch.from_numpy(np.random.default_rng(0).exponential(size=16)))
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_bounds_on_groups_cover_where_bounds_on_prompts_do_not():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(1000, 12, 1))
    samples = (shared + 0.3 * generator.normal(size=(1000, 12, 5))).reshape(1000, 60)
    groups = [group for group in range(12) for _ in range(5)]
    assert 0.93 <= coverage(samples, 0.0, groups) <= 0.97
    assert coverage(samples, 0.0) < 0.75


def test_bounds_on_groups_of_unequal_size_cover():
    generator = np.random.default_rng(0)
    sizes = [1, 2, 3, 4] * 6
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    samples = generator.normal(size=(1000, 24))[:, groups]
    samples = samples + 0.5 * generator.normal(size=samples.shape)
    assert 0.925 <= coverage(samples, 0.0, groups) <= 0.975


def test_each_prompt_as_its_own_group_is_the_same_as_no_groups():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=20))
    alone = statistics.estimate(values, seed=4)
    assert statistics.estimate(values, groups=[f"{n:02d}" for n in range(20)], seed=4) == alone


def test_bounds_agree_with_students_on_many_normal_values():
    values = np.random.default_rng(0).normal(size=400)
    found = statistics.estimate(torch.from_numpy(values), resamples=20_000)
    low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert_close(vector(found.low, found.high), vector(low, high), rtol=0, atol=0.01)


def test_three_prompts_have_students_bounds():
    found = statistics.estimate(vector(1.0, 2.0, 4.0))
    low, high = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1, 2, 4]))
    assert_close(vector(found.value, found.low, found.high), vector(7 / 3, low, high))


def test_a_wider_level_has_wider_bounds():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=16))
    narrow, wide = (statistics.estimate(values, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_bounds_move_and_scale_with_the_values():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 16)))
    plain, moved = statistics.bounds(values), statistics.bounds(7 - 3 * values)
    scaled = [7 - 3 * one for one in (plain.mean, plain.high, plain.low)]
    # A negative scale swaps the bounds; the order statistics taken are symmetric.
    assert_close(list(moved), scaled)


def test_a_cell_has_the_bounds_it_would_have_alone():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 700, 12)))
    together = statistics.bounds(values, seed=2)
    alone = statistics.estimate(values[2, 650], seed=2)
    found = [one[2, 650].item() for one in together]
    assert_close(vector(*found), vector(alone.value, alone.low, alone.high), rtol=1e-12, atol=0)
    assert together.mean.shape == (3, 700)


def test_equal_values_have_their_value_as_both_bounds():
    values = torch.full((2, 16), 0.1)
    values[1] = 0
    found = statistics.bounds(values)
    for one in found:
        assert_close(one, values[:, 0].double(), rtol=0, atol=0)


def test_one_prompt_that_makes_the_whole_effect_leaves_finite_bounds():
    values = torch.zeros(3, 16)
    values[0, 3] = 2.0
    values[1] = 1e-6 * torch.arange(16)
    values[1, 3] = 2.0
    values[2, :2] = torch.tensor([5.0, -5.0])
    found = statistics.bounds(torch.cat([values, -values]))
    assert torch.isfinite(torch.stack(found)).all()
    assert (found.low <= found.mean).all() and (found.mean <= found.high).all()
    assert found.high.max() < 10 and found.low.min() > -10


def test_no_cells_and_no_layers_are_allowed():
    assert statistics.bounds(torch.zeros(0, 8)).low.shape == (0,)
    assert statistics.permutation_test(torch.zeros(0, 8)).p.shape == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(1), "at least 2 prompts, got 1"),
        (torch.ones(3, 0), "at least 2 prompts, got 0"),
        (torch.tensor([[1.0, 2.0], [3.0, math.nan]]), r"nan at cell \(1,\), prompt 1"),
        (torch.tensor([1.0, math.inf]), "inf at prompt 1"),
    ],
)
def test_values_without_bounds_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        statistics.bounds(values)
    with pytest.raises(ValueError, match=message):
        statistics.permutation_test(values)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 groups for 4 prompts"):
        statistics.estimate(torch.arange(4.0), groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        statistics.estimate(torch.arange(4.0), groups=["a"] * 4)


def test_too_few_resamples_for_the_level_are_refused():
    with pytest.raises(ValueError, match="take at least 40"):
        statistics.estimate(torch.arange(4.0), resamples=20)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        statistics.estimate(torch.arange(4.0), level=95.0)


# Shares of successes


@pytest.mark.parametrize("hits", [0, 1, 9, 15, 16])
def test_the_bounds_of_a_share_are_clopper_and_pearsons(hits):
    found = statistics.proportion(torch.tensor([True] * hits + [False] * (16 - hits)))
    expected = stats.binomtest(hits, 16).proportion_ci(method="exact")
    assert_close(vector(found.low, found.high), vector(expected.low, expected.high))
    assert found.value == hits / 16 and found.n == 16


def test_an_accuracy_handed_to_estimate_is_read_as_a_share():
    perfect = torch.ones(16)
    assert statistics.estimate(perfect) == statistics.proportion(perfect)
    assert statistics.estimate(perfect).low < 0.8
    assert statistics.estimate(torch.zeros(16) > 1) == statistics.proportion(torch.zeros(16))


def test_shares_cover_with_and_without_groups():
    generator = np.random.default_rng(0)
    alone = generator.random((1000, 20)) < 0.8
    assert 0.95 <= coverage(alone, 0.8) <= 0.99
    chance = generator.beta(4, 1, size=(1000, 12, 1))
    grouped = (generator.random((1000, 12, 6)) < chance).reshape(1000, 72)
    groups = [group for group in range(12) for _ in range(6)]
    assert 0.93 <= coverage(grouped, 0.8, groups) <= 0.985
    assert coverage(grouped, 0.8) < 0.9


def test_groups_that_agree_count_once():
    answers = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    found = statistics.proportion(torch.ones(6), groups=["a", "a", "b", "b", "c", "c"])
    assert_close(found.low, 0.025 ** (1 / 3))  # 3 of 3, by hand
    assert found.n == 3
    grouped = statistics.proportion(answers, groups=[0, 0, 1, 1, 2, 2])
    assert grouped.low < statistics.proportion(answers).low


def test_a_share_of_other_values_is_refused():
    with pytest.raises(ValueError, match=r"found 0\.5"):
        statistics.proportion(vector(0, 1, 0.5))


# Permutation tests


def test_four_positive_values_reach_two_of_sixteen_flips():
    found = statistics.permutation_test(vector(1.0, 2.0, 3.0, 5.0))
    assert found.p.item() == found.corrected.item() == 2 / 16
    assert (found.method, found.permutations) == ("exact", 16)


def test_equal_values_reach_two_of_two_to_the_n_flips():
    assert statistics.permutation_test(torch.full((10,), -0.1)).p.item() == 2 / 1024


def test_cells_of_zeros_have_p_one_and_do_not_disturb_the_others():
    values = torch.stack([torch.zeros(8), torch.arange(1.0, 9)])
    found = statistics.permutation_test(values)
    assert_close(found.p, vector(1, 2 / 256))
    assert_close(found.corrected, vector(1, 2 / 256))


def test_the_exact_test_agrees_with_scipy():
    values = np.random.default_rng(0).normal(0.4, 1.0, size=(6, 9))
    found = statistics.permutation_test(torch.from_numpy(values))
    for row, p in zip(values, found.p.tolist(), strict=True):
        expected = stats.permutation_test((row,), np.mean, permutation_type="samples")
        assert_close(p, float(expected.pvalue))


def test_the_largest_t_over_cells_gives_the_corrected_p_by_hand():
    values = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.5, -1.0]], dtype=torch.float64)
    flips = [[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    t = [
        [abs(stats.ttest_1samp(row * np.array(flip), 0)[0]) for row in values.numpy()]
        for flip in flips
    ]
    largest = np.array(t).max(1)
    expected = [(largest >= seen - 1e-9).mean() for seen in t[0]]
    assert_close(statistics.permutation_test(values).corrected, vector(*expected))


def test_sampled_flips_agree_with_exact_ones():
    values = torch.from_numpy(np.random.default_rng(0).normal(0.5, 1.0, size=(20, 12)))
    exact = statistics.permutation_test(values, permutations=4096)
    sampled = statistics.permutation_test(values, permutations=4000)
    assert (exact.method, sampled.method) == ("exact", "sampled")
    assert_close(sampled.p, exact.p, rtol=0, atol=0.03)
    assert_close(sampled.corrected, exact.corrected, rtol=0, atol=0.03)


def test_a_sampled_p_is_never_zero():
    found = statistics.permutation_test(torch.full((40,), 3.0), permutations=999)
    assert found.p.item() == 1 / 1000


def test_null_cells_are_called_at_the_stated_rate():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 16)))
    p = torch.cat(
        [
            statistics.permutation_test(block, permutations=999, seed=n).p
            for n, block in enumerate(values.split(40))
        ]
    )
    assert 0.04 <= (p <= 0.05).double().mean().item() <= 0.06


def test_a_family_of_270_null_cells_has_a_hit_at_the_stated_rate():
    generator = np.random.default_rng(0)
    hits = []
    for seed in range(500):
        shared = generator.normal(size=(1, 16))  # heads see the same prompts: correlated cells
        values = torch.from_numpy(0.5 * shared + generator.normal(size=(270, 16)))
        corrected = statistics.permutation_test(values, permutations=199, seed=seed).corrected
        hits.append(corrected.min().item() <= 0.05)
    assert 0.03 <= np.mean(hits) <= 0.07


def test_planted_effects_are_found_among_270_cells():
    values = np.random.default_rng(0).normal(size=(270, 32))
    values[[3, 100]] += 1.5
    values[200] -= 1.5
    corrected = statistics.permutation_test(torch.from_numpy(values)).corrected
    assert (corrected < 0.05).nonzero().flatten().tolist() == [3, 100, 200]


def test_groups_are_flipped_whole():
    values = torch.arange(1.0, 9)
    found = statistics.permutation_test(values, groups=["a", "a", "b", "b", "c", "c", "d", "d"])
    assert found.p.item() == 2 / 16


def test_corrected_is_never_below_alone():
    found = statistics.permutation_test(
        torch.from_numpy(np.random.default_rng(0).normal(size=(9, 20)))
    )
    assert (found.corrected >= found.p).all()


def test_benjamini_hochberg_by_hand_and_by_scipy():
    p = torch.tensor([[0.01, 0.04], [0.03, 0.5]], dtype=torch.float64)
    adjusted = statistics.benjamini_hochberg(p)
    third = 0.04 * 4 / 3
    assert_close(adjusted, torch.tensor([[0.04, third], [third, 0.5]], dtype=torch.float64))
    many = np.random.default_rng(0).random(50)
    expected = torch.from_numpy(stats.false_discovery_control(many))
    assert_close(statistics.benjamini_hochberg(torch.from_numpy(many)), expected)


def test_what_is_no_p_value_is_refused():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        statistics.benjamini_hochberg(torch.tensor([0.5, math.nan]))


# Randomness


def test_the_same_seed_gives_the_same_bits_whatever_the_number_of_threads():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 9, 24)))

    def answers(seed):
        found = statistics.permutation_test(values, seed=seed, permutations=500)
        return torch.stack([*statistics.bounds(values, seed=seed), found.p, found.corrected])

    threads = torch.get_num_threads()
    first = answers(5)
    torch.set_num_threads(1)
    second = answers(5)
    torch.set_num_threads(threads)
    assert torch.equal(first, second)
    assert not torch.equal(first, answers(6))


def test_no_global_generator_is_touched():
    values = torch.arange(24.0)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    statistics.estimate(values, seed=1)
    statistics.permutation_test(values, seed=statistics.derive(1, "flips"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_derived_generators_depend_on_every_label_and_their_order():
    names = [(0,), (1,), (0, "a"), (0, "a", "b"), (0, "b", "a"), (0, "ab"), (0, "a,b"), (-1,)]
    drawn = {tuple(torch.rand(4, generator=statistics.derive(*name)).tolist()) for name in names}
    assert len(drawn) == len(names)


def test_a_derived_generator_is_the_same_in_every_process():
    # SHA-256 of '[0, "ioi"]' starts with these four bytes (sha256sum).
    assert statistics.derive(0, "ioi").initial_seed() == 0x70CAFA11


def test_generators_of_both_libraries_are_taken():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=16))
    by_torch = [statistics.estimate(values, seed=statistics.derive(3, "x")) for _ in range(2)]
    by_numpy = [statistics.estimate(values, seed=np.random.default_rng(3)) for _ in range(2)]
    assert by_torch[0] == by_torch[1] and by_numpy[0] == by_numpy[1]
    assert by_numpy[0] == statistics.estimate(values, seed=3)
    assert by_torch[0] != by_numpy[0]


# Reading


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (statistics.Estimate(5.312, 4.9, 5.744, 32), "+5.31 [+4.90, +5.74], n = 32"),
        (
            statistics.Estimate(-0.00031, -0.0004, -0.0002, 8),
            "-0.00031 [-0.00040, -0.00020], n = 8",
        ),
        (statistics.Estimate(2.0, 2.0, 2.0, 4), "+2.00 [+2.00, +2.00], n = 4"),
        (statistics.Estimate(310.0, 200.0, 400.0, 9, 0.9), "+310 [+200, +400] (0.9 level), n = 9"),
    ],
)
def test_an_estimate_reads_as_a_sentence_would_have_it(found, text):
    assert str(found) == text


@pytest.mark.timeout(5)  # measured 0.2 s; generous for a busy machine
def test_270_heads_by_64_prompts_take_well_under_a_second():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 9, 64)))
    assert statistics.bounds(values).low.shape == (30, 9)
    assert statistics.permutation_test(values).p.shape == (30, 9)
