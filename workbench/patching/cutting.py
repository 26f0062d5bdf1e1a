"""Running a model with edges cut: several circuits and many prompts in one forward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel, Prompts, Site, intervening, last_logits
from workbench.effects import Source
from workbench.effects.sources import Kind
from workbench.metrics import Metric, check_metrics
from workbench.patching.circuits import Circuit
from workbench.patching.graph import Graph, Part
from workbench.patching.readers import PARTS, Projections, heads_of
from workbench.patching.writers import Outputs, added_by_attention, attention_site, carried
from workbench.tasks import Task

Edit = Callable[[Tensor], Tensor]


@torch.no_grad()
def measure_circuits(
    model: HookedModel,
    task: Task,
    circuits: Sequence[Circuit],
    *,
    metric: Metric,
    source: Source | Kind = "counterfactual",
    batch_size: int = 16,
) -> Float[Tensor, "circuit batch"]:
    """`metric` of every clean prompt under every circuit, on the CPU.

    An edge of the circuit carries what its writer writes in this very run, every other edge what
    the `source` says (`effects.Source`). Of the embedding, its positions are a part.
    `batch_size` rows (prompts times circuits) run at once; a row takes the memory of one
    residual stream for each writer.
    """
    graph = _common_graph(circuits)
    return Cutter.of(
        model, task, graph, metric=metric, source=source, batch_size=batch_size
    ).measure(circuits)


@dataclass(frozen=True, eq=False)
class Cutter:
    """A model and a task, ready to run circuits of one graph again and again."""

    model: HookedModel
    task: Task
    graph: Graph
    metric: Metric
    projections: Projections
    instead: Callable[[slice], Outputs]
    batch_size: int
    held: list[Outputs] = field(default_factory=list)

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: HookedModel, task: Task, graph: Graph, *, metric: Metric,
        source: Source | Kind, batch_size: int,
    ) -> "Cutter":  # fmt: skip
        """Checks the model against the graph, and prepares what cut edges carry."""
        check_metrics([metric])
        graph.check(model)
        instead = carried(model, graph, task, source, batch_size=batch_size)
        projections = Projections.checked(model, task.clean)
        return cls(model, task, graph, metric, projections, instead, batch_size)

    @torch.no_grad()
    def measure(self, circuits: Sequence[Circuit]) -> Float[Tensor, "circuit batch"]:
        """The metric of every prompt under every circuit."""
        prompts = min(self.batch_size, len(self.task))
        step = max(1, self.batch_size // prompts)
        found = torch.zeros(len(circuits), len(self.task))
        bar = tqdm(total=found.numel(), desc="circuits", unit="run", mininterval=0.5, delay=0.5)
        with bar:
            for start in range(0, len(self.task), prompts):
                rows = slice(start, start + prompts)
                instead = self._instead(rows)
                for first in range(0, len(circuits), step):
                    several = slice(first, first + step)
                    found[several, rows] = self._run(circuits[several], rows, instead)
                    bar.update(found[several, rows].numel())
        return found

    def _instead(self, rows: slice) -> Outputs:
        """What cut edges carry; kept for the next call where all prompts run at once."""
        if len(self.task) > self.batch_size:
            return self.instead(rows)
        if not self.held:
            self.held.append(self.instead(rows))
        return self.held[0]

    def _run(
        self, circuits: Sequence[Circuit], rows: slice, instead: Outputs
    ) -> Float[Tensor, "circuit batch"]:
        part, metric = self.task[rows], self.metric[rows]
        kept = torch.stack([circuit.mask for circuit in circuits])
        cut = (self.graph.edges & ~kept).to(instead[Site("resid_pre", 0)].device)
        logits = _Cut(self.model, self.graph, self.projections, instead, cut).logits(
            part.clean, metric
        )
        exact = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        return torch.stack([metric(one, part).float().cpu() for one in exact])


class _Inputs(NamedTuple):
    """What some readers of a layer's attention take in: of their columns, a stream each."""

    layer: int
    columns: list[int]
    streams: Tensor


@dataclass(eq=False)
class _Cut:
    """One pass of several circuits, laid end to end along the batch axis.

    Every reader takes in the true stream less, for each of its cut edges, what the writer wrote
    in excess of what the edge carries. The queries, keys and values are recomputed from that and
    written. The MLP computes itself: the stream that the model carries to it is turned into what
    the MLP is to read, and set right again behind it.
    """

    model: HookedModel
    graph: Graph
    projections: Projections
    instead: Outputs
    cut: Bool[Tensor, "circuit writer reader"]
    more: Tensor = field(default_factory=lambda: torch.zeros(0))  # (circuit writer batch pos d)
    stream: Tensor = field(default_factory=lambda: torch.zeros(0))  # (circuit batch pos d)
    inputs: _Inputs = field(default_factory=lambda: _Inputs(-1, [], torch.zeros(0)))

    def logits(self, prompts: Prompts, metric: Metric) -> Float[Tensor, "circuit batch pos vocab"]:
        """The logits of each circuit, of the rows that the metric reads."""
        count = len(self.cut)
        tokens = repeat(prompts.tokens, "batch pos -> (circuit batch) pos", circuit=count)
        several = Prompts(tokens, prompts.lengths.repeat(count))
        with intervening(self.model, self._edits()):
            last = metric.rows == "last"
            found = last_logits(self.model, several) if last else self.model(several)
        return self._apart(found)

    def _edits(self) -> dict[Site, Edit]:
        found: dict[Site, Edit] = {}
        for layer in range(self.graph.layers):
            found[Site("resid_pre", layer)] = self._enter(layer)
            for part in PARTS:
                found[Site(part, layer)] = self._read(layer, part)
            if self.graph.detail == "heads":
                found[Site("z", layer)] = self._note_heads(layer)
            found[Site("attn_out", layer)] = self._between(layer)
            if self.graph.mlp != "none":
                found[Site("mlp_out", layer)] = self._note_mlp(layer)
        found[Site("resid_post", self.graph.layers - 1)] = self._leave
        return found

    def _enter(self, layer: int) -> Edit:
        def enter(stream: Tensor) -> Tensor:
            if layer == 0:
                self._start(stream)
            if self.graph.mlp == "beside":
                return self._for_one(self.graph.mlp_reader(layer), self.graph.before_mlp(layer))
            return self._together(self.stream)

        return enter

    def _start(self, stream: Tensor) -> None:
        self.stream = self._apart(stream)
        circuits, *rest = self.stream.shape
        dtype = torch.promote_types(stream.dtype, torch.float32)
        self.more = stream.new_zeros(circuits, len(self.graph.writers), *rest, dtype=dtype)
        self._note(0, self.stream - self.instead[Site("resid_pre", 0)])

    def _read(self, layer: int, part: Part) -> Edit:
        graph, columns = self.graph, self.graph.part(layer, part)

        def read(own: Tensor) -> Tensor:
            if graph.mlp == "beside":  # what the model made is of the stream for the MLP
                own = self.projections.read(layer, part, self._together(self.stream))
            if self.inputs.layer != layer:
                self.inputs = self._inputs(layer)
            ours = [n for n, one in enumerate(self.inputs.columns) if one in _range(columns)]
            if not ours:
                return own
            streams = self.inputs.streams[ours[0] : ours[-1] + 1]
            heads = [self.inputs.columns[n] - columns.start for n in ours]
            if graph.detail == "layers":
                heads = list(range(heads_of(graph, part)))
            streams = streams.expand(len(heads), *streams.shape[1:])
            own[:, :, heads] = self.projections.read_each(layer, part, streams, heads)
            return own

        return read

    def _inputs(self, layer: int) -> _Inputs:
        """What those readers of a layer's attention take in that have a cut edge."""
        columns, writers = self.graph.attention_readers(layer), self.graph.attention_writers(layer)
        cut = self.cut[:, : writers.start, columns]
        chosen = cut.any(dim=1).any(dim=0).nonzero().flatten().tolist()
        streams = self._less(cut[..., chosen], writers.start) if chosen else torch.zeros(0)
        return _Inputs(layer, [columns.start + one for one in chosen], streams)

    def _note_heads(self, layer: int) -> Edit:
        def note(z: Tensor) -> Tensor:
            self._note_attention(layer, z)
            return z

        return note

    def _between(self, layer: int) -> Edit:
        def between(attention: Tensor) -> Tensor:
            if self.graph.detail == "layers":
                self._note_attention(layer, attention)
            before, self.stream = self.stream, self.stream + self._apart(attention)
            if self.graph.mlp != "after":
                return attention
            column = self.graph.mlp_reader(layer)
            if not bool(self.cut[:, :, column].any()):
                return attention
            wanted = self._for_one(column, self.graph.before_mlp(layer))
            return wanted - self._together(before)

        return between

    def _note_mlp(self, layer: int) -> Edit:
        def note(mlp: Tensor) -> Tensor:
            written = self._apart(mlp)
            self.stream = self.stream + written
            self._note(self.graph.mlp_writer(layer), written - self.instead[Site("mlp_out", layer)])
            return mlp

        return note

    def _leave(self, stream: Tensor) -> Tensor:
        return self._for_one(len(self.graph.readers) - 1, len(self.graph.writers))

    def _note_attention(self, layer: int, seen: Tensor) -> None:
        site = attention_site(self.graph, layer)
        over = self._together(self._apart(seen) - self.instead[site])
        added = added_by_attention(self.model, self.graph, layer, over)
        rows = self.graph.attention_writers(layer)
        self.more[:, rows] = rearrange(added, "w (c b) p d -> c w b p d", c=len(self.cut))

    def _note(self, writer: int, more: Float[Tensor, "circuit batch pos d_model"]) -> None:
        self.more[:, writer] = more

    def _for_one(self, reader: int, writers: int) -> Float[Tensor, "rows pos d_model"]:
        """What one reader takes in."""
        cut = self.cut[:, :writers, reader : reader + 1]
        return self._less(cut, writers)[0] if bool(cut.any()) else self._together(self.stream)

    def _less(
        self, cut: Bool[Tensor, "circuit writer chosen"], writers: int
    ) -> Float[Tensor, "chosen rows pos d_model"]:
        """What each chosen reader takes in: the stream less what its cut edges would bring."""
        less = einsum(cut.to(self.more), self.more[:, :writers], "c w r, c w b p d -> c r b p d")
        found = rearrange(self.stream, "c b p d -> c 1 b p d") - less
        return rearrange(found, "c r b p d -> r (c b) p d").to(self.stream.dtype)

    def _apart(self, rows: Tensor) -> Tensor:
        return rearrange(rows, "(circuit batch) ... -> circuit batch ...", circuit=len(self.cut))

    def _together(self, apart: Tensor) -> Tensor:
        return rearrange(apart, "circuit batch ... -> (circuit batch) ...")


def _common_graph(circuits: Sequence[Circuit]) -> Graph:
    graphs = {circuit.graph for circuit in circuits}
    if len(graphs) != 1:
        raise ValueError(f"circuits of one graph are run together, got {len(graphs)} graphs")
    return graphs.pop()


def _range(columns: slice) -> range:
    return range(columns.start, columns.stop)
