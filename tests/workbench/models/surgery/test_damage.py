"""A folder that is not as it was written is an error that says so, never another model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench import models
from workbench.models import surgery
from workbench.models.surgery import seal


@pytest.fixture(scope="module")
def whole(made, tiny, tmp_path_factory):
    """A pruned model as it was saved, and one with a tokenizer."""
    folder = tmp_path_factory.mktemp("saved")
    models.save(surgery.cut(made["Llama"], [[0, 3], [1]]), folder / "bare")
    models.save(surgery.cut(tiny, [[1], [0, 2]]), folder / "words")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy" / "bare"


def changed(folder, change) -> None:
    """The config with a change, as damage or another program would make it."""
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def sealed_again(fields) -> None:
    """As one would who changes a config on purpose."""
    ours = fields[seal.OURS]
    del ours[seal.SEAL]
    ours[seal.SEAL] = seal._digest(fields)


HARM = {
    "other heads of the same number": lambda fields: fields.update(kept_heads=[[0, 2], [1]]),
    "heads that do not exist": lambda fields: fields.update(kept_heads=[[0, 9], [1]]),
    "a head more": lambda fields: fields.update(kept_heads=[[0, 1, 3], [1]]),
    "a layer less": lambda fields: fields.update(kept_heads=[[0, 3]]),
    "no list": lambda fields: fields.update(kept_heads=3),
    "kept heads under another name": lambda fields: fields.update(kept=fields.pop("kept_heads")),
    "another epsilon": lambda fields: fields.update(rms_norm_eps=1e-2),
    "no epsilon": lambda fields: fields.pop("rms_norm_eps"),
    "no width": lambda fields: fields.pop("hidden_size"),
    "a word for a width": lambda fields: fields.update(hidden_size="wide"),
    "no architecture": lambda fields: fields.pop("architectures"),
    "an unknown architecture": lambda fields: fields.update(architectures=["Nope"]),
    "another kind": lambda fields: fields.update(model_type="gpt2"),
    "another name": lambda fields: fields["workbench"].update(name="another"),
    "another tie": lambda fields: fields["workbench"].update(tied={"lm_head.weight": "nope"}),
    "nothing of ours": lambda fields: fields.pop("workbench"),
    "nonsense for ours": lambda fields: fields.update(workbench=[1]),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_config_that_was_changed_is_damage(folder, harm):
    changed(folder, HARM[harm])
    with pytest.raises(ValueError, match=r"the folder is damaged: .*prune the model again"):
        models.load(folder)


def test_how_a_config_is_laid_out_does_not_matter(folder, made, ragged):
    before = models.load(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=7))
    assert models.load(folder)(ragged).equal(before(ragged))


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ([[0, 3]], "kept_heads has heads of 1 layers, the model has 2"),
        ([[0, 9], [1]], "kept_heads of layer 0 are .0, 9.: heads are 0 to 3"),
        ([[0, 3], [-1]], "kept_heads of layer 1 are .-1.: heads are 0 to 3"),
        ([[0, 3], [True]], "kept_heads of layer 1 are .True.: heads are 0 to 3"),
        ([[3, 0], [1]], "kept_heads of layer 0 are .3, 0.: each is listed once, in order"),
        ([[0, 3], [1, 1]], "kept_heads of layer 1 are .1, 1.: each is listed once, in order"),
        ([[0, 3], 1], "kept_heads must hold one list per layer, found"),
        ([[], [0, 1, 2]], "the weights model.layers.0.input_layernorm.weight"),
    ],
)
def test_heads_that_no_model_has_are_named_also_under_a_seal(folder, heads, said):
    changed(folder, lambda fields: [fields.update(kept_heads=heads), sealed_again(fields)])
    with pytest.raises(ValueError, match=f"the folder is damaged: .*{said}"):
        models.load(folder)


def test_an_architecture_that_is_not_pruned_here_is_named_also_under_a_seal(folder):
    changed(folder, lambda fields: [fields.update(architectures=["Nope"]), sealed_again(fields)])
    with pytest.raises(ValueError, match=r"the folder is damaged: .*'Nope'"):
        models.load(folder)


def test_a_folder_of_before_the_seal_is_refused_with_what_to_do(folder):
    changed(folder, lambda fields: [fields["workbench"].pop(key) for key in (seal.SEAL, "files")])
    with pytest.raises(ValueError, match=r"before configs were sealed.*save it by models\.save"):
        models.load(folder)


def test_a_config_that_is_not_json_is_said_to_be_none(folder):
    path = folder / "config.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        models.load(folder)


def rewritten(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


NORM = "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda all: all.update(more=torch.ones(3)), "no place for the weights more"),
        (lambda all: all.update({"model.layers.7.q.weight": torch.ones(3)}), "no place for"),
        (lambda all: all.pop(NORM), f"there is no {NORM} among the weights"),
        (lambda all: all.update({NORM: all[NORM] + 1}), "its weights are not those"),
        (lambda all: all.update({NORM: all[NORM][:3].clone()}), "its weights are not those"),
        (lambda all: all.update({NORM: all[NORM].double()}), "its weights are not those"),
    ],
)
def test_weights_that_are_more_or_less_or_others_are_damage(folder, change, said):
    rewritten(folder, change)
    with pytest.raises(ValueError, match=f"the folder is damaged: .*{said}"):
        models.load(folder)


def test_weights_that_are_cut_short_or_missing_are_damage(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="the folder is damaged: "):
        models.load(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"the folder is damaged: .*model\.safetensors"):
        models.load(folder)


def test_a_tokenizer_that_was_changed_or_lost_is_damage(folder):
    folder = folder.with_name("words")
    path = folder / "tokenizer.json"
    text = path.read_text()
    path.write_text(text.replace("Mary", "Nary"))
    with pytest.raises(ValueError, match=r"the folder is damaged: tokenizer\.json is not as it"):
        models.load(folder)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"the folder is damaged: tokenizer\.json is not as it"):
        models.load(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"the folder is damaged: tokenizer\.json is missing"):
        models.load(folder)
    path.write_text(text)
    assert models.load(folder).tokenizer is not None


def test_a_file_more_in_the_folder_is_nobody_s_business(folder):
    (folder / "README.md").write_text("Llama, without some heads")
    (folder / "tokenizer.json").write_text("{}")
    assert models.load(folder).tokenizer is None


def test_a_folder_below_a_file_is_refused_by_name(made, tmp_path):
    (tmp_path / "file").write_text("")
    pruned = surgery.cut(made["Llama"], [[0, 3], [1]])
    for below in ("file/pruned", "file/deeper/pruned"):
        with pytest.raises(NotADirectoryError, match=r"file is a file; name a folder elsewhere"):
            models.save(pruned, tmp_path / below)
