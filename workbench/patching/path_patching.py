"""Path patching: what one component tells another (Wang et al. 2022, Goldowsky-Dill et al. 2023).

A sender's output is taken from the other run. All heads but the sender are held at the base
run's outputs, so that its message reaches the receivers by no other head. In a second run the
receivers' inputs are what that gave, and nothing else is changed.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, Site, edits, heads
from hooks.replay import Cell
from hooks.replay.memory import size
from workbench import effects
from workbench.effects.fixed_norm import FixedNorm, logits_of
from workbench.metrics import Metric
from workbench.patching import evidence, points, sending
from workbench.patching.evidence import RUN, Direction
from workbench.patching.path_effects import PathEffects
from workbench.patching.points import Node, Point
from workbench.patching.ranking import Ranking
from workbench.patching.sending import Runs
from workbench.patching.sweeping import USUALLY, Running, each
from workbench.tasks import Task
from workbench.tasks.provenance import labels

Between = Literal["free", "frozen", "linear"]
"""What lies between sender and receiver, besides the other heads, which are always held.

    free     MLPs and norms are computed again (Wang et al. 2022)
    frozen   MLPs are held too: the direct edge alone, through the receiver's own norm
    linear   the last norm's scale is held too (to the logits only): the effect on a logit
             difference is then the change in direct attribution
"""


def paths(
    model: HookedModel,
    task: Task,
    *,
    to: Node | Sequence[Node],
    metric: Metric,
    between: Between = "free",
    direction: Direction = "noise",
    running: Running = USUALLY,
) -> PathEffects:
    """What each head and each MLP, as a sender, says to the receivers `to`.

    `to` is "logits", one receiver or several that are told at once: (Site("q", 9), 6) for the
    queries of head 9.6, k and v likewise (per key-value head), Site("mlp_out", 9) for an MLP.
    "noise" edits the clean prompts with what the corrupt ones say, "denoise" the other way round.
    """
    evidence.check(task, [direction])
    points.check_adds_up(model)
    receivers = _receivers(model, to)
    if between not in ("free", "frozen", "linear"):
        raise ValueError(f"between {between!r} is not known: there are 'free', 'frozen', 'linear'")
    if between == "linear" and not receivers[0].is_logits:
        raise ValueError("between='linear' holds the last norm's scale: it is for to='logits'")
    also = [one.site for one in receivers]
    runs = Runs.of(model, task, direction, metric=metric, also=also, running=running)
    senders = _senders(model, receivers)
    if not senders:
        raise ValueError(f"no head and no MLP comes before {', '.join(map(str, receivers))}")
    found: list[Tensor] = []
    costs: list[str] = []
    for part in _parts(senders, runs, receivers):
        if between == "linear":
            found.append(_linearly(runs, task, part, metric, direction))
            continue
        cells = _cells(runs, part, receivers, between)
        done = effects.exact(
            model, task, cells, metrics=[metric], run=RUN[direction],
            memory=running.memory, keep=running.keep, seed=running.seed,
        )  # fmt: skip
        found.append(done.effect[0])
        costs.append(str(done.cost))
    if runs.forwards:
        costs.append(f"{sum(runs.forwards):.1f} forward passes to find what receivers are told")
    per_sender = dict(zip(senders, torch.cat(found), strict=True))
    return _result(
        model, task, per_sender, metric=metric, to=_named(receivers),
        between=between, direction=direction, cost="; ".join(costs), seed=running.seed,
    )  # fmt: skip


def path(
    model: HookedModel,
    task: Task,
    route: Sequence[Node],
    *,
    metric: Metric,
    direction: Direction = "noise",
    running: Running = USUALLY,
) -> Ranking:
    """What one path does: the first place of `route` tells the second, that one the third, ...

    Each step is the direct edge alone: everything off the path is held at the base run, so a
    place hears only the one before it. When the route ends at "logits" that is all; else the
    rest of the model answers freely to what the last place was told. A path through a head
    names the input it takes: (Site("v", 9), 2).
    """
    evidence.check(task, [direction])
    points.check_adds_up(model)
    if len(route) < 2:
        raise ValueError("a path leads from one place to another: name at least two")
    first = points.sender(model, route[0])
    later = [points.receiver(model, node) for node in route[1:]]
    _check_order([first, *later], model)
    also = [one.site for one in later]
    runs = Runs.of(model, task, direction, metric=metric, also=also, running=running)
    added = sending.written(runs, [first])[0]
    for receiver in later[:-1]:
        added = _passed_on(runs, receiver, added)
    name = " → ".join(map(str, [first, *later]))
    cell = sending.into(runs, later[-1], added)
    if not later[-1].is_logits:
        cell = _told(runs, later[-1:], [runs.seen([cell], later[-1:])[0][0]])
    return each(
        model, task, {name: cell}, metric=metric, what="Path patching", run=RUN[direction],
        running=running,
    )  # fmt: skip


def _receivers(model: HookedModel, to: Node | Sequence[Node]) -> list[Point]:
    several = isinstance(to, Sequence) and not isinstance(to, str) and not _is_head(to)
    nodes: Sequence[Node] = to if several else [to]  # type: ignore[assignment,list-item]
    receivers = list(dict.fromkeys(points.receiver(model, node) for node in nodes))
    if not receivers:
        raise ValueError("no receivers were given: name one, such as 'logits'")
    if len(receivers) > 1 and any(one.is_logits for one in receivers):
        raise ValueError("the logits receive alone: what they read depends on all other receivers")
    whole = {one.site for one in receivers if one.heads is None}
    twice = [one for one in receivers if one.heads is not None and one.site in whole]
    if twice:
        raise ValueError(f"{twice[0]} is among all heads of {twice[0].site}: name it once")
    return receivers


def _named(receivers: Sequence[Point]) -> str:
    return "the logits" if receivers[0].is_logits else ", ".join(map(str, receivers))


def _is_head(to: object) -> bool:
    return isinstance(to, tuple) and len(to) == 2 and isinstance(to[1], int)


def _senders(model: HookedModel, receivers: Sequence[Point]) -> list[Point]:
    """Every head and MLP that reaches a receiver."""
    layers = range(model.cfg.n_layers)
    senders = [Point(Site("z", layer), (head,)) for layer, head in heads.all(model)]
    if "mlp_out" in model.access.readable:
        senders += [Point(Site("mlp_out", layer)) for layer in layers]
    return [one for one in senders if any(one.reaches(model, other) for other in receivers)]


def _parts(
    senders: Sequence[Point], runs: Runs, receivers: Sequence[Point]
) -> list[Sequence[Point]]:
    """The senders, as many at a time as the memory holds messages of."""
    stream = runs.here[Site("resid_pre", 0)]
    one = (2 + len(receivers)) * stream.numel() * stream.element_size()
    some = max(1, size(runs.running.memory) // 2 // one)
    return [senders[start : start + some] for start in range(0, len(senders), some)]


def _cells(
    runs: Runs, senders: Sequence[Point], receivers: Sequence[Point], between: Between
) -> list[Cell]:
    """The second run of each sender."""
    if receivers[0].is_logits:
        return _cells_to_logits(runs, senders, between)
    message = sending.freely if between == "free" else sending.directly
    messages = message(runs, senders, receivers)
    return [
        _told(runs, receivers, [one[index] for one in messages]) for index in range(len(senders))
    ]


def _cells_to_logits(runs: Runs, senders: Sequence[Point], between: Between) -> list[Cell]:
    """The logits are what the first run gave, so it is the only one."""
    logits = Point(Site("final"))
    if between == "frozen":
        return [sending.into(runs, logits, added) for added in sending.written(runs, senders)]
    held, layers = sending.all_held(runs), runs.model.cfg.n_layers
    return [sending.heads_held(runs, one, held, last=layers, at=runs.read) for one in senders]


def _told(
    runs: Runs, receivers: Sequence[Point], messages: Sequence[Float[Tensor, "batch pos ..."]]
) -> Cell:
    """The edits that give the receivers their messages."""
    cell: dict[Site, list[Edit]] = {}
    for receiver, message in zip(receivers, messages, strict=True):
        value = message
        if receiver.heads is not None:  # the same for all heads; only this one's is written
            value = message.expand(-1, -1, points.heads_of(runs.model, receiver.site), -1)
        cell.setdefault(receiver.site, []).append(edits.replace(value, heads=receiver.heads))
    return cell


def _linearly(
    runs: Runs, task: Task, senders: Sequence[Point], metric: Metric, direction: Direction
) -> Float[Tensor, "sender batch"]:
    """Effects on the metric with the last norm's scale held."""
    if metric.rows == "all":
        raise ValueError(f"{metric.name} reads all tokens; between='linear' gives the last one's")
    final = sending.at_last(runs.here[Site("final")], runs.prompts)
    norm = FixedNorm.of(runs.model, final)
    before = metric(logits_of(runs.model, runs.prompts, norm), task, runs.prompts)
    unembed: Any = runs.model.unembed  # type: ignore[attr-defined]
    found = []
    for added in sending.written(runs, senders):
        normed = norm(sending.at_last(added, runs.prompts))
        found.append(metric(unembed(normed), task, runs.prompts) - before)
    return torch.stack(found).float().cpu()


def _passed_on(
    runs: Runs, receiver: Point, added: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """What a receiver that is told `added` adds to the residual stream beyond the base run's."""
    message = runs.seen([sending.into(runs, receiver, added)], [receiver])[0]
    if receiver.site.stream == "mlp_out":
        return message[0] - runs.base(receiver)
    attention = Point(Site("attn_out", receiver.site.layer))
    cell = _told(runs, [receiver], [message[0]])
    return runs.seen([cell], [attention])[0][0] - runs.base(attention)


def _check_order(route: Sequence[Point], model: HookedModel) -> None:
    for one, other in pairwise(route):
        if one.is_logits or not one.reaches(model, other):
            raise ValueError(f"{other} does not read what {one} writes: a path leads upwards")


def _result(
    model: HookedModel,
    task: Task,
    per_sender: Mapping[Point, Float[Tensor, " batch"]],
    *,
    metric: Metric,
    direction: Direction,
    seed: int,
    **said: str,
) -> PathEffects:
    layers, width = model.cfg.n_layers, model.cfg.n_heads
    per_prompt = torch.zeros(layers, width + 1, len(task))  # MLPs in the last column
    there = torch.ones(layers, width + 1, dtype=torch.bool)
    there[:, :width] = ~heads.on_grid(model, torch.zeros(len(heads.all(model)))).isnan()
    for sender, values in per_sender.items():
        column = width if sender.heads is None else sender.heads[0]
        per_prompt[sender.site.layer, column] = values
    tested = evidence.tested(per_prompt, seed=seed, cells=2, there=there)
    pair = (task.clean, task.corrupt)
    here, there = pair if RUN[direction] == "clean" else pair[::-1]
    return PathEffects(
        **{name: value[:, :width] for name, value in tested.items()},
        mlp=tested["effect"][:, width],
        **{f"mlp_{name}": tested[name][:, width] for name in ("low", "high", "p", "per_prompt")},
        baseline=effects.measure(model, task, metric=metric, prompts=here),
        other=effects.measure(model, task, metric=metric, prompts=there),
        direction=direction,
        metric=metric.name,
        unit=metric.unit,
        **said,
        **labels(model, task),
    )
