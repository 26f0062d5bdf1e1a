"""What heads attend to and write on the clean prompts of a task."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Site, capture_batches, sites
from workbench import statistics
from workbench.heads.likeness import outputs, patterns
from workbench.heads.naming import Head, column, output_matrix
from workbench.tasks import Task

Z = Float[Tensor, "head token d_head"]


def batches(
    model: HookedModel, task: Task, heads: list[Head], batch_size: int
) -> Iterator[tuple[patterns.Rows, Z]]:
    """The heads' rows, and their z at every real token but the first, one batch at a time."""
    wanted = [*sites.all(model, "pattern"), *sites.all(model, "z")]
    last = max(layer for layer, _ in heads)
    wanted = [site for site in wanted if site.layer <= last]
    for seen in capture_batches(model, task.clean.batches(batch_size), wanted):
        real = seen.prompts.mask.bool()
        real[:, 0] = False
        z = [seen[Site("z", one[0])][:, :, column(model, one)][real] for one in heads]
        yield patterns.Rows.of(model, seen, heads), torch.stack(z).cpu()


def grams(
    model: HookedModel, heads: list[Head], z: Z, *, tokens: int, seed: int
) -> Float[Tensor, "head some some"]:
    """What `outputs.grams` gives for `tokens` of the tokens, drawn with `seed`."""
    order = torch.randperm(z.shape[1], generator=statistics.derive(seed, "similarity", "tokens"))
    some = z[:, order[:tokens].sort().values]
    written = torch.stack([output_matrix(model, head) for head in heads]).double().cpu()
    return outputs.grams(some.double(), written)
