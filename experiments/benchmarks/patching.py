"""How much faster is an exact sweep than TransformerLens's, and how does its time grow?

Compares, in one process and in turn, `effects.exact` with `transformer_lens.patching` on the same
bridge and the same replacements:
    residual   resid_pre, all layers × positions, prompts that differ in the repeated name (IOI)
    dense      the same, between prompts that differ at every position
    heads      z of every head at all positions, IOI
Ours is timed as a whole, with both recorded passes, its bounds-free effects and its self-check.
TransformerLens's cells all cost the same, so evenly spaced ones are timed and scaled to the
sweep; `max_error` is the largest difference of the metric in those cells, in nats.

Last, one circuit of a GPT-2-shaped random model against theirs (see `benchmarks.edges`).

    python -m experiments.benchmarks.patching
    python -m experiments.benchmarks.patching --growth yes     # also draws the growth of time
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd
import torch
import transformers
import tyro
from matplotlib.figure import Figure
from transformer_lens import patching as theirs

from experiments.benchmarks import edges, stopwatch
from hooks import Prompts, Site, capture, sites
from hooks import edits as writing
from hooks.replay import Cell
from hooks.sites import Stream
from workbench import effects, metrics, models, tasks
from workbench.models import tiny
from workbench.tasks import Task


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    model: str = "smollm2-135m"
    prompts: int = 8
    tokens: int = 14
    rounds: int = 3
    naive_cells: int = 12  # timed for TransformerLens in every round
    edges: Literal["no", "yes"] = "yes"
    growth: Literal["no", "yes"] = "no"
    figure: Path = Path("patching-growth.png")
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Sweep:
    """One comparison: what is swept, by our cells and by their setter and index."""

    task: Task
    stream: Stream
    over: Literal["position", "head"]

    def places(self, model: Any) -> list[tuple[int, int]]:
        """(layer, position or head) of every cell."""
        width = self.task.clean.tokens.shape[1] if self.over == "position" else model.cfg.n_heads
        return [(layer, at) for layer in range(model.cfg.n_layers) for at in range(width)]

    def ours(self, model: Any) -> effects.Effects:
        """The whole sweep, the source's pass included."""
        seen = capture(model, self.task.clean, sites.all(model, self.stream))
        cells: list[Cell] = []
        for layer, at in self.places(model):
            site = Site(self.stream, layer)
            where = {"positions": at} if self.over == "position" else {"heads": [at]}
            cells.append({site: writing.replace(seen[site], **where)})  # pyright: ignore
        return effects.exact(model, self.task, cells, metrics=[metrics.logit_diff], run="corrupt")

    def theirs(self, model: Any, cells: int) -> torch.Tensor:
        """Evenly spaced cells, one forward pass each."""
        seen = capture(model, self.task.clean, sites.all(model, self.stream))
        cache: Any = {site.hook_name: seen[site] for site in seen}
        setter = {
            "position": theirs.layer_pos_patch_setter,
            "head": theirs.layer_head_vector_patch_setter,
        }[self.over]
        name = {"resid_pre": "resid_pre", "z": "z"}[self.stream]
        places = self.places(model)
        chosen = [places[index] for index in self.sampled(model, cells)]
        return theirs.generic_activation_patch(
            model, self.task.corrupt.tokens, cache,
            lambda logits: metrics.logit_diff(logits, self.task, self.task.corrupt).mean(),
            patch_setter=setter, activation_name=name,
            index_df=pd.DataFrame(chosen, columns=["layer", self.over]),
        )  # fmt: skip

    def sampled(self, model: Any, cells: int) -> list[int]:
        """Which cells are timed for TransformerLens."""
        total = len(self.places(model))
        return [round(index * (total - 1) / (cells - 1)) for index in range(cells)]


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    model: Any = models.load(config.model)
    ioi = _ioi(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    other = torch.randint(100, model.cfg.d_vocab - 1, ioi.clean.tokens.shape, generator=generator)
    dense = replace(ioi, corrupt=Prompts.of(other))
    figures: dict[str, Any] = {}
    errors = []
    for name, sweep in {
        "residual": Sweep(ioi, "resid_pre", "position"),
        "dense": Sweep(dense, "resid_pre", "position"),
        "heads": Sweep(ioi, "z", "head"),
    }.items():
        found, error = _compare(name, model, sweep, config)
        figures |= found
        errors.append(error)
    figures["max_error"] = max(errors)
    figures["peak_gb"] = stopwatch.peak_gb()
    if config.edges == "yes":
        found = edges.measured(edges.Config(rounds=1, seed=config.seed))
        figures |= {name: found[name] for name in ("edge_ratio", "edge_error", "recovered")}
    figures["threads"] = torch.get_num_threads()
    if config.growth == "yes":
        _draw_growth(model, config)
    print(json.dumps(figures))


def _ioi(model: Any, config: Config) -> Task:
    """IOI prompts of exactly the wished length."""
    task = tasks.ioi(model, prompts=16 * config.prompts, seed=config.seed)
    rows = (task.clean.lengths == config.tokens).nonzero()[:, 0][: config.prompts]
    if len(rows) < config.prompts:
        lengths = sorted(set(task.clean.lengths.tolist()))
        raise ValueError(f"{len(rows)} prompts of {config.tokens} tokens; there are {lengths}")
    return task[rows]


def _compare(name: str, model: Any, sweep: Sweep, config: Config) -> tuple[dict[str, Any], float]:
    total = len(sweep.places(model))
    kept: dict[str, Any] = {}

    def keep(what: str, way: Callable[[], object]) -> Callable[[], None]:
        def timed() -> None:
            kept[what] = way()

        return timed

    with torch.no_grad():
        taken = stopwatch.alternate(
            {
                "ours": keep("ours", lambda: sweep.ours(model)),
                "theirs": keep("theirs", lambda: sweep.theirs(model, config.naive_cells)),
            },
            rounds=config.rounds,
        )
    scale = total / config.naive_cells
    scaled = {**taken, "theirs": [seconds * scale for seconds in taken["theirs"]]}
    middle, low, high = stopwatch.ratio(scaled, "theirs", "ours")
    chosen = sweep.sampled(model, config.naive_cells)
    error = (kept["ours"].values[0, chosen].mean(dim=1) - kept["theirs"]).abs().max()
    print(
        f"{name}: {total} cells, ours {median(taken['ours']):.2f} s; TransformerLens "
        f"{median(scaled['theirs']):.1f} s, scaled from {config.naive_cells} cells; ratio "
        f"{middle} [{low}, {high}], {config.rounds} rounds; largest difference {error:.1e} nats"
    )
    return {f"{name}_ratio": middle, f"{name}_ratio_range": [low, high]}, float(error)


def _draw_growth(model: Any, config: Config) -> None:
    """Seconds of the sweep against each size, the others kept; a dashed line grows like it."""
    measured = {
        "prompts": _growth((1, 2, 4, 8, 16), lambda n: (model, _induction(model, n, 14))),
        "tokens": _growth((7, 14, 28, 56), lambda n: (model, _induction(model, 2, n))),
        "layers": _growth((4, 8, 16, 32), _of_depth),
        "cells": _growth(
            (30, 60, 120, 240, 420), lambda n: (model, _induction(model, 2, 14)), n_is="cells"
        ),
    }
    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, 4), measured.items(), strict=True):
        sizes, seconds = zip(*points, strict=True)
        axes.loglog(sizes, seconds, "o-", color="#2166ac", label="measured")
        line = [seconds[0] * size / sizes[0] for size in sizes]
        axes.loglog(sizes, line, "--", color="#6b6b6b", label="proportional")
        axes.set(xlabel=name, ylabel="seconds", title=f"time against {name}")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        print(f"growth with {name}: " + ", ".join(f"{n}: {s:.2f} s" for n, s in points))
    figure.savefig(config.figure, dpi=150)
    print(f"growth drawn in {config.figure}")


def _growth(
    sizes: tuple[int, ...], make: Callable[[int], tuple[Any, Task]], *, n_is: str = "size"
) -> list[tuple[int, float]]:
    points = []
    for size in sizes:
        model, task = make(size)
        sweep = Sweep(task, "resid_pre", "position")
        seen = capture(model, task.clean, sites.all(model, "resid_pre"))
        places = sweep.places(model)
        if n_is == "cells":
            places = [places[round(i * (len(places) - 1) / (size - 1))] for i in range(size)]
        cells: list[Cell] = [
            {Site("resid_pre", n): writing.replace(seen[Site("resid_pre", n)], positions=at)}
            for n, at in places
        ]
        taken = stopwatch.alternate(
            {"sweep": lambda m=model, t=task, c=cells: effects.exact(
                m, t, c, metrics=[metrics.logit_diff], run="corrupt")},
            rounds=2,
        )  # fmt: skip
        points.append((size, median(taken["sweep"])))
    return points


def _induction(model: Any, prompts: int, tokens: int) -> Task:
    """A task of random tokens whose clean and corrupt prompts differ everywhere."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, model.cfg.d_vocab - 1, (2, prompts, tokens), generator=generator)
    column = torch.arange(prompts)[:, None]
    return Task(
        "random tokens", Prompts.of(ids[0]), Prompts.of(ids[1]), column + 50, column + 60, {},
        torch.zeros(prompts, dtype=torch.long),
    )  # fmt: skip


def _of_depth(layers: int) -> tuple[Any, Task]:
    """A random model as wide as the default one, with so many layers."""
    inner: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=2000, hidden_size=576, num_hidden_layers=layers, num_attention_heads=9,
            num_key_value_heads=3, intermediate_size=1536,
        )
    )  # fmt: skip
    tiny.fill(inner, torch.Generator().manual_seed(0))
    model = models.wrap(inner, name=f"random, {layers} layers")
    return model, _induction(model, 2, 14)


if __name__ == "__main__":
    main(tyro.cli(Config))
