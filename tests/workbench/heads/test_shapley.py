from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench import heads, metrics, models, plots, results, tasks
from workbench.heads import games


def random_game(players: int, seed: int = 0) -> dict[games.Coalition, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        some: torch.randn(3, generator=generator, dtype=torch.float64)
        for some in games.coalitions(players)
    }


def test_shares_of_a_random_game_are_the_mean_over_all_orders_of_coming():
    worth = random_game(4)
    every = [games.contributions(worth, list(order)) for order in permutations(range(4))]
    assert_close(games.exact_values(worth, 4), torch.stack(every).mean(0), rtol=0, atol=1e-9)


def test_shares_of_a_random_game_are_the_solution_of_kernel_shap_with_every_mask():
    players, worth = 5, random_game(5, seed=1)
    inner = [some for some in games.coalitions(players) if 0 < len(some) < players]
    inside = np.array([[player in some for player in range(players)] for some in inner], float)
    weight = np.array(
        [
            (players - 1) / (comb(players, len(s)) * len(s) * (players - len(s)))
            for s in inner
        ]
    )  # fmt: skip
    none, everyone = worth[frozenset()].numpy(), worth[frozenset(range(players))].numpy()
    gain = np.stack([worth[some].numpy() - none for some in inner])
    # The last share is what the others leave of the total (Lundberg & Lee 2017).
    left = inside[:, :-1] - inside[:, -1:]
    right = gain - inside[:, -1:] * (everyone - none)
    root = np.sqrt(weight)[:, None]
    shares = np.linalg.lstsq(root * left, root * right, rcond=None)[0]
    shares = np.vstack([shares, everyone - none - shares.sum(0)])
    assert_close(games.exact_values(worth, players).numpy(), shares, rtol=0, atol=1e-9)


def test_shares_sum_to_the_total_in_every_order():
    worth = random_game(6)
    total = worth[frozenset(range(6))] - worth[frozenset()]
    assert_close(games.exact_values(worth, 6).sum(0), total, rtol=0, atol=1e-9)
    for order in games.orders(6, 8, torch.Generator().manual_seed(0)):
        assert_close(games.contributions(worth, order).sum(0), total, rtol=0, atol=1e-9)


def test_players_who_do_the_same_get_the_same_and_one_who_does_nothing_gets_nothing():
    worth = {  # players 0 and 2 count, and alike; player 1 does not
        some: torch.tensor([float(len(some - {1})) ** 2, float(len(some - {1}) == 2)])
        for some in games.coalitions(3)
    }
    assert_close(games.exact_values(worth, 3).float(), torch.tensor([[2, 0.5], [0, 0], [2, 0.5]]))


def test_shares_of_two_games_added_are_the_shares_added():
    one, other = random_game(4, seed=1), random_game(4, seed=2)
    both = {some: 2 * one[some] - 3 * other[some] for some in one}
    expected = 2 * games.exact_values(one, 4) - 3 * games.exact_values(other, 4)
    assert_close(games.exact_values(both, 4), expected, rtol=0, atol=1e-9)


def test_every_second_order_is_the_one_before_it_reversed():
    found = games.orders(5, 6, torch.Generator().manual_seed(0))
    assert [one[::-1] for one in found[0::2]] == found[1::2]
    assert all(sorted(one) == list(range(5)) for one in found)
    assert len(games.needed([[0, 1], [1, 0]])) == 4


def test_an_order_and_its_reverse_are_exact_where_only_pairs_interact():
    generator = torch.Generator().manual_seed(0)
    alone, pairs = torch.randn(5, generator=generator), torch.randn(5, 5, generator=generator)
    worth = {
        some: sum(alone[i] for i in some) + sum(pairs[i, j] for i in some for j in some if i < j)
        + torch.zeros(2)
        for some in games.coalitions(5)
    }  # fmt: skip
    one, other = games.orders(5, 4, generator)[:2]
    mean = (games.contributions(worth, one) + games.contributions(worth, other)) / 2
    assert_close(mean, games.exact_values(worth, 5), rtol=0, atol=1e-5)


GAMES = {
    # Eight where player 0 is there and any other: each of those counts in one order of twenty.
    "redundant": lambda some: 8.0 * (0 in some and len(some) > 1),
    "rare": lambda some: len(some) - 5.0 * (some == {0, 1}),
    "majority": lambda some: 8.0 * (len(some) > 2),
}


def sampled(game: str, count: int, draws: int):
    """The exact values of five players, and what several samples of orders say of them."""
    worth = {some: torch.tensor([GAMES[game](some)]) for some in games.coalitions(5)}
    generator = torch.Generator().manual_seed(0)
    several = [games.orders(5, count, generator) for _ in range(draws)]
    seen = [{one: worth[one] for one in games.needed(orders)} for orders in several]
    found = [games.sampled_values(*pair, seed=0) for pair in zip(seen, several, strict=True)]
    return games.exact_values(worth, 5)[:, 0], found


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("count", [4, 16])
def test_the_bounds_of_sampled_shares_cover_the_exact_ones_however_few_the_orders(game, count):
    exact, found = sampled(game, count, draws=40)
    held = torch.stack([(one.low <= exact) & (exact <= one.high) for one in found])
    assert float(held.double().mean(dim=0).min()) >= 0.95


def test_a_player_that_none_of_the_orders_drawn_needs_has_bounds_all_the_same():
    """Of 16 orders, in two fifths of samples, none shows that the player counts."""
    exact, found = sampled("redundant", 16, draws=40)
    unseen = [one for one in found if float(one.error[1]) == 0]
    assert 0.2 <= len(unseen) / len(found) <= 0.65
    assert float(exact[1]) == pytest.approx(0.4)
    for one in unseen:
        assert float(one.shares[1]) == 0 and float(one.p[1]) == 1
        # of 8 pairs at most so many can have been missed, each worth no more than 8
        assert float(one.high[1]) == pytest.approx(8 * (1 - 0.025 ** (1 / 8)), abs=0.1)


def test_more_orders_make_the_bounds_of_shares_narrow():
    exact, (few,) = sampled("redundant", 16, draws=1)
    _, (many,) = sampled("redundant", 400, draws=1)
    assert float((many.high - many.low).max()) < 0.2 * float((few.high - few.low).max())
    assert bool(((many.low <= exact) & (exact <= many.high)).all())
    assert float(many.p[0]) < 0.05 < float(few.p[1])


def planted(name: str, prompts: int = 4):
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=prompts, seed=0), models.planted.truth(model)


@pytest.mark.parametrize("name", ["and", "or"])
def test_two_heads_of_an_and_or_an_or_have_equal_shares_of_eight_nats(name):
    model, task, truth = planted(name)
    found = heads.exact_shapley(model, task, metric=metrics.logit_diff)
    for head in truth.heads:  # from -4 to +4 together
        assert float(found.value[head]) == pytest.approx(4, abs=1e-3)
    assert all(abs(float(found.value[head])) < 1e-4 for head in truth.irrelevant)
    assert found.coalitions == 256 and found.orders == 0
    assert float(found.total.mean()) == pytest.approx(8, abs=1e-3)
    both = float(found.alone[truth.heads[0]]), float(found.alone[truth.heads[1]])
    assert both == pytest.approx((8, 8) if name == "and" else (0, 0), abs=1e-3)


@pytest.mark.parametrize("ablation", ["zero", "mean", "counterfactual"])
def test_of_four_heads_of_which_one_suffices_each_has_its_share_though_alone_it_costs_nothing(
    ablation,
):
    model, task, truth = planted("redundant")
    found = heads.exact_shapley(
        model, task, truth.heads, metric=metrics.logit_diff, ablation=ablation
    )
    (before,), alike = truth.roles["previous token"], truth.roles["induction"]
    # Eight nats where the first head and any of four are there: it is the last to come, or not.
    assert float(found.value[before]) == pytest.approx(8 * 4 / 5, abs=1e-3)
    for head in alike:
        assert float(found.value[head]) == pytest.approx(8 / 20, abs=1e-3)
        assert abs(float(found.alone[head])) < 1e-3
    assert found.value[truth.irrelevant[0]].isnan() and len(found.ranked()) == 5


def test_a_backup_has_a_share_that_its_single_ablation_hides():
    model, task, truth = planted("backup")
    (first,), (second,) = truth.roles["first"], truth.roles["backup"]
    alone = heads.ablate_each(model, task, metric=metrics.logit_diff)
    found = heads.exact_shapley(model, task, [first, second], metric=metrics.logit_diff)
    for head in (first, second):
        assert abs(float(alone.effect[head])) < 1e-3 and float(alone.p[head]) == 1
        assert float(found.value[head]) == pytest.approx(4, abs=1e-3)
    assert "+8.00 nats" in found.sentence() and "+0.00 summed" in found.sentence()


def test_shares_of_heads_that_add_up_are_what_each_costs_alone():
    model, task, truth = planted("duplicate")
    found = heads.exact_shapley(model, task, truth.roles["induction"], metric=metrics.logit_diff)
    assert found.ratio == pytest.approx(1, abs=1e-3)
    for head in truth.roles["induction"]:
        assert float(found.value[head]) == pytest.approx(4, abs=1e-3)


def test_sampled_shares_lie_within_their_bounds_of_the_exact_ones(tmp_path):
    model, task, truth = planted("redundant")
    exact = heads.exact_shapley(model, task, truth.heads, metric=metrics.logit_diff)
    found = heads.shapley(model, task, truth.heads, metric=metrics.logit_diff, orders=24, seed=1)
    for head in truth.heads:
        assert float(found.low[head]) <= float(exact.value[head]) <= float(found.high[head])
        assert float(found.error[head]) > 0 and float(exact.error[head]) == 0
    assert_close(found.per_prompt.nansum((0, 1)), found.total, rtol=1e-5, atol=1e-5)
    assert found.coalitions < 32 + 5 and found.orders == 24
    again = heads.shapley(model, task, truth.heads, metric=metrics.logit_diff, orders=24, seed=1)
    assert results.digest(again) == results.digest(found)
    results.save(found, tmp_path / "shares.nc")
    loaded = results.load(heads.ShapleyValues, tmp_path / "shares.nc")
    assert results.digest(loaded) == results.digest(found)
    assert plots.png(found)[:4] == b"\x89PNG" and len(found.table().splitlines()) == 6


def test_few_orders_make_no_share_significant_that_other_orders_would_not_give():
    model, task, truth = planted("backup")
    found = heads.shapley(model, task, metric=metrics.logit_diff, orders=4)
    (second,) = truth.roles["backup"]
    assert float(found.p[second]) > 0.05
    exact = heads.exact_shapley(model, task, truth.heads, metric=metrics.logit_diff)
    assert float(exact.p[second]) < float(found.p[second])


def test_bad_players_are_refused_by_name():
    model, task, _ = planted("or")
    wrong = [
        ([(0, 1), (5, 0)], "there is no head 5.0: layers are 0 to"),
        ([(0, 1), (0, 1)], "head 0.1 was given twice"),
        ([], "no players"),
    ]
    for players, message in wrong:
        with pytest.raises(ValueError, match=message):
            heads.exact_shapley(model, task, players, metric=metrics.logit_diff)
    with pytest.raises(ValueError, match="5 orders: they come in pairs"):
        heads.shapley(model, task, metric=metrics.logit_diff, orders=5)
    with pytest.raises(ValueError, match="13 players make 2 to the power of 13"):
        games.coalitions(13)


@pytest.mark.slow
def test_four_learned_induction_heads_share_what_none_of_them_costs_alone():
    model, task, _ = planted("induction-4", prompts=32)
    four = [(1, head) for head in range(4)]
    found = heads.exact_shapley(model, task, four, metric=metrics.answer_logprob)
    assert float(found.total.mean()) >= 3.69 and found.ratio > 10
    assert float(found.alone.nan_to_num(0).max()) <= 0.2
    assert float(found.value[1].sum()) == pytest.approx(float(found.total.mean()), abs=1e-4)
    assert float(found.value[1].min()) > 0.6 and float(found.value[1].max()) < 1.6
