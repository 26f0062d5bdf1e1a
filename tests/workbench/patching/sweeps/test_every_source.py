"""Every source, in both directions, at every stream and kind of column of six architectures.

Each cell is made again by hand: one edited forward pass with the values that the source means.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hooks import Site, capture, edits, intervening, last_logits
from workbench import effects, metrics, patching
from workbench.effects import Source
from workbench.patching import Where
from workbench.patching.evidence import RUN

SIX = ("GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3", "BERT")
KINDS = (
    "counterfactual", "zero", "mean", "mean per position", "mean per template", "resample",
    "constant",
)  # fmt: skip
LAYER = 1
CLOSE = 1e-5  # of the largest logit difference of the prompts


def swept(model) -> Iterator[tuple[Site, str, dict, Where]]:
    """Each stream of one layer over each kind of column, with the last column's own edit."""
    for stream in sorted((model.access.writable & model.access.readable) - {"embed", "final"}):
        site = Site(stream, LAYER)
        if "query" not in site.axes:
            yield site, "position", {"positions": 2}, Where(layers=[LAYER])
        if "head" in site.axes:
            queries = model.cfg.n_heads
            own = stream in ("k", "k_rot", "v")
            heads = (model.cfg.n_key_value_heads or queries) if own else queries
            yield site, "head", {"heads": [heads - 1]}, Where(layers=[LAYER])
        if "neuron" in site.axes:
            yield site, "neuron", {"neurons": [5]}, Where(layers=[LAYER], neurons=[2, 5])
        yield site, "all", {}, Where(layers=[LAYER])


def source_of(kind: str, model, task, site: Site) -> Source:
    """The source of a kind; constants are any, here drawn."""
    if kind != "constant":
        return Source(kind, seed=3)
    one = capture(model, task.clean[:1], [site])[site]
    generator = torch.Generator().manual_seed(7)
    return Source(kind, constants={site: torch.randn(one.shape[2:], generator=generator).to(one)})


def meant(kind: str, model, task, site: Site, direction: str) -> Tensor | None:
    """What a source means there, put together from plain captures; None where chance drew it."""
    there = task.clean if direction == "denoise" else task.corrupt
    seen = capture(model, there, [site])[site]
    axis = 2 if "query" in site.axes else 1
    shape = [len(seen), *[1] * (axis - 1), -1, *[1] * (seen.ndim - axis - 1)]
    real = (torch.arange(seen.shape[axis]) < there.lengths[:, None]).to(seen.dtype).reshape(shape)
    if kind == "counterfactual":
        return seen
    if kind == "zero":
        return torch.zeros_like(seen)
    if kind == "constant":
        return source_of(kind, model, task, site).constants[site].expand_as(seen)
    if kind == "mean":
        later = real.clone()
        later[:, 0] = 0
        return ((seen * later).sum((0, 1)) / later.sum()).expand_as(seen)
    if kind == "mean per position":
        return ((seen * real).sum(0) / real.sum(0).clamp(min=1)).expand_as(seen)
    if kind == "mean per template":
        found = torch.zeros_like(seen)
        for template in task.group.unique():
            rows = task.group == template
            count = real[rows].sum(0).clamp(min=1)
            found[rows] = (seen[rows] * real[rows]).sum(0) / count
        return found
    return None


def by_hand(model, task, site, direction, value, **part) -> Tensor:
    """The change in the metric by one edited forward pass."""
    here = task.corrupt if direction == "denoise" else task.clean
    with torch.no_grad():
        plain = metrics.logit_diff(last_logits(model, here), task, here)
        with intervening(model, {site: edits.replace(value, **part)}):
            return metrics.logit_diff(last_logits(model, here), task, here) - plain


@pytest.fixture(scope="module")
def padded(random_task):
    """Five pairs of two lengths from two templates, two and three prompts of each."""
    task = random_task(5, 6)
    lengths = torch.tensor([6, 5, 6, 6, 5])
    clean, corrupt = (type(one)(one.tokens, lengths) for one in (task.clean, task.corrupt))
    return type(task)(
        task.name, clean, corrupt, task.answer, task.foil, {}, torch.tensor([0, 1, 0, 0, 1])
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", SIX)
def test_any_source_at_any_stream_is_an_edited_forward_pass(twin, padded, architecture, kind):
    model, worst, cells = twin(architecture), 0.0, 0
    for site, over, part, where in swept(model):
        if "query" in site.axes and kind in ("mean", "constant"):
            continue  # refused: the keys are other tokens in every row
        for direction in ("denoise", "noise"):
            source = source_of(kind, model, padded, site)
            found = patching.sweep(
                model, padded, site.stream, metric=metrics.logit_diff, over=over,
                direction=direction, source=source, where=where, seed=0,
            )  # fmt: skip
            value = meant(kind, model, padded, site, direction)
            if value is None:
                value = effects.values(
                    model, padded, [site], source=source, run=RUN[direction]
                )[site]  # fmt: skip
            column = 2 if over == "position" else -1
            expected = by_hand(model, padded, site, direction, value, **part)
            scale = max(float(found.clean.abs().max()), float(found.corrupt.abs().max()), 1.0)
            error = float((found.per_prompt[0, column] - expected).abs().max()) / scale
            assert error <= CLOSE, (site, over, direction, error)
            worst, cells = max(worst, float(expected.abs().max())), cells + 1
    assert cells >= 20 and worst > 1e-3, "the edits did nothing: this compares zeros"
