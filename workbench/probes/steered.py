"""Does the direction that a study reads steer the model, more than random ones as long do?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, Site, capture
from hooks.sites import Stream
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.probes.examples import Examples
from workbench.probes.placebos import Placebos
from workbench.probes.report import ProbeStudy
from workbench.probes.use import Push
from workbench.tasks import Task, provenance


def steered(
    study: ProbeStudy,
    model: HookedModel,
    task: Task,
    examples: Examples,
    *,
    metric: Metric,
    positions: Int[Tensor, " batch"],
    layers: Sequence[int],
    against: Placebos = Placebos("norm", 39),  # noqa: B008
    seed: int = 0,
) -> ProbeStudy:
    """The study, with what pushing along the label's direction does to a metric in some layers.

    The push is from the mean of class 0 to that of class 1 of `examples` (two classes), in the
    stream that they are of, at `positions` of the clean prompts and one layer at a time (Marks &
    Tegmark 2023). None of the examples may be one of these prompts. Random pushes are as long.
    """
    stream = _check(study, examples, layers)
    _check_prompts(model, task, examples, Site(stream, max(layers)), positions)
    generator = statistics.derive(seed, "steered")
    cells = []
    for layer in layers:
        x = examples.x[examples.row(layer)]
        way = x[examples.y == 1].mean(dim=0) - x[examples.y == 0].mean(dim=0)
        others = against.directions(against.count, x, generator=generator)
        others = (others * way.double().norm().cpu()).to(way)
        cells += [
            {Site(stream, layer): Push(one).edit(positions=positions)} for one in (way, *others)
        ]
    found = effects.exact(model, task, cells, metrics=[metric], check=1, seed=seed)
    every = found.effect[0].reshape(len(layers), against.count + 1, len(task))
    effect, low, high = statistics.bounds(every[:, 0], seed=seed)
    placebo = every[:, 1:].double().mean(dim=2)
    p = statistics.placebo_test(effect, placebo).corrected
    places = [study.layers.index(layer) for layer in layers]
    return replace(
        study,
        steer=_spread(effect, places, study),
        steer_low=_spread(low, places, study),
        steer_high=_spread(high, places, study),
        steer_p=_spread(p, places, study),
        steer_placebo=_spread(placebo, places, study),
        steered=f"{metric.name} ({metric.unit}) on {task.name}",
    )


def _spread(
    values: Float[Tensor, "..."], places: list[int], study: ProbeStudy
) -> Float[Tensor, "..."]:
    """By layer of the study, NaN in those that were not steered."""
    full = torch.full((len(study.layers), *values.shape[1:]), torch.nan)
    full[places] = values.float().cpu()
    return full


def _check(study: ProbeStudy, examples: Examples, layers: Sequence[int]) -> Stream:
    """Refused: what the study does not speak of. The stream that is to be pushed."""
    if examples.classes != 2:
        raise ValueError(
            f"{examples.classes} classes: the direction is from one class to the other, so steer "
            "with examples of two"
        )
    examples.check_one_position("steering")
    for name, there in (("study", study.layers), ("examples", examples.layers)):
        missing = [layer for layer in layers if layer not in there]
        if missing or not layers:
            raise ValueError(
                f"layers {list(layers)} to steer, but the {name} has {list(there)}: name some of "
                "those"
            )
    if not examples.stream or examples.stream != study.stream:
        raise ValueError(
            f"examples of {examples.stream or 'no known stream'} to steer by, a study of "
            f"{study.stream or 'no known stream'}: take both from `features`, of one stream"
        )
    if examples.model_digest != study.model_digest:
        raise ValueError(
            f"examples of {examples.model or 'no model'}, a study of {study.model}: take both from "
            "the model that is steered"
        )
    stream = cast(Stream, examples.stream)
    axes = Site(stream, 0).axes
    if axes != ("batch", "pos", "d_model"):
        raise ValueError(
            f"{stream} is {' x '.join(axes)}: a push is a vector at each position, such as of "
            "resid_post"
        )
    return stream


def _check_prompts(
    model: HookedModel,
    task: Task,
    examples: Examples,
    site: Site,
    positions: Int[Tensor, " batch"],
) -> None:
    """Refused by its row: a prompt that the direction was learned from; another model's examples.

    Equal activations, at the last of the layers, are those of the same tokens up to there.
    """
    origin = provenance.of_model(model)
    if examples.model_digest != origin["model_digest"]:
        raise ValueError(
            f"the examples are of {examples.model or 'no model'}, to steer {origin['model']}: take "
            "them from the model that is steered"
        )
    x, size = examples.x[examples.row(site.layer)].double(), 32
    for rows in torch.arange(len(task)).split(size):
        seen = capture(model, task.clean[rows], [site], positions=positions[rows])[site][:, 0]
        same = torch.cdist(seen.to(x), x) < 1e-5 * x.norm(dim=1)
        if bool(same.any()):
            prompt, example = same.nonzero()[0].tolist()
            raise ValueError(
                f"prompt {int(rows[prompt])} of {task.name} is example {example} up to where it "
                "is pushed: learn the direction from other prompts"
            )
