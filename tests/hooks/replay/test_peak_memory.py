"""What a sweep really takes, measured from outside, against what it was allowed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A model with a large vocabulary, so that logits are what takes memory. Its own peak is that
# after one pass; the sweep may take the budget beside it.
_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from transformers import GPT2Config, GPT2LMHeadModel
from hooks import Prompts, Site, edits
from hooks.replay.memory import size
from workbench import effects, metrics
from workbench.models.bridge import wrap
from workbench.patching import Running, sweeps
from workbench.tasks import Task

config = GPT2Config(vocab_size=50257, n_positions=64, n_embd=64, n_layer=4, n_head=4)
torch.manual_seed(0)
plain = GPT2LMHeadModel(config).eval().requires_grad_(False)
plain.set_attn_implementation("eager")
model = wrap(plain, name="mine", source="random weights")

def task(prompts):
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = torch.randint(5, 50000, (2, prompts, 32), generator=generator)
    lengths = torch.full((prompts,), 32)
    answer, foil = torch.full((prompts, 1), 7), torch.full((prompts, 1), 8)
    return Task("mine", Prompts(clean, lengths), Prompts(corrupt, lengths), answer, foil, {},
                torch.zeros(prompts).long())

def peak(what):
    status = open("/proc/self/status").read()
    return int(status.split(what)[1].split()[0]) * 1000

def own(activation):
    return activation * 0.5

def sweep(prompts, memory):
    some = task(prompts)
    if sys.argv[2] == "in full":
        cells = [{Site("embed"): edits.scale(s)} for s in (0.5, 2.0, 3.0)]
        effects.exact(model, some, cells, metrics=[metrics.mean_logprob], memory=memory)
    elif sys.argv[2] == "all logits":
        cells = [{Site("z", n): edits.scale(s)} for s in (0.5, 2.0) for n in (1, 3)]
        effects.exact(model, some, cells, metrics=[metrics.mean_logprob], memory=memory)
    else:
        sweeps(model, some, "resid_pre", metrics=[metrics.logit_diff],
               running=Running(memory=memory))

sweep(2, "1GB")
open("/proc/self/clear_refs", "w").write("5")
before = peak("VmRSS:")
sweep(int(sys.argv[3]), sys.argv[4])
print(json.dumps({"taken": peak("VmHWM:") - before, "budget": size(sys.argv[4])}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("what", "prompts", "budget"),
    [("in full", 16, "150MB"), ("all logits", 8, "150MB"), ("positions", 16, "20MB")],
)
def test_a_sweep_takes_no_more_memory_than_it_was_given(what, prompts, budget):
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, root, what, str(prompts), budget],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "TQDM_DISABLE": "1", "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.05 * found["budget"] < found["taken"] <= 1.2 * found["budget"]
