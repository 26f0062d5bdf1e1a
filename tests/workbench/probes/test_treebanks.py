"""From a treebank to structural probes: which word is which, and how far apart they are."""

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture
from workbench import probes, tasks

# The -> dogs -> have <- ball <- the, and "do", "n't" and "." hang on "have".
CONLLU = """\
# text = The dogs don't have the ball.
1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_
2\tdogs\tdog\tNOUN\t_\t_\t5\tnsubj\t_\t_
3-4\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
3\tdo\tdo\tAUX\t_\t_\t5\taux\t_\t_
4\tn't\tnot\tPART\t_\t_\t5\tadvmod\t_\t_
5\thave\thave\tVERB\t_\t_\t0\troot\t_\t_
6\tthe\tthe\tDET\t_\t_\t7\tdet\t_\t_
7\tball\tball\tNOUN\t_\t_\t5\tobj\t_\tSpaceAfter=No
8\t.\t.\tPUNCT\t_\t_\t5\tpunct\t_\t_

1\tMary\tMary\tPROPN\t_\t_\t0\troot\t_\t_

1\tMary\tMary\tPROPN\t_\t_\t2\tnsubj\t_\t_
2\tlaughed\tlaugh\tVERB\t_\t_\t0\troot\t_\t_
"""

DISTANCES = [
    [0, 1, 3, 3, 2, 4, 3, 3],
    [1, 0, 2, 2, 1, 3, 2, 2],
    [3, 2, 0, 2, 1, 3, 2, 2],
    [3, 2, 2, 0, 1, 3, 2, 2],
    [2, 1, 1, 1, 0, 2, 1, 1],
    [4, 3, 3, 3, 2, 0, 1, 3],
    [3, 2, 2, 2, 1, 1, 0, 2],
    [3, 2, 2, 2, 1, 3, 2, 0],
]


@pytest.fixture
def words(tiny, tmp_path):
    path = tmp_path / "some.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    return tasks.read_conllu(tiny, path)


def test_distances_of_a_treebank_are_those_counted_by_hand(tiny, words):
    found = probes.parsed(words, probes.word_features(tiny, words), layer=1)
    assert [one.tolist() for one in found.heads] == [[1, 4, 4, 4, -1, 6, 4, 4], [1, -1]]
    assert_close(probes.tree_distances(found.heads[0]), torch.tensor(DISTANCES).float())
    assert_close(probes.tree_distances(found.heads[1]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_each_head_stands_beside_the_activation_of_its_own_word(tiny, words):
    found = probes.parsed(words, probes.word_features(tiny, words), layer=1)
    assert [one.shape for one in found.x] == [(8, 32), (2, 32)]
    seen = capture(tiny, words.prompts, [Site("resid_post", 1)])[Site("resid_post", 1)]
    assert_close(found.x[0], seen[0, words.last[:8]])
    assert_close(found.x[1], seen[2, words.last[9:]])  # the sentence of one word is left out
    spelled = tiny.tokenizer.convert_ids_to_tokens(words.prompts.tokens[2, words.last[9:]].tolist())
    assert "".join(spelled).endswith("laughed")


def test_a_tree_that_was_laid_out_in_activations_is_found_from_the_file(tiny, words):
    seen = probes.word_features(tiny, words)
    # Each word is the sum of one axis for each edge on its way to the root: distances are exact.
    ways = [[0, 1], [1], [2], [3], [], [5, 6], [6], [7], [], [0], []]
    laid = torch.zeros(1, 11, 32)
    for row, way in enumerate(ways):
        laid[0, row, way] = 1
    given = probes.parsed(words, seen.seen_as(laid), layer=0)
    probe = probes.fit_distance(
        *given, generator=torch.Generator().manual_seed(0), rank=32, steps=600
    )
    score = probes.judge_tree(probe, *given)
    assert score.edges_found == 1.0 and score.error < 0.05
    assert probe.edges(given.x[0]) == {(0, 1), (1, 4), (2, 4), (3, 4), (4, 6), (5, 6), (4, 7)}
    depth = probes.fit_depth(*given, generator=torch.Generator().manual_seed(0), rank=32, steps=600)
    by_hand = torch.tensor([2.0, 1, 1, 1, 0, 2, 1, 1])
    assert_close(depth.depths(given.x[0]), by_hand, atol=0.1, rtol=0)


def test_words_without_trees_and_features_of_other_words_are_refused(tiny, words):
    seen = probes.word_features(tiny, words)
    with pytest.raises(ValueError, match="word 0 has no head; trees are read from CoNLL-U"):
        few = words.frequent(1)
        probes.parsed(few, probes.word_features(tiny, few), layer=0)
    with pytest.raises(ValueError, match="10 examples for 11 words of some"):
        probes.parsed(words, seen[torch.arange(10)], layer=0)
    with pytest.raises(ValueError, match="no layer 9 among"):
        probes.parsed(words, seen, layer=9)
