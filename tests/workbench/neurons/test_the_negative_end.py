"""A neuron is looked at from below as from above."""

import pytest
import torch

from workbench import corpora, neurons


@pytest.fixture(scope="module")
def text(tiny):
    return corpora.passages(tiny, length=16, most_tokens=300)


def test_the_smallest_activations_have_their_context(tiny, text, unchecked_types):
    seen = neurons.activity(tiny, text, k=3)
    lines = seen.examples(tiny, text, (1, 4), end="bottom")
    for rank, line in enumerate(lines):
        row, at = int(seen.bottom_row[1, 4, rank]), int(seen.bottom_position[1, 4, rank])
        assert f"«{text.words(tiny, row)[at]}»" in line
        assert line.startswith(f"{float(seen.bottom[1, 4, rank]):+8.3f}")
    assert len(lines) == 3
    assert lines != seen.examples(tiny, text, (1, 4))
    with pytest.raises(ValueError, match="end='low'"):
        seen.examples(tiny, text, (1, 4), end="low")


def test_what_fires_below_is_what_the_mirrored_neuron_fires_at(tiny, text):
    """By hand: the token with the largest sum of what lies below a fifth of the smallest."""
    traced = neurons.traces(tiny, text, [(1, 4)])
    low = -traced.value[:, 0].double()
    mass = torch.where((low > 0.2 * low.max()) & (low > 0), low, 0)
    sums = torch.zeros(tiny.cfg.d_vocab, dtype=torch.double).index_add(0, traced.token, mass)
    found = neurons.triggers(tiny, text, [(1, 4)], end="bottom")
    assert int(found.token[0, 0]) == int(sums.argmax())
    assert float(found.mass[0, 0]) == pytest.approx(float(sums.max() / sums.sum()))
    assert found.end == "bottom"
    above = neurons.triggers(tiny, text, [(1, 4)], seen=traced)
    assert not above.mass.equal(found.mass)


def test_the_negative_end_is_explained_with_signs_turned(tiny, text):
    shown = []

    def explainer(examples):
        shown.append(examples)
        return neurons.by_rules(examples)

    for end in ("top", "bottom"):
        neurons.explain(tiny, text, [(1, 4)], explainer=explainer, end=end)
    for (_, above), (_, below) in zip(*shown, strict=True):
        assert [-value for value in above] == pytest.approx(below)
