"""Shapes of what neurons write, against numpy and scipy; and who explains what to whom."""

import numpy as np
import pytest
from scipy import stats

from workbench import corpora, neurons


def test_suppressed_tokens_cosines_and_shapes_are_those_of_the_weights(tiny):
    written = neurons.writes(tiny, k=3)
    out = tiny.blocks[1].mlp.W_out[5].detach().double().numpy()
    reads = tiny.blocks[1].mlp.W_in[:, 5].detach().double().numpy()
    unembed = tiny.unembed.W_U.detach().double().numpy()
    weight = tiny.ln_final.weight.detach().double().numpy()
    logits = ((out - out.mean()) * weight) @ unembed
    logits = logits - logits.mean()
    assert written.suppressed[1, 5].tolist() == np.argsort(logits, kind="stable")[:3].tolist()
    assert np.allclose(written.suppressed_by[1, 5].numpy(), np.sort(logits)[:3], rtol=1e-3)
    assert float(written.kurtosis[1, 5]) == pytest.approx(
        stats.kurtosis(logits, fisher=False), rel=1e-3
    )
    assert float(written.skewness[1, 5]) == pytest.approx(stats.skew(logits), rel=1e-2, abs=1e-3)
    for vector, rows, name in (
        (out, unembed.T, "unembedding"), (reads, tiny.embed.W_E.detach().numpy(), "embedding"),
    ):  # fmt: skip
        cosine = rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector)
        best = int(np.abs(cosine).argmax())
        assert int(getattr(written, f"{name}_token")[1, 5]) == best
        assert float(getattr(written, f"{name}_cosine")[1, 5]) == pytest.approx(
            cosine[best], abs=1e-5
        )


def test_the_explainer_and_the_simulator_see_different_documents(tiny):
    words = ("the and of", "was here", "by the", "near the", "of and", "here by")
    corpus = corpora.text(tiny, [" ".join([one] * 6) for one in words], length=8)
    told, asked = [], []

    def explainer(examples):
        told.extend(tuple(tokens) for tokens, _ in examples)
        return "nothing"

    def simulator(_, tokens):
        asked.append(tuple(tokens))
        return [0.0] * len(tokens)

    neurons.explain(tiny, corpus, [(0, 1)], explainer=explainer, simulator=simulator)
    seen_in = [corpus.words(tiny, row) for row in range(len(corpus))]
    odd = (corpus.document % 2).tolist()
    halves = [{tuple(w) for w, n in zip(seen_in, odd, strict=True) if n == side} for side in (0, 1)]
    assert set(told) <= halves[0] - halves[1]
    assert set(asked) <= halves[1] - halves[0]
    assert told and asked
