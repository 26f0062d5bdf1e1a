"""What does attributing a metric to every head and every neuron cost, in time and memory?

Compares, in one process and in turn, on the same model and the same prompt pairs, with gradients
at the corrupt run, as TransformerLens takes them:

    nodes     embeddings, heads and MLPs at all positions: `effects.attribute` against
              TransformerLens's `attribution_patch`, called for each pair, because each has an
              answer of its own (it takes one pair at a time inside, too)
    neurons   heads and neurons at all positions, which `attribution_patch` has not: against the
              same sum over its own `cache_activation_and_gradient`, pair by pair

TransformerLens runs as its users have it, with weights that want gradients; ours has them frozen.
Peak memory is what a way adds to the process while it runs (Linux only).

    python -m experiments.benchmarks.attribution
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from torch import Tensor
from transformer_lens.tools.analysis import attribution_patching as theirs

from experiments.benchmarks import stopwatch
from hooks import Site, sites
from workbench import effects, metrics, models, tasks
from workbench.tasks import Task


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    model: str = "smollm2-135m"
    prompts: int = 8
    rounds: int = 3
    seed: int = 0


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    model = models.load(config.model)
    task = tasks.ioi(model, prompts=config.prompts, seed=config.seed)
    heads = sites.all(model, "z")
    wanted = {
        "nodes": [Site("embed"), *heads, *sites.all(model, "mlp_out")],
        "neurons": [*heads, *sites.all(model, "neuron")],
    }

    def ours(what: str) -> effects.Attribution:
        return effects.attribute(model, task, wanted[what], metric=metrics.logit_diff, at="corrupt")

    ways: dict[str, Callable[[], object]] = {
        "nodes": lambda: ours("nodes"),
        "nodes, theirs": lambda: _their_nodes(model, task),
        "neurons": lambda: ours("neurons"),
        "neurons, theirs": lambda: _their_neurons(model, task, wanted["neurons"]),
    }
    taken = stopwatch.alternate(ways, rounds=config.rounds)
    peaks = {name: stopwatch.peak_of(way) for name, way in ways.items()}
    for name, seconds in taken.items():
        spread = f"[{min(seconds):.2f}, {max(seconds):.2f}]"
        print(f"{name:<16} {median(seconds):.2f} s {spread}, peak {peaks[name]} GB")
    nodes = stopwatch.ratio(taken, "nodes, theirs", "nodes")
    neurons = stopwatch.ratio(taken, "neurons, theirs", "neurons")
    figures = {
        "nodes_ratio": nodes[0],
        "nodes_ratio_range": nodes[1:],
        "neurons_ratio": neurons[0],
        "neurons_ratio_range": neurons[1:],
        "nodes_seconds": round(median(taken["nodes"]), 2),
        "neurons_seconds": round(median(taken["neurons"]), 2),
        "nodes_peak_gb": peaks["nodes"],
        "their_nodes_peak_gb": peaks["nodes, theirs"],
        "neurons_peak_gb": peaks["neurons"],
        "their_neurons_peak_gb": peaks["neurons, theirs"],
        "max_error": _largest_difference(ours("nodes"), _their_nodes(model, task)),
        "peak_gb": stopwatch.peak_gb(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


def _their_nodes(model: models.Model, task: Task) -> list[dict[theirs.Node, float]]:
    with _wanting_gradients(model):
        return [
            theirs.attribution_patch(model, clean, corrupt, metric).node_scores
            for clean, corrupt, metric in _pairs(task)
        ]


def _their_neurons(model: models.Model, task: Task, wanted: list[Site]) -> list[Tensor]:
    # Without a place below all others their cache comes back without gradients.
    names = [Site("embed").hook_name, *(site.hook_name for site in wanted)]
    scores = []
    with _wanting_gradients(model):
        for clean, corrupt, metric in _pairs(task):
            with torch.no_grad():
                there = theirs.cache_activation_and_gradient(
                    model, clean, metric, names_filter=names, compute_gradient=False
                )
            here = theirs.cache_activation_and_gradient(model, corrupt, metric, names_filter=names)
            for site in wanted:
                name = site.hook_name
                change = there.activations[name] - here.activations[name]
                gradient = here.gradients[name]
                assert gradient is not None
                product = change * gradient
                scores.append(product.sum(dim=-1) if site.stream == "z" else product)
    return scores


def _pairs(task: Task) -> Iterator[tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]]:
    """Each pair without padding, and the logit difference of its own answer and foil."""
    for row in range(len(task)):
        one = task[row]
        answer, foil = int(one.answer[0, 0]), int(one.foil[0, 0])

        def metric(logits: Tensor, answer: int = answer, foil: int = foil) -> Tensor:
            return logits[0, -1, answer] - logits[0, -1, foil]

        yield one.clean.tokens, one.corrupt.tokens, metric


@contextmanager
def _wanting_gradients(model: models.Model) -> Iterator[None]:
    model.original_model.requires_grad_(True)
    try:
        yield
    finally:
        model.original_model.requires_grad_(False)


def _largest_difference(
    found: effects.Attribution, scores: list[dict[theirs.Node, float]]
) -> float:
    """Over all nodes and pairs, as a part of the largest score."""
    streams = {"embed": "embed", "attn_head_out": "z", "mlp_out": "mlp_out"}
    error = largest = 0.0
    for row, of_pair in enumerate(scores):
        for node, score in of_pair.items():
            site = Site(streams[node.kind], node.layer or 0)  # type: ignore[arg-type]
            index = (node.position,) if node.head is None else (node.position, node.head)
            error = max(error, abs(float(found[site][(*index, row)]) - score))
            largest = max(largest, abs(score))
    return error / largest


if __name__ == "__main__":
    main(tyro.cli(Config))
