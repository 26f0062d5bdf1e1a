"""What an attribution answers, and what cannot be asked."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture
from workbench import effects, metrics
from workbench.models import twins

DIFF = metrics.logit_diff


class TestAMetricWithoutSlope:
    def test_is_refused_where_it_has_its_best_value(self, padded):
        model, _ = twins.make("Llama")
        reference = capture(model, padded.clean, [], logits="last").logits[:, 0]
        closeness = metrics.minus_kl(reference)
        with pytest.raises(ValueError, match=r"minus_kl at the clean run is zero.*best"):
            effects.attribute(model, padded, [Site("z", 0)], metric=closeness)
        found = effects.attribute(model, padded, [Site("z", 0)], metric=closeness, at="corrupt")
        assert found[Site("z", 0)].any()

    def test_is_refused_when_it_counts(self, padded):
        model, _ = twins.make("Llama")
        with pytest.raises(ValueError, match="gradient of accuracy at the corrupt run is zero"):
            effects.attribute(model, padded, [Site("z", 0)], metric=metrics.accuracy, at="corrupt")


def test_bad_questions_are_refused_before_anything_runs(padded):
    model, _ = twins.make("Llama")

    def ask(wanted, **how):
        return effects.attribute(model, padded, wanted, **{"metric": DIFF, **how})

    with pytest.raises(ValueError, match="name at least one site"):
        ask([])
    with pytest.raises(Exception, match=r"clean.*or the .*corrupt.* run|Type-check"):
        ask([Site("z", 0)], at="dirty")
    with pytest.raises(Exception, match=r"no method 'magic'; there are gradient|Type-check"):
        ask([Site("z", 0)], method="magic")
    with pytest.raises(ValueError, match=r"cannot sum over 'neuron'.*pos, head"):
        ask([Site("z", 0)], summed=["neuron"])
    with pytest.raises(ValueError, match=r"write summed=\('pos',\)"):
        ask([Site("z", 0)], summed="pos")
    with pytest.raises(KeyError, match="source has nothing for z 1"):
        ask([Site("z", 1)], source={Site("z", 0): torch.zeros(4, 8)})
    with pytest.raises(ValueError, match=r"cannot replace z 1, of shape \(3, 7, 4, 8\)"):
        ask([Site("z", 1)], source={Site("z", 1): torch.zeros(5, 8)})
    with pytest.raises(ValueError, match="leads to the other run"):
        ask([Site("z", 1)], source="zero", method=effects.Integrated(path="inputs"))


def test_the_model_comes_out_as_it_went_in(padded):
    from hooks.conformance.check import attached
    from workbench.models.bridge import digest

    model, _ = twins.make("Llama")
    effects.attribute(model, padded, [Site("z", 0)], metric=DIFF)
    weights, hooks = digest(model.original_model), attached(model)
    for method in ("gradient", "exact softmax", effects.Integrated(steps=2)):
        effects.attribute(model, padded, [Site("q", 0), Site("k", 1)], metric=DIFF, method=method)
    effects.grad_drop(model, padded, [Site("k", 0)], metric=DIFF)
    effects.conductance(model, padded, [Site("z", 0)], metric=DIFF, steps=2)
    assert digest(model.original_model) == weights and attached(model) == hooks
    assert all(p.grad is None and not p.requires_grad for p in model.original_model.parameters())


def by_hand(**changed):
    z = torch.zeros(2, 2, 3)  # pos head batch
    z[1, 0] = torch.tensor([1.0, 2.0, 3.0])
    neuron = torch.zeros(2, 3, 3)
    neuron[0, 2] = -5.0
    fields = {
        "per_prompt": {Site("z", 1): z, Site("z", 0): z * 0.5, Site("neuron", 0): neuron},
        "baseline": torch.ones(3), "at": "clean", "method": "gradient",
        "source": "counterfactual", "summed": (), "metric": "logit_diff", "unit": "nats",
        "task": "a task", "task_digest": "", "model": "a model", "model_digest": "",
    }  # fmt: skip
    return effects.Attribution(**{**fields, **changed})


def test_an_attribution_answers_what_people_ask_of_it():
    found = by_hand()
    assert [(str(node), node.effect) for node in found.strongest(2)] == [
        ("neuron 0 pos 0 neuron 2", -5.0),
        ("z 1 pos 1 head 0", 2.0),
    ]
    assert found.stacked("z").shape == (2, 2, 2, 3)
    assert_close(found.stacked("z")[0], found[Site("z", 0)], rtol=0, atol=0)
    assert "Strongest of 14 nodes of a model for logit_diff (nats) on a task" in found.sentence()
    assert "neuron 0 pos 0 neuron 2 (-5.000); z 1 pos 1 head 0 (+2.000)" in found.sentence()
    with pytest.raises(KeyError, match="nothing was attributed to z 2; attributed: neuron 0, z 0"):
        found[Site("z", 2)]
    with pytest.raises(KeyError, match="attributed streams: z, neuron"):
        found.stacked("q")
    frame = found.to_frame()
    assert len(frame) == 4 + 4 + 6
    row = frame[(frame.stream == "neuron") & (frame.pos == 0) & (frame.neuron == 2)]
    assert row.effect.item() == -5 and row["head"].isna().all()
    assert frame.groupby("stream").effect.sum().to_dict() == {"neuron": -5, "z": 3}


def test_a_site_whose_nodes_miss_the_whole_by_more_than_a_thousandth_is_incomplete():
    found = by_hand(
        gap={Site("z", 0): 0.0009, Site("z", 1): 0.0011, Site("neuron", 0): float("nan")}
    )
    assert found.incomplete == [Site("z", 1), Site("neuron", 0)]
