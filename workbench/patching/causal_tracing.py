"""Causal tracing (Meng et al. 2022): noise on the subject, one state restored, what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Edit, HookedModel, Site, capture, edits, intervening
from hooks.replay import Cell
from hooks.sites import Stream, check_writable
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.patching import evidence
from workbench.patching.asking import USUALLY, Running
from workbench.patching.places import Over, Place, places, sites
from workbench.patching.tracing import Tracing
from workbench.tasks import Task
from workbench.tasks.provenance import labels

Severed = Literal["none", "mlp_out", "attn_out"]
"""What stays noisy, in later layers at the restored token, so that restoring cannot act by it."""

_STREAMS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")  # as they come
_EMBEDDING = Site("resid_pre", 0)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the embeddings of each prompt's subject.

    role    the role of the task at the subject's last token. Noise goes there, and to the tokens
            right before it in which clean and corrupt prompt differ too
    scale   in standard deviations of the embeddings of all subjects' tokens in the task
    draws   how many times it is drawn; effects are means over them
    seed    of the draws
    """

    role: str = "subject"
    scale: float = 3.0
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.draws < 1:
            raise ValueError(f"{self}: noise needs a scale above 0 and at least one draw")


NOISE = Noise()
"""Three standard deviations on the role "subject", drawn five times."""


def causal_tracing(
    model: HookedModel,
    task: Task,
    stream: Stream,
    *,
    metric: Metric,
    noise: Noise = NOISE,
    window: int = 1,
    over: Over = "role",
    severed: Severed = "none",
    running: Running = USUALLY,
) -> Tracing:
    """Where in `stream` a state of the clean run brings the answer back when the subject is noise.

    window   so many neighbouring layers are restored at once (Meng et al. take 10 for MLPs and
             attention). A window that sticks out at either end is cut
    over     "role" (of the task) or "position"
    severed  "mlp_out" or "attn_out": later ones of the restored token are held as with noise
             alone. What the effect loses by it went through them
    """
    evidence.check(task, [])
    _check(model, task, stream, over=over, noise=noise, window=window, severed=severed)
    swept = sites(model, stream, None)
    columns = places(model, task, stream, over=over)
    clean = capture(model, task.clean, [*swept, _EMBEDDING])
    restored = {site: [column.write(clean[site]) for column in columns] for site in swept}
    subject = subject_tokens(task, noise.role)
    deviation = _deviation(model, task, subject)
    found = []
    for draw in range(noise.draws):
        given = _drawn(clean[_EMBEDDING], subject, noise, deviation=deviation, draw=draw)
        cut = _severed(model, task, given, columns, severed)
        cells = _cells(given, restored, cut, window)
        done = effects.exact(
            model, task, [{_EMBEDDING: given}, *cells], metrics=[metric], run="clean",
            memory=running.memory, keep=running.keep, seed=running.seed,
        )  # fmt: skip
        found.append(done)
    values = torch.stack([one.values[0] for one in found])
    shape = (len(found), len(swept), len(columns), len(task))
    return _result(
        model, task, values[:, 0], values[:, 1:].reshape(shape), found[0].baseline[0],
        metric=metric, noise=noise, seed=running.seed, places=[one.label for one in columns],
        stream=stream, over=over, window=window, severed=severed, deviation=deviation,
        cost="; ".join(str(one.cost) for one in found),
    )  # fmt: skip


def subject_tokens(task: Task, role: str) -> Bool[Tensor, "batch pos"]:
    """Where the subject stands whose last token has a role: there, and at the tokens right before
    it in which clean and corrupt prompts differ."""
    last = task.positions[role]
    differ = task.clean.tokens != task.corrupt.tokens
    inside = torch.zeros_like(differ)
    for row, end in enumerate(last.tolist()):
        first = end
        while first > 0 and bool(differ[row, first - 1 : first + 1].all()):
            first -= 1
        inside[row, first : end + 1] = True
    return inside


def _deviation(model: HookedModel, task: Task, subject: Bool[Tensor, "batch pos"]) -> float:
    """The standard deviation of all numbers in the subjects' embeddings."""
    embedding = capture(model, task.clean, [Site("embed")])[Site("embed")]
    return float(embedding[subject.to(embedding.device)].float().std())


def _drawn(
    like: Float[Tensor, "batch pos d_model"],
    subject: Bool[Tensor, "batch pos"],
    noise: Noise,
    *,
    deviation: float,
    draw: int,
) -> Edit:
    """The noise of one draw, with its values, so that whoever makes the edit adds the same."""
    generator = statistics.derive(noise.seed, "causal tracing", str(draw))
    values = torch.randn(like.shape, generator=generator) * (noise.scale * deviation)
    return edits.add((values * subject[..., None].cpu()).to(like))


def _severed(
    model: HookedModel, task: Task, given: Edit, columns: Sequence[Place], severed: Severed
) -> dict[Site, list[Edit]]:
    """For each site that is cut the edit of each column that keeps it as with noise alone."""
    if severed == "none":
        return {}
    wanted = sites(model, severed, None)
    with intervening(model, {_EMBEDDING: given}):
        seen = capture(model, task.clean, wanted)
    return {site: [column.write(seen[site]) for column in columns] for site in wanted}


def _cells(
    given: Edit,
    restored: Mapping[Site, Sequence[Edit]],
    cut: Mapping[Site, Sequence[Edit]],
    window: int,
) -> list[Cell]:
    """One cell for each layer and column: noise, and a window of layers restored."""
    swept, found = list(restored), []
    for middle in range(len(swept)):
        inside = swept[max(0, middle - window // 2) : middle - (-window // 2)]
        later = [site for site in cut if _place(site) > _place(inside[-1])]
        for column in range(len(restored[inside[0]])):
            cell: dict[Site, list[Edit]] = {_EMBEDDING: [given]}
            for site in inside:
                cell.setdefault(site, []).append(restored[site][column])
            for site in later:
                cell.setdefault(site, []).append(cut[site][column])
            found.append(cell)
    return found


def _place(site: Site) -> tuple[int, int]:
    """Where a site comes in a forward pass."""
    return site.layer, _STREAMS.index(site.stream)


def _check(
    model: HookedModel,
    task: Task,
    stream: Stream,
    *,
    over: Over,
    noise: Noise,
    window: int,
    severed: Severed,
) -> None:
    if stream not in _STREAMS:
        raise ValueError(f"no state {stream!r} to restore; there are {', '.join(_STREAMS)}")
    if over not in ("role", "position"):
        raise ValueError(f"causal tracing is over 'role' or 'position', not {over!r}")
    if noise.role not in task.positions:
        known = ", ".join(task.positions) or "none"
        raise ValueError(
            f"{task.name} has no role {noise.role!r}; its roles are {known}. Say whose embeddings "
            f"become noise: noise=patching.Noise(role=...)"
        )
    if window < 1:
        raise ValueError(f"a window of {window} layers restores nothing: take 1 or more")
    if severed not in ("none", "mlp_out", "attn_out"):
        raise ValueError(f"severed={severed!r}: there are 'none', 'mlp_out', 'attn_out'")
    check_writable(model, Site(stream, 0))
    check_writable(model, _EMBEDDING)


def _result(
    model: HookedModel,
    task: Task,
    noised: Float[Tensor, "draw batch"],
    values: Float[Tensor, "draw layer place batch"],
    clean: Float[Tensor, " batch"],
    *,
    metric: Metric,
    noise: Noise,
    seed: int,
    **said: Any,
) -> Tracing:
    effect = values - noised[:, None, None]
    total = statistics.estimate(clean - noised.mean(dim=0), seed=seed)
    return Tracing(
        **evidence.tested(effect.mean(dim=0), seed=seed, cells=2),
        by_draw=effect.mean(dim=-1),
        clean=clean,
        noised=noised.mean(dim=0),
        total=total.value,
        total_low=total.low,
        total_high=total.high,
        layers=list(range(values.shape[1])),
        subject=noise.role,
        noise=noise.scale,
        metric=metric.name,
        unit=metric.unit,
        **said,
        **labels(model, task),
    )
