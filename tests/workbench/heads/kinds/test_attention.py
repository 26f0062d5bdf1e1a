"""Relations between tokens, and how much of its attention a head gives to each."""

import math

import torch
from torch.testing import assert_close
from transformer_lens import head_detector

from hooks import Prompts, Site, capture
from workbench import models, statistics
from workbench.heads.kinds import attending


def test_relations_are_where_they_should_be():
    found = attending.relations(Prompts.padded([[9, 5, 6, 5, 6, 7]]))
    pairs = {name: {tuple(at) for at in one[0].nonzero().tolist()} for name, one in found.items()}
    assert pairs["previous token"] == {(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)}
    assert pairs["duplicate token"] == {(3, 1), (4, 2)}
    assert pairs["induction"] == {(3, 2), (4, 3)}
    assert pairs["first token"] == {(at, 0) for at in range(1, 6)}
    assert pairs["3 back"] == {(3, 0), (4, 1), (5, 2)}


def test_relations_are_those_of_the_head_detector():
    tokens = torch.tensor([[3, 7, 8, 9, 7, 8, 9, 7, 5]])
    found = attending.relations(Prompts.of(tokens))
    for name, ours in (
        ("previous_token", "previous token"), ("duplicate_token", "duplicate token"),
        ("induction", "induction"),
    ):  # fmt: skip
        theirs = getattr(head_detector, f"get_{name}_head_detection_pattern")(tokens)
        assert_close(found[ours][0].float(), theirs.float())


def test_scores_are_those_of_the_head_detector(model):
    text = "Mary and John went and Mary and John gave a book to Mary"
    prompts = models.prompts(model, text)
    ours = attending.relations(prompts)["duplicate token"][0].float()
    expected = head_detector.detect_head(model, text, "duplicate_token_head")
    seen = capture(model, prompts, [Site("pattern", 0), Site("pattern", 1)])
    shares = [
        (seen[site][0] * ours).sum((1, 2)) / seen[site][0].sum((1, 2)) for site in sorted(seen)
    ]
    assert_close(torch.stack(shares), expected.to(shares[0]))


def test_scores_and_nulls_by_hand(model):
    prompts = Prompts.padded([[9, 5, 6, 5, 6, 7], [9, 5, 6, 7]])
    found = attending.attention(model, prompts, ["induction", "first token"], batch_size=1)
    pattern = capture(model, prompts, [Site("pattern", 1)])[Site("pattern", 1)][0, 2].double()
    score = (pattern[3, 2] + pattern[4, 3]) / 2
    null = (pattern[3, 1:4].sum() / 3 + pattern[4, 1:5].sum() / 4) / 2
    at = found.heads.index((1, 2))
    assert_close(found.score[0, at, 0], score)
    assert_close(found.null[0, at, 0], null)
    assert found.score[0, :, 1].isnan().all()  # nothing is said twice there
    first = torch.tensor([1 / (row + 1) for row in range(1, 6)]).mean().double()
    assert_close(found.null[1, at, 0], first)


def test_even_attention_is_no_type():
    prompts = Prompts.padded([[9, 5, 6, 5, 6, 7, 5, 6]])
    even = torch.ones(8, 8).tril().double()
    even = (even / even.sum(1, keepdim=True))[None, None]
    for name, relation in attending.relations(prompts).items():
        weights = attending._weights(relation, prompts, name)
        score, null = (attending._under(one[None], even) for one in weights)
        assert_close(score, null, equal_nan=True)  # NaN: none is so far back


def test_shuffled_attention_is_a_type_about_as_often_as_it_should_be():
    """Rows shuffled over earlier tokens: then the null is true, and 5 % of families may err."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(5, 9, (8, 14), generator=generator)
    prompts = Prompts.of(torch.cat([torch.full((8, 1), 3), rows], dim=1))
    relations = attending.relations(prompts)
    names = ("previous token", "duplicate token", "induction")
    weights = [attending._weights(relations[name], prompts, name) for name in names]
    score, null = (torch.stack([one[at] for one in weights]) for at in (0, 1))
    wrong, families = 0, 400
    for _ in range(families):
        sharp = torch.rand(8, 6, 15, 15, generator=generator, dtype=torch.double) ** 8
        pattern = sharp.tril()
        pattern = pattern / pattern.sum(3, keepdim=True)
        beyond = attending._under(score, pattern) - attending._under(null, pattern)
        wrong += bool((statistics.permutation_test(beyond).corrected <= 0.05).any())
    low, high = (
        0.05 - 3 * math.sqrt(0.05 * 0.95 / families),
        0.05 + 3 * math.sqrt(0.0475 / families),
    )
    assert low <= wrong / families <= high


def test_heads_that_attend_at_random_err_as_often_as_they_should(most_by_chance):
    """Every row random over the tokens it might go to: the null of the types, exactly."""
    generator, wrong, families = torch.Generator().manual_seed(0), 0, 60
    names = ("previous token", "duplicate token", "induction", "first token")
    for family in range(families):
        half = torch.stack([torch.randperm(40, generator=generator)[:6] + 1 for _ in range(12)])
        prompts = Prompts.of(torch.cat([torch.zeros(12, 1).long(), half, half], dim=1))
        scores = 3 * torch.randn(12, 8, 13, 13, generator=generator)
        ahead = torch.ones(13, 13).triu(1).bool()
        pattern = scores.masked_fill(ahead, -torch.inf).softmax(-1).double()
        known = attending.relations(prompts)
        weights = [attending._weights(known[name], prompts, name) for name in names]
        score, null = (
            attending._under(torch.stack([one[at] for one in weights]), pattern) for at in (0, 1)
        )
        pairs = {name: (score[at], null[at]) for at, name in enumerate(names)}
        judged = attending.judged(pairs, seed=family, together=True)
        wrong += any(bool((one.p <= 0.05).any()) for one in judged)
    assert wrong <= most_by_chance(families)
