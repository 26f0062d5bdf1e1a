"""Layers by positions, folds by seeds: one call gives what separate ones give."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture
from workbench import metrics, probes
from workbench.probes.nested import nested_each

PLACES = {"noun": 2, "before": torch.full((40,), 1)}


@pytest.fixture(scope="module")
def spread(planted):
    return probes.features(planted.model, planted.task.clean, planted.number, positions=PLACES)


def test_features_at_several_positions_are_what_flows_there(planted, spread):
    names = [(0, "noun"), (0, "before"), (1, "noun"), (1, "before")]
    assert [tuple(one) for one in spread.places] == names
    for row, place in enumerate(spread.places):
        site = Site("resid_post", place.layer)
        seen = capture(planted.model, planted.task.clean, [site])[site]
        assert_close(spread.x[row], seen[:, {"noun": 2, "before": 1}[place.position]])
        assert spread.row(*place) == row
    heads = probes.features(
        planted.model, planted.task.clean, planted.number, stream="z", positions=PLACES
    )
    seen = capture(planted.model, planted.task.clean, [Site("z", 1)])[Site("z", 1)]
    assert_close(heads.x[heads.row(1, "noun")], seen[:, 2].flatten(1))


def test_one_position_of_several_is_what_that_position_alone_gives(planted, spread):
    for name, at in PLACES.items():
        alone = probes.features(planted.model, planted.task.clean, planted.number, positions=at)
        part = spread.standing_at(name)
        assert_close(part.x, alone.x)
        assert part.layers == alone.layers == (0, 1)
        assert part.what == f"resid_post at {name} of each prompt"


def test_every_place_fold_seed_and_strength_of_one_call_is_what_it_is_alone(planted, spread):
    splits = probes.repeated_k_fold(spread, 4, seeds=(0, 1))
    l2 = (1e-2, 1.0)
    fits = probes.fit_each(spread, splits, l2=l2)
    assert fits.weight.shape == (4, 8, 1, 2, 1, 32)
    for row, place in enumerate(spread.places):
        alone = probes.features(
            planted.model, planted.task.clean, planted.number, layers=[place.layer],
            positions=PLACES[place.position],
        )  # fmt: skip
        for seed in range(2):
            for fold, (train, _) in enumerate(probes.k_fold(alone, 4, seed=seed)):
                for at, strength in enumerate(l2):
                    one = probes.fit(alone.x[0][train], alone.y[train], l2=strength)
                    found = fits.probe(row, fold=4 * seed + fold, l2=at)
                    assert_close(found.weight, one.weight, rtol=1e-3, atol=1e-5)
                    assert_close(found.bias, one.bias, rtol=1e-3, atol=1e-5)
    noun, before = (fits.probe(spread.row(1, name)).predict for name in ("noun", "before"))
    assert (noun(spread.x[2]) == spread.y).all()
    assert not (before(spread.x[3]) == spread.y).all()  # what came before says nothing


def test_settings_chosen_for_several_seeds_at_once_are_those_chosen_for_each(noisy):
    examples = noisy(layers=2)
    every = [probes.k_fold(examples, 3, seed=seed) for seed in (0, 1)]
    options = {"l2": (1e-3, 1e-1, 10.0), "tolerance": 1e-8}
    together = nested_each(examples, every, seeds=[5, 6], **options)
    for splits, seed, found in zip(every, (5, 6), together, strict=True):
        alone = probes.nested(examples, splits, seed=seed, **options)
        assert found.l2.equal(alone.l2)
        assert_close(found.scores, alone.scores, rtol=1e-3, atol=1e-4)
        assert_close(found.inside, alone.inside, rtol=1e-3, atol=1e-4)
        fits = probes.fit_each(examples, splits, l2=options["l2"])
        for fold, test in enumerate(splits.test):
            for layer in (0, 1):
                at = options["l2"].index(float(found.l2[layer, 0, fold]))
                probe = fits.probe(layer, fold=fold, l2=at)
                wanted = probe.scores(examples.x[layer, test])
                assert_close(found.scores[layer, 0, test], wanted, rtol=1e-2, atol=1e-3)


def test_what_looks_at_one_position_refuses_several(planted, spread):
    with pytest.raises(ValueError, match=r"stand at noun, before: a study looks at one position"):
        probes.study(spread, task="a bit")
    with pytest.raises(ValueError, match="transfer looks at one position"):
        probes.transfer({"a": spread, "b": spread}, layer=0)
    with pytest.raises(ValueError, match="erasing looks at one position"):
        probes.amnesic(planted.model, planted.task, spread, metric=metrics.logit_diff)
    at = planted.task.positions["noun"]
    study = probes.study(
        spread.standing_at("noun"), task="a bit", l2=(1e-1,), repeats=1, shuffles=1
    )
    with pytest.raises(
        ValueError,
        match=r"steering looks at one position; take examples.standing_at\('noun'\)",
    ):
        probes.steered(
            study, planted.model, planted.task, spread, metric=metrics.logit_diff, positions=at,
            layers=(0,),
        )  # fmt: skip


def test_places_that_are_not_there_are_named(spread):
    with pytest.raises(ValueError, match=r"no layer 7 at 'noun' among .* have 0 noun, 0 before, 1"):
        spread.row(7, "noun")
    with pytest.raises(ValueError, match="no position 'verb'; there is noun, before"):
        spread.standing_at("verb")
    with pytest.raises(ValueError, match="4 rows of x, but 2 layers and 0 positions"):
        probes.Examples(spread.x, spread.y, spread.groups, layers=(0, 1))
    with pytest.raises(ValueError, match="no splits were given"):
        probes.repeated_k_fold(spread, 4, seeds=())
