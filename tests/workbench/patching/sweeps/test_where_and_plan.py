"""Which part of a model a sweep visits, what is refused, and what it says beforehand."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits
from workbench import effects, metrics, patching
from workbench.patching import Running, Where

DIFF = metrics.logit_diff


@pytest.mark.parametrize(
    ("over", "where", "said"),
    [
        ("position", {"positions": [1]}, "restricts heads, neurons and 'all' to some tokens, but"),
        ("role", {"positions": [1]}, "over='role' sweeps the tokens themselves: leave it out"),
        ("head", {"neurons": [3]}, "chooses the columns of over='neuron', but this sweep is over"),
        ("all", {"neurons": [3]}, "this sweep is over 'all': leave it out"),
    ],
)
def test_what_a_sweep_would_not_heed_is_refused(tiny_gqa, task, over, where, said):
    stream = "z" if over in ("head", "all") else "resid_pre"
    with pytest.raises(ValueError, match=said):
        patching.sweep(tiny_gqa, task, stream, metric=DIFF, over=over, where=Where(**where))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"layers": [0, 1, 0]}, ValueError, "layers 0 is given twice: name each once"),
        ({"neurons": (4, 4)}, ValueError, "neurons 4 is given twice"),
        ({"layers": []}, ValueError, r"layers=\[\] visits nothing: name some, or leave it out"),
        ({"neurons": []}, ValueError, r"neurons=\[\] visits nothing"),
        ({"layers": 1}, TypeError, r"layers=1: give a list: layers=\[...\]"),
    ],
)
def test_parts_that_are_none_or_doubled_are_refused(unchecked_types, given, error, said):
    with pytest.raises(error, match=said):
        Where(**given)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"where": [0, 1]}, TypeError, r"where=\[0, 1\]: give patching.Where\(layers="),
        ({"directions": []}, ValueError, r"directions=\[\]: give a list of one or both"),
        ({"directions": "noise"}, ValueError, "directions='noise': give a list of one or both"),
        ({"where": Where(layers=[9])}, ValueError, "layer 9 is not in this model: its layers are"),
        ({"where": Where(layers=[-1])}, ValueError, "layer -1 is not in this model"),
        ({"source": "constant"}, ValueError, "effects.optimal_constants.* finds them and gives"),
        ({"running": {"memory": 2e9}}, ValueError, "memory 2000000000.0 is no size: write"),
        ({"running": {"memory": None}}, ValueError, "memory None is no size: write '2GB'"),
        ({"running": {"memory": -1}}, ValueError, "memory -1 leaves nothing to work with"),
    ],
)
def test_bad_questions_say_what_to_ask(tiny_gqa, task, unchecked_types, asked, error, said):
    if "running" in asked:
        asked = {"running": Running(**asked["running"])}
    for ask in (patching.sweeps, patching.plan):
        with pytest.raises(error, match=said):
            ask(tiny_gqa, task, "z", metrics=[DIFF], **asked)


def test_a_file_where_results_would_be_kept_is_refused(tiny_gqa, task, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    running = Running(keep=tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"notes.txt' is a file: give a folder"):
        patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], running=running)


def test_neurons_that_are_not_there_or_named_twice_are_refused(tiny_gqa, task):
    with pytest.raises(ValueError, match="layer 9 is not in this model: its layers are 0 to 1"):
        patching.neurons(tiny_gqa, task, [(9, 0)], metric=DIFF)
    with pytest.raises(ValueError, match=r"\(1, 3\) is given twice"):
        patching.neurons(tiny_gqa, task, [(1, 3), (0, 3), (1, 3)], metric=DIFF)


def test_answers_of_another_vocabulary_are_refused(tiny_gqa, task):
    for metric in (DIFF, metrics.answer_logprob):
        wrong = dataclasses.replace(task, answer=torch.full((3, 1), 10**6))
        with pytest.raises(ValueError, match="id 1000000 of an answer or foil is not one of"):
            patching.sweep(tiny_gqa, wrong, "z", metric=metric)
        with pytest.raises(ValueError, match="id 1000000 of an answer or foil is not one of"):
            effects.measure(tiny_gqa, wrong, metric=metric)


@pytest.mark.parametrize("directions", [["noise"], ["denoise", "noise"]])
def test_a_plan_asked_for_alone_is_what_the_sweep_then_does(tiny_gqa, task, directions, capsys):
    asked = {"metrics": [DIFF], "directions": directions, "where": Where(layers=[1])}
    planned = patching.plan(tiny_gqa, task, "z", **asked)
    assert list(planned.parts) == directions
    assert planned.cells == 4 * len(directions)  # four heads
    assert planned.bytes == max(plan.bytes for plan in planned.parts.values())
    capsys.readouterr()
    found = patching.sweeps(tiny_gqa, task, "z", **asked)
    said = capsys.readouterr().err
    for line in str(planned).splitlines():
        direction, plan = line.split(": ", 1)
        assert direction in directions and plan.rsplit(", about", 1)[0] in said
    for plan in planned.parts.values():
        assert f"{plan.forwards:.1f} forward passes" in found.cost
    assert planned.forwards == sum(plan.forwards for plan in planned.parts.values())
    assert planned.seconds > 0


def test_the_strongest_neurons_of_an_attribution_are_swept_as_they_are(tiny_gqa, task):
    sites = [Site("neuron", 0), Site("neuron", 1)]
    estimated = effects.attribute(
        tiny_gqa, task, sites, metric=DIFF, source="mean", summed=("pos",)
    ).strongest(3)
    found = patching.neurons(tiny_gqa, task, estimated, metric=DIFF)
    pairs = [(node.site.layer, node.at["neuron"]) for node in estimated]
    assert found.places == [f"neuron {layer}.{neuron}" for layer, neuron in pairs]
    by_pair = patching.neurons(tiny_gqa, task, pairs, metric=DIFF)
    assert_close(found.per_prompt, by_pair.per_prompt, rtol=0, atol=0)
    elsewhere = effects.attribute(tiny_gqa, task, sites, metric=DIFF).strongest(1)
    with pytest.raises(ValueError, match=r"at all positions: attribute Site\('neuron', layer"):
        patching.neurons(tiny_gqa, task, elsewhere, metric=DIFF)


def test_optimal_constants_are_a_source_for_a_sweep_over_heads(tiny_gqa, task):
    wanted, metric = [Site("z", 0), Site("z", 1)], metrics.answer_logprob
    source = effects.optimal_constants(tiny_gqa, task, wanted, metric=metric, steps=5)
    asked = {"metric": metric, "direction": "noise"}
    found = patching.sweep(tiny_gqa, task, "z", source=source, **asked)
    assert found.source == "constant"
    for layer, head in ((0, 2), (1, 0)):
        fit = effects.optimal_constant(
            tiny_gqa, task, Site("z", layer), metric=metric, heads=[head], steps=5
        )
        ablated = (found.clean + found.per_prompt[layer, head]).mean()
        assert_close(float(ablated), fit.metric, rtol=0, atol=1e-4)
    for kind in ("zero", "mean"):
        other = patching.sweep(tiny_gqa, task, "z", source=kind, **asked)
        assert bool((found.effect >= other.effect - 1e-4).all())


def test_optimal_constants_of_whole_sites_and_of_key_value_heads(tiny_gqa, task):
    sites = [Site("v", 1), Site("mlp_out", 0)]
    given = {"metric": metrics.answer_logprob, "steps": 2}
    each = effects.optimal_constants(tiny_gqa, task, sites, **given)
    assert each.constants is not None
    assert each.constants[sites[0]].shape[0] == 2  # key-value heads
    patching.sweep(tiny_gqa, task, "v", metric=DIFF, source=each, where=Where(layers=[1]))
    together = effects.optimal_constants(tiny_gqa, task, sites[1:], heads="together", **given)
    alone = effects.optimal_constant(tiny_gqa, task, sites[1], **given)
    assert together.constants is not None
    assert_close(together.constants[sites[1]], alone.value, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no site was given"):
        effects.optimal_constants(tiny_gqa, task, [], **given)
    with pytest.raises(ValueError, match="no constant was found for z 0; there are mlp_out 0, v 1"):
        patching.sweep(tiny_gqa, task, "z", metric=DIFF, source=each)


def test_a_sweep_of_more_prompts_than_fit_is_run_in_parts(tiny_gqa, task):
    whole = patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF])
    with pytest.raises(MemoryError) as caught:
        patching.plan(tiny_gqa, task, "z", metrics=[DIFF], running=Running(memory="1KB"))
    needed = int(str(caught.value).split("give memory=")[1].split("KB")[0])
    running = Running(memory=f"{needed * 2 // 3}KB")
    parts = patching.sweeps(tiny_gqa, task, "z", metrics=[DIFF], running=running)
    assert "no room for 3 prompts at once: halved" in parts.cost
    assert_close(parts.per_prompt, whole.per_prompt, rtol=1e-5, atol=1e-5)


def test_sets_of_edits_need_a_metric(tiny_gqa, task, unchecked_types):
    with pytest.raises(TypeError, match="is no metric"):
        patching.each(tiny_gqa, task, {"one": {Site("z", 0): edits.zero()}}, metric=[DIFF])
