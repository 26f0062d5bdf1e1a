import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, intervening
from workbench import effects, heads, metrics, models, patching, plots, results, tasks
from workbench.models import surgery, twins

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]
GONE = [(0, 1), (0, 2), (1, 0), (1, 1)]  # of "tiny-gqa": two of different groups, a whole group


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def pruned(model):
    return heads.prune(model, GONE)


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0, corruption="third")


def ablated(model, gone, value=edits.zero):
    by_layer: dict = {}
    for layer, head in gone:
        by_layer.setdefault(layer, []).append(head)
    return {Site("z", layer): value(layer, chosen) for layer, chosen in by_layer.items()}


def zeroed(model, gone):
    return ablated(model, gone, lambda layer, chosen: edits.zero(heads=chosen))


def relative(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_means_is_mean_ablation(architecture, dtype):
    model = twins.make(architecture)[0].to(dtype)
    tokens = torch.randint(3, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    prompts = Prompts(tokens, torch.tensor([9, 8, 7, 6]))  # in windows of 4, no row is masked
    gone = [(0, 2), (0, 0), *((1, head) for head in range(4))]  # a whole layer among them
    found = heads.prune(model, gone, replace="mean", over=prompts)
    means = {}
    for layer in (0, 1):
        total, count = 0.0, 0
        for row, length in enumerate(prompts.lengths.tolist()):
            seen = capture(model, tokens[row : row + 1, :length], [Site("z", layer)])
            z = seen[Site("z", layer)]
            total, count = total + z[0, 1:].sum(0), count + length - 1
        means[layer] = total / count
    with intervening(model, ablated(model, gone, lambda n, some: edits.mean(means[n], heads=some))):
        expected = model(prompts)
    real = prompts.mask.bool()
    assert relative(found(prompts)[real], expected[real]) <= (
        2e-5 if dtype == torch.float32 else 1e-9
    )
    assert relative(heads.prune(model, gone)(prompts)[real], expected[real]) > 1e-2


@pytest.mark.slow
def test_folding_means_into_the_default_model_is_ablating_to_the_mean(default_model):
    order = torch.randperm(270, generator=torch.Generator().manual_seed(0))[:90].tolist()
    gone = sorted({divmod(at, 9) for at in order} | {(5, head) for head in range(9)})
    over = tasks.ioi(default_model, prompts=4, seed=1).clean
    found = heads.prune(default_model, gone, replace="mean", over=over)
    means = capture(default_model, over, [Site("z", layer) for layer in range(30)])
    real = over.mask[:, 1:].bool()

    def mean(layer, chosen):
        z = means[Site("z", layer)][:, 1:]
        return edits.mean(z[real].double().mean(0).float(), heads=chosen)

    prompts = models.prompts(default_model, ["The capital of France is Paris, and that of Italy"])
    with intervening(default_model, ablated(default_model, gone, mean)):
        expected = default_model(prompts)
    with intervening(default_model, zeroed(default_model, gone)):
        assert relative(default_model(prompts), expected) > 1e-2  # the mean is not nothing
    assert relative(found(prompts), expected) <= 2e-5


def test_pruning_again_with_means_adds_to_the_constant_there_is(model, task):
    over = task.corrupt
    first = heads.prune(model, [(0, 1)], replace="mean", over=over)
    found = heads.prune(first, [(0, 2)], replace="mean", over=over)
    mean = effects.mean_over(model, over, [Site("z", 0)])[Site("z", 0)]
    with intervening(model, {Site("z", 0): edits.mean(mean, heads=[1, 2])}):
        assert relative(found(task.clean), model(task.clean)) <= 2e-5


def test_pruning_nothing_is_the_same_model(model, task):
    same = heads.prune(model, [])
    assert same.origin == model.origin
    assert same(task.clean).equal(model(task.clean))


def test_it_says_which_heads_each_layer_kept(model, pruned):
    assert heads.kept(model) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert heads.kept(pruned) == [[0, 3], [2, 3]]
    assert heads.kept(heads.prune(pruned, [(1, 3)])) == [[0, 3], [2]]


def test_ablating_each_is_as_in_the_model_whose_other_heads_are_zeroed(model, pruned, task):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    assert found.effect.shape == (2, 4)
    gone = torch.zeros(2, 4, dtype=torch.bool)
    gone[tuple(zip(*GONE, strict=True))] = True
    for name in ("effect", "low", "high", "p"):
        assert getattr(found, name).isnan().equal(gone)
    for layer, head in ((0, 0), (0, 3), (1, 2), (1, 3)):
        with intervening(model, zeroed(model, [*GONE, (layer, head)])):
            expected = metrics.logit_diff(model(task.clean), task)
        assert_close(found.per_prompt[layer, head] + found.baseline, expected, rtol=1e-4, atol=1e-4)


def test_removed_heads_are_neither_counted_nor_ranked_nor_tested(pruned, task):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    assert len(found.most_helpful(8)) == len(found.least_helpful(8)) == 4
    assert not set(found.most_helpful(8)) & set(GONE)
    assert found.sentence().startswith("Of 4 heads of tiny-gqa without 4 heads")
    assert "nan" not in found.table() and "nan" not in str(found.headline())
    # Of one cell alone the corrected p-value is the uncorrected one, so the family is of four.
    from workbench import statistics

    there = ~found.effect.isnan()
    four = statistics.permutation_test(found.per_prompt[there], seed=0).corrected
    assert_close(found.p[there], four.float(), rtol=0, atol=0)


def test_a_removed_head_is_grey_in_the_figure_and_no_bar(pruned, task):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    figure = plots.draw(found)
    left, right = figure.axes[:2]
    assert "grey: removed" in left.get_title(loc="left")
    assert left.images[0].get_array().mask.sum() == 4
    names = [label.get_text() for label in right.get_yticklabels()]
    assert sorted(names) == ["0.0", "0.3", "1.2", "1.3"]
    plt.close(figure)


def test_results_with_removed_heads_come_back_from_a_file(pruned, task, tmp_path):
    found = heads.ablate_each(pruned, task, metric=metrics.logit_diff)
    results.save(found, tmp_path / "found.nc")
    again = results.load(heads.HeadEffects, tmp_path / "found.nc")
    assert_close(again.effect, found.effect, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("stream", ["z", "k"])
def test_sweeps_keep_their_width(model, pruned, task, stream):
    found = patching.sweep(pruned, task, stream, metric=metrics.logit_diff)
    there = ~found.effect.isnan()
    expected = {
        "z": [[True, False, False, True], [False, False, True, True]],
        "k": [[True, True], [False, True]],
    }
    assert there.tolist() == expected[stream]
    assert len(found.strongest(8)) == int(there.sum())
    assert f"of {int(there.sum())} places" in found.sentence()
    assert found.places == [str(head) for head in range(len(expected[stream][0]))]
    plt.close(plots.draw(found))


def test_a_sweep_of_a_whole_model_under_the_same_zeros_gives_the_same_numbers(model, pruned, task):
    found = patching.sweep(pruned, task, "z", metric=metrics.logit_diff, direction="noise")
    gone = zeroed(model, GONE)
    with intervening(model, gone):
        values = capture(model, task.corrupt, [Site("z", 1)])[Site("z", 1)]
        baseline = metrics.logit_diff(model(task.clean), task)
    with intervening(
        model, {**gone, Site("z", 1): [gone[Site("z", 1)], edits.replace(values, heads=[3])]}
    ):
        expected = metrics.logit_diff(model(task.clean), task) - baseline
    assert_close(found.per_prompt[1, 3], expected, rtol=1e-4, atol=1e-4)


def test_attribution_names_heads_by_their_first_numbers(model, pruned, task):
    sites = [Site("z", 0), Site("z", 1)]
    found = effects.attribute(
        pruned, task, sites, metric=metrics.logit_diff, source="zero", summed=["pos"]
    )
    assert found[Site("z", 0)].shape == (4, 6)
    assert found[Site("z", 0)][:, 0].isnan().tolist() == [False, True, True, False]
    assert {(node.site.layer, node.at["head"]) for node in found.strongest(99)} == {
        (0, 0), (0, 3), (1, 2), (1, 3),
    }  # fmt: skip


def test_direct_attribution_still_adds_up(pruned, task):
    from workbench import lens

    found = lens.direct_attribution(pruned, task)
    assert found.effect.isnan().sum() == 4
    parts = found.attention.sum() + found.mlp.sum() + found.embed_per_prompt.mean()
    assert_close(parts + found.constant.mean(), found.total.mean(), rtol=1e-3, atol=1e-3)


def test_a_path_from_a_removed_head_is_refused_and_the_map_is_nan_there(pruned, task):
    with pytest.raises(ValueError, match=r"head 0\.1 was removed from tiny-gqa without 4 heads"):
        patching.path(pruned, task, [(Site("z", 0), 1), "logits"], metric=metrics.logit_diff)
    found = patching.paths(pruned, task, to="logits", metric=metrics.logit_diff)
    assert found.effect.isnan().nonzero().tolist() == [list(head) for head in GONE]
    assert not found.mlp.isnan().any()
    assert "Of 4 heads" in found.sentence() and "nan" not in found.table()
    plt.close(plots.draw(found))


def test_the_graph_of_a_pruned_model_is_refused_in_heads_and_given_in_layers(pruned):
    with pytest.raises(ValueError, match='detail="layers"'):
        patching.Graph.of(pruned)
    assert patching.Graph.of(pruned, detail="layers").layers == 2


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ([(0, 4)], r"head 0\.4 does not exist: z 0 has heads 0 to 3"),
        ([(2, 0)], r"head 2\.0 does not exist: tiny-gqa has layers 0 to 1"),
        ([(-1, 0)], r"head -1\.0 does not exist"),
        ([(0, 1), (1, 1), (0, 1)], r"head 0\.1 is given twice"),
        (
            [(layer, head) for layer in range(2) for head in range(4)],
            r"0\.0, 0\.1, .* are all heads",
        ),
    ],
)
def test_heads_that_cannot_be_removed_are_named(model, gone, message):
    with pytest.raises(ValueError, match=message):
        heads.prune(model, gone)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("gone", "what"),
    [([3], "3"), ((0, 1), "0"), (["0.1"], "'0.1'"), (["01"], "'01'"), ("0.1", "'0'"),
     ([(0, 1, 2)], r"\(0, 1, 2\)"), ([(0,)], r"\(0,\)"), ([(0, 1.5)], r"\(0, 1.5\)")],
)  # fmt: skip
def test_what_is_no_head_is_named_with_how_heads_are_given(model, gone, what):
    with pytest.raises(TypeError, match=rf"^{what} is no head: give a list of \(layer, head\)"):
        heads.prune(model, gone)


@pytest.mark.usefixtures("unchecked_types")
def test_heads_may_come_from_a_generator_or_as_numbers_of_a_tensor(model, pruned):
    for gone in ((one for one in GONE), torch.tensor(GONE), np.array(GONE)):
        assert heads.prune(model, gone).kept_heads == pruned.kept_heads


@pytest.mark.usefixtures("unchecked_types")
def test_a_mean_over_something_else_than_prompts_says_what_it_takes(model, task):
    for wrong, said in ((task, "over is a task"), (["Mary"], "over .'Mary'. is something else")):
        with pytest.raises(TypeError, match=f"{said}: give the clean or the corrupt prompts"):
            heads.prune(model, [(0, 1)], replace="mean", over=wrong)
        with pytest.raises(TypeError, match=f"{said}: give the clean or the corrupt prompts"):
            effects.Source("mean", over=wrong)


def test_a_head_is_not_removed_twice(pruned):
    message = r"head 0\.1 was removed from tiny-gqa without 4 heads: of z 0 there are left 0, 3"
    with pytest.raises(ValueError, match=message):
        heads.prune(pruned, [(0, 1)])
    with pytest.raises(ValueError, match="are all heads"):
        heads.prune(pruned, [(0, 0), (0, 3), (1, 2), (1, 3)])


def test_a_mean_needs_prompts_and_prompts_need_a_mean(model, task):
    with pytest.raises(ValueError, match="over="):
        heads.prune(model, [(0, 0)], replace="mean")
    with pytest.raises(ValueError, match="over="):
        heads.prune(model, [(0, 0)], over=task.clean)


def test_hand_wired_models_in_the_shapes_of_gpt2_and_llama_are_pruned_too():
    for name in (
        "planted/duplicate-llama",
        "planted/duplicate-gpt2",
        "planted/duplicate-gqa-llama",
    ):
        model = models.load(name)
        tokens = torch.arange(2 * 6).reshape(2, 6) % model.cfg.d_vocab
        last = (model.cfg.n_layers - 1, 0)
        with intervening(model, zeroed(model, [last])):
            expected = model(tokens)
        pruned = heads.prune(model, [last])
        assert relative(pruned(tokens), expected) <= 2e-5
        assert surgery.parameters(pruned) < surgery.parameters(model)


def test_costs_count_parameters_and_operations_as_by_hand(model, pruned):
    found = heads.costs(model, pruned, batch_sizes=(1, 2), tokens=16, steps=2, rounds=2)
    # 32 wide, heads of 8: 4 q and o heads go (2 * 32 * 8 each), and one pair of k and v.
    assert (found.parameters[0] - found.parameters[1]).item() == 5 * 2 * 32 * 8
    gone = 2 * 16 * 5 * 2 * 32 * 8 + 4 * 2 * (2 * 16 * 16 * 8)  # projections; scores and mixing
    assert (found.flops[0] - found.flops[1]).item() == gone
    assert found.prefill.shape == found.decode.shape == (2, 2, 2)
    assert bool((found.prefill > 0).all()) and bool((found.decode > 0).all())
    middle, low, high = found.ratio("decode", 2)
    assert low <= middle <= high
    assert "2,560 parameters less" in found.sentence()
    with pytest.raises(KeyError, match="prefill and decode at batch 1, 2"):
        found.ratio("decode", 3)
