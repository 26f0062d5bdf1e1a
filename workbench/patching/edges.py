"""Edges scored by gradients: attribution patching of edges, plain and integrated.

The score of an edge is (what its writer wrote elsewhere - what it wrote here) . gradient at its
reader (EAP, Syed et al. 2023, https://arxiv.org/abs/2310.10348), or the same with the gradient
averaged along a path (EAP-IG, Hanna et al. 2024, https://arxiv.org/abs/2403.17806). A reader's
gradient is found without a copy of the stream for each head: that of q, k and v goes back
through the projections and the norm; that of an MLP is what its output and its input differ by.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from hooks import Gradients, HookedModel, Site, capture, edits, intervening
from hooks.prompts import check_batch_size
from workbench.effects import Source
from workbench.effects.exact import Run
from workbench.effects.pair import Pair
from workbench.effects.quadrature import Quadrature
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.graph import Graph
from workbench.patching.readers import PARTS, Projections
from workbench.patching.scores import EdgeScores
from workbench.patching.writers import Outputs, carried, differences, writer_sites
from workbench.tasks import Task
from workbench.tasks.provenance import labels

Along = Literal["nothing", "inputs", "activations"]

METHODS = {
    "nothing": "EAP",
    "inputs": "EAP-IG (inputs)",
    "activations": "EAP-IG (activations)",
}


def attribute_edges(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    run: Run = "clean",
    along: Along = "inputs",
    quadrature: Quadrature = Quadrature("midpoint", 5),  # noqa: B008 - frozen
    graph: Graph | None = None,
    source: Source | Kind = "counterfactual",
    batch_size: int = 8,
) -> EdgeScores:
    """Estimate the effect of every edge of `graph` (all heads, by default) from gradients.

    run      where edges are changed and gradients are taken. "clean": what if the edge carried
             the corrupt run's value (noising); "corrupt": what if it carried the clean run's
             (denoising, as TransformerLens has it).
    along    "nothing": the gradient where the runs stand (EAP). "inputs": its mean while the
             embedding goes from this run to the other (EAP-IG). "activations": for the edges
             of the embedding, of each layer's attention and of each MLP, its mean while that
             part's output alone goes there.
    quadrature  where on the path, from 0 (this run) to 1 (the other). Hanna et al. take
             Quadrature("right", 5) in the clean run; the two ends alone ("clean-corrupt") are
             Quadrature("trapezoid", 1).

    The library EAP-IG averages for "activations" over the paths of all parts, whichever the edge
    leaves; here each edge has the path of its own writer, so that the scores of a part add up
    to its exact effect. Costs one pass forward and back for each point ("activations": and
    part). Computed in the model's precision: an MLP's gradient is a difference of two.
    `batch_size` prompts run at once; each takes the memory of one residual stream for each writer.
    """
    check_run(run, source)
    check_batch_size(batch_size)
    if not isinstance(quadrature, Quadrature):
        raise TypeError(
            f"quadrature={quadrature!r}: give a rule with its fineness, such as "
            'effects.Quadrature("midpoint", 5)'
        )
    if Source.of(source).kind == "counterfactual" and _same(task):
        raise ValueError(
            f"{task.name}: the corrupt prompts are the clean ones, so no edge would carry anything "
            "else: give a task with a corruption, or another source"
        )
    if along not in get_args(Along):
        raise ValueError(f"no path along {along!r}; there are {', '.join(get_args(Along))}")
    graph = Graph.of(model) if graph is None else graph
    graph.check(model)
    points = [(0.0, 1.0)] if along == "nothing" else quadrature.points
    paths = parts(graph) if along == "activations" else [EMBEDDING]
    walker = _Walker(model, graph, Projections.checked(model, task.clean), paths, points)
    instead = carried(model, graph, task, source, run=run, batch_size=batch_size)
    found: list[_Walked] = []
    with tqdm(total=len(task), desc=METHODS[along], unit="prompt", mininterval=0.5) as bar:
        for pair in Pair(model, task, metric, run).batches(batch_size):
            rows = slice(pair.start, pair.start + len(pair.task))
            found.append(walker.walk(pair, instead(rows)))
            bar.update(len(pair.task))
    score, total, gap = (torch.cat(each, dim=-1).float().cpu() for each in zip(*found, strict=True))
    return EdgeScores(
        graph=graph,
        score=score.mean(dim=-1),
        per_prompt=score,
        part=[path.name for path in paths],
        total=total,
        gap=gap,
        method=METHODS[along],
        run=run,
        quadrature="" if along == "nothing" else str(quadrature),
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        **labels(model, task),
    )


def _same(task: Task) -> bool:
    """Whether there is no token in which the pairs differ."""
    differ = task.clean.tokens != task.corrupt.tokens
    return not bool((differ & task.clean.mask.bool()).any())


class Part(NamedTuple):
    """Writers whose outputs are changed together, where their sum is written, and their rows."""

    name: str
    site: Site
    rows: slice


EMBEDDING = Part("embed", Site("resid_pre", 0), slice(0, 1))


def parts(graph: Graph) -> list[Part]:
    """The embedding, and each layer's attention and MLP."""
    found = [EMBEDDING]
    for layer in range(graph.layers):
        heads = graph.attention_writers(layer)
        found.append(Part(f"attention {layer}", Site("attn_out", layer), heads))
        if graph.mlp != "none":
            mlp = slice(heads.stop, heads.stop + 1)
            found.append(Part(f"mlp {layer}", Site("mlp_out", layer), mlp))
    return found


class _Walked(NamedTuple):
    """What the prompts of one batch gave."""

    score: Float[Tensor, "writer reader batch"]
    total: Float[Tensor, "part batch"]
    gap: Float[Tensor, "part batch"]


@dataclass(frozen=True, eq=False)
class _Walker:
    """Scores a batch of prompts with gradients along paths, each for the edges of some writers."""

    model: HookedModel
    graph: Graph
    projections: Projections
    paths: list[Part]
    points: list[tuple[float, float]]

    def walk(self, pair: Pair, there: Outputs) -> _Walked:
        """The scores of each prompt, and how they add up."""
        here = capture(self.model, pair.base, writer_sites(self.graph))
        change = differences(self.model, self.graph, there, here)
        change = change * rearrange(here.prompts.mask, "batch pos -> batch pos 1")
        plain = pair.measured()
        score = change.new_zeros(*self.graph.edges.shape, len(pair.task))
        total, gap = [], []
        for _, site, rows in self.paths:
            step = change[rows].sum(dim=0)
            # A single path is that of all edges; several are each of their own writers' edges.
            own = rows if len(self.paths) > 1 else slice(0, len(self.graph.writers))
            for place, weight in self.points:
                with intervening(self.model, {site: edits.add(step, strength=place)}):
                    gradients = pair.gradients(self._sites(site.layer))
                score[own] += weight * self._score(change[own], own, gradients, site.layer)
            total.append(pair.measured({site: edits.add(step)}) - plain)
            gap.append(score[rows].sum(dim=(0, 1)).cpu() - total[-1])
        return _Walked(score, torch.stack(total), torch.stack(gap))

    def _sites(self, first: int) -> list[Site]:
        """Where the gradient is read, from layer `first` on."""
        found = [Site("resid_post", self.graph.layers - 1)]
        for layer in range(first, self.graph.layers):
            found.append(Site("resid_pre", layer))
            if self.graph.mlp == "after":
                found.append(Site("attn_out", layer))
            if self._projected:
                found += [Site(part, layer) for part in PARTS]
        return found

    @property
    def _projected(self) -> bool:
        """Whether gradients go back through the projections."""
        return self.graph.detail == "heads" or self.graph.mlp == "beside"

    def _score(
        self,
        change: Float[Tensor, "chosen batch pos d_model"],
        rows: slice,
        gradients: Gradients,
        first: int,
    ) -> Float[Tensor, "chosen reader batch"]:
        """Changes times the gradients at the readers of layer `first` on."""
        graph = self.graph
        edge = graph.edges[rows].to(change)
        score = change.new_zeros(*edge.shape, change.shape[1])
        for layer in range(first, graph.layers):
            columns = graph.attention_readers(layer)
            before = max(graph.before_mlp(layer) - rows.start, 0)
            if graph.mlp != "none":
                columns = slice(columns.start, columns.stop + 1)
            score[:before, columns] = einsum(
                change[:before],
                self._at_readers(gradients, layer),
                "writer batch pos d, reader batch pos d -> writer reader batch",
            )
        last = gradients[Site("resid_post", graph.layers - 1)]
        score[:, -1] = einsum(change, last, "writer batch pos d, batch pos d -> writer batch")
        return score * rearrange(edge, "writer reader -> writer reader 1")

    def _at_readers(
        self, gradients: Gradients, layer: int
    ) -> Float[Tensor, "chosen batch pos d_model"]:
        """The gradient at what each reader of a layer takes in: its attention's, then its MLP's.

        The stream's own gradient is the sum of those of everything that reads it, so that a
        reader's is what the stream's gains by it.
        """
        graph = self.graph
        before = gradients[Site("resid_pre", layer)]
        last = layer + 1 == graph.layers
        behind = gradients[Site("resid_post", layer) if last else Site("resid_pre", layer + 1)]
        between = gradients[Site("attn_out", layer)] if graph.mlp == "after" else behind
        heads = self._at_heads(gradients, layer) if self._projected else None
        if heads is None:
            heads = rearrange(before - between, "b p d -> 1 b p d")
        elif graph.detail == "layers":
            heads = heads.sum(dim=0, keepdim=True)
        if graph.mlp == "none":
            return heads
        mlp = between - behind if graph.mlp == "after" else before - behind - heads.sum(dim=0)
        return torch.cat([heads, rearrange(mlp, "b p d -> 1 b p d")])

    def _at_heads(
        self, gradients: Gradients, layer: int
    ) -> Float[Tensor, "chosen batch pos d_model"]:
        """The gradient at what each head's q, k and v take in."""
        stream = gradients.activations[Site("resid_pre", layer)]
        each = [
            self.projections.pull_back(layer, part, gradients[Site(part, layer)], stream)
            for part in PARTS
        ]
        return torch.cat(each)


def check_run(run: Run, source: Source | Kind) -> None:
    """Raise unless edges can be changed so in this run."""
    if run not in get_args(Run):
        raise ValueError(f"no run {run!r}; there are {', '.join(get_args(Run))}")
    if run == "corrupt" and Source.of(source).kind != "counterfactual":
        raise ValueError(
            f"run='corrupt' restores what the clean run has, so source='{Source.of(source)}' "
            "cannot be: take run='clean', or source='counterfactual'"
        )
