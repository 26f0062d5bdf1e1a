"""What to write at a site. Every edit is pure: it returns a new tensor and leaves its input alone.

Each takes `heads`, `neurons` and `positions`, which say where in the activation it applies:
    heads, neurons   a list of indices; none given means all
    positions        an int or a list of ints: those positions of every prompt;
                     a tensor with one index for each prompt, such as `task.positions["IO"]`;
                     none given means all. Positions count from 0 at the prompt's first token,
                     also in the later steps of `generate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace as with_fields

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

Positions = int | Sequence[int] | Int[Tensor, " batch"]


@dataclass(frozen=True)
class Window:
    """Which part of the prompts an activation covers, and what its axes are."""

    axes: tuple[str, ...]
    start: int = 0  # the absolute position of the first row; above 0 when a cache holds the rest

    @property
    def pos_axis(self) -> int:
        """The axis along which edits choose positions."""
        return self.axes.index("query" if "query" in self.axes else "pos")

    @classmethod
    def of(cls, activation: Tensor) -> "Window":
        """The usual axes of a tensor of this rank."""
        by_rank = {3: ("batch", "pos", "d_model"), 4: ("batch", "pos", "head", "d_head")}
        if activation.ndim not in by_rank:
            raise ValueError(f"an activation has 3 or 4 axes, got {tuple(activation.shape)}")
        return cls(by_rank[activation.ndim])


Change = Callable[[Tensor, Window], Tensor]


@dataclass(frozen=True, eq=False)
class Edit:
    """A pure function from an activation to the one that replaces it, and where it applies."""

    name: str
    change: Change
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    positions: Positions | None = None
    value: Tensor | None = None  # what is written, when it has positions of its own

    def __call__(self, activation: Tensor, window: Window | None = None) -> Tensor:
        """The edited activation; the same tensor when nothing here is to be edited."""
        window = window or Window.of(activation)
        if not self.reaches(activation, window):
            return activation
        changed = self.change(activation, window)
        where = self._where(activation, window)
        return changed if where is None else torch.where(where, changed, activation)

    def reaches(self, activation: Tensor, window: Window) -> bool:
        """Whether any chosen position lies in this window."""
        chosen = self._positions(activation, window)
        return chosen is None or bool(chosen.any())

    def _where(self, activation: Tensor, window: Window) -> Bool[Tensor, "..."] | None:
        """True where the edit applies, broadcastable to the activation; None is everywhere."""
        chosen = self._positions(activation, window)
        parts = [] if chosen is None else [_spread(chosen, ("batch", "pos"), window)]
        for axis, indices in (("head", self.heads), ("neuron", self.neurons)):
            if indices is not None:
                parts.append(_spread(_members(activation, window, axis, indices), (axis,), window))
        if not parts:
            return None
        where = parts[0]
        for part in parts[1:]:
            where = where & part
        return where

    def _positions(self, activation: Tensor, window: Window) -> Bool[Tensor, "batch pos"] | None:
        size = activation.shape[window.pos_axis]
        batch = activation.shape[0]
        at = torch.arange(size, device=activation.device) + window.start
        chosen = None
        if self.positions is not None:
            wanted = _as_rows(self.positions, batch).to(activation.device)
            chosen = (at[None, :, None] == wanted[:, None, :]).any(dim=-1)
        length = self._length(activation, window)
        if length is not None and window.start + size > length:
            inside = (at < length).expand(batch, size)
            chosen = inside if chosen is None else chosen & inside
        return chosen

    def _length(self, activation: Tensor, window: Window) -> int | None:
        """How many positions the value has; those behind it (in `generate`) are left alone."""
        if self.value is None or window.start == 0:
            return None
        axis = window.pos_axis - (activation.ndim - self.value.ndim)
        if self.value.ndim < activation.ndim - 1 or self.value.shape[axis] == 1:
            return None
        return self.value.shape[axis]


def _as_rows(positions: Positions, batch: int) -> Int[Tensor, "batch chosen"]:
    """Absolute positions as one row for each prompt."""
    if isinstance(positions, str):
        raise TypeError(
            f"positions={positions!r}: a role's indices are in the task, "
            f"write positions=task.positions[{positions!r}]"
        )
    if isinstance(positions, Tensor) and positions.ndim == 1:
        if positions.shape[0] != batch:
            raise ValueError(
                f"{positions.shape[0]} positions for {batch} prompts: "
                "give one index for each prompt, or a list of ints for all of them"
            )
        rows = positions[:, None]
    else:
        listed = [positions] if isinstance(positions, int) else list(positions)
        rows = torch.tensor(listed, dtype=torch.long)[None].expand(batch, -1)
    if rows.numel() == 0 or bool((rows < 0).any()):
        raise ValueError(
            f"positions must be indices from 0, got {rows.tolist()[:3]}; "
            "the last real token of each prompt is prompts.last"
        )
    return rows


def _members(activation: Tensor, window: Window, axis: str, indices: Sequence[int]) -> Tensor:
    if axis not in window.axes:
        raise ValueError(f"{axis}s were chosen, but this site has the axes {window.axes}")
    size = activation.shape[window.axes.index(axis)]
    wrong = [index for index in indices if not 0 <= index < size]
    if wrong or not indices:
        what = f"{axis} {wrong[0]} does not exist" if wrong else f"no {axis}s were chosen"
        raise ValueError(f"{what}: this site has {axis}s 0 to {size - 1}")
    members = torch.zeros(size, dtype=torch.bool, device=activation.device)
    members[list(indices)] = True
    return members


def _spread(part: Tensor, names: tuple[str, ...], window: Window) -> Tensor:
    """Insert axes of size one, so that `part` broadcasts against the activation."""
    own = tuple("query" if n == "pos" and "query" in window.axes else n for n in names)
    target = " ".join(axis if axis in own else "1" for axis in window.axes)
    return rearrange(part, f"{' '.join(own)} -> {target}")


def zero(
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Ablate: as if the output were the zero vector."""
    return _edit("zero", lambda x, _: torch.zeros_like(x), heads, neurons, positions)


def mean(
    value: Float[Tensor, "..."],
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Ablate: as if the output were always `value`.

    `value` has the site's axes without batch and pos (one mean for all positions), or without
    batch (one for each position).
    """

    def change(activation: Tensor, window: Window) -> Tensor:
        constant, features = value, activation.ndim - 2
        if constant.ndim == activation.ndim - 1:  # one for each position
            axis = window.pos_axis - 1
            constant = _cut(constant, activation.shape[window.pos_axis], window, axis)
            features += 1
        expected = tuple(activation.shape[activation.ndim - features :])
        if tuple(constant.shape) != expected or (features == 2 and "query" in window.axes):
            raise ValueError(
                f"mean: cannot write {tuple(value.shape)} into {tuple(activation.shape)} with axes "
                f"{window.axes}; leave out batch, or batch and pos"
            )
        _same_place(constant, activation, "mean")
        return constant.expand(activation.shape)

    return with_fields(_edit("mean", change, heads, neurons, positions), value=value)


def replace(
    source: Float[Tensor, "..."],
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Put an activation captured elsewhere in this one's place (activation patching).

    `source` has the shape of the activation. Where `positions` are chosen it may instead hold
    a single position, which is then written to all of them.
    """
    single = positions is not None

    def change(activation: Tensor, window: Window) -> Tensor:
        axis = window.pos_axis
        size = activation.shape[axis]
        one = single and source.ndim == activation.ndim and source.shape[axis] == 1
        value = source if one else _cut(source, size, window, axis)
        expected = list(activation.shape)
        if one:
            expected[axis] = 1
        if list(value.shape) != expected:
            raise ValueError(
                f"cannot patch {tuple(source.shape)} into {tuple(activation.shape)}: "
                "capture the source on prompts of the same length and batch size"
            )
        _same_place(value, activation, "replace")
        return value.expand(activation.shape)

    return with_fields(_edit("replace", change, heads, neurons, positions), value=source)


def resample(
    source: Float[Tensor, "batch ..."],
    *,
    generator: torch.Generator,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Ablate: as if the output came from another prompt of `source`, drawn at random.

    No prompt gets its own row: the rows are shuffled by a random cyclic order (Sattolo).
    """
    rows = source.shape[0]
    if rows < 2:
        raise ValueError("resampling needs at least two prompts to draw from, got 1")
    order = list(range(rows))
    for last in range(rows - 1, 0, -1):
        other = int(torch.randint(last, (1,), generator=generator))
        order[last], order[other] = order[other], order[last]
    edit = replace(source[order], heads=heads, neurons=neurons, positions=positions)
    return with_fields(edit, name="resample")


def add(
    vector: Float[Tensor, "..."],
    *,
    strength: float = 1.0,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Steer: add `strength` times a vector, broadcast over the leading axes."""

    def change(activation: Tensor, _: Window) -> Tensor:
        _same_place(vector, activation, "add")
        return activation + strength * vector

    return _edit("add", change, heads, neurons, positions)


def scale(
    factor: float,
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Multiply by `factor`; 0 ablates, 1 changes nothing."""
    return _edit("scale", lambda x, _: x * factor, heads, neurons, positions)


def project_out(
    directions: Float[Tensor, "... width"],
    *,
    heads: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Remove what lies in the span of `directions` (one vector, or one a row)."""
    rows = directions.reshape(-1, directions.shape[-1])
    basis, scales, _ = torch.linalg.svd(rows.double().T, full_matrices=False)
    if not bool((scales > 1e-10 * scales.max()).all()) or not bool(scales.max() > 0):
        raise ValueError("directions to project out must be linearly independent and not zero")

    def change(activation: Tensor, _: Window) -> Tensor:
        kept = basis.to(activation)
        return activation - (activation @ kept) @ kept.T

    return _edit("project_out", change, heads, None, positions)


def _edit(
    name: str,
    change: Change,
    heads: Sequence[int] | None,
    neurons: Sequence[int] | None,
    positions: Positions | None,
) -> Edit:
    return Edit(
        name,
        change,
        heads=None if heads is None else tuple(heads),
        neurons=None if neurons is None else tuple(neurons),
        positions=positions,
    )


def _cut(source: Tensor, size: int, window: Window, axis: int) -> Tensor:
    """The part of `source` that this window covers; behind its end, its last row again."""
    if window.start == 0 or axis >= source.ndim:
        return source
    length = source.shape[axis]
    at = torch.arange(window.start, window.start + size, device=source.device)
    return source.index_select(axis, at.clamp(max=length - 1))


def _same_place(value: Tensor, activation: Tensor, name: str) -> None:
    if value.device != activation.device or value.dtype != activation.dtype:
        raise ValueError(
            f"{name}: the value is {value.dtype} on {value.device}, the activation "
            f"{activation.dtype} on {activation.device}; move it with .to(activation)"
        )
