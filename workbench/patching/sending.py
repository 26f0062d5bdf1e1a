"""What a component that comes from another run changes in the inputs of others.

All heads are held at the base run's outputs. What then reaches a receiver is its *message*: for
a head what its queries, keys or values become, for an MLP what it then writes.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from hooks import (
    Activations,
    Edit,
    HookedModel,
    Positions,
    Prompts,
    Site,
    capture,
    edits,
    heads,
    replay,
    sites,
)
from hooks.replay import Cell, Reads, Seen
from workbench.metrics import Metric, check
from workbench.patching.asking import Running
from workbench.patching.evidence import RUN, Direction
from workbench.patching.points import Point, is_parallel
from workbench.tasks import Task


@dataclass(frozen=True, eq=False)
class Runs:
    """The base run, in which edits are made, and the other one, whose outputs are sent."""

    model: HookedModel
    prompts: Prompts
    here: Activations
    there: Activations
    read: Int[Tensor, " batch"] | None  # the only position that the metric reads; None: all
    running: Running
    forwards: list[float] = field(default_factory=list)  # what it took to read the messages

    @classmethod
    def of(
        cls,
        model: HookedModel,
        task: Task,
        direction: Direction,
        *,
        metric: Metric,
        also: Sequence[Site],
        running: Running,
    ) -> "Runs":
        """Run both prompts of each pair; the sites `also` are read in the base run too."""
        check(metric)
        pair = (task.clean, task.corrupt)
        base, other = pair if RUN[direction] == "clean" else pair[::-1]
        written = [*sites.all(model, "z"), *sites.all(model, "attn_out"), Site("resid_pre", 0)]
        written += sites.all(model, "mlp_out") if "mlp_out" in model.access.readable else []
        here = capture(model, base, [*written, Site("final"), *also])
        there = capture(model, other, written)
        return cls(model, base, here, there, base.last if metric.rows == "last" else None, running)

    def sent(self, sender: Point, at: Positions | None = None) -> Cell:
        """The edit that takes a sender's output from the other run, at some positions or all."""
        value = self.there[sender.site]
        return {sender.site: edits.replace(value, heads=sender.heads, positions=at)}

    def seen(
        self, cells: Sequence[Cell], points: Sequence[Point]
    ) -> list[Float[Tensor, "cell batch pos ..."]]:
        """What flows through each point under each cell."""
        columns = torch.zeros(len(self.prompts), 1, dtype=torch.long)
        planned = replay.plan(
            self.model, self.prompts, cells, reads=Reads("all", columns),
            memory=self.running.memory, seed=self.running.seed,
        )  # fmt: skip
        tqdm.write(str(planned), file=sys.stderr)
        self.forwards.append(planned.forwards)
        found = [repeated(self.base(point), len(cells)) for point in points]

        def show(seen: Seen) -> None:
            for point, kept in zip(points, found, strict=True):
                if point.site == seen.site:
                    part = self._of_heads(seen.activation, point)
                    kept[seen.cells, seen.prompts, seen.start :] = part

        replay.watch(planned, [point.site for point in points], show)
        return found

    def base(self, point: Point) -> Float[Tensor, "batch pos ..."]:
        """What flows through a point in the base run."""
        return self._of_heads(self.here[point.site], point)

    def _of_heads(self, activation: Tensor, point: Point) -> Tensor:
        if point.heads is None:
            return activation
        return activation[:, :, heads.places(self.model, point.site, point.heads)]


def repeated(value: Float[Tensor, "batch pos ..."], times: int) -> Tensor:
    """Copies of a value, to be written into."""
    return value.expand(times, *value.shape).clone()


def written(runs: Runs, senders: Sequence[Point]) -> Float[Tensor, "sender batch pos d_model"]:
    """What each sender adds to the residual stream in the other run, beyond the base run's."""
    found = [None if sender.site.stream == "z" else _difference(runs, sender) for sender in senders]
    of_heads = [sender for sender, one in zip(senders, found, strict=True) if one is None]
    parts = iter(_of_each_head(runs, of_heads)) if of_heads else iter(())
    return torch.stack([next(parts) if one is None else one for one in found])


def _difference(runs: Runs, sender: Point) -> Tensor:
    return runs.there[sender.site] - runs.here[sender.site]


def _of_each_head(
    runs: Runs, senders: Sequence[Point]
) -> Float[Tensor, "sender batch pos d_model"]:
    if "head_out" not in runs.model.access.refused:
        return torch.stack([_through_weights(runs, head) for head in senders])
    # Their sum is normalised before it is added: what one head changes depends on the others.
    parts: list[Tensor] = []
    for layer in sorted({head.site.layer for head in senders}):
        attention = Point(Site("attn_out", layer))
        cells = [runs.sent(head) for head in senders if head.site.layer == layer]
        parts += runs.seen(cells, [attention])[0] - runs.base(attention)
    order = sorted(range(len(senders)), key=lambda index: senders[index].site.layer)
    return torch.stack([parts[order.index(index)] for index in range(len(senders))])


def _through_weights(runs: Runs, sender: Point) -> Float[Tensor, "batch pos d_model"]:
    assert sender.heads is not None
    (place,) = heads.places(runs.model, sender.site, sender.heads)
    weight = runs.model.blocks[sender.site.layer].attn.W_O[place]
    changed = _difference(runs, sender)[:, :, place]
    return einsum(changed, weight, "batch pos d_head, d_head d_model -> batch pos d_model")


def into(runs: Runs, receiver: Point, added: Float[Tensor, "batch pos d_model"]) -> Cell:
    """The cell in which a receiver reads the base run's residual stream plus `added`."""
    layer = receiver.site.layer
    if receiver.is_logits:
        if runs.read is None:
            return {receiver.site: edits.add(added)}
        return {receiver.site: edits.add(at_last(added, runs.prompts), positions=runs.read)}
    if receiver.site.stream == "mlp_out" and not is_parallel(runs.model):
        return {Site("resid_mid", layer): edits.add(added)}
    return {Site("resid_pre", layer): edits.add(added)}


def at_last(
    activation: Float[Tensor, "batch pos d_model"], prompts: Prompts
) -> Float[Tensor, "batch 1 d_model"]:
    """The last real position of each prompt."""
    rows = torch.arange(len(prompts), device=activation.device)
    return activation[rows, prompts.last.to(activation.device)][:, None]


def directly(
    runs: Runs, senders: Sequence[Point], receivers: Sequence[Point]
) -> list[Float[Tensor, "sender batch pos ..."]]:
    """Each receiver's message from each sender when all between is held at the base run."""
    added = written(runs, senders)
    messages = [repeated(runs.base(receiver), len(senders)) for receiver in receivers]
    for group in _reading_alike(receivers):
        one = receivers[group[0]]
        reached = [index for index, own in enumerate(senders) if own.reaches(runs.model, one)]
        if reached:
            cells = [into(runs, one, added[index]) for index in reached]
            seen = runs.seen(cells, [receivers[index] for index in group])
            for index, message in zip(group, seen, strict=True):
                messages[index][reached] = message
    return messages


def _reading_alike(receivers: Sequence[Point]) -> list[list[int]]:
    """The numbers of the receivers, those together that read the stream at the same place."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, one in enumerate(receivers):
        groups.setdefault((one.site.layer, one.site.stream == "mlp_out"), []).append(index)
    return list(groups.values())


def freely(
    runs: Runs, senders: Sequence[Point], receivers: Sequence[Point]
) -> list[Float[Tensor, "sender batch pos ..."]]:
    """Each receiver's message from each sender when MLPs and norms between answer to it."""
    last, held = max(receiver.site.layer for receiver in receivers), all_held(runs)
    cells = [heads_held(runs, sender, held, last=last) for sender in senders]
    messages = runs.seen(cells, receivers)
    for receiver, message in zip(receivers, messages, strict=True):
        for index, sender in enumerate(senders):
            if not sender.reaches(runs.model, receiver):  # the same numbers, to the last bit
                message[index] = runs.base(receiver)
    return messages


def all_held(runs: Runs) -> dict[int, Edit]:
    """For each layer the edit that holds its attention at the base run."""
    layers = range(runs.model.cfg.n_layers)
    return {layer: edits.replace(runs.here[Site("attn_out", layer)]) for layer in layers}


def heads_held(
    runs: Runs,
    sender: Point,
    held: Mapping[int, Edit],
    *,
    last: int,
    at: Positions | None = None,
) -> Cell:
    """The sender's output of the other run, all later heads up to layer `last` as in the base.

    With all heads held every token goes its own way, so that it need only be sent `at` those
    positions that are read.
    """
    first = 0 if sender.site.stream == "resid_pre" else sender.site.layer + 1
    later = range(first, min(last + 1, runs.model.cfg.n_layers))
    return {**runs.sent(sender, at), **{Site("attn_out", layer): held[layer] for layer in later}}
