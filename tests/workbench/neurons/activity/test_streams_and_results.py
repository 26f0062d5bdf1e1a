"""Which stream is counted, what is refused, and what a result says."""

import pytest
import torch

from workbench import corpora, models, neurons, results


@pytest.mark.parametrize("stream", ["neuron_pre", "neuron_up"])
def test_what_a_gated_neuron_is_made_of_can_be_counted_too(tiny_gqa, everything, stream, real):
    corpus = corpora.passages(tiny_gqa, length=24)
    seen = neurons.activity(tiny_gqa, corpus, k=1, stream=stream)
    part = real(corpus, everything(tiny_gqa, corpus, stream))[0]
    torch.testing.assert_close(seen.top[..., 0], part.amax(1), rtol=1e-5, atol=1e-5)
    assert seen.stream == stream


def test_gate_and_up_of_chosen_neurons_multiply_to_what_they_give(tiny_gqa):
    corpus, some = corpora.passages(tiny_gqa, length=24).at_most(200), [(0, 3), (1, 5)]
    gate, up, product = (
        neurons.traces(tiny_gqa, corpus, some, stream=stream).value
        for stream in ("neuron_pre", "neuron_up", "neuron")
    )
    made = torch.nn.functional.silu(gate) * up
    torch.testing.assert_close(made, product, rtol=1e-5, atol=1e-6)


def test_a_model_without_gates_says_so(tiny):
    corpus = corpora.passages(tiny, length=24).at_most(100)
    with pytest.raises(ValueError, match="neuron_up cannot be read in GPT2"):
        neurons.activity(tiny, corpus, stream="neuron_up")


def test_a_result_can_be_written_down_and_read_back(tiny, tmp_path):
    seen = neurons.top_activations(tiny, corpora.passages(tiny).at_most(200), k=2)
    results.save(seen, tmp_path / "it.nc")
    again = results.load(neurons.Activity, tmp_path / "it.nc")
    assert results.digest(again) == results.digest(seen)
    assert seen.headline()["dead"] == len(seen.dead)
    assert seen.table(3).count("\n") == 3
    assert "neurons of tiny" in seen.sentence()


def test_a_corpus_of_another_tokenizer_is_refused(tiny):
    other = corpora.passages(models.load("planted/or"), length=24)
    with pytest.raises(ValueError, match="another tokenizer"):
        neurons.activity(tiny, other)
