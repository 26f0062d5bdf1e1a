"""One path of chosen steps, against one full pass for each step."""

import pytest
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import metrics, patching
from workbench.models import twins


def test_paths_of_a_linear_model_add_up_to_the_total_effect(task_of):
    """Attention without norms whose second layer looks at all tokens alike is linear."""
    model, _ = twins.make("native, attention only")
    for projection in (model.blocks[1].attn.q.weight, model.blocks[1].attn.k.weight):
        projection.data.zero_()
    task, sender = task_of(), (Site("z", 0), 1)

    def along(*route):
        return patching.path(model, task, route, metric=metrics.logit_diff).per_prompt[0]

    through = [along(sender, (Site("v", 1), head), "logits") for head in range(model.cfg.n_heads)]
    value = capture(model, task.corrupt, [sender[0]])[sender[0]]
    with intervening(model, {sender[0]: edits.replace(value, heads=[1])}):
        total = metrics.logit_diff(model(task.clean), task)
    total = total - metrics.logit_diff(model(task.clean), task)
    assert_close(along(sender, "logits") + sum(through), total, rtol=1e-4, atol=1e-5)
    assert sum(through).abs().max() > 0.01


@pytest.mark.parametrize(
    "route",
    [
        [(Site("z", 0), 1), (Site("v", 1), 2), Site("mlp_out", 2), "logits"],
        [Site("mlp_out", 0), (Site("q", 1), 3), (Site("k", 2), 0), "logits"],
        [(Site("z", 1), 0), Site("mlp_out", 1), "logits"],
    ],
)
def test_a_path_of_several_steps_is_one_full_pass_for_each(route, model_of, task_of, naive_path):
    model, task = model_of("GPT-2"), task_of()
    found = patching.path(model, task, route, metric=metrics.logit_diff)
    expected = naive_path(model, task, route)
    room = 1e-5 * float(model(task.clean).abs().max())
    assert_close(found.per_prompt[0], expected, rtol=0, atol=room)
    assert expected.abs().max() > 50 * room


def test_a_path_of_one_step_is_what_paths_finds_for_its_sender(model_of, task_of):
    model, task = model_of("Llama"), task_of()
    sender, receiver = (Site("z", 0), 3), (Site("k", 2), 1)
    for end in (receiver, "logits"):
        one = patching.path(model, task, [sender, end], metric=metrics.logit_diff)
        all_senders = patching.paths(
            model, task, to=end, metric=metrics.logit_diff, between="frozen"
        )
        assert_close(one.per_prompt[0], all_senders.per_prompt[0, 3], rtol=1e-4, atol=1e-5)
    assert one.places == ["0.3 → logits"]


def test_a_path_that_does_not_lead_upwards_is_refused(model_of, task_of):
    def along(*route):
        patching.path(model_of("GPT-2"), task_of(), route, metric=metrics.logit_diff)

    with pytest.raises(ValueError, match=r"0\.0 q does not read what 1\.1 writes"):
        along((Site("z", 1), 1), (Site("q", 0), 0))
    with pytest.raises(ValueError, match="name at least two"):
        along("logits")
    with pytest.raises(ValueError, match=r"is all heads: name one"):
        along(Site("z", 1), "logits")
    with pytest.raises(ValueError, match="sends nothing of its own"):
        along((Site("q", 1), 1), "logits")
