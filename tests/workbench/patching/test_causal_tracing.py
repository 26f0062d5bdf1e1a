"""Causal tracing against forward passes with plain hooks, and what must hold by its definition."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture
from workbench import metrics, patching, results, statistics, tasks
from workbench.models import twins
from workbench.patching.causal_tracing import subject_tokens

_MADE = {}


def model_of(name):
    if name not in _MADE:
        _MADE[name] = twins.make(name)[0]
    return _MADE[name]


def task_of(subject=(3, 2, 1), first=(2, 2, 1), lengths=(8, 6, 4)):
    """Random padded prompts whose subjects stand from `first` to `subject`."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(3, 67, (len(lengths), max(lengths)), generator=generator)
    corrupt = clean.clone()
    for row, (start, end) in enumerate(zip(first, subject, strict=True)):
        corrupt[row, start : end + 1] = (clean[row, start : end + 1] + 7) % 60 + 3
    lengths = torch.tensor(lengths)
    pair = (Prompts(clean, lengths), Prompts(corrupt, lengths))
    ids = torch.arange(3, 3 + 2 * len(lengths)).reshape(2, -1, 1)
    roles = {"subject": torch.tensor(subject), "END": lengths - 1}
    group = torch.zeros(len(lengths), dtype=torch.long)
    return tasks.Task("by hand", *pair, ids[0], ids[1], roles, group)


def noise_of(model, task, draw, *, scale=3.0, seed=0):
    """The noise that is promised: so many standard deviations, on the subject alone."""
    embedding = capture(model, task.clean, [Site("embed")])[Site("embed")]
    subject = torch.zeros_like(task.clean.tokens, dtype=torch.bool)
    subject[task.clean.tokens != task.corrupt.tokens] = True
    generator = statistics.derive(seed, "causal tracing", str(draw))
    values = torch.randn(embedding.shape, generator=generator)
    return values * subject[..., None] * scale * embedding[subject].std()


def run(model, task, hooks):
    with model.hooks(fwd_hooks=[(site.hook_name, hook) for site, hook in hooks]):
        return metrics.logit_diff(model(task.clean), task)


def at(value, rows):
    """A hook that writes the row of `value` at one position of each prompt."""

    def write(x, hook):
        x = x.clone()
        every = torch.arange(len(rows))
        x[every, rows] = value[every, rows]
        return x

    return write


def noisy(model, task, draw):
    noise = noise_of(model, task, draw)
    return Site("resid_pre", 0), lambda x, hook: x + noise


def under(add, model, task, stream):
    """What flows through a stream when there is noise."""
    held = {}
    sites = [Site(stream, n) for n in range(model.cfg.n_layers)]
    keep = [(site, lambda x, hook, site=site: held.__setitem__(site, x.clone())) for site in sites]
    run(model, task, [add, *keep])
    return held


def naive(model, task, stream, *, draws=2, window=1, severed="none"):
    """A full forward pass for each draw, layer and role."""
    layers = range(model.cfg.n_layers)
    seen = capture(model, task.clean, [Site(stream, n) for n in layers])
    found = torch.zeros(draws, len(layers), len(task.positions), len(task))
    for draw in range(draws):
        add = noisy(model, task, draw)
        held = {} if severed == "none" else under(add, model, task, severed)
        before = run(model, task, [add])
        for layer in layers:
            for column, rows in enumerate(task.positions.values()):
                inside = [n for n in layers if layer - window // 2 <= n < layer + (window + 1) // 2]
                hooks = [(Site(stream, n), at(seen[Site(stream, n)], rows)) for n in inside]
                hooks += [(site, at(held[site], rows)) for site in held if site.layer > inside[-1]]
                found[draw, layer, column] = run(model, task, [add, *hooks]) - before
    return found


def trace(model, task, stream="resid_post", **options):
    options = {"noise": patching.Noise(draws=2), **options}
    return patching.causal_tracing(model, task, stream, metric=metrics.logit_diff, **options)


def assert_same(found, expected, model, task):
    room = 1e-5 * float(model(task.clean).abs().max())
    assert_close(found.per_prompt, expected.mean(dim=0), rtol=0, atol=room)
    assert_close(found.by_draw, expected.mean(dim=-1), rtol=0, atol=room)
    assert expected.abs().max() > 100 * room


@pytest.mark.parametrize(
    "architecture",
    ["GPT-2", "Llama", "Qwen 3", "GPT-NeoX", pytest.param("Gemma 3", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("stream", ["resid_post", "attn_out", "mlp_out"])
def test_restoring_a_state_is_a_full_pass_with_noise_and_that_state(architecture, stream):
    model, task = model_of(architecture), task_of()
    assert_same(trace(model, task, stream), naive(model, task, stream), model, task)


@pytest.mark.parametrize("window", [2, 3])
def test_a_window_restores_the_layers_around_its_middle(window):
    model, task = model_of("Gemma 3"), task_of()  # three layers
    found = trace(model, task, "mlp_out", window=window)
    assert_same(found, naive(model, task, "mlp_out", window=window), model, task)
    assert found.layers == [0, 1, 2] and found.window == window


@pytest.mark.parametrize("severed", ["mlp_out", "attn_out"])
def test_severed_parts_stay_as_they_are_under_noise_alone(severed):
    model, task = model_of("Gemma 3"), task_of()
    found = trace(model, task, "resid_post", severed=severed)
    assert_same(found, naive(model, task, "resid_post", severed=severed), model, task)
    whole = trace(model, task, "resid_post")
    assert_close(found.per_prompt[-1], whole.per_prompt[-1])  # nothing comes after the last layer
    assert (found.per_prompt[0] - whole.per_prompt[0]).abs().max() > 1e-3


def test_the_total_effect_is_the_clean_metric_minus_that_with_noise():
    model, task = model_of("Llama"), task_of()
    found = trace(model, task)
    noised = torch.stack([run(model, task, [noisy(model, task, draw)]) for draw in range(2)])
    assert_close(found.noised, noised.mean(dim=0), rtol=1e-5, atol=1e-5)
    assert_close(found.clean, run(model, task, []), rtol=1e-5, atol=1e-5)
    assert found.total == pytest.approx(float((found.clean - found.noised).mean()), abs=1e-5)
    assert found.total_low < found.total < found.total_high


def test_restoring_all_that_became_noise_or_the_last_state_that_is_read_restores_everything():
    model, task = model_of("Llama"), task_of(subject=(3, 2, 1), first=(3, 2, 1))
    found = trace(model, task, "resid_pre")
    total = found.clean - found.noised
    assert_close(found.per_prompt[0, found.places.index("subject")], total, rtol=0, atol=0)
    last = trace(model, task, "resid_post")
    assert_close(last.per_prompt[-1, last.places.index("END")], total, rtol=1e-5, atol=1e-5)
    assert_close(last.share()[-1, 1], torch.tensor(1.0), rtol=1e-4, atol=1e-4)
    assert total.abs().min() > 0.01


def test_a_last_layers_state_that_nobody_reads_restores_exactly_nothing():
    found = trace(model_of("GPT-2"), task_of(), "resid_post")
    assert (found.per_prompt[-1, found.places.index("subject")] == 0).all()


def test_columns_can_be_positions(tiny):
    task = tasks.capitals(tiny, prompts=9, seed=0)
    task = task[(task.group == 0).nonzero()[:, 0]]
    options = {"metric": metrics.logit_diff, "noise": patching.Noise("country", draws=1)}
    roles, positions = (
        patching.causal_tracing(tiny, task, "mlp_out", over=over, **options)
        for over in ("role", "position")
    )
    country = int(task.positions["country"][0])
    assert positions.places[country] == f"{country} country"
    column = roles.places.index("country")
    assert_close(positions.per_prompt[:, country], roles.per_prompt[:, column])
    before = positions.per_prompt[:, :country]
    assert (before == 0).all()  # causal: noise on the country has not changed them


def test_the_subject_is_its_last_token_and_those_before_it_that_differ():
    inside = subject_tokens(task_of(), "subject")
    assert inside.nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [2, 1]]
    apart = task_of(subject=(3, 2, 1), first=(3, 2, 1))
    assert subject_tokens(apart, "END").nonzero().tolist() == [[0, 7], [1, 5], [2, 3]]


def test_noise_is_measured_by_the_spread_of_the_subjects_embeddings():
    model, task = model_of("GPT-2"), task_of()
    embedding = capture(model, task.clean, [Site("embed")])[Site("embed")]
    rows = torch.stack([embedding[0, 2], embedding[0, 3], embedding[1, 2], embedding[2, 1]])
    found = trace(model, task)
    assert found.deviation == pytest.approx(float(rows.std()), rel=1e-5)
    one = trace(model, task, noise=patching.Noise(draws=1, scale=1e-6))
    assert abs(one.total) < 1e-3 < abs(found.total)


def test_the_same_seed_gives_the_same_bits_and_another_one_other_noise(tmp_path):
    model, task = model_of("Llama"), task_of()
    one, again = trace(model, task), trace(model, task)
    assert results.digest(one) == results.digest(again)
    results.save(one, tmp_path / "result.nc")
    back = results.load(patching.Tracing, tmp_path / "result.nc")
    assert results.digest(back) == results.digest(one)
    other = trace(model, task, noise=patching.Noise(draws=2, seed=1))
    assert not other.noised.equal(one.noised)


def by_hand(total=2.0):
    effect = torch.tensor([[0.0, 1.0], [-0.5, 0.2]])
    return patching.Tracing(
        effect=effect, low=effect - 0.1, high=effect + 0.1,
        p=torch.tensor([[1.0, 0.01], [0.03, 0.5]]),
        per_prompt=effect[..., None].repeat(1, 1, 3), by_draw=effect[None].repeat(5, 1, 1),
        clean=torch.full((3,), -0.5), noised=torch.full((3,), -0.5 - total), total=total,
        total_low=total - 0.5, total_high=total + 0.5, layers=[0, 1], places=["country", "END"],
        stream="mlp_out", over="role", window=5, severed="none", subject="country", noise=3.0,
        deviation=0.1, metric="answer_logprob", unit="nats", task="capitals", task_digest="",
        model="a model", model_digest="",
    )  # fmt: skip


def test_a_result_says_what_came_back_and_where():
    found = by_hand()
    assert found.significant() == [(0, 1), (1, 0)]
    assert_close(found.share(), found.effect / 2)
    said = found.sentence()
    assert "by +2.00 nats [+1.50, +2.50] from -0.50 (3 prompts)" in said
    assert "Restoring mlp_out of 5 layers, 2 of 4 places" in said
    assert "The strongest is layer 0, END: +1.00 [+0.90, +1.10]" in said
    assert found.table(1).splitlines()[1].startswith("layer 0, END")
    assert found.headline()["total"] == 2.0
    with pytest.raises(ValueError, match="there is nothing to restore a share of"):
        by_hand(total=0.01).share()


def test_what_cannot_be_traced_is_refused_by_name():
    def refused(match, stream="resid_post", **options):
        with pytest.raises(ValueError, match=match):
            trace(model_of("GPT-NeoX"), task_of(), stream, **options)

    refused("no role 'country'; its roles are subject, END", noise=patching.Noise("country"))
    refused("no state 'z' to restore", stream="z")
    refused("window of 0 layers restores nothing", window=0)
    refused("over 'role' or 'position', not 'head'", over="head")
    refused("resid_mid cannot be written.*nothing lies between", stream="resid_mid")
    with pytest.raises(ValueError, match="at least one draw"):
        patching.Noise(draws=0)
