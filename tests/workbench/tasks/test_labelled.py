"""Words and their labels, found again in the tokens of any tokenizer."""

from itertools import pairwise

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from hooks import Site, capture
from workbench import probes, tasks
from workbench.tasks.alignment import align, token_spans
from workbench.tasks.build import UnfitError

TEXTS = [
    "The key near the cabinets is rusty.",
    "Naïve café-goers don't pay 12 € — ever!",
    "  Two spaces, then 日本語 and a 😀 smile",
]


def _byte_level():
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(TEXTS[:1], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def _word_piece():
    inner = Tokenizer(WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=90, special_tokens=["[UNK]", "[CLS]"], show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


def _sentence_piece():
    inner = Tokenizer(Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=70, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


TOKENIZERS = {"byte": _byte_level, "wordpiece": _word_piece, "sentencepiece": _sentence_piece}


class Slow:
    """A tokenizer that keeps its offsets to itself."""

    is_fast = False

    def __init__(self, inner):
        self.inner = inner
        self.all_special_ids = inner.all_special_ids

    def __call__(self, text):
        return {"input_ids": self.inner(text)["input_ids"]}

    def decode(self, *args, **kwargs):
        return self.inner.decode(*args, **kwargs)


def _words(text):
    """The characters of everything between spaces."""
    spans, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    return spans


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_every_word_is_at_tokens_that_cover_it_and_no_other_word(kind, text):
    tokenizer = TOKENIZERS[kind]()
    spans = _words(text)
    _, found = align(tokenizer, text, spans)
    _, covered = token_spans(tokenizer, text)
    for (start, stop), (first, last) in zip(spans, found, strict=True):
        low = min(covered[i][0] for i in range(first, last + 1))
        high = max(covered[i][1] for i in range(first, last + 1))
        assert low <= start and stop <= high
        assert text[low:start].strip() == "" and text[stop:high].strip() == ""
    tokens = [set(range(first, last + 1)) for first, last in found]
    assert all(not one & other for one, other in pairwise(tokens))


@pytest.mark.parametrize("kind", ["byte", "sentencepiece"])
@pytest.mark.parametrize("text", TEXTS[:2])
def test_without_offsets_words_are_found_at_the_same_tokens(kind, text):
    tokenizer = TOKENIZERS[kind]()
    if kind == "sentencepiece" and tokenizer.decode(tokenizer(text)["input_ids"]) != text:
        pytest.skip("an unknown character is lost in decoding")
    spans = _words(text)
    fast, slow = align(tokenizer, text, spans)[1], align(Slow(tokenizer), text, spans)[1]
    assert [last for _, last in fast] == [last for _, last in slow]


def test_what_decodes_to_something_else_is_refused_without_offsets():
    slow = Slow(_word_piece())
    with pytest.raises(UnfitError, match=r"gives no offsets.*take a fast tokenizer"):
        align(slow, "THE KEY", [(0, 3)])


def test_a_token_of_two_words_belongs_to_both():
    tokenizer = _byte_level()
    text = "The key"
    _, found = align(tokenizer, text, [(0, 1), (1, 3)])
    assert found[0][1] >= found[1][0] or found[0][1] + 1 == found[1][0]


CONLLU = """\
# newdoc id = one
# sent_id = 1
# text = The dogs don't have the ball.
1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_
2\tdogs\tdog\tNOUN\tNNS\t_\t5\tnsubj:x\t_\t_
3-4\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
3\tdo\tdo\tAUX\tVBP\t_\t5\taux\t_\t_
4\tn't\tnot\tPART\tRB\t_\t5\tadvmod\t_\t_
5\thave\thave\tVERB\tVB\t_\t0\troot\t_\t_
5.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_
6\tthe\tthe\tDET\tDT\t_\t7\tdet\t_\t_
7\tball\tball\tNOUN\tNN\t_\t5\tobj\t_\tSpaceAfter=No
8\t.\t.\tPUNCT\t.\t_\t5\tpunct\t_\t_

# newdoc id = two
1\tMary\tMary\tPROPN\t_\t_\t2\tnsubj\t_\t_
2\tlaughed\tlaugh\tVERB\t_\t_\t0\troot\t_\t_
"""


@pytest.fixture
def treebank(tmp_path):
    path = tmp_path / "some.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    return path


def test_a_treebank_gives_words_labels_trees_and_documents(tiny, treebank):
    found = tasks.read_conllu(tiny, treebank)
    assert found.words == (
        "The", "dogs", "do", "n't", "have", "the", "ball", ".", "Mary", "laughed"
    )  # fmt: skip
    tags = "DET NOUN AUX PART VERB DET NOUN PUNCT PROPN VERB".split()
    assert [found.labels[i] for i in found.label] == tags
    assert found.head.tolist() == [1, 4, 4, 4, -1, 6, 4, 4, 9, -1]
    assert [found.groups[i] for i in found.group] == ["one"] * 8 + ["two"] * 2
    assert found.sentence.tolist() == [0] * 8 + [1] * 2
    relations = tasks.read_conllu(tiny, treebank, label="deprel")
    assert relations.labels[relations.label[1]] == "nsubj"  # of "dogs", nsubj:x without its subtype


def test_distances_and_depths_are_those_of_the_tree(tiny, treebank):
    found = tasks.read_conllu(tiny, treebank)
    assert found.tree_depth(0).tolist() == [2, 1, 1, 1, 0, 2, 1, 1]
    distance = found.tree_distance(0)
    assert distance[0].tolist() == [0, 1, 3, 3, 2, 4, 3, 3]  # The -> dogs -> have -> ...
    assert distance.equal(distance.T)


def test_every_word_of_a_treebank_stands_at_its_own_tokens(tiny, treebank):
    found = tasks.read_conllu(tiny, treebank)
    spelled = [
        "".join(tiny.tokenizer.convert_ids_to_tokens(found.prompts.tokens[s, a : b + 1].tolist()))
        for s, a, b in zip(found.sentence, found.first, found.last, strict=True)
    ]
    assert spelled[4].strip() == "have" and spelled[5].strip() == "the"
    assert spelled[8] == "Mary" and spelled[9] == " laughed"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5\thave\thave\tVERB", "5\thave\tVERB", "line 9: 9 columns where CoNLL-U has 10"),
        ("2\tdogs\tdog", "2\tcats\tdog", "line 5: 'cats' does not come next"),
        ("\t2\tdet\t_\t_", "\t99\tdet\t_\t_", "line 4: the head of 'The' is '99'"),
        ("6\tthe\tthe", "six\tthe\tthe", "line 11: 'six' is no number"),
    ],
)
def test_errors_of_a_treebank_name_the_line(tiny, treebank, old, new, message):
    treebank.write_text(CONLLU.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        tasks.read_conllu(tiny, treebank)


def test_only_the_first_sentences_are_read_where_so_many_are_asked_for(tiny, treebank):
    found = tasks.read_conllu(tiny, treebank, sentences=1)
    assert len(found.prompts) == 1 and found.words[-1] == "."
    with pytest.raises(ValueError, match=r"0 sentences of .* were asked for"):
        tasks.read_conllu(tiny, treebank, sentences=0)


def test_labels_in_too_few_groups_are_left_out_with_their_words(tiny, treebank):
    words = tasks.read_conllu(tiny, treebank, group="sentence")
    few = words.frequent(1)
    assert few.words == words.words and few.label.equal(words.label)
    with pytest.raises(ValueError, match=r"fewer than two labels are in 2 groups .*NOUN 1"):
        words.frequent(2)
    treebank.write_text(CONLLU.replace("Mary\tMary\tPROPN", "Mary\tMary\tNOUN"), encoding="utf-8")
    kept = tasks.read_conllu(tiny, treebank, group="sentence").frequent(2)
    assert kept.words == ("dogs", "have", "ball", "Mary", "laughed")
    assert [kept.labels[one] for one in kept.label] == ["NOUN", "VERB", "NOUN", "NOUN", "VERB"]
    assert kept.group.tolist() == kept.sentence.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="has no trees"):
        kept.tree_depth(0)


def test_marked_spans_are_read_from_csv_and_json_lines(tiny, tmp_path):
    csv = tmp_path / "spans.csv"
    csv.write_text("text,label,group\nThe [[dogs]] have it,plural,a\nThe [[dog]] was,singular,b\n")
    lines = tmp_path / "spans.jsonl"
    lines.write_text(
        '{"text": "The dogs have it", "label": "plural", "start": 4, "stop": 8}\n'
        '{"text": "The dog was", "label": "singular", "start": 4, "stop": 7}\n'
    )
    one, other = tasks.read_spans(tiny, csv), tasks.read_spans(tiny, lines)
    for found in (one, other):
        assert found.words == ("dogs", "dog")
        assert found.first.tolist() == found.last.tolist() == [1, 1]
        assert [found.labels[i] for i in found.label] == ["plural", "singular"]
    assert one.groups == ("a", "b")
    with pytest.raises(ValueError, match="has no trees"):
        one.tree_depth(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("The dogs,plural", r"row 0: 'The dogs' has 0 times '\[\['"),
        ("The [[]] dogs,plural", "row 0: nothing stands between"),
    ],
)
def test_a_row_without_a_marked_span_is_named(tiny, tmp_path, line, message):
    path = tmp_path / "spans.csv"
    path.write_text(f"text,label\n{line}\n")
    with pytest.raises(ValueError, match=message):
        tasks.read_spans(tiny, path)


def test_an_unaligned_span_is_named_by_its_row_or_dropped(tiny, tmp_path):
    path = tmp_path / "spans.jsonl"
    path.write_text(
        '{"text": "The dogs have it", "label": "a", "start": 4, "stop": 8}\n'
        '{"text": "The dog was", "label": "b", "start": 4, "stop": 70}\n'
    )
    with pytest.raises(ValueError, match="row 1: characters 4 to 70 are no part of 'The dog was'"):
        tasks.read_spans(tiny, path)
    found = tasks.read_spans(tiny, path, unfit="drop")
    assert (len(found), found.dropped) == (1, 1)


def test_features_of_words_are_what_flows_at_their_tokens(tiny, treebank):
    words = tasks.read_conllu(tiny, treebank)
    for token in ("last", "first", "mean"):
        found = probes.word_features(tiny, words, token=token, batch_size=1)
        assert found.layers == (0, 1)
        seen = capture(tiny, words.prompts, [Site("resid_post", 1)])[Site("resid_post", 1)]
        for row in range(len(words)):
            s, a, b = (int(one[row]) for one in (words.sentence, words.first, words.last))
            part = {"last": seen[s, b], "first": seen[s, a], "mean": seen[s, a : b + 1].mean(0)}
            assert_close(found.x[1, row], part[token])
    assert found.types is not None
    assert int(found.types[0]) == int(found.types[5])  # The, the


def test_a_public_treebank_is_read_whole(default_model, shared_data):
    words = tasks.read_conllu(default_model, shared_data / "en_ewt-ud-dev.first420.conllu")
    assert len(words.prompts) == 420
    assert set(words.labels) <= set(
        "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
    )
    at = words.words.index("nominated")
    sentence, first, last = (int(one[at]) for one in (words.sentence, words.first, words.last))
    ids = words.prompts.tokens[sentence, first : last + 1]
    assert default_model.tokenizer.decode(ids).strip() == "nominated"
