"""What does it cost to look at every neuron, beyond the forward pass that it needs anyway?

Compares, in one process and in turn, on the same rows of the default corpus
    forward          the bridge's own forward without hooks, stopped before the unembedding
    activity         all statistics of all neurons
    run_with_cache   TransformerLens's cache of the same site, and the same statistics from it
Then how memory grows with the corpus, what storing costs beyond capturing and whether a killed
writer leaves the same bytes (`experiments.benchmarks.store`), and what an atlas costs against the
bare forward over the same tokens.

    python -m experiments.benchmarks.neurons
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import tyro

from experiments.benchmarks import stopwatch, store
from hooks import Prompts, sites
from workbench import corpora, models, neurons
from workbench.neurons.states import LayerState


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports. 0 tokens or documents: that part is left out."""

    model: str = "smollm2-135m"
    tokens: int = 8192  # of the comparison
    length: int = 128
    batch: int = 16  # rows
    rounds: int = 3
    growth_model: str = "smollm2-135m"
    small: int = 20_000  # tokens between which memory may grow
    large: int = 200_000
    stored: int = 160  # documents of 125 tokens
    atlas: int = 50_000  # tokens
    pages: int = 200
    seed: int = 0


class _BeforeUnembedding(Exception):  # noqa: N818 - a signal, not an error
    """Ends the plain forward pass where the neurons end."""


def forward(model: models.Model, batches: list[Prompts]) -> None:
    """The bridge alone, stopped before its last norm."""

    def stop(*_: object) -> None:
        raise _BeforeUnembedding

    handle = model.ln_final.register_forward_pre_hook(stop)
    with torch.no_grad():
        for batch in batches:
            with suppress(_BeforeUnembedding):
                model(batch)
    handle.remove()


def from_cache(model: models.Model, corpus: corpora.Corpus, batch: int) -> None:
    """The same statistics as a user of TransformerLens would get them: from its cache."""
    names = [site.hook_name for site in sites.all(model, "neuron")]
    states: list[LayerState] = []
    first = 0
    for prompts in corpus.batches(batch):
        with torch.no_grad():
            _, cache = model.run_with_cache(prompts.tokens, names_filter=names)
        if not states:
            states = [
                LayerState.begun(cache[name], prompts.lengths, length=corpus.length, k=20)
                for name in names
            ]
        unit = corpus.document[first : first + len(prompts)]
        for name, state in zip(names, states, strict=True):
            state.add(cache[name], prompts.lengths, first, unit)
        first += len(prompts)


def compared(config: Config) -> dict[str, Any]:
    """How fast it is, against nothing and against TransformerLens's cache."""
    model = models.load(config.model)
    corpus = corpora.topics(model, length=config.length, most_tokens=config.tokens)
    print(corpus)
    batches = corpus.batches(config.batch)
    ways = {
        "forward": lambda: forward(model, batches),
        "activity": lambda: neurons.activity(model, corpus, batch_size=config.batch),
        "run_with_cache": lambda: from_cache(model, corpus, config.batch),
    }
    taken = stopwatch.alternate(ways, rounds=config.rounds)
    for name, seconds in taken.items():
        spread = f"[{min(seconds):.2f}, {max(seconds):.2f}]"
        print(f"{name:<16} {median(seconds):.2f} s {spread}, {len(seconds)} rounds")
    throughput = stopwatch.ratio(taken, "forward", "activity")
    cache = stopwatch.ratio(taken, "run_with_cache", "activity")
    return {
        "throughput_ratio": throughput[0], "throughput_ratio_range": throughput[1:],
        "run_with_cache_ratio": cache[0], "run_with_cache_ratio_range": cache[1:],
    }  # fmt: skip


def growth(config: Config) -> dict[str, Any]:
    """The most memory held, with many tokens against few: the same text in rows of other length."""
    model = models.load(config.growth_model)
    peaks = []
    for tokens, length in ((config.small, config.length), (config.large, config.length - 1)):
        corpus = _repeated(model, tokens, length)
        before = stopwatch.held_gb()
        added = stopwatch.peak_of(
            lambda c=corpus: neurons.activity(model, c, batch_size=config.batch)
        )
        if added is None:
            return {}
        peaks.append(before + added)
    return {"rss_growth": round(peaks[1] / peaks[0], 3), "rss_gb": [round(one, 3) for one in peaks]}


def _repeated(model: models.Model, tokens: int, length: int) -> corpora.Corpus:
    """The default corpus, as often as is needed, each time under other names."""
    from pydoc_data.topics import topics

    whole = corpora.topics(model, length=length).tokens
    times = -(-tokens // whole)
    named = {f"{name} {n}": text for n in range(times) for name, text in sorted(topics.items())}
    return corpora.text(model, named, name="topics, repeated", length=length, most_tokens=tokens)


def of_atlas(config: Config) -> dict[str, Any]:
    """An atlas against the bare forward over the same tokens."""
    model = models.load(config.model)
    corpus = corpora.topics(model, length=config.length, most_tokens=config.atlas)
    batches = corpus.batches(config.batch)
    forward(model, batches[:1])
    before = _seconds(lambda: forward(model, batches))
    whole = _seconds(lambda: neurons.atlas(model, corpus, n=config.pages))
    after = _seconds(lambda: forward(model, batches))  # machines change their speed
    print(f"atlas {whole:.1f} s, forward {before:.1f} s before it and {after:.1f} s after it")
    ratios = sorted((whole / before, whole / after))
    return {
        "atlas_ratio": round(2 * whole / (before + after), 3),
        "atlas_ratio_range": [round(one, 3) for one in ratios],
    }


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    figures: dict[str, Any] = {"threads": torch.get_num_threads()}
    if config.tokens:
        figures |= compared(config)
    if config.large:
        figures |= growth(config)
    if config.stored:
        found = store.measured(store.Config(config.model, documents=config.stored))
        wanted = ("store_write_overhead", "store_write_overhead_range", "resume_identical")
        figures |= {name: found[name] for name in wanted}
    if config.atlas:
        figures |= of_atlas(config)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(tyro.cli(Config))
