"""Planted models, and what plain edits of them change."""

import functools

import pytest
import torch
from torch import Tensor

from hooks import Site, capture, edits, head_out, intervening
from workbench import metrics, models, tasks
from workbench.models import planted

DIRECTIONS = ("noising", "denoising")


@functools.cache
def loaded(name: str, *, prompts: int = 6) -> tuple[models.Model, tasks.Task, planted.Truth]:
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=prompts, seed=1), planted.truth(model)


@pytest.fixture(scope="session", name="loaded")
def _loaded():
    return loaded


def by_layer(some) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for layer, head in some:
        found.setdefault(layer, []).append(head)
    return found


@pytest.fixture(scope="session", name="by_layer")
def _by_layer():
    return by_layer


def runs(task: tasks.Task, how: str):
    """The prompts that are run, and those whose activations are brought in."""
    return (task.corrupt, task.clean) if how == "denoising" else (task.clean, task.corrupt)


def measured(model, task, some, how: str, metric=metrics.logit_diff) -> Tensor:
    """The metric of each prompt after the intervention `how` on the heads `some`."""
    start, other = runs(task, how)
    if not some:
        return edited(model, task, start, {}, metric)
    sites = {Site("z", layer): chosen for layer, chosen in by_layer(some).items()}
    seen = capture(model, other, sites)
    real = seen.prompts.mask.clone()
    real[:, 0] = 0
    writes = {}
    for site, chosen in sites.items():
        weights = real[:, :, None, None] / real.sum()
        mean = (seen[site] * weights).sum(dim=(0, 1))
        edit = {
            "zero": edits.zero(heads=chosen),
            "mean": edits.mean(mean, heads=chosen),
        }.get(how, edits.replace(seen[site], heads=chosen))
        writes[site] = edit
    return edited(model, task, start, writes, metric)


@pytest.fixture(scope="session", name="measured")
def _measured():
    return measured


def edited(model, task, start, writes, metric=metrics.logit_diff) -> Tensor:
    with torch.no_grad():
        if not writes:
            return metric(model(start), task, start)
        with intervening(model, writes):
            return metric(model(start), task, start)


@pytest.fixture(scope="session", name="edited")
def _edited():
    return edited


def contributions(model, prompts) -> dict[str, Tensor]:
    """What each sender adds to the residual stream."""
    layers, mlps = range(model.cfg.n_layers), not model.cfg.attn_only
    sites = [Site("resid_pre", 0), *(Site("z", n) for n in layers)]
    sites += [Site("mlp_out", n) for n in layers if mlps]
    seen = capture(model, prompts, sites)
    found = {"input": seen[Site("resid_pre", 0)]}
    for n in layers:
        out = head_out(model, seen, n)
        found |= {f"a{n}.h{head}": out[:, :, head] for head in range(model.cfg.n_heads)}
        found |= {f"m{n}": seen[Site("mlp_out", n)]} if mlps else {}
    return found


def changed_by_each_edge(model, task, how: str) -> dict[str, float]:
    """Every edge alone carries what it carries in the other run, or nothing: how answers change.

    Without norms readers are linear, so a sender's difference is added to what they project.
    """
    start, other = runs(task, how)
    here, there = contributions(model, start), contributions(model, other)
    if how == "zero":
        there = {sender: torch.zeros_like(part) for sender, part in here.items()}
    plain = edited(model, task, start, {})
    found = {}

    def note(edge: str, site: Site, edit) -> None:
        found[edge] = float((edited(model, task, start, {site: edit}) - plain).abs().mean())

    for sender, before in here.items():
        change, sent = there[sender] - before, -1 if sender == "input" else int(sender[1])
        for n in range(max(sent, 0), model.cfg.n_layers):
            attention = model.blocks[n].attn
            for part in "qkv" if n > sent else "":
                for head, weight in enumerate(getattr(attention, f"W_{part.upper()}")):
                    edit = edits.add((change @ weight)[:, :, None], heads=[head])
                    note(f"{sender}->a{n}.h{head}<{part}>", Site(part, n), edit)
            if not model.cfg.attn_only and (n > sent or sender[0] == "a"):
                edit = edits.add(change @ model.blocks[n].mlp.W_in)
                note(f"{sender}->m{n}", Site("neuron_pre", n), edit)
        note(f"{sender}->logits", Site("final"), edits.add(change))
    return found


@pytest.fixture(scope="session", name="changed_by_each_edge")
def _changed_by_each_edge():
    return changed_by_each_edge


def effect(model, task, some, how: str) -> Tensor:
    """Part of the gap between clean and corrupt that an intervention closes (or opens)."""
    clean, corrupt = (measured(model, task, (), d) for d in DIRECTIONS)
    found = measured(model, task, some, how)
    return (found - corrupt if how == "denoising" else clean - found) / (clean - corrupt)


@pytest.fixture(scope="session", name="effect")
def _effect():
    return effect
