"""What cannot be loaded, and what is said of it."""

import json
from pathlib import Path

import pytest
import torch

from workbench import models


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([[5, 10_000]], "token id 10000"), ([[-1, 5]], "token id -1"), ([[5] * 257], "257 tokens")],
)
def test_tokens_the_model_does_not_know_are_refused(small, tokens, message):
    with pytest.raises(ValueError, match=message):
        small(torch.tensor(tokens))


class _Trap:
    def __reduce__(self):
        return (Path("was_run").touch, ())


def test_a_pickled_checkpoint_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": _Trap()}, tmp_path / "toy.pt")
    (tmp_path / "toy.json").write_text("{}")
    fields = {"n_layers": 1, "d_model": 8, "n_ctx": 4, "d_head": 8, "n_heads": 1, "d_vocab": 5,
              "attn_only": True}  # fmt: skip
    (tmp_path / "toy.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"is refused: it holds more than tensors.*safetensors"):
        models.load(str(tmp_path / "toy.pt"))
    assert not (tmp_path / "was_run").exists()


def test_a_folder_that_brings_code_is_refused(tmp_path):
    config = {"architectures": ["Odd"], "auto_map": {"AutoModelForCausalLM": "odd.Odd"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'brings its own code.*remote_code="run"'):
        models.load(str(tmp_path))


def test_a_folder_whose_weights_are_pickled_is_refused_and_runs_nothing(
    tmp_path, monkeypatch, small_llama
):
    monkeypatch.chdir(tmp_path)
    small_llama().config.save_pretrained(tmp_path)
    torch.save({"weights": _Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"are refused: they hold more than tensors.*safetensors"):
        models.load(str(tmp_path))
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", [b"", b"neither weights nor an archive", b"GGUFjunk"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".gguf"])
def test_a_damaged_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"toy{suffix}"
    path.write_bytes(content)
    fields = {"n_layers": 1, "d_model": 8, "n_ctx": 4, "d_head": 8, "n_heads": 1, "d_vocab": 5,
              "attn_only": True}  # fmt: skip
    (tmp_path / "toy.json").write_text(json.dumps(fields))
    with pytest.raises(
        ValueError, match=rf"toy\{suffix} is (damaged|refused)|cannot open .*toy\{suffix}"
    ):
        models.load(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{oops", r"config\.json is not JSON"), ("[1, 2]", r"one JSON object, found \[1, 2\]")],
)
def test_a_config_that_is_none_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        models.load(str(tmp_path))


def test_a_file_that_is_not_there_is_not_sought_on_the_hub(no_network):
    with pytest.raises(ValueError, match="there is no such file here"):
        models.load("mine/weights.gguf")


def test_a_name_cannot_be_wrapped(unchecked_types):
    with pytest.raises(TypeError, match=r"cannot wrap 'tiny': .* models\.load takes names"):
        models.wrap("tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smolm2-135m", r"did you mean 'smollm2-135m'\? Known are"),
        ("/no/such/place", "there is no such file here"),
    ],
)
def test_an_unknown_name_lists_what_is_known(name, message):
    with pytest.raises(ValueError, match=message):
        models.load(name)


def test_what_is_no_model_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="is no model: expected a folder"):
        models.load(str(tmp_path))
    (tmp_path / "toy.pt").touch()
    with pytest.raises(ValueError, match=r"has no config: put toy\.json"):
        models.load(str(tmp_path / "toy.pt"))
    (tmp_path / "toy.json").write_text('{"n_layers": 1, "d_model": 8, "hadamard_mixing": true}')
    with pytest.raises(ValueError, match="sets hadamard_mixing, which"):
        models.load(str(tmp_path / "toy.pt"))


def test_a_hub_that_is_not_there_says_how_to_bring_the_model(monkeypatch):
    from workbench.models import huggingface

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface.AutoConfig, "from_pretrained", offline)
    with pytest.raises(ConnectionError, match=r"save_pretrained.*smollm2-135m"):
        models.load("someone/some-model")
