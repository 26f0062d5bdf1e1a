"""Who reads a neuron: weights as the models' own library holds them, multiplied by numpy."""

import numpy as np
import pytest
import torch

from workbench import models, neurons
from workbench.models import twins

WIDTH, HEAD = 32, 8  # of the twins' streams and heads


def of_gpt2(reference, layer):
    block = reference.transformer.h[layer]
    q, k, v = block.attn.c_attn.weight.split(WIDTH, dim=1)
    return (q, k, v), block.mlp.c_fc.weight.T, block.mlp.c_proj.weight


def of_gemma(reference, layer):
    block = reference.model.layers[layer]
    reads = [getattr(block.self_attn, f"{name}_proj").weight.T for name in "qkv"]
    return reads, block.mlp.gate_proj.weight, block.mlp.down_proj.weight.T


@pytest.fixture(params=[("GPT-2", of_gpt2), ("Gemma 3", of_gemma)], ids=lambda some: some[0])
def read(request):
    """A model, and for each of its layers what heads and neurons read, and what neurons write."""
    name, of = request.param
    model, reference = twins.make(name)
    layers = [of(reference, layer) for layer in range(model.cfg.n_layers)]
    return model, [
        ([one.detach().numpy() for one in heads], reads.numpy(), out.numpy())
        for heads, reads, out in layers
    ]


def test_heads_read_of_it_what_their_weights_make_of_it(read):
    model, layers = read
    out = layers[0][2][7]
    found = neurons.composition(model, (0, 7)).heads
    for layer, (heads, _, _) in enumerate(layers):
        for which, weight in enumerate(heads):
            count = weight.shape[1] // HEAD
            for head in range(count):
                part = weight[:, head * HEAD : (head + 1) * HEAD]
                score = np.linalg.norm(out @ part) / np.linalg.norm(out) / np.linalg.norm(part)
                got = float(found[which, layer, head])
                assert got == pytest.approx(score * WIDTH**0.5, rel=1e-4) if layer else got != got
            assert found[which, layer, count:].isnan().all()


def test_later_neurons_are_in_the_order_of_their_cosines_in_either_direction(read):
    model, layers = read
    out, found = layers[0][2][7], neurons.composition(model, (0, 7), k=12)
    expected = []
    for layer, (_, reads, _) in enumerate(layers[1:], 1):
        cosines = reads @ out / np.linalg.norm(reads, axis=1) / np.linalg.norm(out)
        expected += [(float(one), (layer, at)) for at, one in enumerate(cosines)]
    expected = sorted(expected, key=lambda one: -abs(one[0]))[:12]
    assert found.readers == [place for _, place in expected]
    assert found.cosine.tolist() == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert min(found.cosine.tolist()) < 0 < max(found.cosine.tolist())


def test_over_all_directions_heads_read_one_in_the_mean_square():
    """The squares of |e W| over an orthonormal basis add up to |W|^2."""
    model = models.load("tiny-gqa")
    with torch.no_grad():
        model.blocks[0].mlp.W_out[:WIDTH] = 2 * torch.eye(WIDTH)
    squares = torch.stack([neurons.composition(model, (0, n)).heads ** 2 for n in range(WIDTH)])
    mean = squares.mean(0)[:, 1]
    torch.testing.assert_close(mean[0], torch.ones(4))
    torch.testing.assert_close(mean[1:, :2], torch.ones(2, 2))


def test_the_sentence_names_the_head_and_the_neuron_that_read_most(read):
    found = neurons.composition(read[0], (0, 7))
    which, layer, head = np.unravel_index(np.nanargmax(found.heads.numpy()), found.heads.shape)
    said = found.sentence()
    assert f"read most by {'qkv'[which]} of head {layer}.{head} " in said
    assert f"by neuron {found.readers[0]} (cosine {float(found.cosine[0]):+.2f})" in said
