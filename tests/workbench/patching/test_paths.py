"""Path patching against forward passes with plain hooks, theorems, and TransformerLens."""

from itertools import pairwise

import pytest
import torch
import transformers
from torch.testing import assert_close
from transformer_lens.patching import get_act_patch_direct_path

from hooks import Prompts, Site, capture, edits, intervening
from workbench import lens, metrics, models, patching, results, tasks
from workbench.models import twins
from workbench.models.tiny import fill
from workbench.patching import path_patching

_SHAPE = {
    "vocab_size": 67, "max_position_embeddings": 64, "hidden_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
_GROUPED = {**_SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": False}
_MAKERS = {
    "GPT-2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=67, n_positions=64, n_embd=32, n_layer=3, n_head=4, n_inner=48
        )
    ),
    "Llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_GROUPED)),
    "Qwen 3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**_GROUPED, head_dim=16)
    ),
    "GPT-NeoX": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**_SHAPE, use_parallel_residual=True)
    ),
    "GPT-NeoX, sequential": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**_SHAPE, use_parallel_residual=False)
    ),
    "Gemma 3": lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            **_GROUPED, head_dim=8, query_pre_attn_scalar=8, sliding_window=4,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
}  # fmt: skip
_SLOW = ("GPT-NeoX, sequential", "Gemma 3")
_ALL = [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in _MAKERS]
_MADE: dict[str, models.Model] = {}


def model_of(name):
    """Three layers of noise in the shape of an architecture."""
    if name not in _MADE:
        with torch.random.fork_rng(devices=[]):
            inner = _MAKERS[name]()
        fill(inner, torch.Generator().manual_seed(3))
        _MADE[name] = models.wrap(inner.eval(), name=name)
    return _MADE[name]


@pytest.fixture(params=_ALL)
def model(request):
    return model_of(request.param)


def task_of(vocabulary=67, lengths=(9, 7, 5), seed=0):
    """Random pairs that differ in two tokens, padded where the lengths differ."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    clean = torch.randint(3, vocabulary, shape, generator=generator)
    corrupt = clean.clone()
    corrupt[:, 2:4] = torch.randint(3, vocabulary, (len(lengths), 2), generator=generator)
    lengths = torch.tensor(lengths)
    ids = torch.arange(3, 3 + 2 * len(lengths)).reshape(2, -1, 1)
    group = torch.zeros(len(lengths), dtype=torch.long)
    pair = (Prompts(clean, lengths), Prompts(corrupt, lengths))
    return tasks.Task("by hand", *pair, ids[0], ids[1], {"END": lengths - 1}, group)


def run(model, prompts, hooks):
    with model.hooks(fwd_hooks=[(site.hook_name, hook) for site, hook in hooks]):
        return model(prompts)


def naive(model, task, receivers, between, direction="noise", metric=metrics.logit_diff):
    """Two full forward passes with plain hooks for each sender."""
    base, other = (task.clean, task.corrupt)[:: 1 if direction == "noise" else -1]
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    every = [Site(stream, n) for stream in ("z", "mlp_out") for n in range(layers)]
    here, there = capture(model, base, every), capture(model, other, every)
    before = metric(model(base), task, base)
    found = torch.zeros(layers, heads + 1, len(task))
    for layer in range(layers):
        for head in range(heads + 1):
            told = {}
            first = first_run(here, there, layer, head if head < heads else None, layers,
                              between, receivers, told)  # fmt: skip
            logits = run(model, base, first)
            if receivers != "logits":
                logits = run(model, base, [(site, writer(site, heads_, told[site]))
                                           for site, heads_ in receivers.items()])  # fmt: skip
            found[layer, head] = metric(logits, task, base) - before
    return found


def first_run(here, there, layer, head, layers, between, receivers, told):
    hooks = []
    for n in range(layers):
        value = here[Site("z", n)].clone()
        if n == layer and head is not None:
            value[:, :, head] = there[Site("z", n)][:, :, head]
        hooks.append((Site("z", n), lambda x, hook, value=value: value))
    if receivers != "logits":
        for site in receivers:
            hooks.append((site, lambda x, hook, site=site: told.__setitem__(site, x.clone())))
    for n in range(layers):
        site = Site("mlp_out", n)
        if head is None and n == layer:
            hooks.append((site, lambda x, hook, site=site: there[site]))
        elif between == "frozen":
            hooks.append((site, lambda x, hook, site=site: here[site]))
    return hooks


def writer(site, heads, value):
    def write(x, hook):
        if heads is None:
            return value
        x = x.clone()
        x[:, :, heads] = value[:, :, heads]
        return x

    return write


def assert_same(found, expected, model, task):
    """Equal to 1e-5 of the largest logit."""
    room = 1e-5 * float(model(task.clean).abs().max())
    assert_close(found.per_prompt, expected[:, :-1], rtol=0, atol=room)
    assert_close(found.mlp_per_prompt, expected[:, -1], rtol=0, atol=room)
    assert expected[:, :-1].abs().max() > 100 * room  # there is something to be equal to


@pytest.mark.parametrize("between", ["free", "frozen"])
def test_to_the_logits_it_is_one_full_pass_with_all_other_heads_held(model, between):
    task = task_of()
    found = patching.paths(model, task, to="logits", metric=metrics.logit_diff, between=between)
    assert_same(found, naive(model, task, "logits", between), model, task)


RECEIVERS = [
    (Site("q", 2), 1),
    (Site("q", 2), 3),
    (Site("k", 2), 0),
    Site("v", 1),
    Site("mlp_out", 1),
]
TOLD = {Site("q", 2): [1, 3], Site("k", 2): [0], Site("v", 1): None, Site("mlp_out", 1): None}


@pytest.mark.parametrize("between", ["free", "frozen"])
def test_to_heads_and_mlps_it_is_two_full_passes(model, between):
    """Several receivers in several layers, among them single key-value heads, all at once."""
    task = task_of()
    found = patching.paths(model, task, to=RECEIVERS, metric=metrics.logit_diff, between=between)
    assert_same(found, naive(model, task, TOLD, between), model, task)


@pytest.mark.parametrize("stream", ["q", "k", "v"])
def test_one_input_of_one_head_can_be_told_alone_in_either_direction(stream):
    model, task = model_of("Llama"), task_of(lengths=(8, 8, 8))
    found = patching.paths(
        model, task, to=(Site(stream, 2), 1), metric=metrics.logit_diff, direction="denoise"
    )
    expected = naive(model, task, {Site(stream, 2): [1]}, "free", "denoise")
    assert_same(found, expected, model, task)


def test_a_metric_that_reads_all_tokens_is_told_at_all_of_them():
    model, task = model_of("GPT-2"), task_of()
    for between in ("free", "frozen"):
        found = patching.paths(
            model, task, to="logits", metric=metrics.mean_logprob, between=between
        )
        expected = naive(model, task, "logits", between, metric=metrics.mean_logprob)
        assert_close(found.per_prompt, expected[:, :-1], rtol=0, atol=1e-5)


def scale(model, prompts):
    """By what the last norm divides."""
    final = capture(model, prompts, [Site("final")], positions=prompts.last)[Site("final")]
    if "GPT2" in model.cfg.architecture:
        return final.std(dim=-1, unbiased=False)[:, 0]
    return final.square().mean(dim=-1).sqrt()[:, 0]


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_with_the_last_norms_scale_held_it_is_the_change_in_direct_attribution(name):
    model, task = model_of(name), task_of()
    found = patching.paths(model, task, to="logits", metric=metrics.logit_diff, between="linear")
    before, after = (lens.direct_attribution(model, one) for one in (task, task.swapped()))
    same = scale(model, task.corrupt) / scale(model, task.clean)  # each was read at its own scale
    room = 1e-5 * float(model(task.clean).abs().max())
    heads = after.head_per_prompt * same - before.head_per_prompt
    assert_close(found.per_prompt, heads, rtol=0, atol=room)
    mlps = after.mlp_per_prompt * same - before.mlp_per_prompt
    assert_close(found.mlp_per_prompt, mlps, rtol=0, atol=room)
    assert heads.abs().max() > 1000 * room


def test_without_a_norm_holding_its_scale_changes_nothing():
    model, _ = twins.make("native, attention only")
    task = task_of()
    one, other = (
        patching.paths(model, task, to="logits", metric=metrics.logit_diff, between=between)
        for between in ("linear", "frozen")
    )
    assert_close(one.per_prompt, other.per_prompt, rtol=1e-5, atol=1e-5)
    assert one.per_prompt.abs().max() > 0.01
    assert (one.mlp_per_prompt == 0).all()


@pytest.mark.parametrize("stream", ["q", "k", "v"])
def test_transformer_lens_finds_the_same_direct_paths(stream):
    model, task = model_of("GPT-2"), task_of(lengths=(7, 7, 7))
    base, other = task.corrupt.tokens, task.clean.tokens
    theirs = get_act_patch_direct_path(
        model, base, model.run_with_cache(other)[1], model.run_with_cache(base)[1],
        lambda logits: metrics.logit_diff(logits, task).mean(), 0, 2, component=stream,
        verbose=False,
    )  # fmt: skip
    for layer, head in ((1, 0), (2, 3)):
        ours = patching.paths(
            model, task, to=(Site(stream, layer), head), metric=metrics.logit_diff,
            between="frozen", direction="denoise",
        )  # fmt: skip
        change = theirs[layer, head] - ours.baseline.mean()
        assert_close(ours.effect[0, 2], change, rtol=1e-3, atol=1e-5)


def test_paths_of_a_linear_model_add_up_to_the_total_effect():
    """Attention without norms whose second layer looks at all tokens alike is linear."""
    model, _ = twins.make("native, attention only")
    for projection in (model.blocks[1].attn.q.weight, model.blocks[1].attn.k.weight):
        projection.data.zero_()
    task, sender = task_of(), (Site("z", 0), 1)

    def along(*route):
        return patching.path(model, task, route, metric=metrics.logit_diff).per_prompt[0]

    through = [along(sender, (Site("v", 1), head), "logits") for head in range(model.cfg.n_heads)]
    value = capture(model, task.corrupt, [sender[0]])[sender[0]]
    with intervening(model, {sender[0]: edits.replace(value, heads=[1])}):
        total = metrics.logit_diff(model(task.clean), task)
    total = total - metrics.logit_diff(model(task.clean), task)
    assert_close(along(sender, "logits") + sum(through), total, rtol=1e-4, atol=1e-5)
    assert sum(through).abs().max() > 0.01


def naive_path(model, task, route):
    """One full pass for each step: all that is not on the path is as in the base run."""
    every = [Site(stream, n) for stream in ("z", "mlp_out") for n in range(model.cfg.n_layers)]
    here, there = capture(model, task.clean, every), capture(model, task.corrupt, every)
    first = route[0]
    told = there[first] if isinstance(first, Site) else None  # a head's z is put in by `held_but`
    for before, after in pairwise(route):
        hooks, kept = held_but(here, there, before, told), []
        if after != "logits":
            site = after if isinstance(after, Site) else after[0]
            hooks.insert(0, (site, lambda x, hook, kept=kept: kept.append(x.clone())))
        logits = run(model, task.clean, hooks)
        told = kept[0] if kept else logits
    return metrics.logit_diff(told, task) - metrics.logit_diff(model(task.clean), task)


def held_but(here, there, node, told):
    """Hooks that hold every z and mlp_out, but for `node`, which answers to what it was told."""
    hooks = [(site, lambda x, hook, site=site: here[site]) for site in here]
    if node == Site("mlp_out", node[0].layer if isinstance(node, tuple) else node.layer):
        return [*hooks, (node, lambda x, hook: told)]
    (site, head), z = node, Site("z", node[0].layer)
    hooks = [one for one in hooks if one[0] != z]
    if site == z:
        return [*hooks, (z, writer(z, [head], mixed(here[z], there[z], head)))]
    hooks.append((z, lambda x, hook: mixed(here[z], x, head)))
    return [*hooks, (site, writer(site, [head], told))]


def mixed(base, other, head):
    value = base.clone()
    value[:, :, head] = other[:, :, head]
    return value


@pytest.mark.parametrize(
    "route",
    [
        [(Site("z", 0), 1), (Site("v", 1), 2), Site("mlp_out", 2), "logits"],
        [Site("mlp_out", 0), (Site("q", 1), 3), (Site("k", 2), 0), "logits"],
        [(Site("z", 1), 0), Site("mlp_out", 1), "logits"],
    ],
)
def test_a_path_of_several_steps_is_one_full_pass_for_each(route):
    model, task = model_of("GPT-2"), task_of()
    found = patching.path(model, task, route, metric=metrics.logit_diff)
    expected = naive_path(model, task, route)
    room = 1e-5 * float(model(task.clean).abs().max())
    assert_close(found.per_prompt[0], expected, rtol=0, atol=room)
    assert expected.abs().max() > 20 * room


def test_a_path_of_one_step_is_what_paths_finds_for_its_sender():
    model, task = model_of("Llama"), task_of()
    sender, receiver = (Site("z", 0), 3), (Site("k", 2), 1)
    for end in (receiver, "logits"):
        one = patching.path(model, task, [sender, end], metric=metrics.logit_diff)
        all_senders = patching.paths(
            model, task, to=end, metric=metrics.logit_diff, between="frozen"
        )
        assert_close(one.per_prompt[0], all_senders.per_prompt[0, 3], rtol=1e-4, atol=1e-5)
    assert one.places == ["0.3 → logits"]


def test_senders_that_come_after_the_receiver_have_an_effect_of_exactly_zero():
    found = patching.paths(
        model_of("GPT-NeoX"), task_of(), to=Site("mlp_out", 1), metric=metrics.logit_diff
    )
    assert (found.per_prompt[1:] == 0).all() and (found.mlp_per_prompt[1:] == 0).all()
    assert (found.p[1:] == 1).all() and (found.per_prompt[0] != 0).any()
    sequential = patching.paths(
        model_of("GPT-2"), task_of(), to=Site("mlp_out", 1), metric=metrics.logit_diff
    )
    assert (sequential.per_prompt[1] != 0).any()  # the MLP reads its own block's heads there


def test_a_small_memory_gives_the_same_numbers_in_several_parts(monkeypatch):
    model, task = model_of("Llama"), task_of()
    to = (Site("q", 2), 1)
    whole = patching.paths(model, task, to=to, metric=metrics.logit_diff)
    monkeypatch.setattr(path_patching, "size", lambda memory: 50_000)  # of bytes, for messages
    parts = patching.paths(model, task, to=to, metric=metrics.logit_diff)
    assert parts.cost.count("also run in full") == 5 and whole.cost.count("also run in full") == 1
    assert_close(parts.per_prompt, whole.per_prompt, rtol=1e-5, atol=1e-5)


def by_hand(direction="noise"):
    effect = torch.tensor([[0.0, -1.0], [-3.0, 2.0]])
    p = torch.tensor([[1.0, 0.01], [0.01, 0.01]])
    mlp = torch.tensor([0.5, -4.0])
    return patching.PathEffects(
        effect=effect, low=effect - 0.1, high=effect + 0.1, p=p,
        per_prompt=effect[..., None].repeat(1, 1, 3), mlp=mlp, mlp_low=mlp - 0.2,
        mlp_high=mlp + 0.2, mlp_p=torch.tensor([0.5, 0.001]),
        mlp_per_prompt=mlp[..., None].repeat(1, 3), baseline=torch.full((3,), 2.0),
        other=torch.full((3,), -1.0), to="9.6 q", between="free", direction=direction,
        metric="logit_diff", unit="nats", task="by hand", task_digest="", model="a model",
        model_digest="",
    )  # fmt: skip


def test_the_most_helpful_sender_is_lost_most_or_brings_most_back():
    assert by_hand().most_helpful(2) == [(1, 0), (0, 1)]
    assert by_hand("denoise").most_helpful(2) == [(1, 1), (0, 0)]
    assert by_hand().significant() == [(1, 0), (1, 1), (0, 1)]
    said = by_hand().sentence()
    assert "3 change it by this path (corrected p ≤ 0.05), 2 of them help" in said
    assert "1.0 (-3.00)" in said and "9.6 q" in said
    lines = by_hand().table(2).splitlines()
    assert lines[1].split() == ["MLP", "1", "-4.000", "[-4.200,", "-3.800]", "0.0010", "*"]
    assert lines[2].startswith("1.0 ")
    assert by_hand().headline()["significant"] == 3


def test_a_result_is_read_back_as_it_was_and_the_same_seed_gives_the_same_bits(tmp_path):
    model, task = model_of("Llama"), task_of()
    one, other = (
        patching.paths(model, task, to="logits", metric=metrics.logit_diff) for _ in range(2)
    )
    results.save(one, tmp_path / "result.nc")
    again = results.load(patching.PathEffects, tmp_path / "result.nc")
    assert results.digest(again) == results.digest(one) == results.digest(other)


def refused(match, *, to="logits", model="GPT-2", task=None, **options):
    with pytest.raises(ValueError, match=match):
        patching.paths(
            model_of(model), task or task_of(), to=to, metric=metrics.logit_diff, **options
        )


def test_what_cannot_be_asked_is_refused_by_name():
    refused("receives through its queries, keys and values", to=(Site("z", 1), 0))
    refused("receives nothing: take q, k, v", to=Site("resid_pre", 1))
    refused("head 2 does not exist: k 1 has heads 0 to 1", to=(Site("k", 1), 2), model="Llama")
    refused("the logits receive alone", to=["logits", Site("mlp_out", 1)])
    refused("is for to='logits'", to=(Site("q", 2), 1), between="linear")
    refused("no head and no MLP comes before 0.1 q", to=(Site("q", 0), 1))
    refused("1.1 q is among all heads of q 1", to=[Site("q", 1), (Site("q", 1), 1)])
    refused("bounds and tests need at least two", task=task_of()[0])


def test_a_path_that_does_not_lead_upwards_is_refused():
    def along(*route):
        patching.path(model_of("GPT-2"), task_of(), route, metric=metrics.logit_diff)

    with pytest.raises(ValueError, match=r"0\.0 q does not read what 1\.1 writes"):
        along((Site("z", 1), 1), (Site("q", 0), 0))
    with pytest.raises(ValueError, match="name at least two"):
        along("logits")
    with pytest.raises(ValueError, match=r"is all heads: name one"):
        along(Site("z", 1), "logits")
    with pytest.raises(ValueError, match="sends nothing of its own"):
        along((Site("q", 1), 1), "logits")


def test_a_model_whose_blocks_do_not_add_up_is_refused_with_the_reason():
    model, _ = twins.make("BERT")
    with pytest.raises(ValueError, match="do not add their parts to the residual stream"):
        patching.paths(model, task_of(), to="logits", metric=metrics.logit_diff)
