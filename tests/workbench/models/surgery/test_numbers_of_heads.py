"""Heads keep the numbers they had at first, and what has no such number is refused."""

import pytest

from hooks import Site, capture, edits, heads, intervening
from workbench.models import surgery, twins

ALL = range(4)


def test_tensors_hold_the_heads_there_are_and_edits_name_them_as_before(
    made, ragged, ablated, relative
):
    model = made["Llama"]
    pruned = surgery.cut(model, [[0, 3], []])
    sites = [Site(stream, layer) for stream in ("z", "k", "pattern") for layer in (0, 1)]
    seen = capture(pruned, ragged, sites)
    shapes = [tuple(seen[site].shape) for site in sites]
    assert shapes == [(3, 9, 2, 8), (3, 9, 0, 8), (3, 9, 2, 8), (3, 9, 0, 8), (3, 2, 9, 9),
                      (3, 0, 9, 9)]  # fmt: skip
    whole = capture(model, ragged, [Site("q", 0)])
    assert capture(pruned, ragged, [Site("q", 0)])[Site("q", 0)].equal(
        whole[Site("q", 0)][:, :, [0, 3]]
    )
    with intervening(pruned, {Site("z", 0): edits.zero(heads=[3])}):
        found = pruned(ragged)
    with intervening(model, ablated([[0], []])):
        assert relative(found, model(ragged)) <= 1e-6


def test_an_edit_of_a_removed_head_is_refused_by_name(made, ragged):
    pruned = surgery.cut(made["Llama"], [[0, 3], []])
    for site, head in ((Site("z", 0), 1), (Site("pattern", 1), 0), (Site("q", 0), 2)):
        with (
            pytest.raises(ValueError, match=rf"head {site.layer}\.{head} was removed from Llama"),
            intervening(pruned, {site: edits.zero(heads=[head])}),
        ):
            pruned(ragged)
    with (
        pytest.raises(ValueError, match=r"head 0\.4 does not exist: z 0 has heads 0 to 3"),
        intervening(pruned, {Site("z", 0): edits.zero(heads=[4])}),
    ):
        pruned(ragged)


def test_key_value_heads_keep_their_numbers_too(made, ragged):
    pruned = surgery.cut(made["Llama"], [[2, 3], [0, 2]])
    assert heads.at(pruned, 0).key_value == (1,)
    assert heads.at(pruned, 1).reads == (0, 1)
    with intervening(pruned, {Site("k", 0): edits.zero(heads=[1])}):
        pruned(ragged)
    with (
        pytest.raises(ValueError, match=r"head 0\.0 was removed"),
        intervening(pruned, {Site("v", 0): edits.zero(heads=[0])}),
    ):
        pruned(ragged)


def test_a_digest_of_its_own_and_an_origin_that_says_what_is_gone(made):
    model = made["Llama"]
    pruned = surgery.cut(model, [[0, 3], []])
    assert pruned.origin.digest != model.origin.digest
    assert pruned.origin.name == "Llama without 6 heads"
    assert "without the heads 0.1, 0.2, 1.0, 1.1, 1.2, 1.3" in pruned.origin.source


def test_a_pruned_model_is_pruned_again_by_the_first_numbers(made, ragged):
    model = made["Llama"]
    twice = surgery.cut(surgery.cut(model, [[0, 2, 3], [1]]), [[0, 3], [1]])
    once = surgery.cut(model, [[0, 3], [1]])
    assert twice(ragged).equal(once(ragged))
    assert twice.kept_heads == once.kept_heads
    with pytest.raises(ValueError, match=r"head 0\.1 was removed from Llama without 1 head:"):
        surgery.cut(surgery.cut(model, [[0, 2, 3], ALL]), [[0, 1], [1]])


def test_an_architecture_that_is_not_known_is_refused_by_name():
    for architecture, name in (("Phi-3", "Phi3ForCausalLM"), ("BERT", "BertForMaskedLM")):
        model = twins.make(architecture)[0]
        with pytest.raises(ValueError, match=f"heads cannot be removed from {name}"):
            surgery.cut(model, [[0]] * model.cfg.n_layers)


def test_no_head_at_all_and_heads_twice_are_refused(made):
    model = made["Llama"]
    with pytest.raises(ValueError, match="no head of Llama would be left"):
        surgery.cut(model, [[], []])
    with pytest.raises(ValueError, match=r"head 0\.3 is kept twice"):
        surgery.cut(model, [[3, 3], [0]])
    with pytest.raises(ValueError, match=r"head 1\.7 does not exist: z 1 has heads 0 to 3"):
        surgery.cut(model, [[3], [7]])
    with pytest.raises(ValueError, match="kept heads of 1 layers for a model of 2"):
        surgery.cut(model, [[3]])
