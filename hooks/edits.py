"""What to write at a site. Every edit is pure: it returns a new tensor and leaves its input alone.

Each takes `heads`, `neurons` and `positions`, which say where in the activation it applies:
    heads, neurons   a list of indices; none given means all
    positions        an int or a list of ints: those positions of every prompt;
                     a tensor with one index for each prompt, such as `task.positions["IO"]`,
                     or with several (batch, chosen);
                     none given means all. Positions count from 0 at the prompt's first token,
                     also in the later steps of `generate`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace as with_fields

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.places import Change, Edit, Positions, Window


def zero(
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Ablate: as if the output were the zero vector."""
    return _edit("zero", lambda x, _: torch.zeros_like(x), (), heads, neurons, positions)


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

    edit = _edit("mean", change, (value,), heads, neurons, positions)
    return with_fields(edit, value=value)


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
        value = _of_rows(source, window)
        value = value if one else _cut(value, size, window, axis)
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

    edit = _edit("replace", change, (source,), heads, neurons, positions)
    return with_fields(edit, value=source)


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
    """Steer: add `strength` times a vector, broadcast over the leading axes.

    A vector with all axes of the activation has a row for each prompt and each position.
    """

    def change(activation: Tensor, window: Window) -> Tensor:
        _same_place(vector, activation, "add")
        added, axis = vector, window.pos_axis - (activation.ndim - vector.ndim)
        if vector.ndim == activation.ndim:
            added = _of_rows(added, window)
        if axis >= 0 and added.shape[axis] > 1:
            added = _cut(added, activation.shape[window.pos_axis], window, axis)
        return activation + strength * added

    return _edit("add", change, (vector, strength), heads, neurons, positions)


def scale(
    factor: float,
    *,
    heads: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Multiply by `factor`; 0 ablates, 1 changes nothing."""
    return _edit("scale", lambda x, _: x * factor, (factor,), heads, neurons, positions)


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

    return _edit("project_out", change, (basis,), heads, None, positions)


def erase(
    read: Float[Tensor, "direction width"],
    write: Float[Tensor, "direction width"],
    *,
    mean: Float[Tensor, " width"],
    heads: Sequence[int] | None = None,
    positions: Positions | None = None,
) -> Edit:
    """Take away, along `write`, what `read` reads: x - (x - mean) @ read.T @ write.

    With the same orthonormal rows for both, this projects them out around `mean`; with others it
    is an oblique projection (LEACE), or moves the activation as far along other directions.
    """
    if read.shape != write.shape or mean.shape != read.shape[-1:]:
        raise ValueError(
            f"erase: read {tuple(read.shape)}, write {tuple(write.shape)} and mean "
            f"{tuple(mean.shape)} do not fit: a row of read for each of write, one mean"
        )

    def change(activation: Tensor, _: Window) -> Tensor:
        away = (activation - mean.to(activation)) @ read.to(activation).T
        return activation - away @ write.to(activation)

    return _edit("erase", change, (read, write, mean), heads, None, positions)


def _edit(  # noqa: PLR0917
    name: str,
    change: Change,
    parts: tuple[Tensor | float, ...],
    heads: Sequence[int] | None,
    neurons: Sequence[int] | None,
    positions: Positions | None,
) -> Edit:
    for axis, given in (("head", heads), ("neuron", neurons)):
        twice = [one for one, count in Counter(given or ()).items() if count > 1]
        if twice:
            raise ValueError(f"{axis} {twice[0]} is given twice: give each {axis} once")
    return Edit(
        name,
        change,
        heads=None if heads is None else tuple(heads),
        neurons=None if neurons is None else tuple(neurons),
        positions=positions,
        parts=parts,
    )


def _of_rows(source: Tensor, window: Window) -> Tensor:
    """The part of `source` that belongs to the prompts of this window."""
    if window.rows is None or source.shape[0] == 1:
        return source
    return source[window.rows.to(source.device)]


def _cut(source: Tensor, size: int, window: Window, axis: int) -> Tensor:
    """The part of `source` that this window covers; behind its end, its last row again."""
    if (window.start == 0 and not window.cut) or axis >= source.ndim:
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
