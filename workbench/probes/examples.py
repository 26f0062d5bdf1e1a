"""What probes are fitted to: activations at a place of each prompt, with labels and groups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hooks import HookedModel, Prompts, Site, capture_batches, sites
from hooks.sites import Stream
from hooks.store import Store
from workbench.probes.probe import class_count
from workbench.tasks import provenance
from workbench.tasks.statements import Labelled


@dataclass(frozen=True, eq=False)
class Examples:
    """Activations, layer by layer, of examples that have a label.

    y        the class, counted from 0, or a number
    groups   what hangs together (a prompt, template, subject, document) and must not be split
    types    what an example is made of (its word): control tasks label types at random
    positions   where in its prompt it stands: what can be read off that alone is no finding
    layers   which layer each row of `x` is of
    """

    x: Float[Tensor, "layer example d_model"]
    y: Shaped[Tensor, " example"]
    groups: Int[Tensor, " example"]
    types: Int[Tensor, " example"] | None = None
    positions: Int[Tensor, " example"] | None = None
    layers: tuple[int, ...] = ()
    what: str = "given activations"
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

    def __len__(self) -> int:
        return self.x.shape[1]

    @property
    def classes(self) -> int:
        """How many classes the labels have, or 1 where they are numbers."""
        return 1 if self.y.is_floating_point() else class_count(self.y)

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
        return replace(self, x=x, layers=tuple(range(len(x))))


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
    positions: int | Int[Tensor, " batch"] | None = None,
    groups: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str] | None = None,
    types: Shaped[Tensor, " example"] | Sequence[int] | Sequence[str] | None = None,
    batch_size: int = 32,
) -> Examples:
    """Capture `stream` at one position of every prompt (the last), in `layers` (all).

    `positions` is an index, the same for all prompts, or one for each, like
    `task.positions["subject"]`. Streams with heads are laid out head after head.
    """
    places: list[Site] = sites.all(model, stream)
    if layers is not None:
        places = [Site(stream, layer) for layer in layers]
    at = prompts.last if positions is None else positions
    at = torch.full((len(prompts),), at) if isinstance(at, int) else at
    if len(at) != len(prompts):
        raise ValueError(f"{len(at)} positions for {len(prompts)} prompts: give each its own")
    kept: list[Tensor] = []
    for rows in torch.arange(len(prompts)).split(batch_size):
        seen = next(capture_batches(model, [prompts[rows]], places, positions=at[rows]))
        kept.append(torch.stack([seen[site][:, 0].flatten(1) for site in places]))
    found = examples(torch.cat(kept, dim=1), y, groups=groups, types=types)
    found = replace(found, positions=at.to(found.x.device))
    numbers = tuple(0 if site.layer is None else site.layer for site in places)
    return _from(model, found, f"{stream} at a position of each prompt", numbers)


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
    numbers = tuple(0 if site.layer is None else site.layer for site in wanted)
    return replace(made, layers=numbers, what=f"stored {stream}")


def _from(model: Any, made: Examples, what: str, layers: tuple[int, ...]) -> Examples:
    return replace(made, layers=layers, what=what, **provenance.of_model(model))


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
