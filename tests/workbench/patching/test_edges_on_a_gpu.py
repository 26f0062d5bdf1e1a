"""Run where there is a CUDA device; everything else here runs on the CPU."""

import pytest
import torch
from torch.testing import assert_close

from workbench import metrics, models
from workbench.models import twins
from workbench.patching import Graph, acdc, attribute_edges, exact_edges, measure_circuits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX"])
def test_edges_and_circuits_on_the_device_are_those_of_the_cpu(random_task, half, architecture):
    task, found = random_task(), {}
    for device in ("cpu", "cuda"):
        model = models.wrap(twins.make(architecture)[1].to(device), name=architecture)
        graph = Graph.of(model)
        found[device] = (
            measure_circuits(model, task, [half(graph)], metric=metrics.logit_diff),
            attribute_edges(model, task, metric=metrics.logit_diff).per_prompt,
            exact_edges(model, task, metric=metrics.logit_diff).per_prompt,
            acdc(model, task[:2], threshold=0.3, graph=Graph.of(model, detail="layers")).cost,
        )
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
