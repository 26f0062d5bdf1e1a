import dataclasses
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy import stats

from workbench import corpora, models, neurons, results
from workbench.neurons.streaming import LayerState


@pytest.fixture
def seen(small, corpus):
    return neurons.activity(small, corpus, k=4, batch_size=5)


def real(corpus, whole):
    """(layer, token, neuron) of all tokens but first ones, and each token's row and position."""
    inside = corpus.rows.mask.bool().clone()
    inside[:, 0] = False
    rows, positions = inside.nonzero().T
    return whole[:, rows, positions], rows, positions


def of_layer(seen, x):
    """`seen` with every layer as if `x` had flowed by, all else as it is."""
    state = LayerState.begun(x[:8, 1:].abs().amax((0, 1)), length=x.shape[1], k=4)
    state.add(x, torch.full((len(x),), x.shape[1]), 0, torch.arange(len(x)))
    top, bottom = state.top.ranked(), state.bottom.ranked()
    layers = len(seen.mean)
    return dataclasses.replace(
        seen, histogram=state.counts.expand(layers, -1, -1), reach=state.reach.expand(layers, -1),
        top=top.value.expand(layers, -1, -1), bottom=bottom.value.expand(layers, -1, -1),
        first_size=x[:, 0].double().square().mean(0).sqrt().expand(layers, -1),
        tokens=x[:, 1:, 0].numel(),
    )  # fmt: skip


def test_moments_are_those_of_all_activations_at_once(small, corpus, seen, everything):
    x = real(corpus, everything(small, corpus))[0].double().numpy()
    assert seen.tokens == x.shape[1]
    for found, expected in (
        (seen.mean, x.mean(1)),
        (seen.deviation, x.std(1)),
        (seen.size, np.abs(x).mean(1)),
        (seen.skewness, stats.skew(x, axis=1)),
        (seen.kurtosis, stats.kurtosis(x, axis=1, fisher=False)),
        (seen.sparsity, 1 - np.abs(x).mean(1) ** 2 / (x**2).mean(1)),
    ):
        # The two passes over the model differ in rounding where its batches do.
        assert np.allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


def test_moments_of_the_same_numbers_agree_to_nine_digits():
    x = 3 + torch.randn(13, 300, 6, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([300, 300, 1, 7, 128, 128, 128, 2, 129, 256, 257, 24, 300])
    state = LayerState.begun(torch.full((6,), 5.0), length=300, k=3)
    state.add(x, lengths, 0, torch.arange(13))
    kept = torch.cat([x[row, 1:n] for row, n in enumerate(lengths.tolist())]).double()
    torch.testing.assert_close(state.sums.powers[0], kept.abs().sum(0), rtol=1e-12, atol=0)
    for power in range(1, 5):
        torch.testing.assert_close(
            state.sums.powers[power], (kept**power).sum(0), rtol=1e-12, atol=0
        )
    for span, (start, end) in enumerate([(2**n, 2 ** (n + 1)) for n in range(9)]):
        inside = [x[row, start : min(n, end)] for row, n in enumerate(lengths.tolist())]
        expected = torch.cat(inside).double().sum(0)
        torch.testing.assert_close(state.sums.by_span[span], expected, rtol=1e-12, atol=0)


def test_histograms_count_every_activation_in_its_bin(small, corpus, seen, everything):
    x = real(corpus, everything(small, corpus))[0]
    for layer in range(x.shape[0]):
        for neuron in range(0, x.shape[2], 7):
            edges = seen.edges((layer, neuron)).double().numpy()
            place = np.searchsorted(edges, x[layer, :, neuron].double().numpy(), side="left") - 1
            expected = np.bincount(np.clip(place, 0, 63), minlength=64)
            found = seen.histogram[layer, neuron].numpy()
            assert abs(found - expected).sum() <= 2  # one activation rounds across an edge
    assert (seen.histogram.sum(-1) == seen.tokens).all()


def test_the_upper_half_of_a_histogram_is_what_is_above_zero_exactly():
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 5.0, -5.0, 0.25, 0.25]).reshape(1, 8, 1)
    state = LayerState.begun(torch.tensor([0.25]), length=9, k=2)
    state.add(torch.cat([x[:, :1], x], 1)[:, :9], torch.tensor([9]), 0, torch.arange(1))
    assert state.reach.tolist() == [1.0]
    assert int(state.counts[0, 32:].sum()) == 4
    edges = np.linspace(-1, 1, 65)
    assert int(state.counts[0, 39]) == 2
    assert edges[39] < 0.25 <= edges[40]  # a bin holds its upper edge
    assert int(state.counts[0, 63]) == int(state.counts[0, 0]) == 1  # what lies beyond the ends


@pytest.mark.parametrize("apart", ["documents", "rows"])
@pytest.mark.parametrize("end", ["top", "bottom"])
def test_examples_are_those_of_brute_force(small, corpus, everything, apart, end):
    seen = neurons.activity(small, corpus, k=4, apart=apart, batch_size=len(corpus))
    whole = everything(small, corpus)
    x, rows, positions = real(corpus, whole)
    unit = (corpus.document if apart == "documents" else torch.arange(len(corpus)))[rows]
    sign = 1 if end == "top" else -1
    for layer in range(x.shape[0]):
        for neuron in range(x.shape[2]):
            value = (sign * x[layer, :, neuron]).tolist()
            order = sorted(range(len(value)), key=lambda i: (-value[i], i))
            taken, units = [], set()
            for i in order:
                if int(unit[i]) not in units:
                    units.add(int(unit[i]))
                    taken.append(i)
            taken = taken[:4]
            assert getattr(seen, end)[layer, neuron].tolist() == [sign * value[i] for i in taken]
            assert getattr(seen, f"{end}_row")[layer, neuron].tolist() == rows[taken].tolist()
            where = getattr(seen, f"{end}_position")[layer, neuron]
            assert where.tolist() == positions[taken].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zeros_of_either_sign_are_ties_and_places_are_found_in_any_precision(dtype):
    x = torch.full((2, 40, 2), -1.0)
    x[0, 20, 0], x[0, 35, 0], x[1, 3, 0] = -0.0, 0.0, 0.0
    x[0, 37, 1], x[1, 39, 1] = 1 / 3, 2 / 3
    state = LayerState.begun(torch.ones(2), length=40, k=2)
    state.add(x.to(dtype), torch.tensor([40, 40]), 0, torch.arange(2))
    value, row, position = state.top.ranked()
    assert row.tolist() == [[0, 1], [1, 0]]
    assert position.tolist() == [[20, 3], [39, 37]]
    assert value[1].tolist() == [float(torch.tensor(n).to(dtype).float()) for n in (2 / 3, 1 / 3)]
    assert value[0].tolist() == [0, 0]
    assert state.bottom.ranked().position.tolist() == [[1, 1], [1, 1]]


def test_a_corpus_with_more_tokens_than_can_be_told_apart_is_refused():
    state = LayerState.begun(torch.ones(1), length=2**20, k=1)
    with pytest.raises(OverflowError, match="4,294,967,295 tokens"):
        state.add(torch.zeros(1, 3, 1), torch.tensor([3]), 2**12, torch.tensor([0]))


def test_ties_go_to_the_earlier_token_and_a_document_counts_once():
    x = torch.zeros(5, 4, 1)
    x[0, 1], x[0, 3], x[1, 2], x[2, 1], x[3, 2], x[4, 3] = 2, 2, 2, 1, 2, 3
    document = torch.tensor([0, 0, 1, 2, 2])
    for batch in (1, 2, 5):
        state = LayerState.begun(torch.tensor([3.0]), length=4, k=4)
        for at in range(0, 5, batch):
            part = x[at : at + batch]
            lengths = torch.full((len(part),), 4)
            state.add(part, lengths, at, document[at : at + batch])
        assert state.top.ranked().value.tolist() == [[3, 2, 1, -math.inf]]
        assert state.top.ranked().row.tolist() == [[4, 0, 2, -1]]
        assert state.top.ranked().position.tolist() == [[3, 1, 1, -1]]


def test_a_neuron_with_many_repeats_of_few_documents_keeps_empty_places():
    x = torch.arange(24.0).reshape(6, 4, 1)
    state = LayerState.begun(torch.tensor([24.0]), length=4, k=3)
    state.add(x, torch.full((6,), 4), 0, torch.zeros(6, dtype=torch.long))
    assert state.top.ranked().value.tolist() == [[23.0, -math.inf, -math.inf]]
    assert state.bottom.ranked().row.tolist() == [[0, -1, -1]]
    assert state.bottom.ranked().position.tolist() == [[1, -1, -1]]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_nothing_depends_on_the_size_of_batches(size):
    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(11, 300, 150, generator=drawn).mul(4).round().div(3)  # with ties
    lengths = torch.randint(1, 301, (11,), generator=drawn)
    lengths[5:8] = 40  # rows of one length are summed together
    document = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6])

    def run(step):
        state = LayerState.begun(torch.full((150,), 2.0), length=300, k=5)
        for at in range(0, 11, step):
            rows = slice(at, at + step)
            width = int(lengths[rows].max())  # a batch is as wide as its longest row
            state.add(x[rows, :width], lengths[rows], at, document[rows])
        return state

    one, other = run(2), run(size)
    assert one.sums.powers.equal(other.sums.powers)
    assert one.sums.by_span.equal(other.sums.by_span)
    assert one.sums.first.equal(other.sums.first)
    assert one.counts.equal(other.counts)
    for end in ("top", "bottom"):
        for here, there in zip(
            getattr(one, end).ranked(), getattr(other, end).ranked(), strict=True
        ):
            assert here.equal(there)


def test_the_whole_result_is_the_same_for_any_batch_size(small, corpus, seen):
    other = neurons.activity(small, corpus, k=4, batch_size=17)
    assert seen.histogram.sum() == other.histogram.sum()
    for one in fields(seen):
        value = getattr(seen, one.name)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(value, getattr(other, one.name), equal_nan=True)


def test_a_neuron_that_follows_position_alone_is_positional_and_noise_is_not():
    where = torch.tensor([0, 1, 2, 2, 3, 3, 3, 3], dtype=torch.float32)  # constant in each span
    x = torch.stack([where.expand(40, 8), torch.randn(40, 8, generator=torch.Generator())], -1)
    state = LayerState.begun(torch.tensor([3.0, 3.0]), length=8, k=2)
    state.add(x, torch.full((40,), 8), 0, torch.arange(40))
    sums, count = state.sums, 40 * 7
    per_span = torch.tensor([40.0, 80.0, 160.0], dtype=torch.float64)[:, None]
    mean, second = sums.powers[1] / count, sums.powers[2] / count
    share = ((sums.by_span**2 / per_span).sum(0) / count - mean**2) / (second - mean**2)
    assert float(share[0]) == pytest.approx(1.0)
    assert float(share[1]) < 0.1


def test_first_tokens_are_reported_apart(small, corpus, seen, everything):
    first = everything(small, corpus)[:, :, 0].double()
    torch.testing.assert_close(seen.first_mean, first.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.first_largest, first.abs().amax(1), rtol=1e-5, atol=1e-6)
    assert (seen.top_position != 0).all()


def test_what_is_ordinary_is_the_size_that_few_tokens_go_beyond(seen):
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(100, 41, seen.mean.shape[1], generator=drawn)
    found = of_layer(seen, x)
    sizes = x[:, 1:].abs().flatten(0, 1).sort(dim=0, descending=True).values
    assert (found.ordinary[0] >= sizes[4]).all()  # 4 of 4,000 may be larger
    assert (found.ordinary[0] <= sizes[4] + found.reach[0] / 32).all()
    few = of_layer(seen, x[:20])  # fewer than 1,000
    assert few.ordinary.equal(few.largest.double())


def test_one_other_token_that_is_taken_for_a_first_one_hides_nothing(seen):
    x = torch.randn(40, 51, seen.mean.shape[1], generator=torch.Generator().manual_seed(4))
    x[:, 0, 3], x[33, 1, 3] = 300.0, 290.0
    found = of_layer(seen, x)
    assert float(found.largest[1, 3]) == 290.0
    assert found.outlying_first == [(layer, 3) for layer in range(len(seen.mean))]
    few = of_layer(seen, x[30:40])  # too few to tell it from others
    assert few.outlying_first == []


def test_a_neuron_that_one_token_drives_far_beyond_all_others_is_extreme(seen):
    few = seen.top.clone()
    few[1, 3, 0] = 60 * seen.deviation[1, 3]
    found = dataclasses.replace(seen, top=few)
    assert seen.extreme == []
    assert found.extreme == [neurons.Neuron(1, 3)]
    assert (
        "1 reach 50 standard deviations at other tokens, most of all 1.3 (60)" in found.sentence()
    )


def test_examples_are_shown_in_their_context(small, corpus, seen):
    layer, neuron = seen.sparsest(1)[0]
    line = seen.examples(small, corpus, (layer, neuron), n=1)[0]
    row, at = (int(one[layer, neuron, 0]) for one in (seen.top_row, seen.top_position))
    assert f"«{corpus.words(small, row)[at]}»" in line
    assert corpus.documents[int(corpus.document[row])] in line
    with pytest.raises(ValueError, match="not about"):
        seen.examples(small, corpus.at_most(100), (layer, neuron))


@pytest.mark.parametrize("stream", ["neuron_pre", "neuron_up"])
def test_what_a_gated_neuron_is_made_of_can_be_counted_too(tiny_gqa, everything, stream):
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


def test_what_is_not_finite_is_an_error_that_names_the_layer():
    state = LayerState.begun(torch.ones(2), length=4, k=1, name="neuron 3")
    x = torch.zeros(1, 4, 2)
    x[0, 2, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="neuron 3"):
        state.add(x, torch.tensor([4]), 0, torch.tensor([0]))
    x[0, 2, 1], x[0, 3, 0] = 0, torch.nan
    state.add(x, torch.tensor([3]), 0, torch.tensor([0]))  # padding may hold anything
