"""What a push does and costs, and how long the random ones beside it are."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import metrics, probes, statistics, tasks
from workbench.statistics import derive

SITE = Site("resid_post", 0)


@pytest.fixture(scope="module")
def one_way(planted):
    """The planted task with the same answer everywhere, and what the metric reads there."""
    answer = torch.ones_like(planted.task.answer)
    task = replace(planted.task, answer=answer, foil=2 * answer)
    return task, planted.read[1] - planted.read[2]


@pytest.mark.parametrize("length", [0.5, 3.0])
def test_placebos_of_a_push_are_exactly_as_long(planted, one_way, length):
    task, read = one_way
    vector = torch.nn.functional.normalize(torch.arange(32.0), dim=0) * length
    found = probes.use(
        planted.model, task, probes.Push(vector), site=SITE, metric=metrics.logit_diff,
        against=probes.Placebos("norm", 19),
    )  # fmt: skip
    # Without norms the logits are linear: what a push does is its product with what they read.
    generator = derive(0, "placebos", "push")
    drawn = [torch.randn(1, 32, generator=generator, dtype=torch.float64) for _ in range(19)]
    drawn = torch.cat([one / one.norm() * length for one in drawn])
    assert_close(found.placebo, drawn @ read.double(), rtol=1e-4, atol=1e-5)


def test_random_vectors_beside_a_steering_curve_are_exactly_as_long(planted, one_way):
    task, read = one_way
    vector = torch.linspace(-1, 2, 32)
    found = probes.steer(
        planted.model, task, vector, site=SITE, metric=metrics.logit_diff, corpus=task.clean,
        strengths=(-1.0, 0.0, 2.0),
    )  # fmt: skip
    drawn = torch.randn(19, 32, generator=derive(0, "steering"))
    drawn = torch.nn.functional.normalize(drawn, dim=1) * vector.norm()
    wanted = (drawn @ read)[:, None] * torch.tensor([-1.0, 0.0, 2.0])
    assert_close(found.placebo, wanted, rtol=1e-4, atol=1e-4)
    assert_close(found.effect, float(vector @ read) * torch.tensor([-1.0, 0.0, 2.0]))
    assert found.length == pytest.approx(float(vector.norm()))


@pytest.mark.parametrize("kind", ["norm", "spread", "rank"])
def test_directions_of_every_kind_of_placebo_have_length_one(kind):
    x = 50 * torch.randn(40, 12, generator=torch.Generator().manual_seed(0)) + 7
    found = probes.Placebos(kind).directions(5, x, generator=torch.Generator().manual_seed(1))
    assert_close(found.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_directions_with_the_spread_of_activations_lie_where_activations_vary():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator) * torch.tensor([10.0] + [0.1] * 11)
    found = probes.Placebos("spread").directions(50, x, generator=generator)
    assert float(found[:, 0].square().mean()) > 0.9
    found = probes.Placebos("norm").directions(50, x, generator=generator)
    assert float(found[:, 0].square().mean()) == pytest.approx(1 / 12, abs=0.05)


def test_the_loss_of_a_steered_text_is_that_of_the_steered_model_less_its_own(tiny):
    task = tasks.agreement(tiny, prompts=6, seed=0)
    vector = 4 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    found = probes.steer(
        tiny, task, vector, site=SITE, metric=metrics.logit_diff, corpus=task.corrupt,
        strengths=(0.0, 0.5, 2.0),
    )  # fmt: skip
    plain = _loss(tiny, task.corrupt)
    for at, strength in enumerate((0.0, 0.5, 2.0)):
        with intervening(tiny, {SITE: edits.add(strength * vector)}):
            change = _loss(tiny, task.corrupt) - plain
        assert_close(found.loss[at], change.mean(), rtol=1e-4, atol=1e-5)
        bounds = statistics.bounds(change)
        assert_close(found.loss_low[at], bounds.low.float(), rtol=1e-3, atol=1e-5)
        assert_close(found.loss_high[at], bounds.high.float(), rtol=1e-3, atol=1e-5)
    assert found.loss_low[2] < found.loss[2] < found.loss_high[2]


def _loss(model, prompts):
    """Mean cross-entropy of each text, prompt by prompt."""
    found = []
    for row, length in enumerate(prompts.lengths.tolist()):
        tokens = prompts.tokens[row : row + 1, :length]
        logits = model(tokens)[0, :-1].detach()
        found.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:]))
    return torch.stack(found)
