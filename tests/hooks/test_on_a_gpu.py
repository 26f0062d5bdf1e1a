"""Run where there is a CUDA device; everything else in the suite runs on the CPU."""

import pytest
import torch

from hooks import Prompts, Site, capture, edits, intervening, last_logits, replay, sites
from workbench import effects, metrics, models, patching, tasks
from workbench.models import twins

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

ARCHITECTURES = ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3", "BERT")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sweep_equals_full_forward_passes(architecture, dtype):
    _, plain = twins.make(architecture)
    model = models.wrap(plain.to("cuda", dtype))
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([9, 6, 8])
    here, there = (
        Prompts(torch.randint(5, 60, (3, 9), generator=generator), lengths) for _ in range(2)
    )
    wanted = [
        site
        for stream in (
            "resid_pre",
            "resid_mid",
            "attn_out",
            "q",
            "k",
            "v",
            "z",
            "pattern",
            "neuron",
        )
        if stream in model.access.writable
        for site in sites.all(model, stream)  # pyright: ignore
    ]
    seen = capture(model, there, wanted)
    cells = [
        {site: edits.replace(seen[site], positions=position)}
        for site in wanted
        for position in (None, 3, torch.tensor([2, 5, 4]))
    ]
    plan = replay.plan(model, here, cells)
    trail = replay.Trail()
    base = replay.recorded(plan, lambda rows, logits: logits.flatten(1))
    found = base[None].repeat(len(cells), 1, 1)
    for batch in plan.batches:
        answers = replay.run(plan, batch, lambda rows, logits: logits.flatten(1), trail=trail)
        found[answers.cells, answers.prompts] = answers.values
    allowed = 1e-5 if dtype == torch.float32 else 4e-2
    for index, cell in enumerate(cells):
        with intervening(model, cell):
            expected = last_logits(model, here)[:, 0].cpu()
        assert (found[index] - expected).abs().max() <= allowed * expected.abs().max()
    assert len(trail.checked) == 3


def test_a_study_runs_on_the_device_and_gives_the_cpu_s_numbers():
    found = {}
    for device in ("cpu", "cuda"):
        model = models.load("tiny-gqa", device=device)
        task = tasks.ioi(model, prompts=6, seed=0)
        found[device] = patching.sweeps(
            model, task, "z", metrics=[metrics.logit_diff, metrics.answer_prob]
        )
        effects.attribute(model, task, [Site("z", 0)], metric=metrics.logit_diff)
    torch.testing.assert_close(
        found["cuda"].per_prompt, found["cpu"].per_prompt, rtol=1e-3, atol=1e-4
    )
