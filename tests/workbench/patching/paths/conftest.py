"""Models of three layers, and path patching by full passes with plain hooks."""

from itertools import pairwise

import pytest
import torch
import transformers
from torch.testing import assert_close

from hooks import Prompts, Site, capture
from workbench import metrics, models, patching, tasks
from workbench.models.tiny import fill

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


@pytest.fixture(scope="session", name="model_of")
def _model_of():
    return model_of


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


@pytest.fixture(scope="session", name="task_of")
def _task_of():
    return task_of


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


@pytest.fixture(scope="session", name="naive")
def _naive():
    return naive


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


@pytest.fixture(scope="session", name="assert_same")
def _assert_same():
    return assert_same


def naive_path(model, task, route):
    """One full pass for each step: all that is not on the path is as in the base run."""
    every = [Site(stream, n) for stream in ("z", "mlp_out") for n in range(model.cfg.n_layers)]
    here, there = capture(model, task.clean, every), capture(model, task.corrupt, every)
    told = None
    for before, after in pairwise(route):
        hooks, kept = held_but(here, there, before, told), []
        if after != "logits":
            site = after if isinstance(after, Site) else after[0]
            hooks.insert(0, (site, lambda x, hook, kept=kept: kept.append(x.clone())))
        logits = run(model, task.clean, hooks)
        told = kept[0] if kept else logits
    return metrics.logit_diff(told, task) - metrics.logit_diff(model(task.clean), task)


@pytest.fixture(scope="session", name="naive_path")
def _naive_path():
    return naive_path


def held_but(here, there, node, told):
    """Hooks that hold every z and mlp_out, but for `node`, which answers to what it was told."""
    hooks = [(site, lambda x, hook, site=site: here[site]) for site in here]
    if node == Site("mlp_out", node[0].layer if isinstance(node, tuple) else node.layer):
        value = there[node] if told is None else told  # the first of the route is the sender
        return [*hooks, (node, lambda x, hook: value)]
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


def refused(match, *, to="logits", model="GPT-2", task=None, **options):
    with pytest.raises(ValueError, match=match):
        patching.paths(
            model_of(model), task or task_of(), to=to, metric=metrics.logit_diff, **options
        )


@pytest.fixture(scope="session", name="refused")
def _refused():
    return refused
