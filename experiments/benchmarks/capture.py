"""What does capturing cost, beyond the forward pass that it needs anyway?

Captures `resid_post` of all layers, and compares, in one process and in turn, with
    forward          the bridge's own forward without hooks, stopped before the unembedding
    run_with_cache   TransformerLens's cache of the same names, as a user calls it

    python -m experiments.benchmarks.capture
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import torch
import tyro

from experiments.benchmarks import stopwatch
from hooks import Prompts, capture, sites
from workbench import models


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    model: str = "smollm2-135m"
    prompts: int = 64
    tokens: int = 64
    rounds: int = 5
    seed: int = 0


class _BeforeUnembedding(Exception):  # noqa: N818 - a signal, not an error
    """Ends the plain forward pass where capturing the last residual stream ends."""


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    model = models.load(config.model)
    rng = torch.Generator().manual_seed(config.seed)
    size = (config.prompts, config.tokens)
    prompts = Prompts.of(torch.randint(100, model.cfg.d_vocab - 1, size, generator=rng))
    wanted = sites.all(model, "resid_post")
    names = [site.hook_name for site in wanted]

    def stop(*_: object) -> None:
        raise _BeforeUnembedding

    def forward() -> None:
        handle = model.ln_final.register_forward_pre_hook(stop)
        with torch.no_grad(), suppress(_BeforeUnembedding):
            model(prompts.tokens)
        handle.remove()

    ways = {
        "forward": forward,
        "capture": lambda: capture(model, prompts, wanted),
        "run_with_cache": lambda: model.run_with_cache(prompts.tokens, names_filter=names),
    }
    taken = stopwatch.alternate(ways, rounds=config.rounds)
    for name, seconds in taken.items():
        spread = f"[{min(seconds):.2f}, {max(seconds):.2f}]"
        print(f"{name:<16} {median(seconds):.2f} s {spread}, {len(seconds)} rounds")
    forward_ratio = stopwatch.ratio(taken, "capture", "forward")
    cache_ratio = stopwatch.ratio(taken, "run_with_cache", "capture")
    figures = {
        "forward_ratio": forward_ratio[0],
        "forward_ratio_range": forward_ratio[1:],
        "run_with_cache_ratio": cache_ratio[0],
        "run_with_cache_ratio_range": cache_ratio[1:],
        "peak_gb": stopwatch.peak_gb(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(tyro.cli(Config))
