import pytest
import torch
from torch.testing import assert_close

from workbench import probes


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_ridge_is_the_solution_of_its_normal_equations():
    generator = _generator()
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 3 + 1
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64) + 7
    exact = probes.fit_ridge(x, y, l2=1e-12)
    assert_close(exact.weight[0], torch.tensor([1.0, -2.0, 0.5, 0.0]).double(), atol=1e-6, rtol=0)
    assert probes.explained(exact.predict(x), y) == pytest.approx(1, abs=1e-9)
    shrunk = probes.fit_ridge(x, y, l2=0.5)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    again = torch.linalg.solve(
        z.T @ z / 50 + 0.5 * torch.eye(4).double(), z.T @ (y - y.mean()) / 50
    )
    assert_close(shrunk.weight[0] * x.std(0, correction=0), again)


@pytest.mark.parametrize("formula", ["ridge", "mass-mean", "whitened mass-mean", "lda"])
def test_sums_taken_batch_by_batch_give_the_probe_of_the_whole(noisy, formula):
    examples = noisy(layers=1)
    x, y = examples.x[0], examples.y
    whole = probes.Moments.of(x, y, classes=2)
    parts = [probes.Moments.of(x[rows], y[rows], classes=2) for rows in torch.arange(120).split(50)]
    streamed = parts[0] + parts[1] + parts[2]
    one, other = (probes.probe_of(m, formula) for m in (whole, streamed))
    assert_close(one.weight, other.weight, rtol=1e-9, atol=1e-10)
    assert_close(one.bias, other.bias, rtol=1e-9, atol=1e-9)


def test_two_equal_normal_classes_are_told_apart_as_often_as_theory_says():
    # SNR s between the means: the best direction is right in Phi(s / 2).
    generator = _generator()
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64) + 2 * torch.eye(6)
    way = torch.randn(6, generator=generator, dtype=torch.float64)
    y = torch.arange(40000) % 2
    x = torch.randn(40000, 6, generator=generator, dtype=torch.float64) @ mixing.T
    x = x + y[:, None] * way
    distance = float((way @ torch.linalg.solve(mixing @ mixing.T, way)).sqrt())
    best = float(torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(distance / 2)))
    moments = probes.Moments.of(x[::2].repeat(1, 1), y[::2], classes=2) + probes.Moments.of(
        x[1::2], y[1::2], classes=2
    )
    rates = {}
    for formula in ("lda", "whitened mass-mean", "mass-mean"):
        probe = probes.probe_of(moments, formula)
        rates[formula] = float((probe.predict(x) == y).double().mean())
    assert rates["lda"] == pytest.approx(best, abs=0.01)
    assert rates["whitened mass-mean"] == pytest.approx(best, abs=0.01)
    assert rates["mass-mean"] < best - 0.01  # anisotropic noise turns it away


def test_whitened_mass_mean_and_lda_share_a_direction(noisy):
    examples = noisy(layers=1)
    moments = probes.Moments.of(examples.x[0], examples.y, classes=2)
    one, other = (probes.probe_of(moments, f).direction for f in ("whitened mass-mean", "lda"))
    assert float(one @ other) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("formula", ["mass-mean", "lda"])
def test_a_rotation_of_the_data_rotates_closed_forms(noisy, formula):
    examples = noisy(layers=1)
    x = examples.x[0].double()
    turn = torch.linalg.qr(torch.randn(12, 12, generator=_generator(), dtype=torch.float64))[0]
    plain, turned = (
        probes.probe_of(probes.Moments.of(one, examples.y, classes=2), formula)
        for one in (x, x @ turn)
    )
    assert_close(turned.weight, plain.weight @ turn, rtol=1e-6, atol=1e-7)


def test_only_a_network_reads_the_exclusive_or_of_two_bits():
    generator = _generator()
    bits = torch.randint(2, (400, 2), generator=generator)
    x = (2.0 * bits - 1) + 0.2 * torch.randn(400, 2, generator=generator)
    examples = probes.examples(x, bits[:, 0] ^ bits[:, 1])
    splits = probes.k_fold(examples, 2, seed=0)
    network = probes.fit_networks(examples, splits, generator=generator, hidden=8, steps=300)[0][0][
        0
    ]
    linear = probes.fit_each(examples, splits, l2=(1e-2,)).probe(0)
    test = splits.test[0]
    assert (network.predict(x[test]) == examples.y[test]).double().mean() > 0.97
    assert (linear.predict(x[test]) == examples.y[test]).double().mean() < 0.65
    assert network.gradient < 0.05


def test_an_attention_probe_looks_where_the_label_is():
    generator = _generator()
    x = torch.randn(300, 5, 8, generator=generator)
    place, y = (torch.randint(n, (300,), generator=generator) for n in (5, 2))
    x[torch.arange(300), place, 0] = 6.0  # marks the position
    x[torch.arange(300), place, 1] = 3.0 * (2 * y - 1)
    mask = torch.ones(300, 5, dtype=torch.bool)
    probe = probes.fit_attention(x[:200], y[:200], mask[:200], generator=generator, l2=1e-5)
    assert (probe.predict(x[200:], mask[200:]) == y[200:]).double().mean() > 0.95
    pattern = probe.pattern(x[200:], mask[200:])
    assert pattern[torch.arange(100), place[200:]].mean() > 0.5  # 0.2 were chance


def test_padding_is_never_looked_at():
    generator = _generator()
    x, y = torch.randn(40, 4, 3, generator=generator), torch.arange(40) % 2
    mask = torch.ones(40, 4, dtype=torch.bool)
    mask[:, 3] = False
    probe = probes.fit_attention(x, y, mask, generator=generator, steps=20)
    changed = x.clone()
    changed[:, 3] = torch.nan
    assert_close(probe.scores(changed, mask), probe.scores(x, mask))
    mask[7] = False
    with pytest.raises(ValueError, match="sequence 7 has no real position"):
        probes.fit_attention(x, y, mask, generator=generator)


def _pairs(*, count=600, distractor=0.0):
    """Statements and negations: truth along one axis, and maybe something louder along another."""
    generator = _generator()
    y, other = (torch.randint(2, (count,), generator=generator) for _ in range(2))
    x = torch.randn(2, count, 20, generator=generator)
    for side, sign in enumerate((1, -1)):
        x[side, :, 0] += sign * 3.0 * (2 * y - 1)
        x[side, :, 1] += sign * distractor * (2 * other - 1)
        x[side, :, 2] += sign * 5  # which of the two it is
    return x[0], x[1], y, other


@pytest.mark.parametrize("kind", ["ccs", "crc"])
def test_pairs_without_labels_give_the_planted_direction(kind):
    plus, minus, y, _ = _pairs(count=6000 if kind == "crc" else 300)
    if kind == "ccs":
        probe = probes.fit_ccs(plus, minus, generator=_generator())
    else:
        probe = probes.fit_crc(plus, minus)
    probe = probes.turned(probe, plus[:20], minus[:20], y[:20])
    assert ((probes.apart(probe, plus, minus) > 0) == (y == 1)).double().mean() > 0.98
    if kind == "crc":
        moved = probe.weight[0] * plus.std(0)  # in the units it was found in
        assert float(moved[0].abs() / moved.norm()) > 0.99


@pytest.mark.parametrize("kind", ["ccs", "crc"])
def test_pairs_without_labels_find_a_louder_distractor_instead(kind):
    plus, minus, _, other = _pairs(distractor=9.0)
    x = torch.cat([plus, minus])
    scale = x[:, 1].std() / x[:, 0].std()
    plus, minus = plus.clone(), minus.clone()
    for side in (plus, minus):  # truth is noisy, the distractor is not
        side[:, 0] += 4 * torch.randn(600, generator=_generator(1))
    fitted = probes.fit_crc(plus, minus)
    if kind == "ccs":
        fitted = probes.fit_ccs(plus, minus, generator=_generator())
    found = probes.apart(fitted, plus, minus) > 0
    agreement = float((found == (other == 1)).double().mean())
    assert scale > 1
    assert max(agreement, 1 - agreement) > 0.95


def _tree_embedding(heads, width):
    """Every node is the sum of one-hot edges on its path to the root: distances are exact."""
    x = torch.zeros(len(heads), width)
    for word in range(len(heads)):
        at = word
        while heads[at] >= 0:
            x[word, at] = 1
            at = int(heads[at])
    return x


def _trees(count=40, size=7):
    generator = _generator()
    trees = []
    for _ in range(count):
        heads = [-1] + [int(torch.randint(n, (1,), generator=generator)) for n in range(1, size)]
        trees.append(torch.tensor(heads))
    return trees


def test_tree_distances_by_hand():
    # 1 is the root; 0 and 2 hang on it, 3 on 2.
    found = probes.tree_distances(torch.tensor([1, -1, 1, 2]))
    wanted = [[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]]
    assert_close(found, torch.tensor(wanted).float())
    with pytest.raises(ValueError, match="its own ancestor"):
        probes.tree_distances(torch.tensor([1, 0, 0]))


@pytest.mark.slow
def test_a_planted_tree_is_found_whole():
    trees = _trees()
    turn = torch.linalg.qr(torch.randn(12, 12, generator=_generator()))[0]
    x = [torch.nn.functional.pad(_tree_embedding(one, 7), (0, 5)) @ turn for one in trees]
    probe = probes.fit_distance(x[:30], trees[:30], generator=_generator(), rank=12, steps=1500)
    score = probes.judge_tree(probe, x[30:], trees[30:])
    assert score.edges_found == 1.0
    assert score.error < 1e-3
    assert score.rank_correlation > 0.9  # equal distances are told apart by rounding
    depth = probes.fit_depth(x[:30], trees[:30], generator=_generator(), rank=12, steps=1500)
    for one, heads in zip(x[30:], trees[30:], strict=True):
        wanted = probes.tree_distances(heads)[0]
        assert_close(depth.depths(one), wanted, atol=0.15, rtol=0)


def test_a_planted_tree_is_exact_under_the_identity():
    trees = _trees(5)
    x = [_tree_embedding(one, 7) for one in trees]
    score = probes.judge_tree(probes.TreeProbe(torch.eye(7), "distance", 0.0), x, trees)
    assert (score.edges_found, score.error) == (1.0, 0.0)


def test_a_tree_that_is_none_is_refused_by_its_sentence():
    trees = _trees(3)
    x = [_tree_embedding(one, 7) for one in trees]
    trees[2] = torch.tensor([-1, -1, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"sentence 2: heads .* are no tree"):
        probes.fit_distance(x, trees, generator=_generator())
    with pytest.raises(ValueError, match="sentence 1 has 6 words and 7 heads"):
        probes.fit_depth([x[0], x[1][:6]], trees[:2], generator=_generator())


def test_the_planted_neurons_are_chosen():
    generator = _generator()
    y = torch.arange(200) % 2
    x = torch.randn(200, 50, generator=generator)
    x[:, [7, 31]] += 2.0 * y[:, None]
    examples = probes.examples(x, y)
    found = probes.fit_sparse(examples, probes.k_fold(examples, 4, seed=0), k=2)
    assert {tuple(sorted(row)) for row in found.neurons[0].tolist()} == {(7, 31)}
    assert found.accuracy.mean() > 0.85
