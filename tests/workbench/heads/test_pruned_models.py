"""Every analysis of heads, of a model some of whose heads are gone.

What a head that is left is found to do is what the whole model gives while the others are zeroed.
"""

import contextlib
import functools
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening, sites
from hooks import heads as numbering
from workbench import heads, metrics, models, plots, results, tasks
from workbench.heads.kinds import measured
from workbench.models import twins

GONE = {
    "Llama": [(0, 1), (1, 0), (1, 1)],  # one of a group, and a whole group
    "GPT-2": [(0, 0), (0, 2), (1, 3)],
    "tiny-gqa": [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1)],  # a whole layer, and one of a group
    "planted/duplicate-gpt2": [(0, 1), (0, 5), (1, 0), (1, 4)],
    "planted/duplicate-gqa-llama": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 5)],
}
METRIC = metrics.logit_diff
BRIEF = heads.Descent(steps=3, rate=0.3, prompts=4)
PLANTED = [name for name in GONE if name.startswith("planted/")]
RANDOM = [name for name in GONE if not name.startswith("planted/")]


class Case:
    """A model, the same without some heads, and prompts."""

    def __init__(self, name: str) -> None:
        made = twins.make(name, seed=1)[0] if name in twins.ARCHITECTURES else models.load(name)
        self.model, self.gone = made, GONE[name]
        self.pruned = heads.prune(made, self.gone)
        if name.startswith("planted/"):
            self.task = tasks.planted(made, prompts=12, seed=1)
        elif name == "tiny-gqa":
            self.task = tasks.ioi(made, prompts=12, seed=0, corruption="third")
        else:
            self.task = tasks.induction(made, prompts=12, seed=0, period=(5, 8))

    @functools.cached_property
    def left(self) -> list[tuple[int, int]]:
        every = itertools.product(range(self.model.cfg.n_layers), range(self.model.cfg.n_heads))
        return [head for head in every if head not in self.gone]

    @functools.cached_property
    def missing(self) -> torch.Tensor:
        """True for the heads that are gone."""
        found = torch.zeros(self.model.cfg.n_layers, self.model.cfg.n_heads, dtype=torch.bool)
        found[tuple(zip(*self.gone, strict=True))] = True
        return found

    @contextlib.contextmanager
    def zeroed(self):
        """The whole model, the heads that are gone held at zero."""
        by_layer: dict = {}
        for layer, head in self.gone:
            by_layer.setdefault(layer, []).append(head)
        held = {Site("z", layer): edits.zero(heads=some) for layer, some in by_layer.items()}
        with intervening(self.model, held):
            self.model(self.task.clean)  # what reads patterns alone ends before the last z
            yield

    def nan_where_gone(self, values: torch.Tensor) -> None:
        """`values` end in layer and head."""
        assert values.isnan().equal(self.missing.expand(values.shape))

    def same(self, found: torch.Tensor, expected: torch.Tensor, *, atol: float = 1e-4) -> None:
        """`found` is `expected` where heads are left, and NaN elsewhere."""
        self.nan_where_gone(found)
        assert_close(found[..., ~self.missing], expected[..., ~self.missing], rtol=1e-3, atol=atol)


@functools.cache
def made(name: str) -> Case:
    return Case(name)


@pytest.fixture(params=list(GONE))
def case(request) -> Case:
    return made(request.param)


def types_of(model, task):
    return heads.types(model, task, prompts=8, period=(5, 8), seed=0)


@pytest.fixture(scope="module")
def types():
    return functools.cache(lambda name: types_of(made(name).pruned, made(name).task))


@pytest.mark.parametrize("name", GONE)
def test_types_score_the_heads_that_are_left_as_with_the_others_zeroed(name, types):
    case, found = made(name), types(name)
    with case.zeroed():
        seen = functools.partial(
            heads.kinds.attending.attention, case.model, case.task.clean, batch_size=16
        )(["previous token", "duplicate token", "induction", "first token"])
    there = numbering.on_grid(case.model, seen.score.nanmean(2).mT)[~case.missing]
    again = heads.kinds.attending.attention(
        case.pruned, case.task.clean, ["previous token", "duplicate token", "induction",
        "first token"], batch_size=5,
    )  # fmt: skip
    assert again.heads == case.left
    assert_close(again.score.nanmean(2).mT, there, rtol=1e-3, atol=1e-4, equal_nan=True)
    for value in (found.effect, found.p, found.score):
        case.nan_where_gone(value)
    assert found.gone.equal(case.missing)
    assert found.offset[case.missing].tolist() == [-1] * len(case.gone)
    assert set(found.shown) <= set(case.left)


@pytest.mark.parametrize("name", GONE)
def test_what_heads_say_of_tokens_is_as_in_the_whole_model(name, types):
    """It is asked of each head by itself, so that it does not matter which others there are."""
    case, found = made(name), types(name)
    whole, there = heads.kinds.copying.copying(case.model, seed=0)
    assert there == sorted([*case.left, *case.gone])
    for one in whole:
        expected = numbering.on_grid(case.model, one.score.float())
        case.same(found.score[found.types.index(one.type)], expected, atol=1e-3)


def test_what_moves_to_the_answer_is_as_with_the_others_zeroed():
    case = made("tiny-gqa")
    with case.zeroed():
        expected = heads.kinds.moving.moved(case.model, case.task, batch_size=5)
    found = heads.kinds.moving.moved(case.pruned, case.task, batch_size=12)
    at = [expected.heads.index(head) for head in case.left]
    assert found.heads == case.left
    assert_close(found.attention, expected.attention[:, at], rtol=1e-3, atol=1e-5)
    assert_close(found.direct, expected.direct[:, at], rtol=1e-3, atol=1e-5)
    assert_close(found.others, expected.others[at], rtol=1e-3, atol=1e-5)
    for head in case.left:
        assert_close(found.carried[head], expected.carried[head], rtol=1e-3, atol=1e-5)


def test_what_is_left_out_of_a_head_is_left_out_of_that_head():
    """By hand: z at END less attention to S2 times the value there, for each head's own z."""
    case = made("tiny-gqa")
    task, layer = case.task, 1
    found = heads.kinds.moving.moved(case.pruned, task, batch_size=12)
    got = heads.kinds.moving.inhibition(case.pruned, task, found, memory="1GB", seed=0)
    where = {role: task.positions[role] for role in ("S2", "END")}
    with case.zeroed():
        seen = capture(case.model, task.clean, [Site(s, layer) for s in ("z", "v", "pattern")])
        base = METRIC(case.model(task.clean), task)
    rows, head = torch.arange(len(task)), 3  # reads key-value head 1
    weight = seen[Site("pattern", layer)][rows, head, where["END"], where["S2"]]
    value = seen[Site("v", layer)][rows, where["S2"], 1]
    left = seen[Site("z", layer)].clone()
    left[rows, where["END"], head] -= weight[:, None] * value
    with case.zeroed(), intervening(case.model, {Site("z", 1): edits.replace(left, heads=[head])}):
        without = METRIC(case.model(task.clean), task)
    at = case.left.index((layer, head))
    direct = (found.attention[1] * found.direct[1])[at].mean()
    assert float(got.score[at]) == pytest.approx(float((base - without).mean() - direct), abs=1e-4)


def test_a_pruned_planted_model_keeps_the_types_of_its_heads(types):
    for name in PLANTED:
        case, roles = made(name), models.planted.truth(made(name).model).roles
        found = types(name)
        alike = {*roles["induction"], *roles["same pattern"]} - set(case.gone)
        assert alike and set(found.of("induction")) == alike
        assert found.of("previous token") == list(roles["previous token"])


def test_types_of_a_removed_head_are_not_asked(types):
    found = types("Llama")
    assert isinstance(found.types_of((0, 0)), list)
    with pytest.raises(ValueError, match=r"head 1\.0 was removed from Llama without 3 heads"):
        found.types_of((1, 0))
    assert "nan" not in found.table(99).replace("of weights: none", "")
    assert not any(f" {layer}.{head} " in found.table(99) for layer, head in made("Llama").gone)


def test_values_go_to_the_heads_that_read_them():
    """Three of a group of four and one of the next, each key-value head marked by its number."""
    values = torch.tensor([10.0, 11.0]).reshape(1, 1, 2, 1)
    some = numbering.LayerHeads((0, 1, 3, 6), group=4)
    assert measured.per_query_head(values, some).flatten().tolist() == [10, 10, 10, 11]
    none = measured.per_query_head(values[:, :, :0], numbering.LayerHeads((), group=4))
    assert none.shape == (1, 1, 0, 1)


def test_similarity_of_the_heads_left_is_as_with_the_others_zeroed(case):
    found = heads.similarity(case.pruned, case.task, tokens=64)
    with case.zeroed():
        expected = heads.similarity(case.model, case.task, heads=case.left, tokens=64)
    assert found.heads == case.left
    assert found.names == [f"{layer}.{head}" for layer, head in case.left]
    assert found.group == expected.group
    for name in ("divergence", "divergence_first", "cka", "writes", "values", "queries", "keys"):
        here, there = getattr(found, name), getattr(expected, name)
        assert_close(here, there, rtol=1e-3, atol=2e-3, equal_nan=True, msg=name)


def test_a_fit_from_another_head_is_as_with_the_others_zeroed():
    case = made("Llama")
    some = [(0, 2), (0, 3), (1, 3)]
    found = heads.substitute(case.pruned, case.task, heads=some, metric=METRIC)
    # The exact route of the whole model runs no edits of ours, so the fit is put to work by hand.
    fit_on, measured_on = case.task[list(range(0, 12, 2))], case.task[list(range(1, 12, 2))]

    def z(task, head, first=1):
        with case.zeroed():
            seen = capture(case.model, task.clean, [Site("z", head[0])])
        return seen[Site("z", head[0])][:, :, head[1]], task.clean.mask.bool()

    value, mask = z(fit_on, (1, 3))
    mask = mask.clone()
    mask[:, 0] = False
    mean = value[mask].mean(0)
    now, _ = z(measured_on, (1, 3))
    with case.zeroed():
        whole = capture(case.model, measured_on.clean, [Site("z", 1)])[Site("z", 1)].clone()
        base = METRIC(case.model(measured_on.clean), measured_on)
    whole[:, :, 3] = mean
    whole[:, 0, 3] = now[:, 0]
    with case.zeroed(), intervening(case.model, {Site("z", 1): edits.replace(whole, heads=[3])}):
        expected = METRIC(case.model(measured_on.clean), measured_on) - base
    assert float(found.by_mean[2]) == pytest.approx(float(expected.mean()), rel=1e-3, abs=1e-4)
    assert found.effect.diagonal().abs().max() < found.by_mean.abs().max() * 0.1 + 1e-3


def test_mask_gradients_are_as_with_the_others_zeroed(case):
    found = heads.mask_gradients(case.pruned, case.task, metric=METRIC)
    with case.zeroed():
        expected = heads.mask_gradients(case.model, case.task, metric=METRIC)
    case.same(found.importance, expected.importance)
    assert_close(
        found.per_prompt[~case.missing], expected.per_prompt[~case.missing], rtol=1e-3, atol=1e-4
    )
    assert set(found.ranked()) == set(case.left)
    case.nan_where_gone(found.per_layer().importance)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_learned_gates_are_of_the_heads_that_are_left(case, ablation):
    found = heads.learn_gates(
        case.pruned, case.task, metric=METRIC, ablation=ablation, seeds=2, descent=BRIEF
    )
    case.nan_where_gone(found.chance)
    case.nan_where_gone(found.gate)
    assert_close(found.expected, found.chance.nansum(dim=(1, 2)))
    assert set(found.ranked()) == set(case.left) >= set(found.open())
    assert f"of {len(case.left)} heads" in found.sentence()


def test_gates_weigh_only_the_heads_that_are_left():
    """The price at the first step is that of the heads there, each as open as all start."""
    case = made("GPT-2")
    descent = heads.Descent(steps=1, rate=1e-9, prompts=99)
    losses = [
        heads.learn_gates(
            case.pruned, case.task, metric=METRIC, seeds=1, penalty=price, descent=descent
        )
        for price in (0.0, 1.0)
    ]
    each = float(losses[0].chance.nanmean())
    added = float(losses[1].loss[0, 0] - losses[0].loss[0, 0])
    assert added == pytest.approx(len(case.left) * each, rel=1e-4)


def test_gates_change_a_pruned_model_as_they_do_the_whole_one():
    case = made("Llama")
    gates = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    from workbench.heads.ablating import ablating
    from workbench.heads.descent import Gated

    small = Gated(case.pruned, case.task, METRIC, ablating(case.pruned, case.task, "zero"))
    whole = Gated(case.model, case.task, METRIC, ablating(case.model, case.task, "zero"))
    shut = gates.masked_fill(case.missing, 0.0)
    rows = torch.arange(len(case.task))
    assert_close(small.measured(gates), whole.measured(shut), rtol=1e-4, atol=1e-4)
    found, expected = (
        one.slopes(some.expand(len(rows), 2, 4), rows)[1]
        for one, some in ((small, gates), (whole, shut))
    )
    assert_close(found[:, ~case.missing], expected[:, ~case.missing], rtol=1e-3, atol=1e-4)
    assert not found[:, case.missing].any()


def test_causal_gating_gives_no_role_to_a_head_that_is_gone(case):
    found = heads.causal_gating(case.pruned, case.task, metric=METRIC, seeds=2, descent=BRIEF)
    case.nan_where_gone(found.opened)
    case.nan_where_gone(found.shut)
    case.nan_where_gone(found.stability)
    assert (found.roles == -1).equal(case.missing.expand(found.roles.shape))
    assert {*found.necessary(0.0), *found.sufficient(), *found.interfering(1.0)} <= set(case.left)
    assert "nan" not in found.sentence() + found.table()


def test_shares_of_all_heads_are_those_of_the_whole_model_under_the_same_zeros():
    case = made("Llama")
    found = heads.exact_shapley(case.pruned, case.task, metric=METRIC)
    case.nan_where_gone(found.value)
    case.nan_where_gone(found.per_prompt.mean(-1))
    for head in case.left:
        ablated = [one for one in case.gone if one[0] == head[0]] + [head]
        by_layer = [other[1] for other in ablated]
        with case.zeroed():
            base = METRIC(case.model(case.task.clean), case.task)
            with intervening(case.model, {Site("z", head[0]): edits.zero(heads=by_layer)}):
                without = METRIC(case.model(case.task.clean), case.task)
        expected = float((base - without).mean())
        assert float(found.alone[head]) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    sampled = heads.shapley(case.pruned, case.task, metric=METRIC, orders=4)
    assert set(sampled.ranked()) == set(case.left)
    assert_close(sampled.total, found.total)


def test_all_measures_of_importance_agree_on_which_heads_there_are(case):
    effort = heads.Effort(seeds=1, descent=BRIEF, players=2, orders=4)
    found = heads.importance(
        case.pruned, case.task, metric=METRIC, ablations=("zero", "mean"), effort=effort
    )
    for one in found[:-1]:
        case.nan_where_gone(one.score)
    together = heads.agreement(found, top=2)
    assert set(together.ranked()) == set(case.left)
    assert int(together.heads[0, 1]) == len(case.left)
    case.nan_where_gone(together.spread)
    assert f"of {len(case.left)} heads" in together.sentence() and "nan" not in together.table()
    plt.close(plots.draw(together))
    for one in found:
        plt.close(plots.draw(one))


def test_pairs_cost_what_they_cost_with_the_others_zeroed(case):
    some = case.left[-3:]
    found = heads.redundancy(case.pruned, case.task, some, metric=METRIC, ablation="zero")
    with case.zeroed():
        base = METRIC(case.model(case.task.clean), case.task)
        for a, b in itertools.combinations(range(3), 2):
            cell = heads.ablating(case.model, case.task, "zero").cell([some[a], some[b]])
            with intervening(case.model, cell):
                both = METRIC(case.model(case.task.clean), case.task) - base
            assert_close(found.both[a, b], both.mean(), rtol=1e-3, atol=1e-4)
    assert found.heads == some
    grouped = heads.cluster_redundant(found, resamples=5)
    assert sorted(itertools.chain(*grouped.groups())) == sorted(some)
    together = heads.interaction(case.pruned, case.task, [some], metric=METRIC, ablation="zero")
    assert together.sets == ["+".join(f"{layer}.{head}" for layer, head in some)]


def test_the_search_for_backups_is_among_the_heads_that_are_left(case):
    found = heads.backups(case.pruned, case.task, case.left[0], metric=METRIC, most=1)
    gone = case.missing.clone()
    gone[case.left[0]] = True
    assert found.map[0].isnan().equal(gone)
    plt.close(plots.draw(found))


@pytest.mark.parametrize("at", ["last", "all"])
def test_what_comes_back_is_as_with_the_others_zeroed(case, at):
    some = case.left[:2]
    found = heads.self_repair(case.pruned, case.task, some, ablation="zero", at=at)
    with case.zeroed():
        expected = heads.self_repair(case.model, case.task, some, ablation="zero", at=at)
    for name in ("direct_per_prompt", "total_per_prompt", "share_per_prompt", "by_mlp"):
        assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-3, msg=name)
    case.same(found.by_head, expected.by_head, atol=1e-3)
    helpers = found.strongest_helpers(some[0], 99)
    assert {head for head, _ in helpers} == set(case.left)
    assert [much for _, much in helpers] == sorted((much for _, much in helpers), reverse=True)
    plt.close(plots.draw(found))


@pytest.mark.parametrize("removal", ["zero", "pruned"])
def test_curves_are_over_the_heads_that_are_left(case, removal):
    found = heads.curve(
        case.pruned, case.task, {"as they come": case.left}, measures=(METRIC,), draws=2,
        removal=heads.prune if removal == "pruned" else "zero", shares=(0.2, 0.7),
    )  # fmt: skip
    size = len(case.left)
    assert found.removed.tolist() == sorted({0, round(0.2 * size), round(0.7 * size)})
    with case.zeroed():
        cell = heads.ablating(case.model, case.task, "zero").cell(case.left[: round(0.7 * size)])
        with intervening(case.model, cell):
            expected = METRIC(case.model(case.task.clean), case.task).mean()
    assert_close(found.value[0, 0, -1], expected, rtol=1e-3, atol=1e-3)
    assert f"Removing heads of {case.pruned.origin.name}" in found.sentence()


def test_candidates_and_the_whole_study_are_of_the_heads_that_are_left(case):
    found = heads.study_redundancy(
        case.pruned, case.task, extent=heads.Extent(candidates=3, repaired=1, draws=2)
    )
    assert found.candidates[:3] == found.alone.most_helpful(3)
    assert len(found.reasons) == len(found.candidates)
    assert set(found.candidates) <= set(case.left)
    case.nan_where_gone(found.alone.effect)
    assert "nan" not in found.sentence()
    figure = plots.draw(found)
    assert figure.axes[0].images[0].get_array().mask.sum() == len(case.gone)
    plt.close(figure)


ASKED = {
    "similarity": lambda model, task, some: heads.similarity(model, task, heads=some),
    "substitute": lambda model, task, some: heads.substitute(
        model, task, heads=some, metric=METRIC
    ),
    "shapley": lambda model, task, some: heads.shapley(model, task, some, metric=METRIC),
    "exact_shapley": lambda model, task, some: heads.exact_shapley(
        model, task, some, metric=METRIC
    ),
    "redundancy": lambda model, task, some: heads.redundancy(model, task, some, metric=METRIC),
    "interaction": lambda model, task, some: heads.interaction(model, task, [some], metric=METRIC),
    "backups": lambda model, task, some: heads.backups(model, task, some, metric=METRIC),
    "backups among": lambda model, task, some: heads.backups(
        model, task, (1, 2), among=some, metric=METRIC
    ),
    "self_repair": lambda model, task, some: heads.self_repair(model, task, some),
    "curve": lambda model, task, some: heads.curve(model, task, {"mine": some}, shares=(0.2,)),
    "study": lambda model, task, some: heads.study_redundancy(model, task, kinds={"mine": some}),
    "prune": lambda model, task, some: heads.prune(model, some),
}  # fmt: skip


@pytest.mark.parametrize("analysis", ASKED)
def test_a_removed_head_that_is_asked_for_is_named(analysis):
    case = made("Llama")
    message = r"head 1\.0 was removed from Llama without 3 heads: of z 1 there are left 2, 3"
    with pytest.raises(ValueError, match=message):
        ASKED[analysis](case.pruned, case.task, [(0, 2), (1, 0)])


def test_patterns_are_labelled_by_the_numbers_heads_had_at_first():
    case = made("Llama")
    seen = capture(case.pruned, case.task.clean, sites.all(case.pruned, "pattern"))
    assert seen.heads(Site("pattern", 1)) == [2, 3]
    words = [str(at) for at in range(int(case.task.clean.lengths[0]))]
    view = plots.attention(seen, words=words)
    assert view.heads == case.left
    with case.zeroed():
        whole = capture(case.model, case.task.clean, [Site("pattern", 1)])
    rows = whole[Site("pattern", 1)][0, 3, : len(words), : len(words)].numpy()
    np.testing.assert_allclose(view.pattern[view.heads.index((1, 3))], rows, atol=1e-5)
    alone = plots.attention(seen, words=words, heads=[(1, 3)])
    np.testing.assert_allclose(alone.pattern[0], rows, atol=1e-5)
    with pytest.raises(ValueError, match=r"head 1\.0 was not captured; there are 0\.0, 0\.2, 0\.3"):
        plots.attention(seen, words=words, heads=[(1, 0)])


def test_the_figure_of_types_hatches_what_is_gone(types):
    figure = plots.draw(types("Llama"))
    (gone,) = [one for one in figure.axes[0].collections if one.get_gid() == "gone"]
    assert len(gone.get_paths()) == 3
    assert "removed" in figure.axes[0].get_title(loc="left")
    plt.close(figure)


def test_heads_without_a_number_are_told_apart_in_figures():
    """Grey is a removed head in a map of all, no player in a map of shares."""
    case = made("GPT-2")
    slopes = plots.draw(heads.mask_gradients(case.pruned, case.task, metric=METRIC))
    shares = heads.exact_shapley(case.pruned, case.task, [(0, 1), (1, 1)], metric=METRIC)
    players = plots.draw(shares)
    assert "(grey: removed" in slopes.axes[0].get_title(loc="left")
    assert "(grey: not among the players" in players.axes[0].get_title(loc="left")
    plt.close(slopes)
    plt.close(players)


def test_types_of_a_pruned_model_come_back_from_a_file(types, tmp_path):
    found = types("tiny-gqa")
    results.save(found, tmp_path / "found.nc")
    again = results.load(heads.HeadTypes, tmp_path / "found.nc")
    assert again.gone.equal(found.gone) and again.named() == found.named()
