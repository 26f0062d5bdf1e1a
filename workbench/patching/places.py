"""Which places a sweep visits: the columns of its map, and the edits that each stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, Positions, Prompts, Site, edits, heads
from hooks.sites import Stream
from workbench import models
from workbench.tasks import Task

Over = Literal["position", "role", "head", "neuron", "all"]
"""What the columns of a map are: tokens, roles of the task, heads, neurons; or one for all."""

_PER_HEAD = ("q", "k", "v", "q_rot", "k_rot", "z", "scores", "pattern")
_NEURONS = ("neuron", "neuron_pre", "neuron_up")


@dataclass(frozen=True, eq=False)
class Place:
    """One column of a map: its label, and the part of a site that is written."""

    label: str
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    positions: Positions | None = None

    def write(self, value: Float[Tensor, "batch ..."]) -> Edit:
        """The edit that puts `value` here."""
        return edits.replace(
            value, heads=self.heads, neurons=self.neurons, positions=self.positions
        )


@dataclass(frozen=True, eq=False)
class Where:
    """Which part of a stream a sweep visits, beyond its columns. None is all of it.

    positions   restricts heads, neurons and "all" to some tokens, such as task.positions["END"]
    neurons     which neurons are columns, the same in every layer
    """

    layers: Sequence[int] | None = None
    positions: Positions | None = None
    neurons: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, given in (("layers", self.layers), ("neurons", self.neurons)):
            if given is None:
                continue
            if not isinstance(given, Sequence):
                raise TypeError(f"{name}={given!r}: give a list: {name}=[...]")
            if not given:
                raise ValueError(f"{name}=[] visits nothing: name some, or leave it out for all")
            check_distinct(name, given)

    def check(self, over: Over) -> None:
        """Raise for a part that a sweep over such columns would not heed."""
        if self.positions is not None and over in ("position", "role"):
            raise ValueError(
                f"Where(positions=...) restricts heads, neurons and 'all' to some tokens, but over="
                f"{over!r} sweeps the tokens themselves: leave it out, or take over='all'"
            )
        if self.neurons is not None and over != "neuron":
            raise ValueError(
                f"Where(neurons=...) chooses the columns of over='neuron', but this sweep is over "
                f"{over!r}: leave it out, or take over='neuron'"
            )


def check_distinct(what: str, given: Sequence[object]) -> None:
    """Raise for what is named twice: its rows would be the same, and p corrected for both."""
    twice = [one for place, one in enumerate(given) if one in given[:place]]
    if twice:
        raise ValueError(f"{what} {twice[0]} is given twice: name each once")


def places(
    model: HookedModel,
    task: Task,
    stream: Stream,
    *,
    over: Over,
    positions: Positions | None = None,
    neurons: Sequence[int] | None = None,
) -> list[Place]:
    """The columns of a map of `stream`.

    Heads are query heads, but key-value heads for k and v. `positions` restricts heads and
    neurons to some tokens.
    """
    if over == "all":
        return [Place("all", positions=positions)]
    if over == "position":
        return [Place(label, positions=at) for at, label in enumerate(labels(model, task))]
    if over == "role":
        return [Place(role, positions=at) for role, at in _roles(task).items()]
    if over == "head":
        return [
            Place(str(head), heads=(head,), positions=positions)
            for head in range(_heads(model, stream))
        ]
    if over == "neuron":
        return _neurons(model, stream, neurons, positions)
    raise ValueError(f"no axis {over!r}: a sweep is over position, role, head, neuron or all")


def has(model: HookedModel, site: Site, place: Place) -> bool:
    """Whether the heads of a place are there, or were removed from the model."""
    there = heads.at(model, site.layer).of(site.stream)
    return place.heads is None or set(place.heads) <= set(there)


def usual(stream: Stream) -> Over:
    """What the columns are when nobody says it."""
    return "head" if stream in _PER_HEAD else "position"


def labels(model: HookedModel, task: Task) -> list[str]:
    """Each position that all prompts have, with its word; its role where the words differ."""
    tokens, shortest = task.clean.tokens, int(task.clean.lengths.min())
    names = []
    for at in range(shortest):
        column = tokens[:, at]
        roles = [role for role, places in task.positions.items() if bool((places == at).all())]
        if bool((column == column[0]).all()):
            word = models.words(model, Prompts.of(tokens[:1, at : at + 1]))[0][0].strip() or "␣"
            names.append(f"{at} {word}")
        else:
            names.append(f"{at} {roles[0] if roles else '…'}")
    return names


def sites(model: HookedModel, stream: Stream, layers: Sequence[int] | None) -> list[Site]:
    """The site of `stream` in each of `layers`, or in all."""
    chosen, count = range(model.cfg.n_layers) if layers is None else layers, model.cfg.n_layers
    outside = [layer for layer in chosen if not 0 <= layer < count]
    if outside:
        raise ValueError(
            f"layer {outside[0]} is not in this model: its layers are 0 to {count - 1}"
        )
    if stream in ("embed", "final"):
        raise ValueError(f"{stream} exists once; a sweep is over layers: take resid_pre 0 instead")
    return [Site(stream, layer) for layer in chosen]


def _roles(task: Task) -> dict[str, Tensor]:
    """Every role and where it is, in the order in which they mostly stand."""
    if not task.positions:
        raise ValueError(f"{task.name} has no roles to sweep over; take over='position'")
    mean = {role: float(at.double().mean()) for role, at in task.positions.items()}
    return {role: task.positions[role] for role in sorted(mean, key=mean.__getitem__)}


def _heads(model: HookedModel, stream: Stream) -> int:
    if stream not in _PER_HEAD:
        raise ValueError(f"{stream} has no heads; those that have are {', '.join(_PER_HEAD)}")
    return heads.count(model, stream)


def _neurons(
    model: HookedModel,
    stream: Stream,
    neurons: Sequence[int] | None,
    positions: Positions | None,
) -> list[Place]:
    if stream not in _NEURONS:
        raise ValueError(f"{stream} has no neurons; those that have are {', '.join(_NEURONS)}")
    chosen = range(model.cfg.d_mlp) if neurons is None else neurons
    return [Place(str(one), neurons=(one,), positions=positions) for one in chosen]
