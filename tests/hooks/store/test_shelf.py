"""What a shelf promises when nothing goes wrong."""

import hashlib
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hooks.store import Shelf

DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64,
    torch.int64, torch.int32, torch.uint8, torch.bool,
]  # fmt: skip

names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
shapes = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def tensors(draw):
    """Any bytes, NaN and all, in any type and shape; contiguous or not."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
    rng = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    whole = torch.randint(0, 2 if dtype == torch.bool else 256, shape, generator=rng).to(dtype)
    if whole.is_floating_point() and whole.numel():
        whole.view(-1)[0] = draw(st.sampled_from([float("nan"), float("inf"), -0.0]))
    return whole.mT if whole.ndim >= 2 and draw(st.booleans()) else whole


def same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    flat = [t.contiguous().flatten().view(torch.uint8) if t.numel() else t for t in (a, b)]
    assert_close(*flat, rtol=0, atol=0, equal_nan=True)


def blobs(shelf):
    return sorted((shelf.path / "blobs").iterdir())


items = st.dictionaries(
    names,
    st.dictionaries(names.filter(lambda name: "/" not in name), tensors(), min_size=1, max_size=3),
    max_size=3,
)


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(items, max_size=4))
def test_what_was_put_first_under_a_key_is_what_is_given(tmp_path_factory, batches):
    shelf = Shelf.open(tmp_path_factory.mktemp("shelf") / "it")
    expected = {}
    for batch in batches:
        shelf.put(batch)
        expected = {**batch, **expected}
    assert shelf.keys() == sorted(expected)
    assert shelf.has([*expected, "no such key"]) == set(expected)
    found = Shelf.open(shelf.path).get(expected)
    assert list(found) == list(expected)
    for key in expected:
        assert found[key].keys() == expected[key].keys()
        for name in expected[key]:
            same_bits(found[key][name], expected[key][name])


def test_a_blob_is_named_after_its_bytes_and_equal_items_are_equal_bytes(tmp_path):
    items = {"b": {"x": torch.arange(3.0), "w": torch.ones(2)}, "a": {"x": torch.zeros(1)}}
    other_order = {"a": items["a"], "b": {"w": torch.ones(2), "x": torch.arange(3.0)}}
    first, second = Shelf.open(tmp_path / "1"), Shelf.open(tmp_path / "2")
    first.put(items)
    second.put(other_order)
    (blob,), (other,) = blobs(first), blobs(second)
    assert blob.stem == hashlib.sha256(blob.read_bytes()).hexdigest()
    assert blob.name == other.name


def test_a_key_with_slashes_is_not_confused_with_another(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put(
        {
            "a": {"b": torch.tensor(1)},
            "a/b": {"c": torch.tensor(2)},
            "a/b/c": {"b": torch.tensor(3)},
        }
    )
    found = shelf.get(["a/b/c", "a", "a/b"])
    assert [int(t) for of in found.values() for t in of.values()] == [3, 1, 2]


def test_tensors_that_share_memory_are_kept_apart(tmp_path):
    base = torch.arange(6.0)
    shelf = Shelf.open(tmp_path / "it")
    shelf.put({"k": {"all": base, "again": base, "part": base[1:4], "strided": base[::2]}})
    found = shelf.get(["k"])["k"]
    assert_close(found["strided"], torch.tensor([0.0, 2.0, 4.0]))
    assert_close(found["part"], torch.tensor([1.0, 2.0, 3.0]))
    assert_close(found["again"], found["all"])
    assert blobs(shelf)[0].stat().st_size < 600  # a view does not bring its whole memory along


def test_putting_nothing_writes_nothing(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put({})
    shelf.put({"k": {"x": torch.ones(1)}})
    shelf.put({"k": {"x": torch.zeros(1)}})
    assert len(blobs(shelf)) == 1
    assert_close(shelf.get(["k"])["k"]["x"], torch.ones(1))
    assert shelf.get([]) == {}


def test_a_key_that_was_forgotten_can_be_put_again(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put({"k": {"x": torch.ones(1)}, "other": {"x": torch.ones(2)}})
    shelf.forget(["k", "never there"])
    assert shelf.keys() == ["other"]
    shelf.put({"k": {"x": torch.zeros(1)}})
    found = shelf.get(["k", "other"])
    assert_close(found["k"]["x"], torch.zeros(1))
    assert_close(found["other"]["x"], torch.ones(2))


def test_tidying_removes_what_no_key_names_and_nothing_else(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    for number in range(3):
        shelf.put({f"k-{number}": {"x": torch.tensor(number)}})
    first, second, third = (shelf._place(b) for b in shelf._places(["k-0", "k-1", "k-2"]).values())
    orphan = shelf.path / "partial" / "of-a-killed-writer.partial"
    orphan.write_bytes(b"half")
    shelf.forget(["k-1"])
    assert set(shelf.clean()) == {orphan, second}
    assert set(blobs(shelf)) == {first, third}
    assert shelf.clean() == []
    assert len(shelf.get(["k-0", "k-2"])) == 2


def test_several_threads_may_put_and_read(tmp_path):
    shelf = Shelf.open(tmp_path / "it")

    def put():
        for number in range(20):
            shelf.put({f"k-{number}": {"x": torch.tensor(number)}})

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = shelf.get(shelf.keys())
    assert {key: int(of["x"]) for key, of in found.items()} == {f"k-{n}": n for n in range(20)}


@pytest.mark.parametrize("key", ["", "a\nb", "a\0b", "x" * 501, "\ud800"])
def test_a_key_that_could_not_be_found_again_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="cannot be a key: use 1 to 500 printable"):
        Shelf.open(tmp_path / "it").put({key: {"x": torch.ones(1)}})


def test_items_that_could_not_be_read_back_are_refused(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    with pytest.raises(ValueError, match="'k' has no tensors"):
        shelf.put({"good": {"x": torch.ones(1)}, "k": {}})
    with pytest.raises(ValueError, match="'a/b' cannot name a tensor of 'k'"):
        shelf.put({"k": {"a/b": torch.ones(1)}})
    with pytest.raises(ValueError, match="sparse"):
        shelf.put({"k": {"x": torch.eye(2).to_sparse()}})
    assert shelf.keys() == []


def test_a_path_in_a_key_leads_nowhere(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put({"../../outside": {"..": torch.ones(1)}, "/etc/x": {"x": torch.ones(1)}})
    assert [p.name for p in tmp_path.iterdir()] == ["it"]
    assert_close(shelf.get(["../../outside"])["../../outside"][".."], torch.ones(1))


def test_keys_that_are_not_there_are_named(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put({"there": {"x": torch.ones(1)}})
    with pytest.raises(KeyError, match=r"1 keys \(absent\) of 2 asked for are not on the shelf"):
        shelf.get(["there", "absent"])


def test_a_shelf_is_opened_where_there_is_one_or_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex' and no shelf"):
        Shelf.open(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="there is no shelf; write one first"):
        Shelf.open(tmp_path / "typo", missing="refuse")
    assert not (tmp_path / "typo").exists()
    Shelf.open(tmp_path / "new")
    assert Shelf.open(tmp_path / "new", missing="refuse").keys() == []


def test_what_is_mapped_is_what_was_put_and_writing_to_it_changes_no_file(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put(
        {"k": {"x": torch.arange(1000.0), "none": torch.ones(0, 3)}, "l": {"x": torch.ones(2)}}
    )
    before = blobs(shelf)[0].read_bytes()
    found = shelf.mapped(["l", "k"])
    assert list(found) == ["l", "k"]
    assert_close(found["k"]["x"], torch.arange(1000.0), rtol=0, atol=0)
    assert found["k"]["none"].shape == (0, 3)
    found["k"]["x"].zero_()
    assert blobs(shelf)[0].read_bytes() == before
    assert_close(shelf.mapped(["k"])["k"]["x"], torch.arange(1000.0), rtol=0, atol=0)


def test_a_mapped_tensor_outlives_the_removal_of_its_blob(tmp_path):
    shelf = Shelf.open(tmp_path / "it")
    shelf.put({"k": {"x": torch.arange(1000.0)}})
    found = shelf.mapped(["k"])["k"]["x"]
    shelf.forget(["k"])
    shelf.clean()
    assert_close(found, torch.arange(1000.0), rtol=0, atol=0)
