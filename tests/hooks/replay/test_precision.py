"""Other precisions than float32, and edits that are run in full."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts, Site, capture, edits
from hooks.replay import Reads
from workbench import models

PROMPTS = Prompts(
    torch.randint(5, 200, (3, 7), generator=torch.Generator().manual_seed(1)),
    torch.tensor([7, 5, 3]),
)
OTHERS = Prompts(PROMPTS.tokens.flip(0), PROMPTS.lengths)
STREAMS = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern", "neuron")


def cells_of(model):
    """One cell for each stream and layer, at one position of each prompt and at all of them."""
    sites = [Site(stream, layer) for stream in STREAMS for layer in (0, 1)]
    seen = capture(model, OTHERS, sites)
    at = torch.tensor([3, 1, 2])
    here = [{site: edits.replace(seen[site], positions=at)} for site in sites]
    return here + [{site: edits.replace(seen[site])} for site in sites]


@pytest.mark.parametrize("name", ["tiny", "tiny-gqa"])
@pytest.mark.parametrize(
    ("dtype", "close"),
    [
        (torch.float64, 1e-12),
        # A number of eight bits carries an error of 2^-9 = 2e-3; a few of them add up.
        (torch.bfloat16, 2e-2),
    ],
)
def test_other_precisions_are_kept(naive, replayed, name, dtype, close):
    model = models.load(name, dtype=dtype)
    cells = cells_of(model)
    found = replayed(model, PROMPTS, cells, check=len(cells))
    assert found.base.dtype == dtype
    assert len(found.trail.checked) == len(found.plan.works) > 30
    for cell, logits in zip(cells, found.logits, strict=True):
        expected = naive(model, PROMPTS, cell, Reads())
        assert_close(logits, expected, rtol=0, atol=close * float(expected.abs().max()))


def doubled(activation):
    return activation * 2


@pytest.mark.parametrize("rows", ["last", "all"])
def test_edits_of_embeddings_and_own_functions_run_in_full(small, naive, replayed, rows):
    reads = Reads(rows)
    cells = [
        {Site("embed"): edits.zero(positions=[0])},
        {Site("z", 1): doubled},
        {Site("resid_pre", 1): edits.zero(positions=[1])},
        {Site("embed"): edits.scale(2.0), Site("z", 0): [edits.zero(heads=[1]), doubled]},
    ]
    found = replayed(small, PROMPTS, cells, reads)
    assert found.plan.in_full == (0, 1, 3)
    real = PROMPTS.mask.bool() if rows == "all" else torch.ones(3, 1, dtype=torch.bool)
    for cell, logits in zip(cells, found.logits, strict=True):
        expected = naive(small, PROMPTS, cell, reads)
        assert_close(logits[real], expected[real], rtol=1e-5, atol=1e-5)
        assert (logits - found.base)[real].abs().max() > 0.01
    assert found.sent == found.plan.block_tokens == 3 * 2 * 21 + 3 * 6


def test_an_edit_of_some_prompts_chosen_beforehand_is_replayed_for_those(small, naive, replayed):
    """`Edit.of` keeps its choice when replay chooses among the chosen prompts once more."""
    order = torch.tensor([2, 0, 1])
    source = capture(small, OTHERS, [Site("resid_pre", 1)])[Site("resid_pre", 1)]
    chosen = edits.replace(source, positions=torch.tensor([1, 2, 3])).of(order)
    cells = [{Site("resid_pre", 1): chosen}]
    found = replayed(small, PROMPTS, cells)
    expected = naive(small, PROMPTS, cells[0], Reads())
    assert_close(found.logits[0], expected, rtol=1e-5, atol=1e-5)
