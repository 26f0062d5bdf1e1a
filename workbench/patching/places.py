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
    chosen = range(model.cfg.n_layers) if layers is None else layers
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
