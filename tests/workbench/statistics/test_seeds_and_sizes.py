"""What a seed decides, how an estimate reads, and how long it takes."""

import numpy as np
import pytest
import torch

from workbench import statistics


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
