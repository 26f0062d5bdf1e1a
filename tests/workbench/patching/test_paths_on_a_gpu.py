"""Run where there is a CUDA device; everything else here runs on the CPU."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from hooks import Site
from workbench import metrics, models, patching
from workbench.models import twins

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Gemma 3"])
def test_paths_and_traces_on_the_device_are_those_of_the_cpu(random_task, architecture):
    task, found = random_task(), {}
    task = replace(task, positions={"subject": torch.tensor([1, 2, 1])})
    told = [(Site("q", 1), 1), (Site("k", 1), 0)]
    route = [(Site("z", 0), 1), (Site("v", 1), 0), "logits"]
    for device in ("cpu", "cuda"):
        model = models.wrap(twins.make(architecture)[1].to(device), name=architecture)
        asked = {"metric": metrics.logit_diff}
        found[device] = [
            patching.paths(model, task, to="logits", **asked).per_prompt,
            patching.paths(model, task, to=told, between="frozen", **asked).per_prompt,
            patching.path(model, task, route, **asked).per_prompt,
            patching.paths(model, task, to="logits", between="linear", **asked).per_prompt,
            patching.causal_tracing(model, task, "mlp_out", **asked).per_prompt,
        ]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
