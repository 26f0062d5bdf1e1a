"""Path patching against forward passes with plain hooks, theorems, and TransformerLens."""

import pytest
import torch
import transformers
from torch.testing import assert_close

from hooks import Prompts, Site, capture
from workbench import metrics, models, patching, tasks
from workbench.models.tiny import fill

_SHAPE = {
    "vocab_size": 67, "max_position_embeddings": 64, "hidden_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
_GROUPED = {**_SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": False}
_MAKERS = {
    "GPT-2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=67, n_positions=64, n_embd=32, n_layer=4, n_head=4, n_inner=48
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
            layer_types=["sliding_attention", "full_attention"] * 2,
        )
    ),
}  # fmt: skip
_ALL = list(_MAKERS)
_MADE: dict[str, models.Model] = {}


def model_of(name):
    """Four layers of noise in the shape of an architecture."""
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


def naive(model, task, receivers, between, direction="noise"):
    """Two full forward passes with plain hooks for each sender."""
    base, other = (task.clean, task.corrupt)[:: 1 if direction == "noise" else -1]
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    every = [Site(stream, n) for stream in ("z", "mlp_out") for n in range(layers)]
    here, there = capture(model, base, every), capture(model, other, every)
    before = metrics.logit_diff(model(base), task, base)
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
            found[layer, head] = metrics.logit_diff(logits, task, base) - before
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


@pytest.mark.parametrize("between", ["free", "frozen"])
@pytest.mark.parametrize("stream", ["q", "k", "v"])
def test_to_a_heads_input_it_is_two_full_passes(model, stream, between):
    task = task_of()
    found = patching.paths(
        model, task, to=(Site(stream, 3), 1), metric=metrics.logit_diff, between=between
    )
    expected = naive(model, task, {Site(stream, 3): [1]}, between)
    assert_same(found, expected, model, task)


@pytest.mark.parametrize("between", ["free", "frozen"])
def test_to_an_mlp_it_is_two_full_passes(model, between):
    task = task_of()
    to = Site("mlp_out", 2)
    found = patching.paths(model, task, to=to, metric=metrics.logit_diff, between=between)
    assert_same(found, naive(model, task, {to: None}, between), model, task)


@pytest.mark.parametrize("between", ["free", "frozen"])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_several_receivers_in_several_layers_are_told_at_once(between, direction):
    model, task = model_of("Llama"), task_of(lengths=(8, 8, 8))
    to = [(Site("q", 3), 1), (Site("q", 3), 2), (Site("v", 2), 0), Site("k", 1)]
    found = patching.paths(
        model, task, to=to, metric=metrics.logit_diff, between=between, direction=direction
    )
    receivers = {Site("q", 3): [1, 2], Site("v", 2): [0], Site("k", 1): None}
    assert_same(found, naive(model, task, receivers, between, direction), model, task)
