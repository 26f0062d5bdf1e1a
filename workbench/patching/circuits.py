"""A circuit is a value: a set of edges between the writers and readers of a residual stream."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.patching.graph import Graph
from workbench.results import Result


@dataclass(frozen=True, eq=False)
class Circuit(Result):
    """A set of edges of a graph; what counts as the model's mechanism for a task.

    Sets like any: `&`, `|`, `-`, `in` (by name), `len`. `name` says where it came from.
    """

    graph: Graph
    mask: Bool[Tensor, "writer reader"] = field(metadata={"means": "true for the circuit's edges"})
    name: str = "a circuit"

    def __post_init__(self) -> None:
        expected = self.graph.edges.shape
        if self.mask.shape != expected or self.mask.dtype != torch.bool:
            raise ValueError(
                f"a circuit of this graph is a boolean mask of shape {tuple(expected)}, "
                f"got {self.mask.dtype} of shape {tuple(self.mask.shape)}"
            )
        wrong = self.mask & ~self.graph.edges
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{self.graph.name(row, column)} is no edge: its reader does not come after its "
                "writer; mask & graph.edges leaves such places out"
            )

    @classmethod
    def full(cls, graph: Graph) -> "Circuit":
        """All edges: the model itself."""
        return cls(graph, graph.edges.clone(), "the whole model")

    @classmethod
    def empty(cls, graph: Graph) -> "Circuit":
        """No edge: no reader takes in what is written in the run."""
        return cls(graph, torch.zeros_like(graph.edges), "no edges")

    @classmethod
    def of(cls, graph: Graph, edges: Iterable[str], *, name: str = "a circuit") -> "Circuit":
        """The edges with these names, such as "head 5.1 -> q 9.3"."""
        mask = torch.zeros_like(graph.edges)
        for edge in edges:
            mask[graph.edge(edge)] = True
        return cls(graph, mask, name)

    @classmethod
    def random(cls, graph: Graph, size: int, *, generator: torch.Generator) -> "Circuit":
        """`size` edges drawn with equal chance."""
        _check_size(graph, size)
        places = graph.edges.nonzero()
        drawn = places[torch.randperm(len(places), generator=generator)[:size]]
        mask = torch.zeros_like(graph.edges)
        mask[drawn[:, 0], drawn[:, 1]] = True
        return cls(graph, mask, "edges at random")

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __contains__(self, edge: str) -> bool:
        return bool(self.mask[self.graph.edge(edge)])

    def __and__(self, other: "Circuit") -> "Circuit":
        return Circuit(self.graph, self.mask & self._mask_of(other), self.name)

    def __or__(self, other: "Circuit") -> "Circuit":
        return Circuit(self.graph, self.mask | self._mask_of(other), self.name)

    def __sub__(self, other: "Circuit") -> "Circuit":
        return Circuit(self.graph, self.mask & ~self._mask_of(other), self.name)

    @property
    def edges(self) -> list[str]:
        """The names of the edges, in the order in which they are written."""
        return [self.graph.name(*place) for place in self.mask.nonzero().tolist()]

    @property
    def components(self) -> list[str]:
        """The writers that an edge of the circuit leaves."""
        return [
            self.graph.writers[row] for row in self.mask.any(dim=1).nonzero().flatten().tolist()
        ]

    def without(self, *components: str) -> "Circuit":
        """The circuit without any edge from or to writers such as "head 5.1".

        A key or value that other heads read too (grouped queries) goes when all of them do.
        """
        unknown = [name for name in components if name not in self.graph.writers]
        if unknown:
            some = ", ".join(self.graph.writers[:5])
            raise ValueError(f"no writer {unknown[0]!r} in this graph: it has {some}, ...")
        gone = torch.tensor([name in components for name in self.graph.writers])
        fed = self.graph.feeds & ~gone[None]
        own = self.graph.feeds.any(dim=1) & ~fed.any(dim=1)
        return Circuit(self.graph, self.mask & ~gone[:, None] & ~own[None], self.name)

    def pruned(self) -> "Circuit":
        """Only the edges that lie on a path from the embedding to the logits.

        With a counterfactual source the others carry what cut edges carry, or go unread,
        so that the model behaves the same without them.
        """
        feeds, mask = self.graph.feeds, self.mask.clone()
        while True:
            alive = (mask.any(dim=0)[:, None] & feeds).any(dim=0)  # writers with something to read
            alive[0] = True
            read = (feeds & mask.any(dim=1)[None]).any(dim=1)  # readers whose writers are read
            read[-1] = True
            kept = mask & alive[:, None] & read[None]
            if bool((kept == mask).all()):
                return Circuit(self.graph, kept, self.name)
            mask = kept

    def jaccard(self, other: "Circuit") -> float:
        """Edges in both over edges in either; 1 for equal circuits, two empty ones included."""
        either = len(self | other)
        return len(self & other) / either if either else 1.0

    def sentence(self) -> str:
        """How many edges and components it has, and some of them."""
        shown = ", ".join(self.edges[:5]) + (", ..." if len(self) > 5 else "")
        return (
            f"{self.name}: {len(self)} of {self.graph.size} edges from {len(self.components)} of "
            f"{len(self.graph.writers)} writers{': ' * bool(self.edges)}{shown}."
        )

    def headline(self) -> dict[str, Any]:
        """Numbers of edges and components."""
        return {"edges": len(self), "components": len(self.components)}

    def _mask_of(self, other: "Circuit") -> Bool[Tensor, "writer reader"]:
        if other.graph != self.graph:
            raise ValueError(f"circuits of different graphs: {self.graph} and {other.graph}")
        return other.mask


def top(
    graph: Graph, importance: Tensor, size: int, *, name: str = "the most important edges"
) -> Circuit:
    """The `size` edges of highest importance, (writer, reader); the earlier one on a tie."""
    _check_size(graph, size)
    masked = importance.double().masked_fill(~graph.edges, -torch.inf)
    order = masked.flatten().argsort(descending=True, stable=True)[:size]
    mask = torch.zeros_like(graph.edges)
    mask.view(-1)[order] = True
    return Circuit(graph, mask, name)


def grow(
    graph: Graph, importance: Tensor, size: int, *, name: str = "edges grown from the logits"
) -> Circuit:
    """`size` edges, each the most important one into what is there already, from the logits on.

    Fewer where nothing is left that leads to the logits.
    """
    _check_size(graph, size)
    feeds, values = graph.feeds, importance.double()
    mask, waiting = torch.zeros_like(graph.edges), list[tuple[float, int, int]]()
    open_readers: set[int] = set()

    def open_reader(reader: int) -> None:
        if reader not in open_readers:
            open_readers.add(reader)
            for writer in graph.edges[:, reader].nonzero().flatten().tolist():
                heappush(waiting, (-float(values[writer, reader]), writer, reader))

    open_reader(len(graph.readers) - 1)
    for _ in range(size):
        _, writer, reader = heappop(waiting)
        mask[writer, reader] = True
        for fed in feeds[:, writer].nonzero().flatten().tolist():
            open_reader(fed)
        if not waiting:
            break
    return Circuit(graph, mask, name)


def _check_size(graph: Graph, size: int) -> None:
    if not 0 <= size <= graph.size:
        raise ValueError(f"a circuit of {size} edges: this graph has {graph.size}")
