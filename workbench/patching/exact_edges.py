"""Edges scored by changing each one: the truth that estimates are held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from hooks import Edit, HookedModel, Prompts, Site, capture, edits
from hooks.replay import Cell
from hooks.sites import Stream
from workbench import effects
from workbench.effects import Source
from workbench.effects.exact import Run
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.edges import check_run
from workbench.patching.graph import Graph
from workbench.patching.readers import PARTS
from workbench.patching.scores import EdgeScores
from workbench.patching.writers import Outputs, carried, differences, writer_sites
from workbench.tasks import Task
from workbench.tasks.provenance import labels

MOST = 5000
"""Edges that are changed one by one unless more are asked for."""


def exact_edges(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    run: Run = "clean",
    graph: Graph | None = None,
    source: Source | Kind = "counterfactual",
    most: int = MOST,
    memory: str | int = "2GB",
    keep: str | Path | None = None,
) -> EdgeScores:
    """The effect of every edge when it alone is changed, all else computing on.

    run  "clean": the edge carries the corrupt run's value; "corrupt": the clean run's.
    most    a graph of more edges is refused
    memory, keep    as in `effects.exact`, which runs one cell for each edge
    """
    check_run(run, source)
    graph = Graph.of(model) if graph is None else graph
    graph.check(model)
    check_small(graph, most)
    prompts = task.clean if run == "clean" else task.corrupt
    instead = carried(model, graph, task, source, run=run)(slice(0, len(task)))
    cells = _Cells.of(model, prompts, graph, instead)
    places = graph.edges.nonzero().tolist()
    found = effects.exact(
        model, task, [cells.cell(*place) for place in places],
        metrics=[metric], run=run, memory=memory, keep=keep,
    )  # fmt: skip
    per_prompt = torch.zeros(*graph.edges.shape, len(task))
    per_prompt[graph.edges] = found.effect[0]
    nothing = torch.zeros(0, len(task))
    return EdgeScores(
        graph=graph,
        score=per_prompt.mean(dim=-1),
        per_prompt=per_prompt,
        part=[],
        total=nothing,
        gap=nothing,
        method="exact",
        run=run,
        quadrature="",
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        cost=str(found.cost),
        **labels(model, task),
    )


def check_small(graph: Graph, most: int) -> None:
    """Raise where running once for every edge is more than was asked for."""
    if graph.size > most:
        coarse = Graph(graph.layers, graph.heads, graph.key_value_heads, graph.mlp, "layers")
        smaller = f'; Graph.of(model, detail="layers") has {coarse.size}'
        raise ValueError(
            f"this graph has {graph.size} edges, each of which would be a run: more than "
            f"most={most}. Estimate them with attribute_edges, or raise most"
            f"{smaller if graph.detail == 'heads' else ''}"
        )


@dataclass(frozen=True, eq=False)
class _Cells:
    """For every edge, the edits that change what its reader takes in and nothing else.

    The change is added to the stream in front of the reader and taken off again behind it; what
    else reads the stream in between is held to what the run has without it.
    """

    graph: Graph
    added: list[Edit]
    taken_off: list[Edit]
    here: Mapping[Site, Tensor]

    @classmethod
    def of(cls, model: HookedModel, prompts: Prompts, graph: Graph, instead: Outputs) -> "_Cells":
        """For the run of some prompts."""
        sites = [*writer_sites(graph), *_sites_held(graph)]
        here = capture(model, prompts, sites)
        change = differences(model, graph, instead, here)
        change = change * rearrange(here.prompts.mask, "batch pos -> batch pos 1")
        taken_off = [edits.add(one, strength=-1.0) for one in change]
        return cls(graph, [edits.add(one) for one in change], taken_off, here)

    def cell(self, writer: int, reader: int) -> Cell:
        """The edits of one edge."""
        graph = self.graph
        if reader == len(graph.readers) - 1:
            return {Site("resid_post", graph.layers - 1): self.added[writer]}
        layer = next(n for n in range(graph.layers) if reader < _behind(graph, n))
        attention, mlp = Site("attn_out", layer), Site("mlp_out", layer)
        into_mlp = reader == graph.mlp_reader(layer)
        if into_mlp and graph.mlp == "after":
            return {attention: self.added[writer], mlp: self.taken_off[writer]}
        found = {Site("resid_pre", layer): self.added[writer]}
        if into_mlp:
            return found | {attention: self._held(attention), mlp: self.taken_off[writer]}
        if graph.detail == "heads":
            found |= self._other_heads(layer, reader)
        found[attention] = self.taken_off[writer]
        if graph.mlp == "beside":
            found[mlp] = self._held(mlp)
        return found

    def _other_heads(self, layer: int, reader: int) -> dict[Site, Edit]:
        """Every q, k and v of the layer but the reader's."""
        found: dict[Site, Edit] = {}
        for part in PARTS:
            columns = self.graph.part(layer, part)
            others = [n - columns.start for n in range(columns.start, columns.stop) if n != reader]
            if others:
                found[Site(part, layer)] = self._held(Site(part, layer), tuple(others))
        return found

    def _held(self, site: Site, heads: tuple[int, ...] | None = None) -> Edit:
        return edits.replace(self.here[site], heads=heads)


def _behind(graph: Graph, layer: int) -> int:
    """The first reader behind a layer."""
    return graph.attention_readers(layer).stop + (graph.mlp != "none")


def _sites_held(graph: Graph) -> list[Site]:
    """The sites that are held to what they are while one reader beside them is changed."""
    held: list[Stream] = []
    if graph.detail == "heads":
        held.extend(PARTS)
    if graph.mlp == "beside":
        held.extend(("attn_out", "mlp_out"))
    return [Site(stream, layer) for stream in held for layer in range(graph.layers)]
