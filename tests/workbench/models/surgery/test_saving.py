"""What was saved is loaded as it was, and by transformers alone."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench import models
from workbench.models import surgery, twins

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("name", ["uneven groups", "the first layer gone"])
def test_what_is_saved_is_loaded_bit_for_bit(made, ragged, tmp_path, architecture, name, kept_in):
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


README = (Path(__file__).parents[4] / "README.md").read_text()
LOADING = next(
    block
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if "NoAttention" in block
)
"""What the README gives to those who have transformers alone."""


@pytest.mark.parametrize("part", ["mlp.down_proj", "self_attn.o_proj"])
def test_what_the_readme_gives_refuses_a_file_that_lacks_a_weight(made, tmp_path, kept_in, part):
    pruned = surgery.cut(made["Llama"], kept_in(made["Llama"], "uneven groups"))
    path = models.save(pruned, tmp_path / "pruned") / "model.safetensors"
    weights = load_file(path)
    [gone] = [name for name in weights if name.endswith(f"layers.1.{part}.weight")]
    del weights[gone]
    save_file(weights, path, {"format": "pt"})
    library: dict = {}
    exec(LOADING, library)
    with pytest.raises(AssertionError):
        library["load"](path.parent)


def test_a_model_that_could_not_be_read_back_is_not_saved_and_it_is_said(tmp_path):
    model = models.load("planted/duplicate")
    with pytest.raises(ValueError, match="cannot be saved here: what is written and read back"):
        models.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", [*FIVE, "Qwen 2"])
@pytest.mark.parametrize("name", ["uneven groups", "the first layer gone", "whole groups gone"])
def test_transformers_alone_loads_what_was_saved(
    made, tmp_path, architecture, name, kept_in, relative
):
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
