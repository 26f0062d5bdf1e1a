import pytest
import torch

from workbench.patching import Circuit, Graph
from workbench.patching.circuits import grow, top

GRAPH = Graph(2, 2, 1, "after")


def importance(**scores: float) -> torch.Tensor:
    found = torch.zeros(GRAPH.edges.shape)
    for name, score in scores.items():
        found[GRAPH.edge(name)] = score
    return found


def of(*edges: str) -> Circuit:
    return Circuit.of(GRAPH, edges)


def test_circuits_are_sets_of_edges():
    one = of("embed -> q 0.0", "embed -> logits")
    other = of("embed -> logits", "mlp 1 -> logits")
    assert (one & other).edges == ["embed -> logits"]
    assert (one | other).edges == ["embed -> q 0.0", "embed -> logits", "mlp 1 -> logits"]
    assert (one - other).edges == ["embed -> q 0.0"]
    assert len(one) == 2 and "embed -> q 0.0" in one and "mlp 1 -> logits" not in one
    assert one.jaccard(other) == 1 / 3
    assert one.jaccard(one) == 1 and Circuit.empty(GRAPH).jaccard(Circuit.empty(GRAPH)) == 1
    assert one.components == ["embed"]
    assert len(Circuit.full(GRAPH)) == GRAPH.size and len(Circuit.empty(GRAPH)) == 0


def test_circuits_of_different_graphs_do_not_mix():
    with pytest.raises(ValueError, match="circuits of different graphs"):
        Circuit.full(GRAPH) & Circuit.full(Graph(3, 2, 1, "after"))


def test_a_mask_that_is_no_set_of_edges_is_refused_by_name():
    mask = torch.zeros(GRAPH.edges.shape, dtype=torch.bool)
    mask[GRAPH.writers.index("mlp 1"), GRAPH.readers.index("q 0.0")] = True
    with pytest.raises(ValueError, match=r"mlp 1 -> q 0\.0 is no edge"):
        Circuit(GRAPH, mask)
    with pytest.raises(ValueError, match=r"boolean mask of shape \(7, 11\)"):
        Circuit(GRAPH, mask[1:])


def test_random_circuits_have_the_size_asked_for_and_depend_on_the_seed():
    drawn = [
        Circuit.random(GRAPH, 9, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert [len(one) for one in drawn] == [9, 9, 9]
    assert torch.equal(drawn[0].mask, drawn[1].mask) and not torch.equal(
        drawn[0].mask, drawn[2].mask
    )
    with pytest.raises(ValueError, match="a circuit of 99 edges: this graph has"):
        Circuit.random(GRAPH, 99, generator=torch.Generator())


def test_every_edge_is_drawn_as_often_as_every_other():
    generator = torch.Generator().manual_seed(0)
    drawn = sum(Circuit.random(GRAPH, 10, generator=generator).mask.int() for _ in range(600))
    expected = 600 * 10 / GRAPH.size
    assert (drawn[GRAPH.edges] - expected).abs().max() < 5 * expected**0.5


def test_without_a_component_its_edges_are_gone_but_not_what_others_share():
    less = Circuit.full(GRAPH).without("head 0.1")
    gone = Circuit.full(GRAPH) - less
    out = ["mlp 0", "q 1.0", "q 1.1", "k 1.0", "v 1.0", "mlp 1", "logits"]
    expected = ["embed -> q 0.1", *(f"head 0.1 -> {reader}" for reader in out)]
    assert set(gone.edges) == set(expected)  # k 0.0 and v 0.0 are head 0.0's too
    with pytest.raises(ValueError, match=r"no writer 'head 7\.7'"):
        less.without("head 7.7")


def test_pruning_keeps_what_lies_on_a_path_from_the_embedding_to_the_logits():
    path = of("embed -> v 0.0", "head 0.0 -> mlp 1", "mlp 1 -> logits")
    unread = of("embed -> mlp 0", "embed -> q 1.1")
    unfed = of("head 1.0 -> logits", "head 1.1 -> mlp 1")  # q 1.1 is read, and then its head is
    assert (path | of("embed -> mlp 0", "head 1.0 -> logits")).pruned().edges == path.edges
    assert set((path | unread | unfed).pruned().edges) == set(
        [*path.edges, "embed -> q 1.1", "head 1.1 -> mlp 1"]
    )
    assert len(unfed.pruned()) == 0
    assert torch.equal(Circuit.full(GRAPH).pruned().mask, GRAPH.edges)


def test_the_most_important_edges_come_first_and_ties_in_order():
    scores = importance(**{"embed -> logits": 1.0, "embed -> k 0.0": 3.0, "mlp 1 -> logits": -5.0})
    assert top(GRAPH, scores, 2).edges == ["embed -> k 0.0", "embed -> logits"]
    assert top(GRAPH, scores, 3).edges[0] == "embed -> q 0.0"  # the first of those with zero
    assert "mlp 1 -> logits" not in top(GRAPH, scores, GRAPH.size - 1)


def test_growing_takes_only_edges_into_what_is_there():
    scores = importance(
        **{
            "embed -> q 0.0": 9.0,
            "mlp 0 -> logits": 2.0,
            "embed -> mlp 0": 1.0,
            "embed -> logits": 0.5,
        }
    )
    assert set(grow(GRAPH, scores, 2).edges) == {"mlp 0 -> logits", "embed -> mlp 0"}
    assert set(grow(GRAPH, scores, 3).edges) == {
        "mlp 0 -> logits",
        "embed -> mlp 0",
        "embed -> logits",
    }
    assert torch.equal(grow(GRAPH, scores, GRAPH.size).mask, GRAPH.edges)
    for size in range(1, 12):  # every edge leads to the logits
        grown = grow(GRAPH, torch.rand(GRAPH.edges.shape), size)
        read = (GRAPH.feeds & grown.mask.any(dim=1)[None]).any(dim=1)
        read[-1] = True
        assert len(grown) == size and not (grown.mask & ~read).any()


def test_a_circuit_says_what_it_is():
    assert of("embed -> k 0.0").sentence() == (
        f"a circuit: 1 of {GRAPH.size} edges from 1 of 7 writers: embed -> k 0.0."
    )
