import copy

import pytest
import torch
from torch.testing import assert_close
from transformer_lens.tools.analysis import attribution_patching as theirs

from hooks import Prompts, Site, capture, edits
from workbench import effects, metrics, models
from workbench.models import twins
from workbench.patching import Circuit, Graph, measure_circuits
from workbench.tasks import Task

ALL = (
    "GPT-2",
    "Llama",
    "Mistral",
    "Qwen 3",
    "Gemma 2",
    "Gemma 3",
    "Phi",
    "GPT-NeoX",
    "OPT",
    "native",
)
DIFF = metrics.logit_diff


def graphs(model: models.Model) -> list[Graph]:
    details = ["layers"] if "head_out" in model.access.refused else ["heads", "layers"]
    return [Graph.of(model, detail=detail) for detail in details]


@pytest.mark.parametrize("architecture", [*ALL, "native, attention only"])
def test_all_edges_are_the_model_and_no_edges_are_the_corrupt_run(twin, random_task, architecture):
    model, task = twin(architecture), random_task()
    clean = effects.measure(model, task, metric=DIFF)
    corrupt = effects.measure(model, task, metric=DIFF, prompts=task.corrupt)
    for graph in graphs(model):
        found = measure_circuits(
            model, task, [Circuit.full(graph), Circuit.empty(graph)], metric=DIFF
        )
        assert_close(found, torch.stack([clean, corrupt]), rtol=1e-5, atol=5e-6)


def test_a_metric_of_all_rows_is_measured_too(twin, random_task):
    model, task = twin("Llama"), random_task()
    whole = [Circuit.full(Graph.of(model))]
    found = measure_circuits(model, task, whole, metric=metrics.mean_logprob)
    assert_close(found[0], effects.measure(model, task, metric=metrics.mean_logprob))


def peer_edges(circuit: Circuit, tokens: int) -> list[tuple[theirs.Node, theirs.Node]]:
    last = circuit.graph.layers - 1
    return [
        (peer_node(writer, at, last, out=True), peer_node(reader, at, last, out=False))
        for edge in circuit.edges
        for writer, reader in [edge.split(" -> ")]
        for at in range(tokens)
    ]


def peer_node(name: str, at: int, last: int, *, out: bool) -> theirs.Node:
    kind, _, place = name.partition(" ")
    layer, _, head = place.partition(".")
    if not layer:
        return theirs.Node(kind, at, last if kind == "logits" else None)
    kinds = {"head": "attn_head_out", "mlp": "mlp_out" if out else "mlp_in"}
    return theirs.Node(
        kinds.get(kind, f"{kind}_input"), at, int(layer), int(head) if head else None
    )


@pytest.mark.parametrize("architecture", ["GPT-2", "GPT-NeoX"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_circuit_recovers_what_transformer_lens_says_it_does(
    twin, random_task, half, architecture, seed
):
    model, task = twin(architecture), random_task(1, seed=seed)
    circuit = half(Graph.of(model), seed)
    kept, tokens = peer_edges(circuit, 7), (task.clean.tokens, task.corrupt.tokens)
    peer = theirs.faithfulness(model, *tokens, lambda logits: DIFF(logits, task)[0], kept)
    (value,) = measure_circuits(model, task, [circuit], metric=DIFF)[0].tolist()
    expected = peer.corrupt_metric + peer.recovered * (peer.full_metric - peer.corrupt_metric)
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("architecture", ["GPT-2", "GPT-NeoX"])
def test_a_mean_at_each_position_is_that_of_transformer_lens(twin, random_task, half, architecture):
    model, many = twin(architecture), random_task(4, 8, seed=3)
    circuit = half(Graph.of(model))
    others = many.corrupt.tokens[:, :5]  # as long as the shortest
    rows = many.clean.tokens[:1, :5].repeat(4, 1)
    task = Task("one", Prompts.of(rows), Prompts.of(others), many.answer, many.foil, {}, many.group)
    peer = theirs.faithfulness(
        model, rows[:1], others[:1] + 1, lambda logits: DIFF(logits, task[0])[0],
        peer_edges(circuit, 5), theirs.FaithfulnessConfig("mean"), mean_tokens=others,
    )  # fmt: skip
    value = measure_circuits(
        model, task, [circuit], metric=DIFF, source="mean per position", batch_size=3
    )
    expected = peer.corrupt_metric + peer.recovered * (peer.full_metric - peer.corrupt_metric)
    assert float(value[0, 0]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX"])
@pytest.mark.parametrize("source", ["counterfactual", "zero", "mean"])
def test_cutting_all_edges_of_a_head_is_replacing_its_z(twin, random_task, architecture, source):
    model, task, site = twin(architecture), random_task(), Site("z", 0)
    circuit = Circuit.full(Graph.of(model))
    mask = circuit.mask.clone()
    mask[circuit.graph.writers.index("head 0.2")] = False
    other = capture(model, task.corrupt, [site])
    real = task.corrupt.mask.bool()
    real[:, 0] = False
    edit = {
        "counterfactual": edits.replace(other[site], heads=[2]),
        "zero": edits.zero(heads=[2]),
        "mean": edits.mean(other[site][real].mean(dim=0), heads=[2]),
    }[source]
    cut = Circuit(circuit.graph, mask)
    found = measure_circuits(model, task, [cut], metric=DIFF, source=source, batch_size=2)
    expected = effects.measure(model, task, metric=DIFF, edits={site: edit})
    assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_a_mean_at_a_position_is_over_prompts_that_have_it(twin, random_task):
    model, task, site = twin("Llama"), random_task(), Site("mlp_out", 0)
    graph = Graph.of(model)
    mask = graph.edges.clone()
    mask[graph.writers.index("mlp 0")] = False
    other, real = capture(model, task.corrupt, [site])[site], task.corrupt.mask.bool()
    means = [other[real[:, at], at].mean(dim=0) for at in range(7)]
    found = measure_circuits(
        model, task, [Circuit(graph, mask)], metric=DIFF, source="mean per position", batch_size=2
    )
    edit = {site: edits.replace(torch.stack(means).expand(3, 7, -1).contiguous())}
    assert_close(found[0], effects.measure(model, task, metric=DIFF, edits=edit))


@pytest.mark.parametrize("architecture", ["Llama", "GPT-NeoX"])
def test_circuits_do_not_depend_on_what_runs_beside_them(twin, random_task, half, architecture):
    model, task = twin(architecture), random_task()
    graph = Graph.of(model)
    circuits = [half(graph, seed) for seed in range(4)] + [Circuit.full(graph)]
    together = measure_circuits(model, task, circuits, metric=DIFF, batch_size=15)
    for batch_size in (1, 4):
        found = measure_circuits(model, task, circuits, metric=DIFF, batch_size=batch_size)
        assert_close(found, together, rtol=1e-5, atol=1e-5)
    for row in range(3):
        alone = measure_circuits(model, task[row], circuits, metric=DIFF)
        assert_close(alone[:, 0], together[:, row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "native, attention only"])
def test_edges_off_every_path_change_nothing(twin, random_task, architecture):
    model, task = twin(architecture), random_task()
    graph = Graph.of(model)
    circuits = [
        Circuit.random(graph, 12, generator=torch.Generator().manual_seed(seed))
        for seed in range(5)
    ]
    pruned = [circuit.pruned() for circuit in circuits]
    assert sum(map(len, circuits)) > sum(map(len, pruned)) > 0
    found = measure_circuits(model, task, [*circuits, *pruned], metric=DIFF)
    assert_close(found[:5], found[5:], rtol=1e-5, atol=1e-5)


def repeated(model: models.Model) -> models.Model:
    """The same model with a key and a value for each query head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    _, grouped = twins.make(model.origin.name)
    config = copy.deepcopy(grouped.config)
    groups = config.num_attention_heads // config.num_key_value_heads
    config.num_key_value_heads = config.num_attention_heads
    assert isinstance(config, LlamaConfig)
    wide, weights = LlamaForCausalLM(config), grouped.state_dict()
    for name in weights:
        if "k_proj" in name or "v_proj" in name:
            heads = weights[name].reshape(config.num_attention_heads // groups, -1, 32)
            weights[name] = heads.repeat_interleave(groups, dim=0).reshape(-1, 32)
    wide.load_state_dict(weights)
    return models.wrap(wide, name="repeated")


def test_shared_keys_and_values_are_the_same_as_repeated_ones(twin, random_task, half):
    model, task = twin("Llama"), random_task()
    wide = repeated(model)
    assert_close(wide(task.clean), model(task.clean), rtol=0, atol=0)
    few, many = Graph.of(model), Graph.of(wide)
    circuits = [half(few, seed) for seed in range(3)]
    expanded = []
    for circuit in circuits:
        mask = torch.zeros_like(many.edges)
        for name in many.readers:
            part, _, place = name.partition(" ")
            if part in ("k", "v"):
                layer, head = map(int, place.split("."))
                part = f"{part} {layer}.{head // 2}"
                mask[:, many.readers.index(name)] = circuit.mask[:, few.readers.index(part)]
            else:
                mask[:, many.readers.index(name)] = circuit.mask[:, few.readers.index(name)]
        expanded.append(Circuit(many, mask))
    assert_close(
        measure_circuits(wide, task, expanded, metric=DIFF),
        measure_circuits(model, task, circuits, metric=DIFF),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_half_precision_gives_about_the_same(random_task, half):
    task = random_task()
    whole = twins.make("Llama")[0]
    coarse = models.wrap(twins.make("Llama")[1].to(torch.bfloat16), name="bfloat16")
    circuits = [half(Graph.of(whole)), Circuit.full(Graph.of(whole))]
    expected = measure_circuits(whole, task, circuits, metric=DIFF)
    found = measure_circuits(coarse, task, circuits, metric=DIFF)
    assert_close(found, expected, rtol=0.1, atol=0.15)


def test_the_model_comes_out_as_it_went_in(twin, random_task, half):
    model, task = twin("GPT-2"), random_task()
    before = model(task.clean)
    measure_circuits(model, task, [half(Graph.of(model))], metric=DIFF)
    assert_close(model(task.clean), before, rtol=0, atol=0)


def test_what_cannot_be_run_is_refused(twin, random_task):
    model, task = twin("GPT-2"), random_task()
    full = Circuit.full(Graph.of(model))
    layers = Circuit.full(Graph.of(model, detail="layers"))
    with pytest.raises(ValueError, match="circuits of one graph are run together, got 2 graphs"):
        measure_circuits(model, task, [full, layers], metric=DIFF)
    with pytest.raises(Exception, match=r"no source 'median'|Type-check"):
        measure_circuits(model, task, [full], metric=DIFF, source="median")


def test_a_projection_that_is_more_than_its_matrix_is_found_out(random_task):
    model, task = twins.make("Llama", seed=1)[0], random_task()
    model.blocks[1].attn.k.original_component.register_forward_hook(lambda *passed: passed[-1] * 2)
    with pytest.raises(ValueError, match="k of layer 1 in LlamaForCausalLM is not what its matrix"):
        measure_circuits(model, task, [Circuit.full(Graph.of(model))], metric=DIFF)
