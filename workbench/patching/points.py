"""The ends of a path: who sends, and which input of whom receives."""

from dataclasses import dataclass
from typing import Literal

from hooks import HookedModel, Site, heads
from hooks.sites import Stream, check_writable

Node = Literal["logits"] | Site | tuple[Site, int]
"""A place on a path: a component, one head of it, or the logits.

    (Site("z", 9), 6)                a head's output, as a sender
    (Site("q", 9), 6)                a head's queries, as a receiver; k and v likewise, per
                                     key-value head; Site("q", 9) is those of all heads
    Site("mlp_out", 12)              an MLP: its output as a sender, its input as a receiver
    Site("resid_pre", 0)             the embedding, as a sender
    Site("attn_out", 9)              all heads of a layer, as a sender
    "logits"                         the end of every path
"""

INPUTS: tuple[Stream, ...] = ("q", "k", "v", "mlp_out")
_OUTPUTS: tuple[Stream, ...] = ("z", "mlp_out", "attn_out", "resid_pre")
_LOGITS = Site("final")


@dataclass(frozen=True)
class Point:
    """A node that has been checked; `heads` None is all of them."""

    site: Site
    heads: tuple[int, ...] | None = None

    @property
    def is_logits(self) -> bool:
        """Whether it is the end of the model."""
        return self.site == _LOGITS

    def __str__(self) -> str:
        layer = self.site.layer
        if self.is_logits:
            return "logits"
        if self.site.stream == "mlp_out":
            return f"MLP {layer}"
        if self.site == Site("resid_pre", 0):
            return "embedding"
        if self.site.stream == "attn_out":
            return f"attention {layer}"
        name = str(layer) if self.heads is None else f"{layer}.{self.heads[0]}"
        return name if self.site.stream == "z" else f"{name} {self.site.stream}"

    def reaches(self, model: HookedModel, other: "Point") -> bool:
        """Whether `other` reads what this one, as a sender, adds to the residual stream."""
        if other.is_logits or self.site.stream == "resid_pre":
            return True
        if self.site.layer == other.site.layer:
            # An MLP reads its own block's heads, unless both read the same input.
            own = self.site.stream != "mlp_out" and other.site.stream == "mlp_out"
            return own and not is_parallel(model)
        return self.site.layer < other.site.layer


def is_parallel(model: HookedModel) -> bool:
    """Whether attention and MLP of a block read the same input."""
    return "resid_mid" not in model.access.readable


def sender(model: HookedModel, node: Node) -> Point:
    """The node as the start of a path."""
    point = _point(model, node)
    if point.site.stream not in _OUTPUTS or (point.site.stream == "resid_pre" and point.site.layer):
        raise ValueError(
            f"{point} sends nothing of its own: a path starts at a head's z, mlp_out, attn_out "
            "or Site('resid_pre', 0), the embedding"
        )
    if point.site.stream == "z" and point.heads is None:
        raise ValueError(f"{point.site} is all heads: name one, ({point.site!r}, 0), or attn_out")
    return point


def receiver(model: HookedModel, node: Node) -> Point:
    """The node as something that reads the residual stream."""
    point = _point(model, node)
    if point.site.stream == "z":
        raise ValueError(
            f"head {point} receives through its queries, keys and values: name one, q, k or v"
        )
    if not point.is_logits and point.site.stream not in INPUTS:
        raise ValueError(f"{point.site} receives nothing: take q, k, v, mlp_out or 'logits'")
    return point


def check_adds_up(model: HookedModel) -> None:
    """Raise where what a component writes is not added to the residual stream."""
    for stream in ("attn_out", "resid_pre", "final"):
        check_writable(model, Site(stream) if stream == "final" else Site(stream, 0))


def _point(model: HookedModel, node: Node) -> Point:
    if node == "logits":
        return Point(_LOGITS)
    if isinstance(node, Site):
        check_writable(model, node)
        return Point(node)
    if not (isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], Site)):
        raise ValueError(
            f"{node!r} is no place on a path: write Site('mlp_out', 5), (Site('q', 9), 6) or "
            "'logits'"
        )
    site, head = node
    check_writable(model, site)
    heads_of(model, site)
    heads.check(model, site, [head])
    return Point(site, (head,))


def heads_of(model: HookedModel, site: Site) -> int:
    """How many heads there are at a site: key-value heads, for k and v."""
    if "head" not in site.axes or "d_head" not in site.axes:
        raise ValueError(f"{site} has no heads: write the site alone")
    return len(heads.at(model, site.layer).of(site.stream))
