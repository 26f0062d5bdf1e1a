"""What is on disk is used again only where nothing has changed."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, store
from hooks.store import survey


def test_a_second_call_opens_what_is_there(tiny, tmp_path, counted, EVERYWHERE, corpus):
    first = store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    assert len(counted) == 3
    again = store.write(tiny, corpus(), EVERYWHERE[::-1], tmp_path / "it", key="test")
    assert len(counted) == 3
    assert again.content.digest == first.content.digest
    assert_close(again.read()[Site("z", 1)], first.read()[Site("z", 1)], rtol=0, atol=0)


def test_what_stands_in_the_padding_does_not_count_as_content(
    tiny, tmp_path, counted, EVERYWHERE, corpus
):
    store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
    other = [Prompts(b.tokens * b.mask + 9 * (1 - b.mask), b.lengths) for b in corpus()]
    store.write(tiny, other, EVERYWHERE, tmp_path / "it", key="test")
    assert len(counted) == 3


def test_a_token_of_id_zero_is_not_taken_for_padding():
    long, short = (Prompts(torch.tensor([[5, 0]]), torch.tensor([length])) for length in (2, 1))
    assert survey.digest(long) != survey.digest(short)


def _other_token(tiny, how, monkeypatch):
    how["batches"][2].tokens[0, 0] += 1


def _shorter(tiny, how, monkeypatch):
    how["batches"][2].lengths[1] = 2


def _other_batching(tiny, how, monkeypatch):
    first, second, third = how["batches"]
    how["batches"] = [first, second[:2], second[2:], third]


def _other_key(tiny, how, monkeypatch):
    how["key"] = "other documents"


def _other_sites(tiny, how, monkeypatch):
    how["sites"] = [*how["sites"], Site("z", 0)]


def _other_dtype(tiny, how, monkeypatch):
    how["dtype"] = "bfloat16"


def _other_positions(tiny, how, monkeypatch):
    how["positions"] = "last"


def _other_weight(tiny, how, monkeypatch):
    weight = tiny.blocks[0].mlp.out.weight
    before = weight.detach().clone()
    weight.data.view(-1)[7] += 0.5
    return lambda: weight.data.copy_(before)


def _other_tokenizer(tiny, how, monkeypatch):
    monkeypatch.setattr(tiny, "origin", dataclasses.replace(tiny.origin, tokenizer="another"))


def _other_origin(tiny, how, monkeypatch):
    monkeypatch.setattr(tiny, "origin", dataclasses.replace(tiny.origin, digest="another"))


def _other_config(tiny, how, monkeypatch):
    monkeypatch.setattr(tiny.original_model.config, "layer_norm_epsilon", 1e-2)


def _other_version(tiny, how, monkeypatch):
    monkeypatch.setattr("hooks.store.content._version", lambda library: f"{library} of tomorrow")


@pytest.mark.parametrize(
    "change",
    [
        _other_token, _shorter, _other_batching, _other_key, _other_sites, _other_dtype,
        _other_positions, _other_weight, _other_tokenizer, _other_origin, _other_config,
        _other_version,
    ],
)  # fmt: skip
def test_whatever_changes_nothing_old_is_used(
    tiny, tmp_path, counted, monkeypatch, change, EVERYWHERE, corpus
):
    how = {"batches": corpus(), "sites": EVERYWHERE, "key": "test", "dtype": "float32"}

    def write(batches, sites, **rest):
        return store.write(tiny, batches, sites, tmp_path / "it", **rest)

    first = write(**how)
    counted.clear()
    undo = change(tiny, how, monkeypatch)
    try:
        other = write(**how)
        assert len(counted) == len(how["batches"])
        assert other.content.digest != first.content.digest
        write(**how)
        assert len(counted) == len(how["batches"])
    finally:
        if undo:
            undo()
    (shown, wanted) = (first.content.digest, other.content.digest)
    with pytest.raises(ValueError, match=r"holds .*; .*takes the beginning of a digest"):
        store.open(tmp_path / "it")
    assert store.open(tmp_path / "it", content=shown[:10]).content.digest == shown
    assert store.open(tmp_path / "it", content=wanted).content.digest == wanted
