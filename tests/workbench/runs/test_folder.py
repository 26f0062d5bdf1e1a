"""Where a run lies: named after its config, and always inside the runs folder."""

from dataclasses import dataclass

import pytest

from workbench import runs
from workbench.runs import folder


def test_an_id_shows_the_fields_that_differ_from_the_defaults(noise):
    plain = folder.id_of(noise.Config())
    given = folder.id_of(noise.Config(size=7, shift=-0.5))

    assert plain.startswith("default_")
    assert given.startswith("size-7_shift-0.5_")
    assert given != folder.id_of(noise.Config(size=7, shift=0.5))


@pytest.mark.parametrize(
    "name",
    ["../out", "a/b", "/abs", "..", ".", "", "a\0b", "x" * 300, "a..b", "naïve", ".partial", "a\n"],
)
def test_a_name_that_could_lead_out_of_the_runs_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name a run"):
        folder.place_of(tmp_path, name, "id")
    with pytest.raises(ValueError, match="cannot name a run"):
        folder.place_of(tmp_path, "name", name)


@pytest.mark.parametrize("where", ["noise", ".partial", ".partial/noise"])
def test_a_symbolic_link_out_of_the_runs_folder_is_refused(noise, home, tmp_path, where):
    (tmp_path / "elsewhere").mkdir()
    (home / where).parent.mkdir(parents=True)
    (home / where).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ValueError, match="symbolic link"):
        runs.record(noise.run, noise.Config())

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_value_of_a_field_leads_out_of_the_runs_folder(tmp_path):
    @dataclass(frozen=True)
    class Config:
        model: str = "tiny"
        seed: int = 0

    for value in ("../../x", "/etc", "a\0b", "..", "\n", "é" * 500, "C:\\x", "-rf"):
        place = folder.place_of(tmp_path, "noise", folder.id_of(Config(value)))
        assert place.parent == tmp_path / "noise"
        assert len(place.name) <= 100
