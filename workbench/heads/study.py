"""All that is known about which heads of a model stand in for each other, on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hooks import Prompts
from workbench import metrics
from workbench.heads.ablation import Ablation, HeadEffects, ablate_each
from workbench.heads.backups import Backups, backups
from workbench.heads.candidates import candidates
from workbench.heads.clusters import Clusters, cluster_alike, cluster_redundant
from workbench.heads.costs import Costs, costs
from workbench.heads.curves import PruningCurve, curve
from workbench.heads.kinds import HeadTypes, types
from workbench.heads.likeness import HeadSimilarity, similarity
from workbench.heads.looking import looks
from workbench.heads.naming import Head, named
from workbench.heads.orders import keeping
from workbench.heads.pruning import prune
from workbench.heads.pruning_study import affordable, listed
from workbench.heads.redundancy import Redundancy, redundancy
from workbench.heads.self_repair import SelfRepair, self_repair
from workbench.heads.texts import check_text
from workbench.metrics import Metric
from workbench.models import Model, surgery
from workbench.results import Result
from workbench.tasks import Task

_ALLOWED = 0.1
_WORKING = ("name mover", "negative name mover", "S-inhibition", "induction", "duplicate token")


@dataclass(frozen=True, eq=False)
class HeadRedundancy(Result):
    """Which heads a task needs, which stand in for each other, and what can go.

    alone        what each head costs alone (negative: it was helping)
    types        what kind of head each one is
    alike        how alike any two heads attend and write
    pairs        what pairs of the candidates cost beyond the sum (negative: they stand in)
    clusters     the candidates, grouped by that
    takes_over   who takes over when the most important head is gone
    repair       how much of what candidates wrote into the answer comes back without them
    curve        what is left as heads are removed in several orders
    goes         heads of the best order, as many as cost less than a tenth of the unit by the
                 bounds (the smallest share measured where none does)
    costs        what removing these for real leaves of parameters, operations and time; None for
                 an architecture that heads cannot be removed from
    pattern      what the heads that are named here attend to in the first prompt, to be looked at;
                 `shown` says which they are
    """

    alone: HeadEffects
    types: HeadTypes
    alike: HeadSimilarity
    pairs: Redundancy
    clusters: Clusters
    takes_over: Backups
    repair: SelfRepair
    curve: PruningCurve
    costs: Costs | None
    goes: list[Head]
    candidates: list[Head]
    reasons: list[str]
    pattern: Float[Tensor, "shown query key"] = field(
        metadata={"means": "attention of the heads that are named, in the first prompt"}
    )
    shown: list[Head]
    words: list[str] = field(metadata={"axis": "key"})
    task: str
    task_digest: str
    model: str
    model_digest: str

    def sentence(self) -> str:
        """What was found, a line for each of the parts."""
        parts = (
            self.alone, self.types, self.alike, self.pairs, self.clusters, self.takes_over,
            self.repair, self.curve, self.costs,
        )  # fmt: skip
        texts = [
            part.sentence().removesuffix(getattr(part, "caveat", "")).strip()
            for part in parts
            if part is not None
        ]
        return "\n".join([*texts, self.repair.caveat]).strip()

    def headline(self) -> dict[str, Any]:
        """How many heads matter alone, how many pairs stand in, and what can go."""
        return {
            "significant_alone": len(self.alone.significant()),
            "typed": len({head for some in self.types.named().values() for head in some}),
            "pairs": len(self.pairs.significant()),
            "backups": len(self.takes_over.found()),
            **self.clusters.headline(),
            "removable": self.curve.headline()["share_for_0.1"],
        }

    def table(self) -> str:
        """Heads of each kind, candidates and why they are, what could go, what that costs."""
        kinds = [", ".join(self.types.types_of(head)) or "-" for head in self.candidates]
        width = max(map(len, [*kinds, "type"])) + 2
        lines = [f"{'head':<8}{'alone':>8}  {'type':<{width}}why it was looked at"]
        for head, kind, reason in zip(self.candidates, kinds, self.reasons, strict=True):
            effect = float(self.alone.effect[head])
            lines.append(f"{named(head):<8}{effect:>+8.2f}  {kind:<{width}}{reason}")
        cut = ", ".join(map(named, self.clusters.keep_one())) or "none"
        lines += ["", f"Could go, one of each cluster kept: {cut}", "", self._kinds(), ""]
        lines += [f"{one}\n{self.curve.table(one)}\n" for one in self.curve.measures]
        if self.costs is not None:
            lines += [f"removed to see what it saves\n{listed(self.goes)}", "", self.costs.table()]
        return "\n".join(lines)

    def _kinds(self, most: int = 4) -> str:
        """The strongest heads of each kind with their corrected p-values."""
        lines = [f"{'kind':<22}heads (corrected p)"]
        for kind, those in self.types.named().items():
            p = self.types.p[self.types.types.index(kind)]
            said = [f"{named(head)} ({float(p[head]):.4f})" for head in those[:most]]
            more = f", {len(those) - most} more" if len(those) > most else ""
            lines.append(f"{kind:<22}{', '.join(said) or 'none'}{more}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Extent:
    """How much work goes into each part of the page; every number is a number of runs.

    candidates   heads by importance whose pairs are ablated, besides those of a known kind and
                 those most similar to them
    of_a_type    heads of each type that moves or copies tokens which are candidates too
    compared     prompts whose attention and outputs are compared
    typed        prompts of random tokens that types are told by
    repaired     heads whose self-repair is measured
    steps        heads that the search for backups may find
    shares       shares of all heads at which the curve is measured
    draws        random orders of the curve
    """

    candidates: int = 4
    of_a_type: int = 1
    compared: int = 8
    typed: int = 16
    repaired: int = 4
    steps: int = 1
    shares: tuple[float, ...] = (0.1, 0.25, 0.5)
    draws: int = 5


def study_redundancy(
    model: Model,
    task: Task,
    *,
    metric: Metric = metrics.logit_diff,
    text: Prompts | None = None,
    ablation: Ablation = "mean",
    kinds: Mapping[str, Sequence[Head]] | None = None,
    extent: Extent | None = None,
    seed: int = 0,
) -> HeadRedundancy:
    """Every view of this room on one model and task.

    Half of the prompts say which heads matter and in which order they go, the other half measure
    the curve. Pairs are ablated of the heads that cost most alone, of those most similar to
    them, of the strongest of each type, and of those in `kinds` (what heads are -> those heads):
    heads that are perfectly backed up cost nothing alone. The search for backups is among those
    and all heads of layers after the most important one's.
    """
    check_text(text, ablation)
    extent = extent or Extent()
    half = len(task) // 2
    train, test = task[:half], task[half:]
    alone = ablate_each(model, train, metric=metric, ablation=ablation, seed=seed)
    order = alone.least_helpful(alone.effect.numel())
    helpful = alone.most_helpful(extent.candidates)
    kind = types(model, train, prompts=extent.typed, seed=seed)
    alike = similarity(model, train[: extent.compared], seed=seed)
    chosen = candidates(
        helpful, n=len(helpful), alike={**(kinds or {}), **_typed(kind, extent.of_a_type)},
        similarity=alike.alike("output"), of=alike.heads,
    )  # fmt: skip
    pairs = redundancy(model, train, chosen.heads, metric=metric, ablation=ablation, seed=seed)
    clusters = cluster_redundant(pairs, seed=seed)
    first = helpful[0]
    later = [head for head in sorted(order) if head[0] > first[0]]
    among = sorted({*chosen.heads, *later} - {first})
    takes_over = backups(
        model, task, first, metric=metric, ablation=ablation, among=among, most=extent.steps,
        seed=seed,
    )  # fmt: skip
    repair = self_repair(
        model, train, chosen.heads[: extent.repaired], ablation=ablation, seed=seed
    )
    orders = {
        "importance": order,
        "one of each cluster": keeping(clusters.kept(), order),
        "one of each alike": keeping(cluster_alike(alike, alone).kept(), order),
    }
    found = curve(
        model, test, orders, measures=(metric,), text=text, removal=ablation,
        shares=extent.shares, draws=extent.draws, seed=seed,
    )  # fmt: skip
    goes = affordable(found, orders, allowed=_ALLOWED).heads
    saved = None
    if surgery.can_cut(model.original_model):
        saved = costs(model, prune(model, goes), batch_sizes=(1,), rounds=3, seed=seed)
    shown = sorted({*chosen.heads, *takes_over.heads, *kind.shown})
    seen = looks(model, task.clean[0], shown)
    return HeadRedundancy(
        alone, kind, alike, pairs, clusters, takes_over, repair, found, saved, goes=goes,
        candidates=chosen.heads, reasons=chosen.reasons, **seen._asdict(), shown=shown,
        task=task.name, task_digest=task.digest, model=alone.model,
        model_digest=alone.model_digest,
    )  # fmt: skip


def _typed(found: HeadTypes, count: int) -> dict[str, list[Head]]:
    """The strongest heads of the types whose heads do a task's work."""
    there = found.named()
    return {kind: there[kind][:count] for kind in _WORKING if there.get(kind)}
