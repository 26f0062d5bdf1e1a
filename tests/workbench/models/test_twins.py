"""Twins are the architectures they are called after, and their verdicts are kept."""

import json

import pytest
import torch

from hooks import conformance
from workbench.models import bridge, twins


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("architecture", twins.ARCHITECTURES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_gives_others(architecture):
    digests = []
    for seed in (0, 0, 1):
        torch.rand(1)  # moves the global state, from which nothing may be drawn
        digests.append(twins.make(architecture, seed=seed)[0].origin.digest)
    assert digests[0] == digests[1] != digests[2]


def test_the_reference_is_another_model_with_the_same_weights():
    model, reference = twins.make("GPT-NeoX")
    assert bridge.digest(reference) == model.origin.digest
    with torch.no_grad():
        reference.get_output_embeddings().weight.zero_()
    assert bool(model(torch.tensor([[3, 4]])).any())


def test_an_unknown_architecture_lists_those_there_are():
    with pytest.raises(ValueError, match="no twin of 'GPT-9'; there are GPT-2, Llama"):
        twins.make("GPT-9")


def test_windows_are_shorter_than_the_prompts_they_are_checked_with():
    config = twins.make("Gemma 3")[0].original_model.config
    assert config.sliding_window < 10
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}


def test_a_verdict_is_made_once_and_read_back_the_same(cached, monkeypatch):
    first = twins.verdicts(["native"])
    monkeypatch.setattr(twins, "check_model", None)
    again = twins.verdicts(["native"])
    assert str(again["native"]) == str(first["native"])
    assert again == first
    (kept,) = cached.rglob("verdict.json")
    assert json.loads(kept.read_text())["architecture"] == "TransformerLensNative"


def test_a_verdict_of_other_code_or_other_versions_is_not_used(cached, monkeypatch):
    before = twins._version("native")
    assert twins._version("Llama") != before
    monkeypatch.setattr(twins.metadata, "version", lambda name: "0.0")
    assert twins._version("native") != before


def test_the_table_has_a_row_for_each_architecture_and_says_what_each_lacks(cached):
    found = twins.verdicts(["native"])
    broken = conformance.Check("cuts", "z + neuron", "fail", 1.0, "at most 1e-05", "z 1")
    checks = (*found["native"].checks, broken)
    worse = conformance.Conformance("mine", "Mine", "all 2 layers", checks)
    lines = twins.table({**found, "mine": worse}).splitlines()
    assert lines[0].startswith("| architecture | parity | fires once |")
    (row,) = [line for line in lines if line.startswith("| native |")]
    assert row.count("|") == lines[0].count("|") and "FAIL" not in row
    (row,) = [line for line in lines if line.startswith("| mine |")]
    assert row.count("FAIL") == 1
    assert any(line.startswith("- native: ") and "holds the pattern" in line for line in lines)
