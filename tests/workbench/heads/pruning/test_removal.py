"""A pruned model is the ablated one, and smaller by what is counted by hand."""

import pytest
import torch

from hooks import Prompts, Site, capture, edits, intervening
from workbench import effects, heads, models, tasks
from workbench.models import surgery, twins

FIVE = ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"]


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_means_is_mean_ablation(architecture, dtype, ablated, relative):
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
def test_folding_means_into_the_default_model_is_ablating_to_the_mean(
    default_model, ablated, zeroed, relative
):
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


def test_pruning_again_with_means_adds_to_the_constant_there_is(model, task, relative):
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


def test_hand_wired_models_in_the_shapes_of_gpt2_and_llama_are_pruned_too(zeroed, relative):
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
