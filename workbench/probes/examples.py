"""What probes are fitted to: activations at places of each prompt, with labels and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture_batches, sites
from hooks.sites import Stream
from hooks.store import Store
from workbench.probes.probe import class_count
from workbench.tasks import provenance
from workbench.tasks.statements import Labelled

Positions = int | Int[Tensor, " batch"] | Mapping[str, int | Int[Tensor, " batch"]]
"""An index, one for each prompt, or several of either by name."""


class Place(NamedTuple):
    """What a row of activations is of: a layer, and a position by name where there are several."""

    layer: int
    position: str = ""


@dataclass(frozen=True, eq=False)
class Examples:
    """Activations, place by place, of examples that have a label.

    x        one row for each layer; for each layer and position, where there are several
    y        the class, counted from 0, or a number
    groups   what hangs together (a prompt, template, subject, document) and must not be split
    types    what an example is made of (its word): control tasks label types at random
    positions   where in its prompt it stands: what can be read off that alone is no finding
    layers   which layer each row of `x` is of
    at       which position each row of `x` is of, by name; empty where there is one
    stream   what flows there; empty where that is not known
    """

    x: Float[Tensor, "layer example d_model"]
    y: Shaped[Tensor, " example"]
    groups: Int[Tensor, " example"]
    types: Int[Tensor, " example"] | None = None
    positions: Int[Tensor, " example"] | None = None
    layers: tuple[int, ...] = ()
    at: tuple[str, ...] = ()
    what: str = "given activations"
    stream: str = ""
    model: str = ""
    model_digest: str = ""

    def __post_init__(self) -> None:
        count = self.x.shape[1]
        for name in ("y", "groups", "types", "positions"):
            values = getattr(self, name)
            if values is not None:
                _check_length(name, values, count)
        _check_finite(self.x)
        if self.y.is_floating_point() and not bool(self.y.isfinite().all()):
            row = int((~self.y.isfinite()).nonzero()[0])
            raise ValueError(f"the label of example {row} is {float(self.y[row])}: leave it out")
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(len(self.x))))
        if len(self.layers) != len(self.x) or len(self.at) not in (0, len(self.x)):
            raise ValueError(
                f"{len(self.x)} rows of x, but {len(self.layers)} layers and {len(self.at)} "
                "positions: name those of every row, positions only where there are several"
            )

    def __len__(self) -> int:
        return self.x.shape[1]

    @property
    def classes(self) -> int:
        """How many classes the labels have, or 1 where they are numbers."""
        return 1 if self.y.is_floating_point() else class_count(self.y)

    @property
    def places(self) -> tuple[Place, ...]:
        """What each row of `x` is of."""
        at = self.at or ("",) * len(self.layers)
        return tuple(Place(*one) for one in zip(self.layers, at, strict=True))

    def row(self, layer: int, position: str = "") -> int:
        """Which row of `x` is of a layer (and of a position, where there are several)."""
        if (layer, position) not in self.places:
            have = ", ".join(f"{one.layer} {one.position}".strip() for one in self.places)
            raise ValueError(
                f"there is no layer {layer}{position and f' at {position!r}'} among these "
                f"examples; they have {have}"
            )
        return self.places.index(Place(layer, position))

    def standing_at(self, position: str) -> "Examples":
        """The same examples at one of their positions."""
        rows = [row for row, place in enumerate(self.places) if place.position == position]
        if not rows:
            have = ", ".join(dict.fromkeys(self.at)) or "one position, without a name"
            raise ValueError(f"there is no position {position!r}; there is {have}")
        layers = tuple(self.layers[row] for row in rows)
        what = self.what.replace("positions of", f"{position} of")
        return replace(self, x=self.x[rows], layers=layers, at=(), what=what)

    def check_one_position(self, what: str) -> None:
        """An error where there are several: `what` looks at one."""
        if len(set(self.at)) > 1:
            raise ValueError(
                f"these examples stand at {', '.join(dict.fromkeys(self.at))}: {what} looks at one "
                f"position; take examples.standing_at({self.at[0]!r})"
            )

    def __getitem__(self, rows: Int[Tensor, " chosen"] | Bool[Tensor, " example"]) -> "Examples":
        """Some of the examples, with all that belongs to them."""
        known = {
            "y": self.y,
            "groups": self.groups,
            "types": self.types,
            "positions": self.positions,
        }
        taken = {name: None if one is None else one[rows] for name, one in known.items()}
        return replace(self, x=self.x[:, rows], **taken)

    def labelled(self, y: Shaped[Tensor, " example"]) -> "Examples":
        """The same examples with other labels."""
        return replace(self, y=y)

    def seen_as(self, x: Float[Tensor, "layer example feature"]) -> "Examples":
        """The same examples with other activations in place of their own."""
        return replace(self, x=x, layers=tuple(range(len(x))), at=())


def examples(
    x: Float[Tensor, "layer example d_model"] | Float[Tensor, "example d_model"],
    y: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str],
    *,
    groups: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str] | None = None,
    types: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str] | None = None,
) -> Examples:
    """Arrays of your own as `Examples`; without `groups`, each example is its own group.

    Strings are numbered in alphabetical order.
    """
    x = x if x.ndim == 3 else x[None]
    own = range(x.shape[1]) if groups is None else groups
    for name, values in {"y": y, "groups": own, "types": types}.items():
        if values is not None:
            _check_length(name, values, x.shape[1])
    numbered = None if types is None else _numbers(types).to(x.device)
    return Examples(x, _numbers(y).to(x.device), _numbers(own).to(x.device), numbered)


def features(
    model: HookedModel,
    prompts: Prompts,
    y: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str],
    *,
    stream: Stream = "resid_post",
    layers: Sequence[int] | None = None,
    positions: Positions | None = None,
    groups: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str] | None = None,
    types: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str] | None = None,
    batch_size: int = 32,
) -> Examples:
    """Capture `stream` at one position of every prompt (the last), in `layers` (all).

    `positions` is an index, the same for all prompts, or one for each, like
    `task.positions["subject"]`; or several by name, like `task.positions`: then there is a row for
    each layer and position. Streams with heads are laid out head after head.
    """
    places: list[Site] = sites.all(model, stream)
    if layers is not None:
        places = [Site(stream, layer) for layer in layers]
    axes = Site(stream, 0).axes
    if axes[:2] != ("batch", "pos"):
        raise ValueError(f"{stream} is {' x '.join(axes)}: nothing stands at a position")
    named = positions if isinstance(positions, Mapping) else {"": positions}
    if not named:
        raise ValueError("no position is named: give one or more")
    at = torch.stack([_at(one, prompts) for one in named.values()], dim=1)
    kept: list[Tensor] = []
    for rows in torch.arange(len(prompts)).split(batch_size):
        seen = next(capture_batches(model, [prompts[rows]], places, positions=at[rows]))
        kept.append(torch.stack([seen[site].flatten(2) for site in places]))
    x = rearrange(torch.cat(kept, dim=1), "layer example at d -> (layer at) example d")
    found = examples(x, y, groups=groups, types=types)
    numbers = [site.layer for site in places for _ in named]
    if not isinstance(positions, Mapping):
        found = replace(found, positions=at[:, 0].to(x.device))
        return _from(model, found, f"{stream} at a position of each prompt", stream, numbers)
    found = replace(found, layers=tuple(numbers), at=tuple(named) * len(places))
    return _from(model, found, f"{stream} at positions of each prompt", stream, numbers)


def features_of(
    model: HookedModel,
    labelled: Labelled,
    *,
    stream: Stream = "resid_post",
    layers: Sequence[int] | None = None,
) -> Examples:
    """`features` of prompts that bring their labels, positions, groups and kinds."""
    return features(
        model,
        labelled.prompts,
        labelled.y,
        stream=stream,
        layers=layers,
        positions=labelled.position,
        groups=labelled.group,
        types=labelled.kind,
    )


def from_store(
    held: Store,
    rows: Int[Tensor, " example"],
    y: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str],
    *,
    stream: Stream = "resid_post",
) -> Examples:
    """Stored activations of some tokens as `Examples`: grouped by document, typed by token."""
    wanted = [site for site in held.sites if site.stream == stream]
    if not wanted:
        have = ", ".join(sorted({str(site.stream) for site in held.sites}))
        raise ValueError(f"{stream} is not in this store, which holds {have}")
    found = held.take(rows, wanted)
    x = torch.stack([found[site].flatten(1).float() for site in wanted])
    made = examples(x, y, groups=found.document, types=found.token)
    numbers = tuple(site.layer for site in wanted)
    return replace(made, layers=numbers, what=f"stored {stream}", stream=stream)


def _at(positions: int | Tensor | None, prompts: Prompts) -> Int[Tensor, " batch"]:
    at = prompts.last if positions is None else positions
    at = torch.full((len(prompts),), at) if isinstance(at, int) else at
    if len(at) != len(prompts):
        raise ValueError(f"{len(at)} positions for {len(prompts)} prompts: give each its own")
    return at


def _from(model: Any, made: Examples, what: str, stream: Stream, layers: Sequence[int]) -> Examples:
    return replace(
        made, layers=tuple(layers), what=what, stream=stream, **provenance.of_model(model)
    )


def _numbers(labels: Any) -> Tensor:
    if isinstance(labels, Tensor):
        return labels.long() if labels.dtype == torch.bool else labels
    listed = list(labels)
    if listed and isinstance(listed[0], str):
        known = {name: number for number, name in enumerate(sorted(set(listed)))}
        listed = [known[name] for name in listed]
    return torch.tensor(listed)


def _check_length(name: str, values: Any, count: int) -> None:
    if len(values) != count:
        raise ValueError(
            f"{len(values)} {name} for {count} examples: give each example its own; row "
            f"{min(len(values), count)} is the first without a partner"
        )


def _check_finite(x: Float[Tensor, "layer example d_model"]) -> None:
    if bool(x.sum().isfinite()):
        return
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        layer, example, _ = bad[0].tolist()
        raise ValueError(
            f"NaN or Inf in row {layer} of x (layer), example {example}: leave that example out, "
            "and say so, or find where it comes from"
        )
