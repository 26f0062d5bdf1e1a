"""One head of each type was planted: each is found by its type, and named with its p."""

import pytest

from workbench import heads, models, plots, tasks


@pytest.fixture(scope="module", params=["", "/1"])
def planted(request):
    model = models.load(f"planted/head-types{request.param}")
    task = tasks.planted(model, prompts=12, seed=1)
    return models.planted.truth(model).roles, heads.types(model, task, prompts=8)


def test_each_planted_head_is_the_only_one_of_its_type(planted):
    roles, found = planted
    for type in ("previous token", "duplicate token", "induction", "first token",
                 "fixed position", "copy-suppressing"):  # fmt: skip
        assert found.of(type) == list(roles[type]), type
    assert found.of("copying") == found.of("positive OV") == list(roles["induction"])
    assert found.of("negative OV") == found.of("fixed offset") == list(roles["copy-suppressing"])
    assert int(found.position[roles["fixed position"][0]]) == 3
    assert int(found.offset[roles["copy-suppressing"][0]]) == 2


def test_the_report_of_types_names_the_planted_heads_with_their_p(planted):
    roles, found = planted
    lines = found.table(1).splitlines()
    # one of 20 that were as good: the model itself, and 19 copies; of words one of 2001 matchings
    for type in ("previous token", "duplicate token", "induction", "first token",
                 "fixed position", "copy-suppressing"):  # fmt: skip
        layer, head = roles[type][0]
        (line,) = [one for one in lines if one.startswith(type + " ")]
        assert line.split(type)[1].split()[0] == f"{layer}.{head}"
        assert line.endswith("0.0005 *" if type == "copy-suppressing" else "0.0500 *")
        assert f"{type} {layer}.{head}" in found.sentence()


def test_the_page_of_redundancy_names_them_too_and_shows_where_they_attend():
    model = models.load("planted/head-types")
    task, roles = tasks.planted(model, prompts=12, seed=1), models.planted.truth(model).roles
    extent = heads.Extent(candidates=2, typed=8, repaired=1, shares=(0.5,), draws=2)
    found = heads.study_redundancy(model, task, ablation="zero", extent=extent)
    for type, p in (("first token", "0.0500"), ("duplicate token", "0.0500"),
                    ("fixed position", "0.0500"), ("copy-suppressing", "0.0005")):  # fmt: skip
        layer, head = roles[type][0]
        assert f"{type:<22}{layer}.{head} ({p})" in found.table().splitlines()
        assert (layer, head) in found.shown
    assert set(found.candidates) <= set(found.shown)
    view = plots.interactive(found)
    assert "<script" in view and "src=" not in view and "http" not in view
    at = found.shown.index(roles["first token"][0])
    assert found.pattern[at, 1:, 0].min() == 1  # it looks at the first token and nowhere else
