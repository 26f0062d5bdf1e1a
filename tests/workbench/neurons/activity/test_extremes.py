"""The largest and smallest activations of every neuron, and where they are."""

import math

import pytest
import torch

from workbench import neurons
from workbench.neurons.states import LayerState


@pytest.mark.parametrize("apart", ["documents", "rows"])
@pytest.mark.parametrize("end", ["top", "bottom"])
def test_examples_are_those_of_brute_force(small, corpus, everything, apart, end, real):
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
    state = LayerState.begun(x.to(dtype), torch.tensor([40, 40]), length=40, k=2)
    state.add(x.to(dtype), torch.tensor([40, 40]), 0, torch.arange(2))
    value, row, position = state.top
    assert row.tolist() == [[0, 1], [1, 0]]
    assert position.tolist() == [[20, 3], [39, 37]]
    assert value[1].tolist() == [float(torch.tensor(n).to(dtype).float()) for n in (2 / 3, 1 / 3)]
    assert value[0].tolist() == [0, 0]
    assert state.bottom.position.tolist() == [[1, 1], [1, 1]]


def test_a_corpus_with_more_tokens_than_can_be_told_apart_is_refused():
    state = LayerState.begun(torch.ones(1, 3, 1), torch.tensor([3]), length=2**20, k=1)
    with pytest.raises(OverflowError, match="4,294,967,295 tokens"):
        state.add(torch.zeros(1, 3, 1), torch.tensor([3]), 2**12, torch.tensor([0]))


def test_ties_go_to_the_earlier_token_and_a_document_counts_once():
    x = torch.zeros(5, 4, 1)
    x[0, 1], x[0, 3], x[1, 2], x[2, 1], x[3, 2], x[4, 3] = 2, 2, 2, 1, 2, 3
    document = torch.tensor([0, 0, 1, 2, 2])
    for batch in (1, 2, 5):
        state = LayerState.begun(x, torch.full((5,), 4), length=4, k=4)
        for at in range(0, 5, batch):
            part = x[at : at + batch]
            lengths = torch.full((len(part),), 4)
            state.add(part, lengths, at, document[at : at + batch])
        assert state.top.value.tolist() == [[3, 2, 1, -math.inf]]
        assert state.top.row.tolist() == [[4, 0, 2, -1]]
        assert state.top.position.tolist() == [[3, 1, 1, -1]]


def test_a_neuron_with_many_repeats_of_few_documents_keeps_empty_places():
    x = torch.arange(24.0).reshape(6, 4, 1)
    state = LayerState.begun(x, torch.full((6,), 4), length=4, k=3)
    state.add(x, torch.full((6,), 4), 0, torch.zeros(6, dtype=torch.long))
    assert state.top.value.tolist() == [[23.0, -math.inf, -math.inf]]
    assert state.bottom.row.tolist() == [[0, -1, -1]]
    assert state.bottom.position.tolist() == [[1, -1, -1]]


def test_examples_are_shown_in_their_context(small, corpus, seen):
    layer, neuron = seen.sparsest(1)[0]
    line = seen.examples(small, corpus, (layer, neuron), n=1)[0]
    row, at = (int(one[layer, neuron, 0]) for one in (seen.top_row, seen.top_position))
    assert f"«{corpus.words(small, row)[at]}»" in line
    assert corpus.documents[int(corpus.document[row])] in line
    with pytest.raises(ValueError, match="not about"):
        seen.examples(small, corpus.at_most(100), (layer, neuron))
