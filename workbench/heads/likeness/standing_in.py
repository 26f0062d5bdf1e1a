"""Can one head's output be had from another's? A linear fit, made on other prompts, put to work."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, HookedModel, Prompts, Site, capture_batches, edits
from workbench import effects, statistics
from workbench.heads.naming import Head, checked, column, named
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import of_model

_SHRINKS = (0.0, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, eq=False)
class Substitution(Result):
    """Change in a metric when a head's output is replaced by a fit from another's. 0: none is lost.

    Row: the head that is replaced; column: the one it is fitted from, by ridge regression on other
    prompts, first tokens left out and left as they are. The diagonal, a head fitted from itself,
    is near zero. `by_mean` is the change when the head's mean stands in for it, which is the fit
    from a head that knows nothing; `p` is corrected for all pairs: could the fit do no better
    than that mean? Its null is that on each prompt the fit is above the mean as likely as below,
    by as much. Heads whose mean costs nothing can be replaced by anything.
    """

    effect: Float[Tensor, "head other"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, "head other"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "head other"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, "head other"] = field(metadata={"means": "p-value, corrected for all pairs"})
    by_mean: Float[Tensor, " head"] = field(metadata={"means": "change with the head's mean"})
    explained: Float[Tensor, "head other"] = field(
        metadata={"means": "share of variance that the fit explains, on the measured prompts"}
    )
    per_prompt: Float[Tensor, "head other batch"]
    baseline: Float[Tensor, " batch"]
    heads: list[Head]
    names: list[str] = field(metadata={"axis": "head"})
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str

    @property
    def kept(self) -> Float[Tensor, "head other"]:
        """Of what the mean costs, the share that the fit keeps: 1 stands in fully, 0 not at all."""
        cost = self.by_mean[:, None]
        return 1 - self.effect / torch.where(cost == 0, torch.nan, cost)

    def stand_ins(self, level: float = 0.05) -> list[tuple[Head, Head]]:
        """Pairs (head, its stand-in) whose fit does better than the mean, the best kept first."""
        better = self.effect.abs() < self.by_mean.abs()[:, None]
        found = (self.p <= level) & better & ~torch.eye(len(self.heads), dtype=torch.bool)
        pairs = sorted(found.nonzero().tolist(), key=lambda at: -float(self.kept[tuple(at)]))
        return [(self.heads[a], self.heads[b]) for a, b in pairs]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        found = self.stand_ins()
        text = (
            f"Of {len(self.heads)} heads of {self.model} on {self.task}, {len(found)} pairs stand "
            f"in for each other better than a mean does (corrected p ≤ 0.05)."
        )
        if found:
            one, other = found[0]
            kept = float(self.kept[self.heads.index(one), self.heads.index(other)])
            text += (
                f" Best: {other[0]}.{other[1]} for {one[0]}.{one[1]} keeps {kept:.0%} of what "
                "its mean would cost."
            )
        return text

    def headline(self) -> dict[str, int | float]:
        """How many stand-ins there are, and how much the best one keeps."""
        off = self.kept.masked_fill(torch.eye(len(self.heads), dtype=torch.bool), -torch.inf)
        return {"stand-ins": len(self.stand_ins()), "most kept": float(off.nan_to_num(-1e9).max())}

    def table(self, n: int = 15) -> str:
        """The pairs that lose least as text, one a line."""
        a, b = (~torch.eye(len(self.heads), dtype=torch.bool)).nonzero().T
        order = self.effect[a, b].abs().argsort(stable=True)[:n]
        cells = [(int(a[at]), int(b[at])) for at in order]
        return statistics.table(
            cells, result=self, named="head from", value="effect",
            name=lambda cell: f"{self.names[cell[0]]} from {self.names[cell[1]]}",
        )  # fmt: skip


@torch.no_grad()
def substitute(
    model: HookedModel,
    task: Task,
    *,
    heads: Sequence[Head],
    metric: Metric,
    batch_size: int = 32,
    memory: str | int = "2GB",
    keep: str | Path | None = None,
    seed: int = 0,
) -> Substitution:
    """Replace each of `heads` by a fit from each other one, and measure the task.

    The fit (a linear map and a constant, from z to z) is made on every second prompt of `task`;
    the effects, exact as `effects.exact` gives them, are of the others. What stands in is what
    the other head says in the run without edits, whichever of the two comes first.
    """
    chosen = checked(model, heads)
    if len(chosen) < 2 or len(task) < 4:
        raise ValueError(
            f"{len(chosen)} heads and {len(task)} prompts: a fit from another head needs two "
            "heads, and two prompts each to fit and to measure"
        )
    fitted_on, measured_on = task[list(range(0, len(task), 2))], task[list(range(1, len(task), 2))]
    fits = _fits(_tokens(model, fitted_on.clean, chosen, batch_size))
    z = _whole(model, measured_on.clean, chosen, batch_size)
    every, widths = range(len(chosen)), [model.blocks[at].attn.W_O.shape[0] for at, _ in chosen]
    pairs = [(a, b) for a in every for b in every]
    values = [fits(z[b], a, b) for a, b in pairs]
    values += [fits.mean[a].expand(z[a].shape) for a in every]
    replaced = [a for a, _ in pairs] + list(every)
    cells = [
        _cell(chosen[a], value.to(z.dtype), z[a], widths[a])
        for a, value in zip(replaced, values, strict=True)
    ]
    found = effects.exact(
        model, measured_on, cells, metrics=[metric], memory=memory, keep=keep, seed=seed
    )
    explained = fits.explained(_tokens(model, measured_on.clean, chosen, batch_size))
    return _result(model, task, chosen, found, explained, metric=metric, seed=seed)


@dataclass(frozen=True, eq=False)
class _Fits:
    """Linear maps from every head's z to every other's, and means."""

    map: Float[Tensor, "other head d_in d_out"]
    mean: Float[Tensor, "head d_head"]

    def __call__(self, z: Float[Tensor, "*tokens d_in"], a: int, b: int) -> Tensor:
        return self.mean[a] + (z.double() - self.mean[b]) @ self.map[b, a]

    def explained(self, z: Float[Tensor, "head token d_head"]) -> Float[Tensor, "head other"]:
        """The share of each head's variance that every fit explains, here: it may be negative."""
        whole = (z - z.mean(1, keepdim=True)).square().sum((1, 2))
        whole = torch.where(whole > 0, whole, torch.nan)
        left = [[(z[a] - self(z[b], a, b)).square().sum() for b in range(len(z))] for a in
                range(len(z))]  # fmt: skip
        return 1 - torch.tensor(left, dtype=torch.double) / whole[:, None].cpu()


def _fits(z: Float[Tensor, "head token d_head"]) -> _Fits:
    heads, tokens, width = z.shape
    if tokens < 2 * width:
        raise ValueError(
            f"a fit of {width} numbers from {width} has {tokens} tokens to learn from, at least "
            f"{2 * width} are needed: give more prompts"
        )
    mean = z.mean(1)
    inner = z - mean[:, None]
    wanted = rearrange(inner, "head token d -> token (head d)")
    maps = torch.stack([_ridge(one, wanted, heads) for one in inner])
    return _Fits(rearrange(maps, "other e (head d) -> other head e d", head=heads), mean)


def _ridge(
    known: Float[Tensor, "token d_in"], wanted: Float[Tensor, "token out"], heads: int
) -> Float[Tensor, "d_in out"]:
    """Least squares, shrunk for each wanted head as generalised cross-validation says.

    Golub, Heath & Wahba 1979; without it 64 directions fit a few hundred tokens too well.
    """
    u, s, vt = torch.linalg.svd(known, full_matrices=False)
    kept = s > 1e-6 * s.max().clamp(min=1e-300)
    u, s, vt = u[:, kept], s[kept], vt[kept]
    seen = u.T @ wanted
    outside = wanted.square().sum(0) - seen.square().sum(0)
    best, chosen = torch.full((heads,), torch.inf, dtype=known.dtype), torch.zeros(heads)
    for at, shrink in enumerate(_SHRINKS):
        left = shrink / (s.square() / s.square().mean() + shrink) if len(s) else s
        error = (left[:, None] * seen).square().sum(0) + outside
        free = len(known) - 1 - float((1 - left).sum())
        score = rearrange(error, "(head d) -> head d", head=heads).sum(1).cpu() / max(free, 1) ** 2
        chosen, best = torch.where(score < best, float(at), chosen), torch.minimum(score, best)
    shrinks = torch.tensor(_SHRINKS, dtype=known.dtype)[chosen.long()].to(known.device)
    shrinks = shrinks.repeat_interleave(wanted.shape[1] // heads)
    relative = s.square() / s.square().mean()
    factor = relative[:, None] / (relative[:, None] + shrinks)
    return vt.T @ (factor * seen / s[:, None])


def _cell(
    head: Head,
    value: Float[Tensor, "batch pos d_head"],
    clean: Float[Tensor, "batch pos d_head"],
    width: int,
) -> dict[Site, edits.Edit]:
    """The edit that puts `value` in the head's place, but for first tokens."""
    layer, number = head
    value = torch.cat([clean[:, :1], value[:, 1:]], dim=1)
    whole = value[:, :, None].expand(-1, -1, width, -1)  # a view: only this head's is written
    return {Site("z", layer): edits.replace(whole, heads=[number])}


def _tokens(
    model: HookedModel, prompts: Prompts, heads: list[Head], batch_size: int
) -> Float[Tensor, "head token d_head"]:
    """z at every real token but the first ones."""
    found = []
    for seen in _seen(model, prompts, heads, batch_size):
        real = seen.prompts.mask.bool()
        real[:, 0] = False
        found.append(torch.stack([one[real] for one in _z(model, seen, heads)]))
    return torch.cat(found, dim=1).double()


def _whole(
    model: HookedModel, prompts: Prompts, heads: list[Head], batch_size: int
) -> Float[Tensor, "head batch pos d_head"]:
    """z at every position, padding included."""
    parts = []
    for seen in _seen(model, prompts, heads, batch_size):
        z = torch.stack(_z(model, seen, heads))
        missing = prompts.tokens.shape[1] - z.shape[2]
        parts.append(torch.nn.functional.pad(z, (0, 0, 0, missing)))
    return torch.cat(parts, dim=1)


def _z(
    model: HookedModel, seen: Activations, heads: list[Head]
) -> list[Float[Tensor, "batch pos d_head"]]:
    return [seen[Site("z", head[0])][:, :, column(model, head)] for head in heads]


def _seen(
    model: HookedModel, prompts: Prompts, heads: list[Head], batch_size: int
) -> "list[Activations]":
    layers = sorted({layer for layer, _ in heads})
    wanted = [Site("z", layer) for layer in layers]
    return list(capture_batches(model, prompts.batches(batch_size), wanted))


def _result(
    model: HookedModel,
    task: Task,
    heads: list[Head],
    found: effects.Effects,
    explained: Float[Tensor, "head other"],
    *,
    metric: Metric,
    seed: int,
) -> Substitution:
    size = len(heads)
    effect = found.effect[0].double()
    per_prompt = effect[: size * size].reshape(size, size, -1)
    by_mean = effect[size * size :]
    bounds = statistics.bounds(per_prompt, seed=seed)
    test = statistics.permutation_test(per_prompt - by_mean[:, None], seed=seed)
    return Substitution(
        effect=per_prompt.mean(2).float(),
        low=bounds.low.float(),
        high=bounds.high.float(),
        p=test.corrected.float(),
        by_mean=by_mean.mean(1).float(),
        explained=explained.float(),
        per_prompt=per_prompt.float(),
        baseline=found.baseline[0],
        heads=heads,
        names=[named(one) for one in heads],
        metric=metric.name,
        unit=metric.unit,
        task=task.name,
        task_digest=task.digest,
        **of_model(model),
    )
