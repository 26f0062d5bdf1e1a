import pytest
import torch

from workbench import results
from workbench.patching import Graph


def test_graphs_of_known_models_have_the_numbers_of_edges_that_papers_count():
    assert Graph(12, 12, 12, "after").size == 32_491  # GPT-2 small (Hanna et al. 2024)
    assert Graph(30, 9, 9, "after").size == 123_211  # SmolLM2-135M with a k and v for each head
    assert Graph(30, 9, 3, "after").size == 70_651  # and with its three


def test_edges_by_hand_of_one_layer_with_two_heads():
    graph = Graph(1, 2, 1, "after")
    assert graph.writers == ("embed", "head 0.0", "head 0.1", "mlp 0")
    assert graph.readers == ("q 0.0", "q 0.1", "k 0.0", "v 0.0", "mlp 0", "logits")
    expected = [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1]]
    assert graph.edges.int().tolist() == expected
    feeds = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert graph.feeds.int().tolist() == feeds


def test_beside_attention_an_mlp_does_not_read_the_heads_of_its_layer():
    after, beside = Graph(2, 4, 4, "after"), Graph(2, 4, 4, "beside")
    column = after.readers.index("mlp 1")
    lost = after.edges & ~beside.edges
    heads = [after.writers[row] for row in lost[:, column].nonzero().flatten().tolist()]
    assert heads == ["head 1.0", "head 1.1", "head 1.2", "head 1.3"]
    assert after.size - beside.size == 8


@pytest.mark.parametrize(
    ("architecture", "mlp", "key_value_heads"),
    [
        ("GPT-2", "after", 4),
        ("Llama", "after", 2),
        ("GPT-NeoX", "beside", 4),
        ("GPT-NeoX, sequential", "after", 4),
        ("Phi", "beside", 4),
        ("native, attention only", "none", 4),
    ],
)
def test_the_graph_of_a_model_is_that_of_its_blocks(twin, architecture, mlp, key_value_heads):
    assert Graph.of(twin(architecture)) == Graph(2, 4, key_value_heads, mlp)


def test_heads_without_an_output_of_their_own_are_refused_with_advice(twin):
    with pytest.raises(ValueError, match=r'no output of their own.*detail="layers"'):
        Graph.of(twin("Gemma 3"))
    assert Graph.of(twin("Gemma 3"), detail="layers").writers[:3] == (
        "embed",
        "attention 0",
        "mlp 0",
    )


def test_blocks_that_do_not_add_up_are_refused(twin):
    with pytest.raises(ValueError, match="do not add their parts to the residual stream"):
        Graph.of(twin("BERT"))


@pytest.mark.parametrize("detail", ["heads", "layers"])
@pytest.mark.parametrize("mlp", ["after", "beside", "none"])
def test_every_edge_is_found_by_its_name(mlp, detail):
    graph = Graph(2, 4, 2, mlp, detail)
    for place in graph.edges.nonzero().tolist():
        assert list(graph.edge(graph.name(*place))) == place


def test_edges_in_the_notation_of_eap_ig_are_understood():
    graph = Graph(12, 12, 12, "after")
    for theirs, ours in {
        "a5.h1->a9.h3<q>": "head 5.1 -> q 9.3",
        "input->m0": "embed -> mlp 0",
        "input->a11.h10<v>": "embed -> v 11.10",
        "m3->logits": "mlp 3 -> logits",
    }.items():
        assert graph.edge(theirs) == graph.edge(ours)


def test_edges_that_do_not_exist_are_refused_by_name():
    graph = Graph(2, 4, 2, "after")
    with pytest.raises(ValueError, match=r"no writer 'head 2.0'.*writers are embed to mlp 1"):
        graph.edge("head 2.0 -> logits")
    with pytest.raises(ValueError, match=r"no reader 'k 1.3'"):
        graph.edge("embed -> k 1.3")
    with pytest.raises(ValueError, match=r"mlp 0 does not come after head 1\.0"):
        graph.edge("head 1.0 -> mlp 0")


def test_the_parts_of_a_layer_lie_where_their_names_say():
    graph = Graph(3, 4, 2, "after")
    for layer in range(3):
        for part in ("q", "k", "v"):
            names = graph.readers[graph.part(layer, part)]
            assert names == tuple(f"{part} {layer}.{h}" for h in range(4 if part == "q" else 2))
        assert graph.readers[graph.mlp_reader(layer)] == f"mlp {layer}"
        assert graph.writers[graph.mlp_writer(layer)] == f"mlp {layer}"
        assert int(graph.edges[:, graph.mlp_reader(layer)].sum()) == graph.before_mlp(layer)


def test_a_graph_is_a_value_that_results_can_hold(tmp_path):
    from workbench.patching import Circuit

    circuit = Circuit.of(Graph(2, 4, 2, "beside"), ["head 0.1 -> k 1.0"], name="one edge")
    results.save(circuit, tmp_path / "circuit.nc")
    again = results.load(Circuit, tmp_path / "circuit.nc")
    assert again.graph == circuit.graph and again.edges == ["head 0.1 -> k 1.0"]
    assert torch.equal(again.mask, circuit.mask) and again.name == "one edge"
