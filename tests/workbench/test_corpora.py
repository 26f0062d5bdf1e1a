import json

import pytest
import torch

from hooks import Prompts, Site, store
from workbench import corpora, models


def test_documents_are_cut_into_rows_and_never_mixed(tiny):
    documents = {"one": "the and of " * 7, "two": "was here", "three": "by the " * 6}
    corpus = corpora.text(tiny, documents, length=5)
    for number, body in enumerate(documents.values()):
        rows = (corpus.document == number).nonzero()[:, 0].tolist()
        pieces = [corpus.rows.tokens[row, : corpus.rows.lengths[row]].tolist() for row in rows]
        assert [token for piece in pieces for token in piece] == tiny.tokenizer(body)["input_ids"]
        assert [len(piece) for piece in pieces[:-1]] == [5] * (len(pieces) - 1)
        assert corpus.start[rows].tolist() == [5 * n for n in range(len(rows))]
    assert corpus.documents == tuple(documents)
    assert corpus.said == ""


def test_what_the_tokenizer_puts_before_a_text_stands_before_every_row():
    model = models.load("planted/or")
    corpus = corpora.text(model, ["the and then later today here near"], length=4)
    assert corpus.prefix == 1
    assert (corpus.rows.tokens[:, 0] == model.tokenizer.bos_token_id).all()
    assert corpus.start.tolist() == [0, 3, 6]


def test_truncation_is_said(tiny):
    whole = corpora.passages(tiny, length=16)
    cut = corpora.passages(tiny, length=16, most_tokens=100)
    assert whole.said == ""
    assert cut.tokens <= 100 < cut.tokens + 16
    assert "documents not begun" in cut.said
    assert "documents not begun" in str(cut)
    assert "1 empty" in corpora.text(tiny, ["", "the and"]).said


def test_a_digest_names_tokens_documents_and_where_they_are_cut(tiny):
    one = corpora.text(tiny, {"a": "the and of", "b": "was"}, length=8)
    assert one.digest == corpora.text(tiny, {"a": "the and of", "b": "was"}, length=8).digest
    others = [
        corpora.text(tiny, {"a": "the and by", "b": "was"}, length=8),
        corpora.text(tiny, {"c": "the and of", "b": "was"}, length=8),
        corpora.text(tiny, {"a": "the and of", "b": "was"}, length=9),
    ]
    assert one.digest not in {other.digest for other in others}


def test_batches_are_what_the_store_takes(tiny, tmp_path):
    corpus = corpora.passages(tiny, length=16).at_most(120)
    held = store.write(tiny, corpus.batches(3), [Site("neuron", 1)], tmp_path, key=corpus.digest)
    rows = torch.cat([part[Site("neuron", 1)] for part in held.batches(Site("neuron", 1))])
    assert len(rows) == corpus.tokens


def test_text_jsonl_csv_and_folders_of_them_are_read(tiny, tmp_path):
    (tmp_path / "b.txt").write_text("the and of")
    lines = [{"text": "was here", "id": "x"}, {"text": "by the"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "c.csv").write_text('id,text\n7,"so, that"\n')
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    corpus = corpora.files(tiny, tmp_path, length=8)
    assert corpus.documents == ("a.jsonl:x", "a.jsonl:1", "b.txt", "c.csv:7")
    assert corpus.words(tiny, 3) == ["so", ",", " that"]
    assert corpora.files(tiny, tmp_path / "b.txt", length=8).documents == ("b.txt",)


def test_the_topics_of_pydoc_are_there_without_a_download(tiny):
    corpus = corpora.topics(tiny, length=64, most_tokens=1000)
    assert len(corpus.documents) >= 2
    assert "assert" in corpus.documents


def test_halves_share_no_document(tiny):
    one, other = corpora.passages(tiny, length=16).halves()
    assert not set(one.document.tolist()) & set(other.document.tolist())
    assert len(one) + len(other) == len(corpora.passages(tiny, length=16))
    alone = corpora.text(tiny, ["the and of was " * 5], length=6)
    assert sum(len(half) for half in alone.halves()) == len(alone)


def test_wrong_requests_say_what_there_is(tiny, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    with pytest.raises(ValueError, match="there are body"):
        corpora.files(tiny, tmp_path)
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(ValueError, match="not json"):
        corpora.files(tiny, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no"):
        corpora.files(tiny, tmp_path / "nothing")
    with pytest.raises(ValueError, match="takes 2 to 256"):
        corpora.passages(tiny, length=1000)
    with pytest.raises(ValueError, match="at least one document"):
        corpora.text(tiny, {})
    with pytest.raises(ValueError, match="no row fits"):
        corpora.text(tiny, ["the and of was"], length=4, most_tokens=2)


def test_a_file_that_is_no_text_is_named(tiny, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.txt is no text in UTF-8 \(byte 3\)"):
        corpora.files(tiny, tmp_path)


class Streamed(list):
    """Stands for a data set of the hub that is read row by row."""

    def take(self, n):
        return iter(self[:n])


def test_documents_of_the_hub_are_the_first_rows_of_a_split(tiny, monkeypatch):
    asked = []

    def load_dataset(name, **how):
        asked.append((name, how))
        return Streamed({"body": one} for one in ("the and of", "was here", "by the"))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    corpus = corpora.hub(tiny, "someone/some", split="test", field="body", documents=2, length=8)
    assert asked == [("someone/some", {"split": "test", "streaming": True})]
    assert corpus.documents == ("test:0", "test:1")
    assert corpus.name == "someone/some (test)"
    second = corpus.rows.tokens[1, : corpus.rows.lengths[1]]
    assert second.tolist() == tiny.tokenizer("was here")["input_ids"]
    with pytest.raises(ValueError, match="someone/some has no field 'text'; it has body"):
        corpora.named(tiny, "hub:someone/some")


def test_prose_is_still_there(tiny):
    assert isinstance(corpora.prose(tiny, passages=2), Prompts)
