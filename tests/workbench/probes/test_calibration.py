"""On models without knowledge, and for labels without meaning, nothing is found at the stated rate.

Forty runs each at 5 %: as many as have a chance of 1 in 200 to be more.
"""

from dataclasses import replace

import pytest
import torch

from hooks import Prompts, Site
from workbench import metrics, probes, tasks
from workbench.models import twins

pytestmark = pytest.mark.slow

RUNS = 40
SITE = Site("resid_post", 0)
OPTIONS = {"site": SITE, "metric": metrics.logit_diff}


def _drawn(seed):
    """A reinitialised model, prompts to ask about and others with labels that mean nothing."""
    model, _ = twins.make("GPT-2", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, 60, (48, 6), generator=generator)
    other = tokens[:24].clone()
    other[:, 1] = (other[:, 1] + 1) % 60
    answer = torch.full((24, 1), 3)
    task = tasks.Task(
        "noise", Prompts.of(tokens[:24]), Prompts.of(other), answer, answer + 1, {},
        torch.zeros(24).long(),
    )  # fmt: skip
    return model, task, probes.features(model, Prompts.of(tokens[24:]), _labels(24, generator))


def _labels(count, generator):
    return torch.arange(count)[torch.randperm(count, generator=generator)] % 2


@pytest.fixture
def stretched(planted):
    """The planted model, what its logits read made to vary eight times as far, for a while."""
    named = dict(planted.model.original_model.named_parameters())
    (embedding,) = [one for name, one in named.items() if "embed" in name and name[:3] != "pos"]
    with torch.no_grad():
        embedding[10:50, 0] *= 8
        yield planted
        embedding[10:50, 0] /= 8


@pytest.fixture(scope="module")
def drawn():
    return [_drawn(seed) for seed in range(RUNS)]


def _way(examples):
    x, y = examples.x[0], examples.y
    return x[y == 1].mean(0) - x[y == 0].mean(0)


@pytest.mark.parametrize("kind", ["norm", "spread"])
def test_pushing_along_what_tells_meaningless_labels_apart_is_called_used_at_the_stated_rate(
    drawn, most_by_chance, kind
):
    called = 0
    for seed, (model, task, examples) in enumerate(drawn):
        found = probes.use(
            model, task, probes.Push(_way(examples)), against=probes.Placebos(kind, 19),
            seed=seed, **OPTIONS,
        )  # fmt: skip
        called += found.is_used
    assert called <= most_by_chance(RUNS)


def test_projecting_it_out_is_called_used_at_the_stated_rate(drawn, most_by_chance):
    called = 0
    for seed, (model, task, examples) in enumerate(drawn):
        change = probes.projection(_way(examples), mean=examples.x[0].mean(0))
        found = probes.use(
            model, task, change, against=probes.Placebos("spread", 19), seed=seed, **OPTIONS
        )
        called += found.is_used
    assert called <= most_by_chance(RUNS)


def test_erasing_means_of_meaningless_labels_is_called_used_at_the_stated_rate(
    drawn, most_by_chance
):
    called = 0
    for seed, (model, task, _) in enumerate(drawn):
        y = _labels(24, torch.Generator().manual_seed(2000 + seed))
        examples = probes.features(model, task.clean, y, layers=[0])
        found = probes.amnesic(
            model, task, examples, metric=metrics.logit_diff, method="mean",
            against=probes.Placebos("spread", 19), seed=seed,
        )  # fmt: skip
        called += len(found.used())
    assert called <= most_by_chance(RUNS)


def test_a_study_steers_by_meaningless_labels_at_the_stated_rate(drawn, most_by_chance):
    first = drawn[0][2]
    study = probes.study(first, task="noise", folds=2, l2=(1.0,), repeats=1, shuffles=1, seed=0)
    called = 0
    for seed, (model, task, examples) in enumerate(drawn):
        found = probes.steered(
            replace(study, model=examples.model, model_digest=examples.model_digest),
            model, task, examples, metric=metrics.logit_diff, positions=task.clean.last,
            layers=(0, 1), against=probes.Placebos("spread", 19), seed=seed,
        )  # fmt: skip
        called += bool((found.steer_p <= 0.05).any())  # corrected for both layers
    assert called <= most_by_chance(RUNS)


def test_meaningless_labels_transfer_at_the_stated_rate(drawn, most_by_chance):
    transferred = above = 0
    for seed, (model, _, one) in enumerate(drawn):
        generator = torch.Generator().manual_seed(1000 + seed)
        tokens = torch.randint(5, 60, (60, 6), generator=generator)
        other = probes.features(model, Prompts.of(tokens), _labels(60, generator))
        found = probes.transfer({"one": one, "other": other}, layer=1, seed=seed)
        transferred += len(found.transfers())
        above += int((found.accuracy[~torch.eye(2, dtype=torch.bool)] > 0.5).sum())
    # The lower of two bounds at 95 %: one in forty, of two directions a run.
    assert transferred <= most_by_chance(2 * RUNS, 0.025)
    assert 0.3 < above / (2 * RUNS) < 0.7


@pytest.mark.parametrize("kind", ["norm", "spread"])
def test_where_little_else_varies_than_what_is_read_placebos_must_vary_as_activations_do(
    stretched, most_by_chance, kind
):
    called, task = 0, stretched.task[list(range(20))]
    for seed in range(RUNS // 2):
        y = _labels(40, torch.Generator().manual_seed(seed))
        examples = probes.features(stretched.model, stretched.task.clean, y, layers=[0])
        change = probes.projection(_way(examples), mean=examples.x[0].mean(0))
        found = probes.use(
            stretched.model, task, change, positions=task.positions["noun"],
            against=probes.Placebos(kind, 19), seed=seed, **OPTIONS,
        )  # fmt: skip
        called += found.is_used
    if kind == "spread":
        assert called <= most_by_chance(RUNS // 2)
    else:
        assert called > RUNS // 4  # most of them: what "norm" is not for
