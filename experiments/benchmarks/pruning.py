"""Is a pruned model the ablated one, and what does it save?

Removes the same two of three key-value groups, 6 of 9 query heads, in every layer, and compares
with the whole model, in one process and in turn:
    max_error              largest difference of the logits from zero ablation, relative to the
                           largest logit, over random sets of heads: whole layers, whole groups and
                           uneven groups among them; in float32 and in float64. On sentences:
                           on random ids, where rounding alone moves this model's logits more,
                           float32 gave up to 5e-5
    parameters_removed     against the count by hand
    attention_time_ratio   the attention blocks alone, a prefill of 32 × 128 tokens
    prefill_, decode_      the whole model, at batch 1 and 32
    all_heads_ratio        mean-ablating each of the 270 heads at all positions: one forward pass
                           each through TransformerLens's `run_with_hooks`, to `effects.exact` with
                           its recorded pass and its self-check. TransformerLens's cells all cost
                           the same, so evenly spaced ones are timed and scaled to all

    python -m experiments.benchmarks.pruning
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
import tyro
from torch import Tensor

from experiments.benchmarks import stopwatch
from hooks import Edit, Prompts, Site, edits, intervening, last_logits
from workbench import effects, heads, metrics, models, tasks
from workbench.models import surgery


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    model: str = "smollm2-135m"
    batch: int = 32
    tokens: int = 128
    layers: int = 30  # whose attention is timed
    rounds: int = 5
    prompts: int = 32
    sweeps: int = 2
    naive_cells: int = 10  # timed for TransformerLens in every round
    sets: int = 3  # random sets of heads
    seed: int = 0


@torch.no_grad()
def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    model: Any = models.load(config.model)
    gone = [(n, head) for n in range(model.cfg.n_layers) for head in _two_thirds(model)]
    pruned: Any = heads.prune(model, gone)
    figures: dict[str, Any] = {"max_error": _error(model, config)}
    double = models.load(config.model, dtype=torch.float64)
    figures["max_error_float64"] = _error(double, config)
    del double
    figures["parameters_removed"] = surgery.parameters(model) - surgery.parameters(pruned)
    figures["parameters_expected"] = _by_hand(model)
    print(json.dumps(figures))  # the long part comes only now
    figures |= _attention(model, pruned, config)
    found = heads.costs(
        model, pruned, batch_sizes=(1, config.batch), tokens=config.tokens, rounds=config.rounds,
        seed=config.seed,
    )  # fmt: skip
    print(found.sentence())
    print(found.table())
    for what in ("prefill", "decode"):
        for size in found.batch_size:
            middle, low, high = (round(one, 3) for one in found.ratio(what, size))
            name = f"{what}_time_ratio"
            figures.setdefault(name, {})[str(size)] = middle
            figures.setdefault(f"{name}_range", {})[str(size)] = [low, high]
    figures["flops_ratio"] = round(float(found.flops[1] / found.flops[0]), 3)
    figures |= _all_heads(model, config)
    figures |= {"peak_gb": stopwatch.peak_gb(), "threads": torch.get_num_threads()}
    print(json.dumps(figures))


def _two_thirds(model: Any) -> range:
    """The query heads of all key-value groups but the first third."""
    return range(model.cfg.n_heads // 3, model.cfg.n_heads)


def _by_hand(model: Any) -> int:
    """Rows of W_Q, W_K and W_V and columns of W_O, without biases."""
    cfg = model.cfg
    shared = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    query = len(_two_thirds(model)) * cfg.d_head
    group = cfg.n_heads // shared
    key_value = (shared - math.ceil(cfg.n_heads // 3 / group)) * cfg.d_head
    return cfg.n_layers * (2 * query * cfg.d_model + 2 * key_value * cfg.d_model)


def _error(model: Any, config: Config) -> float:
    """The largest relative difference from zero ablation over random sets of heads."""
    generator = torch.Generator().manual_seed(config.seed)
    prompts = tasks.ioi(model, prompts=4, seed=config.seed).clean
    real = prompts.mask.bool()
    worst = 0.0
    for _ in range(config.sets):
        kept = _drawn(model, generator)
        gone = [[h for h in range(model.cfg.n_heads) if h not in there] for there in kept]
        zeroed = {Site("z", n): edits.zero(heads=some) for n, some in enumerate(gone) if some}
        with intervening(model, zeroed):
            expected = model(prompts)[real]
        found = surgery.cut(model, kept)(prompts)[real]
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    return worst


def _drawn(model: Any, generator: torch.Generator) -> list[list[int]]:
    """A third of the heads gone at random, one layer and one key-value group of another too."""
    count, layers = model.cfg.n_heads, model.cfg.n_layers
    order = torch.randperm(layers * count, generator=generator)[: layers * count // 3].tolist()
    gone = {divmod(index, count) for index in order}
    empty, other = torch.randperm(layers, generator=generator)[:2].tolist()
    gone |= {(empty, head) for head in range(count)} | {(other, head) for head in range(count // 3)}
    return [[head for head in range(count) if (n, head) not in gone] for n in range(layers)]


def _attention(model: Any, pruned: Any, config: Config) -> dict[str, Any]:
    """Attention alone, on what it is given in a prefill."""
    generator = torch.Generator().manual_seed(config.seed)
    size = (config.batch, config.tokens)
    tokens = torch.randint(100, model.cfg.d_vocab - 1, size, generator=generator)
    ways = {
        "whole": _blocks(model, tokens, config.layers),
        "pruned": _blocks(pruned, tokens, config.layers),
    }
    taken = stopwatch.alternate(ways, rounds=config.rounds)
    _say(taken)
    ratio = stopwatch.ratio(taken, "pruned", "whole")
    return {"attention_time_ratio": ratio[0], "attention_time_ratio_range": ratio[1:]}


def _blocks(model: Any, tokens: Tensor, layers: int) -> Callable[[], None]:
    """The attention of some layers, one after the other."""
    given: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append((module, args, {**kwargs, "past_key_values": None}))

    handles = [
        block.attn.register_forward_pre_hook(note, with_kwargs=True)
        for block in model.blocks[:layers]
    ]
    last_logits(model, Prompts.of(tokens))
    for handle in handles:
        handle.remove()

    def run() -> None:
        for module, args, kwargs in given:
            module(*args, **kwargs)

    return run


def _all_heads(model: Any, config: Config) -> dict[str, Any]:
    """Every head mean-ablated on its own, our way and TransformerLens's."""
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed, corruption="third")
    sites = [Site("z", layer) for layer in range(model.cfg.n_layers)]
    means = effects.mean_over(model, task.corrupt, sites)
    every = [(site, head) for site in sites for head in range(model.cfg.n_heads)]
    cells = [{site: edits.mean(means[site], heads=[head])} for site, head in every]
    last = len(every) - 1
    chosen = [round(n * last / (config.naive_cells - 1)) for n in range(config.naive_cells)]
    kept: dict[str, Tensor] = {}

    def ours() -> None:
        found = effects.exact(model, task, cells, metrics=[metrics.logit_diff])  # type: ignore[arg-type]
        kept["ours"] = found.values[0, chosen]

    def naive() -> None:
        rows = [_forward(model, task, *every[index], means) for index in chosen]
        kept["theirs"] = torch.stack(rows)

    taken = stopwatch.alternate({"exact": ours, "run_with_hooks": naive}, rounds=config.sweeps)
    _say(taken)
    scale = len(every) / len(chosen)
    each = [scale * b / a for a, b in zip(taken["exact"], taken["run_with_hooks"], strict=True)]
    return {
        "all_heads_ratio": round(median(each), 2),
        "all_heads_ratio_range": [round(min(each), 2), round(max(each), 2)],
        "all_heads_cells_timed": f"{len(chosen)} of {len(every)} for run_with_hooks, all for exact",
        "all_heads_max_error": float((kept["ours"] - kept["theirs"]).abs().max()),
    }


def _forward(model: Any, task: tasks.Task, site: Site, head: int, means: Any) -> Tensor:
    """One forward pass through TransformerLens's `run_with_hooks`."""
    logits = model.run_with_hooks(
        task.clean.tokens, attention_mask=task.clean.mask,
        fwd_hooks=[(site.hook_name, partial(_written, edits.mean(means[site], heads=[head])))],
    )  # fmt: skip
    return metrics.logit_diff(logits, task, task.clean)


def _written(edit: Edit, z: Tensor, hook: object) -> Tensor:
    return edit(z)


def _say(taken: stopwatch.Seconds) -> None:
    for name, seconds in taken.items():
        spread = f"[{min(seconds):.2f}, {max(seconds):.2f}]"
        print(f"{name:<16} {median(seconds):.2f} s {spread}, {len(seconds)} rounds")


if __name__ == "__main__":
    main(tyro.cli(Config))
