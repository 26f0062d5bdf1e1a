"""How long does it take to run one circuit, every edge outside of it cut?

Asks how much of the clean-corrupt gap a circuit recovers, for one pair of prompts in a model of
GPT-2-small's shape with random weights, and compares, in one process and in turn, with
    faithfulness     `transformer_lens.tools.analysis.attribution_patching.faithfulness`, as a
                     user calls it: it also measures the circuit without each of four kinds of
                     edges, which `circuits` does too and `circuit` leaves out
The circuits are the same edges, so the answers must be; nothing is sampled or scaled.

    python -m experiments.benchmarks.edges
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import torch
import tyro
from transformer_lens.tools.analysis import attribution_patching as theirs
from transformers import GPT2Config, GPT2LMHeadModel

from experiments.benchmarks import stopwatch
from hooks import Prompts
from workbench import metrics, models, patching
from workbench.patching import Circuit, Graph
from workbench.tasks import Task

KINDS = ("qk", "v", "mlp", "logits")
"""Readers by what they take in; q and k together."""


@dataclass(frozen=True)
class Config:
    """The measurement that the README reports."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    tokens: int = 15
    share: float = 0.5  # of all edges, drawn at random
    rounds: int = 2
    seed: int = 0


def main(config: Config) -> None:
    """Measure, and print one JSON object as the last line."""
    figures = measured(config)
    print(json.dumps(figures | {"peak_gb": stopwatch.peak_gb()}))


def measured(config: Config) -> dict[str, Any]:
    """The figures of one measurement, said in words as they come."""
    generator = torch.Generator().manual_seed(config.seed)
    model, task = _model(config), _task(config, generator)
    graph = Graph.of(model)
    circuit = Circuit.random(graph, int(config.share * graph.size), generator=generator)
    several = [circuit, *_without_each_kind(circuit)]
    kept = list(_their_edges(circuit, config.tokens))
    answers: dict[str, list[float]] = {}

    def ours(name: str, circuits: list[Circuit]) -> None:
        found = patching.faithfulness(model, task, circuits, metric=metrics.logit_diff)
        answers[name] = found.faithfulness.tolist()

    def peer() -> None:
        found = theirs.faithfulness(
            model, task.clean.tokens, task.corrupt.tokens,
            lambda logits: metrics.logit_diff(logits, task)[0], kept,
        )  # fmt: skip
        answers["faithfulness"] = [found.recovered, *found.edge_class_recovered.values()]

    ways = {
        "faithfulness": peer,
        "circuit": lambda: ours("circuit", [circuit]),
        "circuits": lambda: ours("circuits", several),
    }
    taken = stopwatch.alternate(ways, rounds=config.rounds)
    for name, seconds in taken.items():
        spread = f"[{min(seconds):.2f}, {max(seconds):.2f}]"
        print(f"{name:<14} {median(seconds):.2f} s {spread}, {len(seconds)} rounds")
    edge_ratio = stopwatch.ratio(taken, "faithfulness", "circuit")
    several_ratio = stopwatch.ratio(taken, "faithfulness", "circuits")
    pairs = zip(sorted(answers["faithfulness"]), sorted(answers["circuits"]), strict=True)
    return {
        "edge_ratio": edge_ratio[0],
        "edge_ratio_range": edge_ratio[1:],
        "edge_ratio_with_kinds": several_ratio[0],
        "edge_ratio_with_kinds_range": several_ratio[1:],
        "edge_error": abs(answers["circuit"][0] - answers["faithfulness"][0]),
        "edge_error_with_kinds": max(abs(one - other) for one, other in pairs),
        "recovered": answers["circuit"][0],
        "edges": graph.size,
        "kept": len(circuit),
        "threads": torch.get_num_threads(),
    }


def _model(config: Config) -> models.Model:
    """Random weights, as the library draws them."""
    shape = GPT2Config(n_layer=config.layers, n_head=config.heads, n_embd=config.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return models.wrap(GPT2LMHeadModel(shape), name="GPT-2 small, random weights")


def _task(config: Config, generator: torch.Generator) -> Task:
    """One pair of random prompts that differ everywhere but in the first token."""
    tokens = torch.randint(1000, 50_000, (4, config.tokens), generator=generator)
    tokens[1, 0] = tokens[0, 0]
    answer, foil = tokens[2:, :1]
    clean, corrupt = Prompts.of(tokens[:1]), Prompts.of(tokens[1:2])
    return Task("random", clean, corrupt, answer[None], foil[None], {}, torch.zeros(1).long())


def _without_each_kind(circuit: Circuit) -> list[Circuit]:
    readers = circuit.graph.readers
    found = []
    for kind in KINDS:
        mask = circuit.mask.clone()
        parts = ("q", "k") if kind == "qk" else (kind,)
        mask[:, [n for n, name in enumerate(readers) if name.split()[0] in parts]] = False
        found.append(Circuit(circuit.graph, mask, f"without edges into {kind}"))
    return found


def _their_edges(circuit: Circuit, tokens: int) -> Iterator[tuple[theirs.Node, theirs.Node]]:
    """The same edges as their nodes, one pair for each position."""
    graph = circuit.graph
    writers = {"head": "attn_head_out", "mlp": "mlp_out"}
    readers = {"q": "q_input", "k": "k_input", "v": "v_input", "mlp": "mlp_in"}
    for writer, reader in circuit.mask.nonzero().tolist():
        for position in range(tokens):
            yield (
                _node(graph.writers[writer], writers, position),
                _node(graph.readers[reader], readers, position, last=graph.layers - 1),
            )


def _node(name: str, kinds: dict[str, Any], position: int, last: int | None = None) -> theirs.Node:
    kind, _, place = name.partition(" ")
    layer, _, head = place.partition(".")
    if not layer:  # the embedding and the logits; theirs has the last layer
        return theirs.Node(cast(theirs.NodeKind, kind), position, last)
    return theirs.Node(kinds[kind], position, int(layer), int(head) if head else None)


if __name__ == "__main__":
    main(tyro.cli(Config))
