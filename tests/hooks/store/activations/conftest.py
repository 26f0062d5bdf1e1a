"""Batches of documents, and what is held of them."""

import pytest
import torch

from hooks import Prompts, Site, capture, store
from hooks.store import writing

EVERYWHERE = [Site("resid_post", 0), Site("resid_post", 1), Site("z", 1), Site("pattern", 0)]


@pytest.fixture(scope="session", name="EVERYWHERE")
def _everywhere():
    return EVERYWHERE


def corpus(batches=3, width=7, seed=0):
    """Batches of three documents, of 7, 5 and 3 tokens; the last batch is narrower."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for number in range(batches):
        wide = width - 2 * (number == batches - 1)
        lengths = torch.tensor([wide, wide - 2, 3])
        found.append(Prompts(torch.randint(5, 200, (3, wide), generator=rng), lengths))
    return found


@pytest.fixture(scope="session", name="corpus")
def _corpus():
    return corpus


def by_hand(model, batches, site):
    """What flows through `site` in each document, without padding, from one pass for each batch."""
    found = []
    for batch in batches:
        for row, length in enumerate(batch.lengths.tolist()):
            seen = capture(model, batch, [site])[site][row]
            if "query" in site.axes:
                seen = seen.movedim(1, 0)
            found.append(seen[:length])
    return found


@pytest.fixture(scope="session", name="by_hand")
def _by_hand():
    return by_hand


@pytest.fixture
def counted(monkeypatch):
    """The batches that were run to be stored."""
    ran = []

    def counting(model, prompts, wanted, **how):
        ran.append(prompts)
        return capture(model, prompts, wanted, **how)

    monkeypatch.setattr(writing, "capture", counting)
    return ran


@pytest.fixture
def held(tiny, tmp_path):
    return store.write(tiny, corpus(), EVERYWHERE, tmp_path / "it", key="test")
