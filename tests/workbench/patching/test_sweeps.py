"""Sweeps against loops over plain edited forward passes, laws that hold by definition, and truth
that was planted."""

import dataclasses
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits, intervening, last_logits
from workbench import metrics, models, patching, results, tasks
from workbench.effects import Source, measure, values
from workbench.patching import Running, Where

DIFF = metrics.logit_diff
BOTH = ("denoise", "noise")


@pytest.fixture(scope="module")
def task() -> tasks.Task:
    """Three pairs of 6, 4 and 5 tokens with roles, alike in their first token alone."""
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = torch.randint(5, 60, (2, 3, 6), generator=generator)
    corrupt[:, 0] = clean[:, 0]
    lengths = torch.tensor([6, 4, 5])
    answer, foil = torch.tensor([[7], [8], [9]]), torch.full((3, 1), 11)
    roles = {"END": lengths - 1, "HERE": torch.tensor([3, 1, 2])}
    pair = Prompts(clean, lengths), Prompts(corrupt, lengths)
    return tasks.Task("mine", *pair, answer, foil, roles, torch.zeros(3).long())


@pytest.fixture(scope="module")
def ioi(tiny_gqa) -> tasks.Task:
    return tasks.ioi(tiny_gqa, prompts=6, seed=0)


def by_hand(model, task, site, direction, metric=DIFF, **part):
    """The change in the metric by one patch, from two plain forward passes and an edited one."""
    here, there = (
        (task.corrupt, task.clean) if direction == "denoise" else (task.clean, task.corrupt)
    )
    value = capture(model, there, [site])[site]
    plain = metric(last_logits(model, here), task, here)
    with intervening(model, {site: edits.replace(value, **part)}):
        patched = metric(last_logits(model, here), task, here)
    return (patched - plain).detach()


WAYS = {
    "resid_pre position": ("resid_pre", "position", lambda task, at: {"positions": at}, 4),
    "mlp_out role": (
        "mlp_out",
        "role",
        lambda task, at: {"positions": task.positions[("HERE", "END")[at]]},
        2,
    ),
    "z head": ("z", "head", lambda task, at: {"heads": [at]}, 4),
    "k head": ("k", "head", lambda task, at: {"heads": [at]}, 2),
    "v head": ("v", "head", lambda task, at: {"heads": [at]}, 2),
    "pattern head": ("pattern", "head", lambda task, at: {"heads": [at]}, 4),
    "neuron neuron": ("neuron", "neuron", lambda task, at: {"neurons": [(3, 0, 9)[at]]}, 3),
    "attn_out all": ("attn_out", "all", lambda task, at: {}, 1),
}


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("way", WAYS)
def test_every_cell_is_one_edited_forward_pass(tiny_gqa, task, way, direction):
    stream, over, part, columns = WAYS[way]
    where = Where(neurons=[3, 0, 9]) if over == "neuron" else Where()
    found = patching.sweep(
        tiny_gqa, task, stream, metric=DIFF, over=over, direction=direction, where=where
    )
    assert found.effect.shape == (2, columns)
    for layer, at in product(range(2), range(columns)):
        expected = by_hand(tiny_gqa, task, Site(stream, layer), direction, **part(task, at))
        assert_close(found.per_prompt[layer, at], expected, rtol=1e-4, atol=1e-5)
    assert_close(found.effect, found.per_prompt.mean(-1))


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"])
def test_so_it_is_on_other_architectures_with_padded_prompts(twin, random_task, architecture):
    model, task = twin(architecture), random_task()
    for stream, over in (("resid_pre", "position"), ("z", "head")):
        found = patching.sweep(model, task, stream, metric=DIFF, over=over, direction="noise")
        for at in (0, 2):
            part = {"positions": at} if over == "position" else {"heads": [at]}
            expected = by_hand(model, task, Site(stream, 1), "noise", **part)
            assert_close(found.per_prompt[1, at], expected, rtol=1e-4, atol=1e-5)


def test_a_patch_may_be_restricted_to_some_tokens_and_layers(tiny_gqa, task):
    end = task.positions["END"]
    where = Where(layers=[1], positions=end)
    found = patching.sweep(tiny_gqa, task, "z", metric=DIFF, where=where)
    assert found.layers == [1] and found.effect.shape == (1, 4)
    expected = by_hand(tiny_gqa, task, Site("z", 1), "denoise", heads=[2], positions=end)
    assert_close(found.per_prompt[0, 2], expected, rtol=1e-4, atol=1e-5)
    assert found.named((0, 2)) == "head 1.2"


@pytest.mark.parametrize("stream", ["resid_pre", "z", "k", "mlp_out"])
def test_a_run_patched_with_itself_is_itself_exactly(small, task, stream):
    same = dataclasses.replace(task, corrupt=task.clean)
    found = patching.sweeps(small, same, stream, metrics=[DIFF, metrics.answer_logprob])
    assert_close(found.per_prompt, torch.zeros_like(found.per_prompt), rtol=0, atol=0)
    assert not found.one("noise").significant()


def test_what_the_two_prompts_share_changes_nothing_exactly(small, task):
    found = patching.sweep(small, task, "resid_pre", metric=DIFF)
    first = found.per_prompt[:, 0]  # the first tokens are alike, and see nothing else
    assert_close(first, torch.zeros_like(first), rtol=0, atol=0)
    assert bool((found.per_prompt[:, 3].abs() > 0).any())


@pytest.mark.parametrize("direction", BOTH)
def test_all_of_the_stream_is_all_of_the_gap(small, task, direction):
    found = patching.sweep(small, task, "resid_pre", metric=DIFF, over="all", direction=direction)
    gap = found.clean - found.corrupt
    sign = 1 if direction == "denoise" else -1
    assert_close(found.per_prompt[:, 0], sign * gap.expand(2, -1), rtol=1e-5, atol=1e-5)
    share, left_out = found.normalised(least_gap=0.0)
    assert_close(share, torch.ones(2, 1), rtol=1e-5, atol=1e-5)
    assert left_out == 0


def test_both_ends_are_the_metrics_of_the_unedited_prompts(tiny_gqa, task):
    for directions in (["denoise"], ["noise"], BOTH):
        found = patching.sweeps(
            tiny_gqa, task, "z", metrics=[DIFF, metrics.answer_logprob], directions=directions
        )
        for row, metric in enumerate((DIFF, metrics.answer_logprob)):
            clean = measure(tiny_gqa, task, metric=metric)
            corrupt = measure(tiny_gqa, task, metric=metric, prompts=task.corrupt)
            assert_close(found.clean[row], clean, rtol=1e-5, atol=1e-6)
            assert_close(found.corrupt[row], corrupt, rtol=1e-5, atol=1e-6)


def test_several_metrics_from_one_sweep_are_those_of_single_ones(tiny_gqa, task):
    several = [DIFF, metrics.answer_logprob, metrics.accuracy, metrics.mean_logprob]
    together = patching.sweeps(tiny_gqa, task, "resid_pre", metrics=several)
    assert together.metrics == ["logit_diff", "answer_logprob", "accuracy", "mean_logprob"]
    assert together.units == ["nats", "nats", "fraction", "nats per token"]
    for metric, direction in product(several, BOTH):
        alone = patching.sweep(tiny_gqa, task, "resid_pre", metric=metric, direction=direction)
        one = together.one(direction, metric.name)
        for name in ("effect", "low", "high", "p", "per_prompt", "clean", "corrupt"):
            assert_close(getattr(one, name), getattr(alone, name), rtol=1e-5, atol=1e-5)
        assert (one.direction, one.metric, one.unit) == (direction, metric.name, metric.unit)


@pytest.mark.parametrize("kind", ["zero", "mean", "mean per position", "resample"])
def test_other_sources_are_written_by_hand_just_so(tiny_gqa, task, kind):
    site = Site("z", 1)
    longer = Prompts(task.clean.tokens, torch.full((3,), 6))
    source = Source(kind, over=longer if kind == "resample" else None)
    value = values(tiny_gqa, task, [site], source=source)[site]
    plain = measure(tiny_gqa, task, metric=DIFF)
    edit = edits.replace(value, heads=[3])
    expected = measure(tiny_gqa, task, metric=DIFF, edits={site: edit}) - plain
    found = patching.sweep(tiny_gqa, task, "z", metric=DIFF, direction="noise", source=source)
    assert_close(found.per_prompt[1, 3], expected, rtol=1e-4, atol=1e-5)
    assert found.source == kind and kind in found.sentence()


def test_the_two_directions_are_one_on_the_task_with_its_prompts_exchanged(tiny_gqa, task):
    noise = patching.sweep(tiny_gqa, task, "mlp_out", metric=DIFF, direction="noise")
    turned = patching.sweep(tiny_gqa, task.swapped(), "mlp_out", metric=DIFF)
    assert_close(noise.per_prompt, turned.per_prompt, rtol=1e-5, atol=1e-6)
    assert_close(noise.clean, turned.corrupt)


def test_columns_say_what_they_are(tiny_gqa, ioi, task):
    def places(stream, over=None, some=task, **where):
        where = Where(layers=[0], **where)
        found = patching.sweep(tiny_gqa, some, stream, metric=DIFF, over=over, where=where)
        return found.over, found.places

    assert places("z") == ("head", ["0", "1", "2", "3"])
    assert places("v") == ("head", ["0", "1"])  # two key-value heads for four query heads
    assert places("mlp_out", "all") == ("all", ["all"])
    assert places("neuron", "neuron", neurons=[9, 2]) == ("neuron", ["9", "2"])
    assert places("resid_pre", "role") == ("role", ["HERE", "END"])  # as they stand in the prompts
    assert places("resid_pre", "role", ioi)[1][-2:] == ["S2", "END"]
    assert places("resid_pre") == ("position", ["0 …", "1 …", "2 …", "3 …"])


def test_a_position_is_named_by_its_word_or_by_the_role_where_words_differ(tiny):
    words = {"name": "mine", "answer": [" Mary", " Anna"], "foil": [" John", " Tom"]}
    clean = ["When Mary and John went", "When Anna and Tom went"]
    corrupt = ["When Mary and Mary went", "When Anna and Anna went"]
    roles = {"who": ["John", "Tom"]}
    task = tasks.make(tiny, clean, corrupt, **words, positions=roles)
    found = patching.sweep(tiny, task, "resid_pre", metric=DIFF, where=Where(layers=[0]))
    assert found.places == ["0 When", "1 …", "2 and", "3 who", "4 went"]
    assert found.named((0, 3)) == "layer 0, 3 who"


def test_positions_are_swept_as_far_as_all_prompts_reach_and_it_is_said(tiny_gqa, task):
    found = patching.sweep(tiny_gqa, task, "resid_pre", metric=DIFF)
    assert len(found.places) == 4
    assert "4 to 6 tokens; the first 4 positions were swept" in found.caveat
    assert found.caveat in found.sentence()


# Truth that was planted


@pytest.mark.parametrize(
    ("kind", "denoise", "noise"), [("or", 8.0, 0.0), ("and", 0.0, -8.0)], ids=["or", "and"]
)
def test_denoising_finds_the_parts_of_an_or_and_noising_those_of_an_and(kind, denoise, noise):
    model = models.load(f"planted/{kind}")
    task = tasks.planted(model, prompts=8, seed=0)
    truth = models.planted.truth(model)
    found = patching.sweeps(model, task, "z", metrics=[DIFF])
    for direction, effect in (("denoise", denoise), ("noise", noise)):
        one = found.one(direction)
        expected = torch.zeros_like(one.effect)
        for head in truth.heads:
            expected[head] = effect
        assert_close(one.effect, expected, rtol=0, atol=1e-3)
        assert set(one.significant()) == (set(truth.heads) if effect else set())


@pytest.mark.parametrize("kind", ["or", "and"])
def test_a_residual_sweep_over_roles_gives_the_planted_map(kind):
    model = models.load(f"planted/{kind}")
    task = tasks.planted(model, prompts=8, seed=0)
    found = patching.sweep(model, task, "resid_pre", metric=DIFF, over="role")
    for (layer, role), value in models.planted.truth(model).residual.items():
        at = found.places.index(role)
        restored = found.corrupt + found.per_prompt[layer, at]
        assert_close(restored, torch.full_like(restored, value), rtol=0, atol=1e-3)


def test_shared_values_are_patched_by_key_value_head():
    model = models.load("planted/duplicate-gqa")
    task = tasks.planted(model, prompts=6, seed=0)
    roles = models.planted.truth(model).roles
    shared = model.cfg.n_heads // model.cfg.n_key_value_heads
    found = patching.sweep(model, task, "v", metric=DIFF, direction="noise")
    expected = torch.zeros(model.cfg.n_layers, model.cfg.n_key_value_heads)
    for layer, head in roles["induction"]:  # each writes 4 nats, and adds up with its like
        expected[layer, head // shared] -= 4
    for layer, head in roles["previous token"]:  # without it none of them has anything to write
        expected[layer, head // shared] = -12
    assert_close(found.effect, expected, rtol=0, atol=1e-3)


# The normalised effect


def hand_made(clean, corrupt, effect, direction="denoise"):
    per_prompt = torch.tensor(effect)[None, None]
    mean = per_prompt.mean(-1)
    return patching.Sweep(
        effect=mean, low=mean, high=mean, p=torch.ones_like(mean), per_prompt=per_prompt,
        clean=torch.tensor(clean), corrupt=torch.tensor(corrupt), layers=[4], places=["S2"],
        stream="resid_pre", over="role", direction=direction, source="counterfactual",
        metric="logit_diff", unit="nats", task="mine", task_digest="", model="m", model_digest="",
    )  # fmt: skip


def test_the_normalised_effect_is_a_ratio_of_means_over_prompts_with_a_gap():
    sweep = hand_made([3.0, 5.0, 1.0], [-1.0, 1.0, 0.95], [2.0, 4.0, 9.0])
    share, left_out = sweep.normalised()
    # (2 + 4) / (4 + 4); the third prompt's gap is 0.05
    assert_close(share, torch.tensor([[0.75]]))
    assert left_out == 1
    everything, none = sweep.normalised(least_gap=0.01)
    assert_close(everything, torch.tensor([[15 / 8.05]]))
    assert none == 0


def test_breaking_everything_is_one_in_noise_too():
    sweep = hand_made([3.0, 5.0], [-1.0, 1.0], [-4.0, -4.0], direction="noise")
    assert_close(sweep.normalised()[0], torch.ones(1, 1))


@pytest.mark.parametrize("corrupt", [[2.95, 5.02], [7.0, 1.0]], ids=["small", "cancelling"])
def test_too_small_a_gap_is_refused(corrupt):
    sweep = hand_made([3.0, 5.0], corrupt, [1.0, 1.0])
    with pytest.raises(ValueError, match=r"there is no gap to normalise by. Choose a corruption"):
        sweep.normalised()


# What a result says, and where it goes


def test_a_sweep_says_its_strongest_place_and_how_many_are_significant():
    sweep = dataclasses.replace(
        hand_made([3.0, 5.0], [-1.0, 1.0], [4.0, 4.5]), p=torch.tensor([[0.01]])
    )
    assert sweep.strongest(1) == sweep.significant() == [(0, 0)]
    assert "1 of 1 places change it (corrected p ≤ 0.05)" in sweep.sentence()
    assert "The strongest is layer 4, S2: +4.25" in sweep.sentence()
    assert "into the corrupt prompts, where logit_diff is +0.00 nats (+4.00" in sweep.sentence()
    assert sweep.headline() == {
        "effect": 4.25, "low": 4.25, "high": 4.25, "place": "layer 4, S2", "significant": 1,
    }  # fmt: skip
    assert "layer 4, S2" in sweep.table()
    assert not sweep.significant(level=0.001)


def test_results_come_back_from_disk_as_they_were(tiny_gqa, task, tmp_path):
    found = patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF, metrics.accuracy])
    chosen = patching.neurons(tiny_gqa, task, [(0, 3), (1, 5)], metric=DIFF)
    for result in (found, found.one("noise", "accuracy"), chosen):
        results.save(result, tmp_path / "result.nc")
        again = results.load(type(result), tmp_path / "result.nc")
        assert results.digest(again) == results.digest(result)
        assert again.sentence() == result.sentence() and again.table() == result.table()


def test_neurons_are_the_columns_of_a_sweep_over_neurons(tiny_gqa, task):
    where = Where(neurons=[3, 9])
    options = {"metric": DIFF, "direction": "noise", "source": "mean"}
    swept = patching.sweep(tiny_gqa, task, "neuron", over="neuron", where=where, **options)
    found = patching.neurons(tiny_gqa, task, [(1, 9), (0, 3)], **options)
    assert found.places == ["neuron 1.9", "neuron 0.3"]
    expected = torch.stack([swept.per_prompt[1, 1], swept.per_prompt[0, 0]])
    assert_close(found.per_prompt, expected, rtol=1e-5, atol=1e-6)
    assert_close(found.baseline, measure(tiny_gqa, task, metric=DIFF), rtol=1e-5, atol=1e-6)


def test_sets_of_edits_with_names_are_ranked_by_what_they_do(tiny_gqa, task):
    zero = {Site("z", 0): edits.zero(heads=[1])}
    both = zero | {Site("mlp_out", 1): edits.zero()}
    found = patching.each(tiny_gqa, task, {"one": zero, "both": both}, metric=DIFF, what="Sets")
    for name, cell in (("one", zero), ("both", both)):
        expected = measure(tiny_gqa, task, metric=DIFF, edits=cell) - found.baseline
        at = found.places.index(name)
        assert_close(found.per_prompt[at], expected, rtol=1e-4, atol=1e-5)
    larger = "both" if abs(found.effect[1]) > abs(found.effect[0]) else "one"
    assert found.strongest(1) == [larger]
    assert found.headline()["place"] == larger
    assert "Sets of tiny-gqa on the clean prompts of mine" in found.sentence()


def test_the_seed_draws_the_bounds_and_nothing_else(tiny_gqa, task):
    def swept(seed):
        running = Running(seed=seed)
        return patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], running=running)

    one, same, other = swept(0), swept(0), swept(1)
    assert results.digest(one) == results.digest(same)
    assert_close(one.per_prompt, other.per_prompt, rtol=0, atol=0)


def test_a_sweep_that_was_kept_is_read_back(tiny_gqa, task, tmp_path):
    running = Running(keep=tmp_path / "kept")
    one, again = (
        patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], running=running) for _ in range(2)
    )
    assert_close(one.per_prompt, again.per_prompt, rtol=0, atol=0)
    assert "8 cells, 8 of them kept from an earlier run" in again.cost
    assert "kept" not in one.cost


# Bad input


@pytest.mark.parametrize(
    ("stream", "options", "message"),
    [
        ("resid_post", {"over": "heads"}, "no axis 'heads': a sweep is over position, role, head"),
        ("resid_pre", {"over": "head"}, "resid_pre has no heads; those that have are q, k, v"),
        ("z", {"over": "neuron"}, "z has no neurons; those that have are neuron, neuron_pre"),
        ("embed", {}, "embed exists once; a sweep is over layers: take resid_pre 0"),
        ("z", {"direction": "restore"}, "no direction 'restore'; there are 'denoise' and 'noise'"),
        ("z", {"source": "median"}, "no source 'median'; there are 'counterfactual'"),
        ("rsid_pre", {"over": "all"}, "rsid_pre"),
        ("z", {"where": Where(layers=[7])}, "7"),
    ],
)
def test_bad_questions_are_refused(tiny_gqa, task, unchecked_types, stream, options, message):
    with pytest.raises(ValueError, match=message):
        patching.sweep(tiny_gqa, task, stream, metric=DIFF, **options)


def test_roles_of_a_task_that_has_none_one_prompt_and_no_metric_are_refused(tiny_gqa, task):
    bare = dataclasses.replace(task, positions={})
    with pytest.raises(ValueError, match="mine has no roles to sweep over; take over='position'"):
        patching.sweep(tiny_gqa, bare, "resid_pre", metric=DIFF, over="role")
    with pytest.raises(ValueError, match="mine has one prompt: bounds and tests need at least two"):
        patching.sweep(tiny_gqa, task[0], "z", metric=DIFF)
    with pytest.raises(ValueError, match="no metric was given"):
        patching.sweeps(tiny_gqa, task, "z", metrics=[])
    with pytest.raises(ValueError, match="no neurons were chosen"):
        patching.neurons(tiny_gqa, task, [], metric=DIFF)
    found = patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], directions=["noise"])
    with pytest.raises(KeyError, match="no direction 'denoise' in this sweep; there are noise"):
        found.one("denoise")
