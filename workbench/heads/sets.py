"""Sets of heads, and the edits that ablate them all at once."""

from collections.abc import Callable, Iterable, Sequence

from hooks import Edit, HookedModel, Positions, Site, edits
from hooks.replay import Cell
from workbench.effects import Source, mean_over, values
from workbench.effects.sources import Kind
from workbench.tasks import Task

Head = tuple[int, int]
"""(layer, head), both counted from zero."""


def every(model: HookedModel) -> list[Head]:
    """All heads of the model, layer by layer."""
    return [(layer, head) for layer in range(model.cfg.n_layers) for head in range(_heads(model))]


def checked(model: HookedModel, heads: Iterable[Head], *, least: int = 1) -> list[Head]:
    """These heads, or an error that names one that is not there or is there twice."""
    listed = [(int(layer), int(head)) for layer, head in heads]
    for layer, head in listed:
        if not (0 <= layer < model.cfg.n_layers and 0 <= head < _heads(model)):
            raise ValueError(
                f"there is no head {layer}.{head}: the model has layers 0 to "
                f"{model.cfg.n_layers - 1} with heads 0 to {_heads(model) - 1}"
            )
    twice = [one for at, one in enumerate(listed) if one in listed[:at]]
    if twice:
        raise ValueError(f"head {named(twice[0])} was given twice: give each head once")
    if len(listed) < least:
        raise ValueError(f"{len(listed)} heads were given: this takes at least {least}")
    return listed


def named(*heads: Head) -> str:
    """Heads as they are written: "5.3", and several joined by "+"."""
    return "+".join(f"{layer}.{head}" for layer, head in heads)


def cells(
    model: HookedModel,
    task: Task,
    sets: Sequence[Sequence[Head]],
    *,
    ablation: Source | Kind = "zero",
    positions: Positions | None = None,
) -> list[Cell]:
    """For each set of heads the edits that ablate all of them in the task's clean prompts.

    What is put in their place is what `effects.Source` says: "zero" nothing, "mean" the mean over
    the corrupt prompts' tokens but the first ones, "counterfactual" what the corrupt prompt has.
    """
    layers = sorted({layer for some in sets for layer, _ in some})
    write = _writer(model, task, [Site("z", layer) for layer in layers], Source.of(ablation))
    return [
        {site: write(site, heads, positions) for site, heads in _by_site(some).items()}
        for some in sets
    ]


def _by_site(some: Sequence[Head]) -> dict[Site, list[int]]:
    found: dict[Site, list[int]] = {}
    for layer, head in sorted(some):
        found.setdefault(Site("z", layer), []).append(head)
    return found


def _writer(
    model: HookedModel, task: Task, sites: Sequence[Site], source: Source
) -> Callable[[Site, list[int], Positions | None], Edit]:
    """From a site, heads and positions to the edit that ablates them there."""
    if source.kind == "zero":
        return lambda _, heads, at: edits.zero(heads=heads, positions=at)
    if source.kind == "mean":
        over = task.corrupt if source.over is None else source.over
        means = mean_over(model, over, sites)
        return lambda site, heads, at: edits.mean(means[site], heads=heads, positions=at)
    put = values(model, task, sites, source=source)
    return lambda site, heads, at: edits.replace(put[site], heads=heads, positions=at)


def _heads(model: HookedModel) -> int:
    return int(model.cfg.n_heads)
