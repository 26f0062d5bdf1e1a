"""What the effects of paths say, and what cannot be asked."""

import pytest
import torch

from hooks import Site
from workbench import metrics, patching, results
from workbench.models import twins


def by_hand(direction="noise"):
    effect = torch.tensor([[0.0, -1.0], [-3.0, 2.0]])
    p = torch.tensor([[1.0, 0.01], [0.01, 0.01]])
    mlp = torch.tensor([0.5, -4.0])
    return patching.PathEffects(
        effect=effect, low=effect - 0.1, high=effect + 0.1, p=p,
        per_prompt=effect[..., None].repeat(1, 1, 3), mlp=mlp, mlp_low=mlp - 0.2,
        mlp_high=mlp + 0.2, mlp_p=torch.tensor([0.5, 0.001]),
        mlp_per_prompt=mlp[..., None].repeat(1, 3), baseline=torch.full((3,), 2.0),
        other=torch.full((3,), -1.0), to="9.6 q", between="free", direction=direction,
        metric="logit_diff", unit="nats", task="by hand", task_digest="", model="a model",
        model_digest="",
    )  # fmt: skip


def test_the_most_helpful_sender_is_lost_most_or_brings_most_back():
    assert by_hand().most_helpful(2) == [(1, 0), (0, 1)]
    assert by_hand("denoise").most_helpful(2) == [(1, 1), (0, 0)]
    assert by_hand().significant() == [(1, 0), (1, 1), (0, 1)]
    said = by_hand().sentence()
    assert "3 change it by this path (corrected p ≤ 0.05), 2 of them help" in said
    assert "1.0 (-3.00)" in said and "9.6 q" in said
    lines = by_hand().table(2).splitlines()
    assert lines[1].split() == ["MLP", "1", "-4.000", "[-4.200,", "-3.800]", "0.0010", "*"]
    assert lines[2].startswith("1.0 ")
    assert by_hand().headline()["significant"] == 3


def test_a_result_is_read_back_as_it_was_and_the_same_seed_gives_the_same_bits(
    tmp_path, model_of, task_of
):
    model, task = model_of("Llama"), task_of()
    one, other = (
        patching.paths(model, task, to="logits", metric=metrics.logit_diff) for _ in range(2)
    )
    results.save(one, tmp_path / "result.nc")
    again = results.load(patching.PathEffects, tmp_path / "result.nc")
    assert results.digest(again) == results.digest(one) == results.digest(other)


def test_what_cannot_be_asked_is_refused_by_name(task_of, refused):
    refused("receives through its queries, keys and values", to=(Site("z", 1), 0))
    refused("receives nothing: take q, k, v", to=Site("resid_pre", 1))
    refused(r"head 1\.2 does not exist: k 1 has heads 0 to 1", to=(Site("k", 1), 2), model="Llama")
    refused("the logits receive alone", to=["logits", Site("mlp_out", 1)])
    refused("is for to='logits'", to=(Site("q", 2), 1), between="linear")
    refused("no head and no MLP comes before 0.1 q", to=(Site("q", 0), 1))
    refused("1.1 q is among all heads of q 1", to=[Site("q", 1), (Site("q", 1), 1)])
    refused("bounds and tests need at least two", task=task_of()[0])


def test_a_model_whose_blocks_do_not_add_up_is_refused_with_the_reason(task_of):
    model, _ = twins.make("BERT")
    with pytest.raises(ValueError, match="do not add their parts to the residual stream"):
        patching.paths(model, task_of(), to="logits", metric=metrics.logit_diff)
