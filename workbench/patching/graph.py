"""Who writes into a model's residual stream, and who reads from it: the edges of circuits."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import HookedModel, Site
from hooks.conformance.identities import NOTHING_BETWEEN
from hooks.sites import check_writable

Detail = Literal["heads", "layers"]
Mlp = Literal["after", "beside", "none"]
Part = Literal["q", "k", "v"]

ARROW = " -> "


@dataclass(frozen=True)
class Graph:
    """The writers and readers of a model's residual stream.

    A writer adds to the stream: the embedding (tokens and positions), each attention head, each
    MLP. A reader takes the stream in: the q, k and v of each head (k and v of each key-value
    head, which several query heads share under grouped queries), each MLP, the logits. An edge
    leads from a writer to each reader that comes after it, and stands for all positions.
    Biases of attention belong to no writer.

    mlp      "after": it reads what the attention of its layer wrote; "beside": it does not
             (parallel blocks, GPT-NeoX); "none"
    detail   "heads", or "layers": one writer and one reader for each layer's attention
    """

    layers: int
    heads: int
    key_value_heads: int
    mlp: Mlp
    detail: Detail = "heads"

    @classmethod
    def of(cls, model: HookedModel, *, detail: Detail = "heads") -> "Graph":
        """The graph of `model`; refused where its blocks do not add up to the stream."""
        if detail not in get_args(Detail):
            raise ValueError(f"no detail {detail!r}; there are {', '.join(get_args(Detail))}")
        check_writable(model, Site("attn_out", 0))
        refused, cfg = model.access.refused, model.cfg
        mlp: Mlp = "beside" if refused.get("resid_mid") == NOTHING_BETWEEN else "after"
        if getattr(cfg, "attn_only", False):
            mlp = "none"
        else:
            check_writable(model, Site("mlp_out", 0))
        if detail == "heads" and "head_out" in refused:
            raise ValueError(
                f"heads of {cfg.architecture} have no output of their own: {refused['head_out']}. "
                'Graph.of(model, detail="layers") takes the attention of each layer as one'
            )
        if detail == "heads" and getattr(model, "kept_heads", None) is not None:
            raise ValueError(
                f"{model.origin.name} has fewer heads in some layers than in others, which the "
                'graph does not know: take Graph.of(model, detail="layers"), or find the circuit '
                "before heads are removed"
            )
        shared = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
        return cls(cfg.n_layers, cfg.n_heads, shared, mlp, detail)

    def check(self, model: HookedModel) -> None:
        """Raise unless this is the graph of `model`."""
        right = Graph.of(model, detail=self.detail)
        if right != self:
            raise ValueError(
                f"the graph of {getattr(model.cfg, 'architecture', 'this model')} is {right}, not "
                f"{self}: make circuits and scores for the model that they are used with"
            )

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers, in the order in which they write."""
        names = ["embed"]
        for layer in range(self.layers):
            if self.detail == "heads":
                names += [f"head {layer}.{head}" for head in range(self.heads)]
            else:
                names.append(f"attention {layer}")
            names += [f"mlp {layer}"] * self._mlps
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers, in the order in which they read."""
        names: list[str] = []
        for layer in range(self.layers):
            if self.detail == "heads":
                names += [f"q {layer}.{head}" for head in range(self.heads)]
                for part in ("k", "v"):
                    names += [f"{part} {layer}.{head}" for head in range(self.key_value_heads)]
            else:
                names.append(f"attention {layer}")
            names += [f"mlp {layer}"] * self._mlps
        return (*names, "logits")

    @cached_property
    def edges(self) -> Bool[Tensor, "writer reader"]:
        """True where the reader comes after the writer."""
        found = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for layer in range(self.layers):
            found[: self.attention_writers(layer).start, self.attention_readers(layer)] = True
            if self.mlp != "none":
                found[: self.before_mlp(layer), self.mlp_reader(layer)] = True
        found[:, -1] = True
        return found

    @cached_property
    def feeds(self) -> Bool[Tensor, "reader writer"]:
        """True where the writer's output depends on what the reader takes in."""
        found = torch.zeros(len(self.readers), len(self.writers), dtype=torch.bool)
        group = self.heads // self.key_value_heads
        for layer in range(self.layers):
            writers = self.attention_writers(layer)
            if self.detail == "layers":
                found[self.attention_readers(layer), writers] = True
            else:
                own = torch.eye(self.heads, dtype=torch.bool)
                shared = own.reshape(-1, group, self.heads).any(dim=1)
                found[self.attention_readers(layer), writers] = torch.cat([own, shared, shared])
            if self.mlp != "none":
                found[self.mlp_reader(layer), self.mlp_writer(layer)] = True
        return found

    @property
    def size(self) -> int:
        """How many edges there are."""
        return int(self.edges.sum())

    def attention_writers(self, layer: int) -> slice:
        """The rows of the layer's heads, or of its attention as one."""
        start = 1 + layer * (self._attention_writers + self._mlps)
        return slice(start, start + self._attention_writers)

    def mlp_writer(self, layer: int) -> int:
        """The row of the layer's MLP."""
        return self.attention_writers(layer).stop

    def before_mlp(self, layer: int) -> int:
        """How many writers the layer's MLP can read."""
        heads = self.attention_writers(layer)
        return heads.stop if self.mlp == "after" else heads.start

    def attention_readers(self, layer: int) -> slice:
        """The columns of the layer's q, k and v, in this order, or of its attention as one."""
        start = layer * (self._attention_readers + self._mlps)
        return slice(start, start + self._attention_readers)

    def part(self, layer: int, part: Part) -> slice:
        """The columns of one of q, k, v; of the attention as one where it is not divided."""
        columns = self.attention_readers(layer)
        if self.detail == "layers":
            return columns
        many, few = self.heads, self.key_value_heads
        start, count = {"q": (0, many), "k": (many, few), "v": (many + few, few)}[part]
        return slice(columns.start + start, columns.start + start + count)

    def mlp_reader(self, layer: int) -> int:
        """The column of the layer's MLP."""
        return self.attention_readers(layer).stop

    def name(self, writer: int, reader: int) -> str:
        """An edge by name, such as "head 5.1 -> q 9.3"."""
        return f"{self.writers[writer]}{ARROW}{self.readers[reader]}"

    def edge(self, name: str) -> tuple[int, int]:
        """The row and column of an edge such as "head 5.1 -> q 9.3".

        The notation of the library EAP-IG is understood too: "a5.h1->a9.h3<q>", "input->m0".
        """
        writer, _, reader = _ours(name).partition(ARROW)
        for what, given, known in (
            ("writer", writer, self.writers),
            ("reader", reader, self.readers),
        ):
            if given not in known:
                raise ValueError(
                    f"no {what} {given!r} in edge {name!r}; {what}s are {known[0]} to {known[-1]}, "
                    f'such as {known[len(known) // 2]}, and an edge is "writer{ARROW}reader"'
                )
        place = self.writers.index(writer), self.readers.index(reader)
        if not self.edges[place]:
            raise ValueError(f"no edge {name!r}: {reader} does not come after {writer}")
        return place

    @property
    def _mlps(self) -> int:
        return int(self.mlp != "none")

    @property
    def _attention_writers(self) -> int:
        return self.heads if self.detail == "heads" else 1

    @property
    def _attention_readers(self) -> int:
        return self.heads + 2 * self.key_value_heads if self.detail == "heads" else 1


def _ours(name: str) -> str:
    """An edge in our notation, from that of EAP-IG; anything else as it is."""
    found = re.fullmatch(r"(input|a\d+\.h\d+|m\d+)->(a\d+\.h\d+<[qkv]>|m\d+|logits)", name)
    if found is None:
        return name
    writer, reader = found[1].replace("input", "embed"), found[2]
    reader = re.sub(r"a(\d+)\.h(\d+)<(.)>", r"\3 \1.\2", reader)
    writer = re.sub(r"a(\d+)\.h(\d+)", r"head \1.\2", writer)
    return ARROW.join(re.sub(r"^m(\d+)", r"mlp \1", one) for one in (writer, reader))
