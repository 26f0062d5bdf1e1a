"""Every benchmark runs to its end on a tiny model, and its last line holds the figures it names.

How fast it was says nothing here; that both sides agree does.
"""

import json

import pytest

from experiments.benchmarks import neurons, patching, probes, pruning

pytestmark = pytest.mark.slow


@pytest.fixture
def figures(capsys):
    """`figures(benchmark, config)`: the last line it prints."""

    def run(benchmark, config):
        benchmark.main(config)
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return run


def test_pruning(figures):
    config = pruning.Config(
        model="tiny-gqa", batch=2, tokens=16, layers=2, rounds=1, prompts=4, sweeps=1,
        naive_cells=2, sets=1,
    )  # fmt: skip
    found = figures(pruning, config)
    assert 0 <= found["max_error"] <= 2e-5 and 0 <= found["max_error_float64"] <= 1e-9
    assert found["parameters_removed"] == found["parameters_expected"] > 0
    assert found["all_heads_max_error"] <= 1e-4
    for name in ("attention_time_ratio", "all_heads_ratio"):
        assert found[name] > 0
    for name in ("prefill_time_ratio", "decode_time_ratio"):
        assert set(found[name]) == {"1", "2"}


def test_patching(figures):
    config = patching.Config(
        model="tiny-gqa", prompts=4, tokens=14, rounds=1, naive_cells=2, edges="no"
    )
    found = figures(patching, config)
    assert found["max_error"] <= 1e-4
    for name in ("residual_ratio", "dense_ratio", "heads_ratio", "peak_gb"):
        assert found[name] > 0


def test_probes(figures):
    config = probes.Config(
        layers=2, folds=2, regularisations=2, shuffles=2, examples=200, width=8, sampled_fits=2,
        sampled_layers=1, rounds=1,
    )  # fmt: skip
    found = figures(probes, config)
    assert found["accuracy_difference"] <= 0.005
    for name in ("study_ratio", "ratio", "peak_gb"):
        assert found[name] > 0


def test_neurons(figures):
    config = neurons.Config(
        model="tiny-gqa", growth_model="tiny-gqa", tokens=512, length=32, batch=4, rounds=1,
        small=1000, large=2000, stored=4, atlas=1000, pages=2,
    )  # fmt: skip
    found = figures(neurons, config)
    assert found["resume_identical"] is True
    for name in ("throughput_ratio", "run_with_cache_ratio", "rss_growth", "atlas_ratio"):
        assert found[name] > 0
