"""The suite passes what is right, refuses by name what is not there, and fails what is broken."""

import copy
import functools
import warnings

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from hooks import Access, Prompts, Site, capture, conformance, edits, intervene, intervening
from hooks.conformance import audit, check_model
from hooks.conformance.identities import adds_up
from workbench import models
from workbench.models import twins
from workbench.models.tiny import fill

NO_PLACE = "this architecture has no such place"
SILENT = "its hook point is there but never fires"
NOT_ADDED = "its blocks do not add their parts to the residual stream"
HOLDS_PATTERN = "its hook point holds the pattern, after the softmax"
DROPPED = "TransformerLens drops what is written there"
NORMALISED = "the heads' sum is normalised before it joins the residual stream"
NOT_GATED = {"neuron_up": "this architecture has no such place"}
PARALLEL = "attention and MLP read the same input, so nothing lies between"

REFUSED = {
    "GPT-2": {"q_rot": NO_PLACE, "k_rot": NO_PLACE, **NOT_GATED},
    "Llama": {},
    "Mistral": {},
    "Qwen 2": {},
    "Qwen 3": {},
    "Gemma 2": {"head_out": NORMALISED},
    "Gemma 3": {"head_out": NORMALISED},
    "Phi": {"resid_mid": PARALLEL, **NOT_GATED},
    "Phi-3": {"q_rot": SILENT, "k_rot": SILENT},
    "GPT-NeoX": {"resid_mid": PARALLEL, "q_rot": SILENT, "k_rot": SILENT, **NOT_GATED},
    "GPT-NeoX, sequential": {"q_rot": SILENT, "k_rot": SILENT, **NOT_GATED},
    "OPT": {
        "q_rot": NO_PLACE, "k_rot": NO_PLACE, "scores": HOLDS_PATTERN, "pattern": DROPPED,
        **NOT_GATED,
    },
    "BERT": {
        "q_rot": NO_PLACE, "k_rot": NO_PLACE, "scores": HOLDS_PATTERN, "pattern": DROPPED,
        "attn_out": NOT_ADDED, "mlp_out": NOT_ADDED, "resid_mid": NOT_ADDED, "head_out": NOT_ADDED,
        "final": "the last norm does not read the residual stream", **NOT_GATED,
    },
    "native": {"q_rot": NO_PLACE, "k_rot": NO_PLACE, "scores": HOLDS_PATTERN, **NOT_GATED},
    "native, attention only": {
        "q_rot": NO_PLACE, "k_rot": NO_PLACE, "scores": HOLDS_PATTERN, "resid_mid": NO_PLACE,
        "mlp_out": NO_PLACE, "neuron_pre": NO_PLACE, "neuron": NO_PLACE, **NOT_GATED,
    },
}  # fmt: skip
"""By hand, from the architectures' papers and from reading TransformerLens."""


@functools.cache
def checked(architecture: str) -> tuple[models.Model, conformance.Conformance]:
    model, reference = twins.make(architecture)
    return model, check_model(model, reference)


@pytest.fixture
def llama() -> tuple[models.Model, torch.nn.Module]:
    return twins.make("Llama")


def failed(found: conformance.Conformance) -> set[str]:
    return {check.group for check in found.failures}


@pytest.mark.parametrize("architecture", twins.ARCHITECTURES)
def test_every_architecture_keeps_what_it_promises_and_refuses_the_rest_by_name(architecture):
    model, found = checked(architecture)
    assert found.passed, str(found)
    assert dict(model.access.refused) == REFUSED[architecture]
    assert model.access.writable == model.access.readable - set(REFUSED[architecture])
    for stream, reason in REFUSED[architecture].items():
        assert reason in found.refusals[f"streams: {stream}"]


def test_logits_are_exactly_those_of_the_reference_where_the_sums_are_in_the_same_order():
    for architecture in ("Llama", "GPT-NeoX", "Gemma 3", "Qwen 3", "BERT"):
        found = {check.name: check.measured for check in checked(architecture)[1].of("parity")}
        assert found == {"logits": 0.0, "logits, padded": 0.0}


@pytest.mark.parametrize(
    ("architecture", "nonlinearity"),
    [
        ("Llama", torch.nn.functional.silu), ("Qwen 3", torch.nn.functional.silu),
        ("Phi-3", torch.nn.functional.silu),
        ("Gemma 3", functools.partial(torch.nn.functional.gelu, approximate="tanh")),
    ],
)  # fmt: skip
def test_a_gated_neuron_is_the_product_of_its_gate_and_what_it_is_multiplied_by(
    architecture, nonlinearity
):
    model, _ = checked(architecture)
    streams = ("neuron_pre", "neuron_up", "neuron")
    gate, up, product = (Site(stream, 1) for stream in streams)
    seen = capture(model, torch.arange(3, 15).reshape(2, 6), [gate, up, product])
    assert_close(nonlinearity(seen[gate]) * seen[up], seen[product], rtol=1e-5, atol=1e-6)
    assert not seen[gate].allclose(seen[up], atol=1e-3)


def test_a_cut_is_refused_with_the_reason_of_the_stream_that_is_missing():
    found = checked("BERT")[1].refusals
    assert found["cuts: resid_mid"] == f"resid_mid: {NOT_ADDED}"
    assert found["cuts: attn_out + mlp_out"] == f"attn_out: {NOT_ADDED}"
    assert found["causality: edit at a position"] == "this model is bidirectional"


def test_a_cut_of_all_parts_starts_from_another_run_and_still_arrives():
    found = {check.name: check for check in checked("Llama")[1].of("cuts")}
    assert {name for name, check in found.items() if check.verdict == "pass"} == {
        "embed", "resid_pre", "resid_mid", "resid_post", "final", "attn_out + mlp_out",
        "z + neuron", "q + k + v + mlp_out", "q + k + v + neuron", "q_rot + k_rot + v + mlp_out",
        "scores + v + mlp_out", "pattern + v + mlp_out",
    }  # fmt: skip


def test_writing_resid_mid_at_its_own_hook_point_fails_to_screen(llama, monkeypatch):
    def naive(site, several, passes):
        apply = intervene._apply
        return [(site.hook_name, lambda x, hook: apply(x, site, several, passes))]

    monkeypatch.setattr(intervene, "_hooks_between", naive)
    found = check_model(*llama)
    broken = {(check.group, check.name) for check in found.failures}
    assert ("cuts", "resid_mid") in broken
    assert "resid_mid" in str(found) and "FAILED" in str(found)


def test_a_hook_that_writes_in_place_is_found(llama):
    model, reference = llama
    model.add_perma_hook(Site("resid_post", 0).hook_name, lambda x, hook: x.mul_(0.5))
    assert "parity" in failed(check_model(model, reference))


def test_one_changed_weight_in_the_reference_is_found(llama):
    model, reference = llama
    with torch.no_grad():
        reference.model.layers[1].mlp.down_proj.weight[0, 0] += 0.1
    found = check_model(model, reference)
    assert failed(found) == {"parity"}


def test_a_dropped_mask_is_found():
    model, reference = twins.make("BERT")

    class Maskless(type(model)):
        def forward(self, input, *args, **kwargs):
            tokens = input.tokens if isinstance(input, Prompts) else input
            return super().forward(tokens, *args, **kwargs)

    model.__class__ = Maskless
    assert {"parity", "padding"} <= failed(check_model(model, reference))


def test_a_model_that_sees_the_future_is_found():
    model, _ = twins.make("BERT")
    model.cfg.attention_dir = "causal"
    assert {"causality", "attention"} <= failed(check_model(model))


def test_an_edit_that_is_dropped_fails_where_it_is_called_writable():
    model, _ = twins.make("OPT")
    found = model.access
    overstated = Access(found.readable, found.writable | {"pattern"}, found.refused)
    model.__class__ = type("Sure", (type(model),), {"access": property(lambda _: overstated)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens says so the first time only
        broken = {(check.group, check.name): check for check in check_model(model).failures}
    assert ("live edits", "pattern") in broken
    assert broken["live edits", "pattern"].where.startswith("pattern ")


def test_a_hook_left_behind_is_found(llama, monkeypatch):
    model, reference = llama

    def leaky(trial):
        trial.model.add_perma_hook(Site("z", 0).hook_name, lambda x, hook: None)
        yield from ()

    monkeypatch.setitem(conformance.check._CHECKS, "leaky", leaky)
    assert failed(check_model(model, reference)) == {"inventory"}


def test_a_reference_in_training_mode_is_no_reference(llama):
    model, reference = llama
    found = check_model(model, reference.train())
    assert "call reference.eval()" in found.of("parity")[0].expected


def test_a_model_of_one_layer_is_checked_like_any_other():
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        plain = LlamaForCausalLM(config).eval()
    fill(plain, torch.Generator().manual_seed(3))
    plain.set_attn_implementation("eager")
    reference = copy.deepcopy(plain)
    model = models.wrap(plain)
    assert dict(model.access.refused) == {}
    assert check_model(model, reference).passed


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "Gemma 3", "GPT-NeoX", "BERT", "OPT"])
def test_half_precision_has_the_same_streams(architecture):
    model, _ = twins.make(architecture)
    model.original_model.to(torch.bfloat16)
    assert dict(audit(model).refused) == REFUSED[architecture]


def test_a_layer_that_does_nothing_does_not_make_its_streams_unwritable():
    model, _ = twins.make("Llama")
    with torch.no_grad():
        model.original_model.model.layers[0].mlp.down_proj.weight.zero_()
    assert dict(audit(model).refused) == {}


def test_a_small_part_beside_a_large_stream_is_still_held_to_its_sum():
    stream, part = torch.full((4,), 1000.0), torch.full((4,), 0.5)
    assert adds_up([stream, part], stream + part)
    assert not adds_up([stream, part], stream)  # off by 5e-4 of the largest value


def test_a_leaf_put_at_resid_mid_has_the_gradient_of_attn_out(llama):
    model, prompts = llama[0], Prompts.of(torch.arange(3, 9)[None])
    gradients = []
    for stream in ("attn_out", "resid_mid"):
        delta = torch.zeros(1, 6, 32, requires_grad=True)
        with intervening(model, {Site(stream, 0): edits.add(delta)}):
            model(prompts)[0, -1, 5].backward()
        gradients.append(delta.grad)
    assert_close(*gradients, rtol=0, atol=0)
    assert gradients[0].abs().sum() > 0


@pytest.mark.slow
def test_the_default_model_keeps_what_it_promises(default_model):
    found = check_model(default_model)
    assert found.passed, str(found)
    assert found.layers == "layers 0, 15, 29 of 30"
