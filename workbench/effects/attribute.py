"""What replacing each node would do, estimated from gradients: every node from a few passes.

An effect is a change of the metric when one node alone is replaced by what another run has
there. To first order it is (replacement - activation) . gradient (attribution patching, Nanda
2023, https://www.neelnanda.io/mechanistic-interpretability/attribution-patching; Kramár et al.
2024, https://arxiv.org/abs/2403.00745), so one pass forward and back estimates all of them.
Estimates find candidates; `hooks.intervening` says what an effect is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor
from tqdm.auto import tqdm

from hooks import Gradients, HookedModel, Site
from hooks.sites import check_writable
from workbench.effects import softmax
from workbench.effects.attribution import Attribution, Part, gathered
from workbench.effects.integrated import Integrated, conducted, integrated
from workbench.effects.nodes import ON_THE_STREAM, check_summed, per_node
from workbench.effects.pair import Pair, Replacement, Run
from workbench.effects.sources import Kind, Source, values
from workbench.metrics import Metric
from workbench.tasks import Task

Local = Literal["gradient", "exact softmax"]


def attribute(
    model: HookedModel,
    task: Task,
    sites: Iterable[Site],
    *,
    metric: Metric,
    at: Run = "clean",
    method: Local | Integrated = "gradient",
    source: Source | Kind | Mapping[Site, Tensor] = "counterfactual",
    summed: Sequence[str] = (),
    batch_size: int = 32,
) -> Attribution:
    """The effect of replacing each node of `sites` alone, estimated, for every prompt.

    at           "clean": nodes of the clean run are replaced by the corrupt run's, and gradients
                 are the clean run's (noising, as in Kramár et al.). "corrupt": the other way
                 round (denoising, as TransformerLens's `attribution_patch`).
    method       "gradient": to first order. "exact softmax": queries and keys through the softmax
                 as it is, which first order misses where attention is saturated (the QK fix of
                 AtP*); other sites as by "gradient". `Integrated(...)`: along a path.
    source       what nodes are replaced by (`effects.Source`): "counterfactual" is the other run's
                 activation. Or site -> tensor that broadcasts to the activation, with or without a
                 row for each prompt of the task.
    summed       axes along which nodes are replaced together, such as ("pos",). All others tell
                 nodes apart: pos, head, neuron; query and key for attention.

    A node is a vector over d_model or d_head, or one neuron. Keys and values are per key-value
    head. Any metric will do that has a slope at the run.
    """
    wanted = _checked(model, sites, at=at, summed=summed)
    pair = Pair(model, task, metric, at, _replacement(model, task, wanted, source=source, at=at))
    if isinstance(method, Integrated):
        if method.path == "inputs" and pair.replacement != "counterfactual":
            raise ValueError('path="inputs" leads to the other run: leave source out')
        done = [
            integrated(one, wanted, method=method, summed=summed)
            for one in pair.batches(batch_size)
        ]
    else:
        done = []
        for one in pair.batches(batch_size):
            estimates = _Estimates(one, wanted, method, summed)
            found = one.gradients(estimates.reads)
            done.append(Part.of(estimates(found), found.measured))
    return gathered(pair, done, method=str(method), source=source, summed=summed)


def grad_drop(
    model: HookedModel,
    task: Task,
    sites: Iterable[Site],
    *,
    metric: Metric,
    at: Run = "clean",
    method: Local = "gradient",
    source: Source | Kind | Mapping[Site, Tensor] = "counterfactual",
    summed: Sequence[str] = (),
    batch_size: int = 32,
) -> Attribution:
    """How much each node may matter where effects cancel: a score of at least 0, no effect.

    A node whose direct effect is undone by a later layer has a gradient near 0. So the estimate
    of `attribute` is made once for each layer, with what that layer adds held fixed, and the mean
    of its absolute values is taken (GradDrop of AtP*). A node inside a layer has no estimate
    without that layer, which is left out of its mean. One pass back for each layer.
    """
    wanted = _checked(model, sites, at=at, summed=summed)
    pair = Pair(model, task, metric, at, _replacement(model, task, wanted, source=source, at=at))
    layers = model.cfg.n_layers
    if layers < 2:
        raise ValueError(f"grad_drop holds one layer fixed at a time; this model has {layers}")
    done = []
    for one in pair.batches(batch_size):
        estimates, values = _Estimates(one, wanted, method, summed), None
        total: dict[Site, Tensor] = {}
        each = one.gradients_without_each_layer(estimates.reads)
        for found in tqdm(each, desc="dropping layers", total=layers, mininterval=0.5):
            values = found.measured
            for site, estimate in estimates(found).items():
                size = estimate.abs()
                total[site] = total[site] + size if site in total else size
        assert values is not None
        count = {site: layers - (site.stream not in ON_THE_STREAM) for site in wanted}
        done.append(Part.of({site: total[site] / count[site] for site in wanted}, values))
    return gathered(pair, done, method=f"GradDrop of {method}", source=source, summed=summed)


def conductance(
    model: HookedModel,
    task: Task,
    sites: Iterable[Site],
    *,
    metric: Metric,
    at: Run = "clean",
    steps: int = 16,
    summed: Sequence[str] = (),
    batch_size: int = 32,
) -> Attribution:
    """What part of the difference between the runs goes through each node; no effect of its own.

    The token embeddings are moved from the run `at` to the other one in `steps` equal steps, and
    every change of a node is multiplied with the gradient there (Dhamdhere et al. 2019). The
    nodes of a site that everything goes through, such as one layer's `resid_post`, sum to the
    difference of the metric; the gap is reported there. A pass for each step, all sites at once.
    """
    wanted = _checked(model, sites, at=at, summed=summed)
    pair = Pair(model, task, metric, at)
    done = [conducted(one, wanted, steps=steps, summed=summed) for one in pair.batches(batch_size)]
    return gathered(
        pair, done, method=f"conductance, {steps} steps", source="counterfactual", summed=summed
    )


def _replacement(
    model: HookedModel,
    task: Task,
    sites: Sequence[Site],
    *,
    source: Source | Kind | Mapping[Site, Tensor],
    at: Run,
) -> Replacement:
    """What each pair of a batch can find by itself, or tensors over the whole task."""
    if isinstance(source, Mapping):
        return source
    source = Source.of(source)
    if source.kind == "counterfactual" or source.kind == "zero":
        return source.kind
    return values(model, task, sites, source=source, run=at)


@dataclass(eq=False)
class _Estimates:
    """From gradients of one batch to its estimates; what replaces the nodes is read only once."""

    pair: Pair
    sites: Sequence[Site]
    method: str
    summed: Sequence[str]
    changes: dict[Site, Tensor] = field(default_factory=dict)
    estimators: dict[Site, softmax.Estimator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in get_args(Local):
            raise ValueError(
                f"no method {self.method!r}; there are {', '.join(get_args(Local))} "
                "and, for attribute, Integrated(...)"
            )
        softmax.check_sites(self.pair.model, self.through_softmax, self.summed)

    @property
    def through_softmax(self) -> list[Site]:
        """The queries and keys whose attention is recomputed."""
        streams = softmax.QUERIES | softmax.KEYS if self.method == "exact softmax" else ()
        return [site for site in self.sites if site.stream in streams]

    @property
    def reads(self) -> list[Site]:
        """The sites whose gradients are needed."""
        return [*self.sites, *map(softmax.pattern_of, self.through_softmax)]

    def __call__(self, found: Gradients) -> dict[Site, Tensor]:
        """(batch, *nodes) for each site."""
        if not self.changes:
            self._prepare(found)
        return {
            site: self.estimators[site](found[softmax.pattern_of(site)])
            if site in self.estimators
            else per_node(self.changes[site] * found[site], site, self.summed)
            for site in self.sites
        }

    def _prepare(self, found: Gradients) -> None:
        pair, chosen = self.pair, self.through_softmax
        here = {site: found.activations[site] for site in self.sites}
        self.changes = pair.changes(here)
        if chosen:
            targets = {site: here[site] + self.changes[site] for site in chosen}
            self.estimators = softmax.estimators(
                pair.model, pair.base, targets, found.activations, summed=self.summed
            )


def _checked(
    model: HookedModel, sites: Iterable[Site], *, at: str, summed: Sequence[str]
) -> list[Site]:
    """The sites without repetition, or an error before anything is run."""
    wanted = list(dict.fromkeys(sites))
    if not wanted:
        raise ValueError("nothing to attribute to: name at least one site, such as Site('z', 5)")
    if at not in get_args(Run):
        raise ValueError(f'at={at!r}: gradients are taken at the "clean" or the "corrupt" run')
    for site in wanted:
        check_writable(model, site)
    check_summed(wanted, summed)
    return wanted
