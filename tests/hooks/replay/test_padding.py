"""Padding of shorter prompts is not run, and nothing is another number for that."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits
from hooks.replay import Reads, running

LENGTHS = torch.tensor([7, 5, 3, 5])
PROMPTS = Prompts(torch.randint(3, 60, (4, 7), generator=torch.Generator().manual_seed(1)), LENGTHS)
OTHERS = Prompts(torch.randint(3, 60, (4, 7), generator=torch.Generator().manual_seed(2)), LENGTHS)


def cells(model):
    """Edits whose values have positions of their own, and others, in both layers."""
    streams = ("resid_pre", "z", "v", "neuron")
    sites = [Site(stream, layer) for stream in streams for layer in (0, 1)]
    seen = capture(model, OTHERS, sites)
    made = [{site: edits.replace(seen[site])} for site in sites]
    made += [{site: edits.mean(seen[site].mean(0))} for site in sites]
    made += [{site: edits.add(seen[site])} for site in sites]
    made += [{site: edits.zero(positions=[0, 2])} for site in sites]
    return [*made, {sites[0]: edits.scale(2.0), sites[3]: edits.zero(heads=[1])}]


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"])
def test_prompts_that_are_run_without_their_padding_give_a_full_pass_s_logits(
    twin, replayed, naive, monkeypatch, architecture
):
    model = twin(architecture)
    every = cells(model)
    monkeypatch.setattr(running, "_WORTH", 0)  # each length by itself
    found = replayed(model, PROMPTS, every, check=0)
    for cell, logits in zip(every, found.logits, strict=True):
        assert_close(logits, naive(model, PROMPTS, cell, Reads()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("worth", "calls"),
    [
        # Three lengths: each ends where its prompts do.
        (0, [(0, 1, 7), (0, 2, 5), (0, 1, 3)]),
        # Together they are too few to be run apart.
        (1, [(0, 4, 7)]),
    ],
)
def test_each_length_that_is_worth_it_is_run_as_far_as_it_goes(
    twin, replayed, watching, monkeypatch, worth, calls
):
    model = twin("Llama")
    monkeypatch.setattr(running, "_WORTH", worth)
    with watching(model) as seen:
        replayed(model, PROMPTS, [{Site("z", 0): edits.zero()}], check=0)
    assert [call for call in seen[2:] if call[0] == 0] == calls


def test_masks_are_cut_where_keys_end(twin, replayed, monkeypatch):
    model, seen = twin("Llama"), []
    monkeypatch.setattr(running, "_WORTH", 0)

    def note(module, args, kwargs):
        seen.append(tuple(kwargs["attention_mask"].shape[-2:]))

    handle = model.blocks[1].register_forward_pre_hook(note, with_kwargs=True)
    replayed(model, PROMPTS, [{Site("resid_pre", 0): edits.zero(positions=1)}], check=0)
    handle.remove()
    queries_and_keys = {(6, 7), (4, 5), (2, 3)}  # from position 1 on; with those before it
    read = {(1, 7), (1, 5), (1, 3)}  # the last row, in the last block
    assert set(seen[-6:]) == queries_and_keys | read
