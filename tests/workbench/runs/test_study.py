"""Many runs: resumed, tabled, read back, compared."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from workbench import models, runs
from workbench.models.bridge import observers
from workbench.runs import experiments
from workbench.runs.comparison import _widened
from workbench.runs.grid import cells_of
from workbench.runs.headlines import Headline, headlines


def test_a_study_goes_on_after_an_interrupt(noise, calls):
    def interrupted(config):
        if config.seed == 2:
            raise KeyboardInterrupt
        return noise.run(config)

    interrupted.__module__ = noise.run.__module__
    configs = [noise.Config(seed=seed) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        runs.study(interrupted, configs, again="never")
    assert calls.read_text() == "0\n1\n"

    done = runs.study(noise.run, configs, again="never")

    assert calls.read_text() == "0\n1\n2\n3\n"
    assert [run.config["seed"] for run in done.runs] == [0, 1, 2, 3]
    assert done.failures == ()


def test_an_interrupted_study_ends_as_one_that_was_not(noise, tmp_path):
    configs = [noise.Config(seed=seed) for seed in range(2)]
    runs.record(noise.run, configs[1])
    resumed = runs.study(noise.run, configs)
    whole = runs.study(noise.run, configs, root=tmp_path / "elsewhere")

    digests = [[run.record["result"]["sha256"] for run in one.runs] for one in (resumed, whole)]
    assert digests[0] == digests[1]


def test_a_cell_that_fails_is_listed_and_the_others_are_run(noise):
    configs = [noise.Config(), noise.Config(way="fail"), noise.Config(seed=1)]

    done = runs.study(noise.run, configs)

    assert [run.config["seed"] for run in done.runs] == [0, 1]
    assert [failure.config for failure in done.failures] == [configs[1]]
    assert "this cell cannot be measured" in str(done)
    assert "in run" in done.failures[0].traceback


def test_a_study_loads_each_model_once_whatever_the_order_of_its_cells(noise, monkeypatch):
    loaded = []
    load = models.load
    monkeypatch.setattr(models, "load", lambda name: loaded.append(name) or load(name))
    replaced = models.load
    cells = [noise.Config(model=model, seed=s) for s in range(2) for model in ("tiny", "tiny-gqa")]

    done = runs.study(noise.run, cells)

    assert loaded == ["tiny", "tiny-gqa"]
    assert [run.config["model"] for run in done.runs] == ["tiny", "tiny-gqa"] * 2
    assert [run.record["models"][0]["name"] for run in done.runs] == ["tiny", "tiny-gqa"] * 2
    assert models.load is replaced
    assert observers == []


def test_a_cell_that_changes_its_model_does_not_change_the_next_cell(noise, tmp_path):
    alone = runs.record(noise.run, noise.Config(seed=1), root=tmp_path / "alone")
    done = runs.study(noise.run, [noise.Config(way="break"), noise.Config(seed=1)])

    assert done.runs[1].record["models"] == alone.record["models"]
    weights = next(models.load("tiny").original_model.parameters())
    assert torch.equal(weights, next(models.load("tiny").original_model.parameters()))
    assert done.runs[1].record["result"]["sha256"] == alone.record["result"]["sha256"]


def test_a_held_model_is_loaded_anew_when_its_weights_or_hooks_were_changed():
    from workbench.runs.held import holding

    with holding():
        first = models.load("tiny")
        assert models.load("tiny") is first
        next(first.original_model.parameters()).data.add_(1.0)
        second = models.load("tiny")
        assert second is not first
        next(iter(second.hook_dict.values())).add_hook(lambda value, hook: None)
        assert models.load("tiny") is not second


def test_a_table_has_a_row_for_each_run_with_config_headline_and_bounds(noise):
    done = runs.study(noise.run, [noise.Config(seed=seed) for seed in range(2)])

    frame = runs.table("noise")

    assert set(frame["id"]) == {run.id for run in done.runs}
    row = frame[frame["seed"] == 1].iloc[0]
    mean = float(done.runs[1].result.draws.mean())
    assert (row["mean"], row["mean_low"], row["mean_high"]) == (mean, mean - 1, mean + 1)
    assert row["count"] == 4
    assert row["seconds"] > 0


def test_broken_and_foreign_folders_are_named_and_left_out_of_the_table(noise, home):
    made = runs.record(noise.run, noise.Config())
    (home / "noise" / "foreign").mkdir()
    for name, text in {"broken": "{", "listing": "[]", "other": '{"a": 1}'}.items():
        folder = home / "noise" / name
        folder.mkdir()
        for file in ("config.json", "run.json", "result.nc"):
            (folder / file).write_text(text)

    with pytest.warns(UserWarning, match="foreign is no run: it has no config.json"):
        frame = runs.table("noise")

    assert list(frame["id"]) == [made.id]
    assert set(frame.attrs["broken"]) == {"foreign", "broken", "listing", "other"}


def test_a_run_read_back_is_the_run_that_was_made(noise):
    made = runs.record(noise.run, noise.Config(seed=5))

    for way in (made.folder, "noise", f"noise/{made.id}", f"noise/{made.id[:5]}"):
        found = runs.open(way)
        assert found.folder == made.folder
        assert torch.equal(found.result.draws, made.result.draws)


def test_a_changed_result_is_found_when_it_is_opened(noise):
    made = runs.record(noise.run, noise.Config())
    file = made.folder / "result.nc"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(ValueError, match="changed or damaged"):
        runs.open(made.folder)


@pytest.mark.parametrize(
    "kind",
    ["os:system", "workbench.models:load", "workbench.models:Origin", "builtins:dict", "nothing"],
)
def test_a_record_cannot_name_just_any_object(noise, kind):
    made = runs.record(noise.run, noise.Config())
    changed = dict(made.record) | {"result": dict(made.record["result"]) | {"kind": kind}}
    (made.folder / "run.json").write_text(json.dumps(changed))

    found = runs.open(made.folder)

    with pytest.raises(ValueError, match="no result of the workbench or an experiment"):
        _ = found.result
    assert runs.open(made.folder, kind=noise.Answer).result.draws.shape == (4,)


def test_an_unknown_run_is_refused_with_those_that_there_are(noise):
    runs.record(noise.run, noise.Config())

    with pytest.raises(ValueError, match=r"no run 'nois/x' in .*: noise\. Did you mean noise\?"):
        runs.open("nois/x")
    with pytest.raises(ValueError, match="no such run; there is default_"):
        runs.open("noise/x")


def test_runs_that_differ_by_more_than_their_bounds_are_told_from_those_that_do_not(noise):
    # The bounds of each mean are ±1, so that those of a difference are ±sqrt(2) by hand.
    near, far = (noise.Config(shift=shift) for shift in (1.0, 2.0))
    first, second, third = (runs.record(noise.run, one) for one in (noise.Config(), near, far))

    close = runs.compare(first, second)
    apart = runs.compare(first, third)

    assert close.exceeding() == []
    assert [found.name for found in apart.exceeding()] == ["mean"]
    assert apart.differences[0].bounds == pytest.approx((2 - 2**0.5, 2 + 2**0.5), abs=1e-5)
    assert apart.configs == {"shift": (0.0, 2.0)}
    assert {cells.name: (cells.differing, cells.total) for cells in apart.cells} == {
        "draws": (4, 4)
    }
    # Corrected for four cells: ±sqrt(2) * 2.4977 / 1.95996 = ±1.80 by hand, and all are 2 apart.
    assert [(one.cells[0].exceeding, one.cells[0].largest) for one in (close, apart)] == [
        (0, pytest.approx(1.0)),
        (4, pytest.approx(2.0)),
    ]
    assert "4 of 4 cells differ, by at most 2; 4 exceed the bounds" in str(apart)


def test_comparing_many_runs_widens_their_bounds(noise):
    found = [runs.record(noise.run, noise.Config(shift=float(shift))) for shift in range(3)]

    many = runs.compare(*found)

    assert len([one for one in many.differences if one.name == "mean"]) == 3
    # Three comparisons at 95 % together: the normal quantile at 1 - 0.05 / 6 is 2.3940.
    assert _widened(3) == pytest.approx(2.3940 / 1.95996, abs=1e-4)
    half = 2**0.5 * 2.3940 / 1.95996
    assert many.differences[0].bounds == pytest.approx((1 - half, 1 + half), abs=1e-4)


def test_equal_runs_are_equal_in_every_cell(noise, tmp_path):
    made = runs.record(noise.run, noise.Config())
    other = replace(runs.record(noise.run, noise.Config(), root=tmp_path / "other"), id="other")

    same = runs.compare(made, other)

    assert {found.verdict for found in same.differences} == {"equal"}
    assert [cells.differing for cells in same.cells] == [0]
    with pytest.raises(ValueError, match="at least two runs"):
        runs.compare(made)
    with pytest.raises(ValueError, match="named twice"):
        runs.compare(made, made)


def test_headlines_take_their_bounds_from_beside_them_or_from_within():
    beside = {"headline": {"effect": 1.0, "low": 0.5, "high": 2, "count": 3}}
    named = {"headline": {"a": 1, "b": 2, "b_low": 1, "b_high": 3}}
    within = {"headline": {"a": {"value": 1.0, "low": 0.0, "high": 2.0, "n": 5}}}

    assert headlines(beside) == {"effect": Headline(1.0, 0.5, 2.0), "count": Headline(3)}
    assert headlines(named) == {"a": Headline(1), "b": Headline(2, 1.0, 3.0)}
    assert headlines(within) == {"a": Headline(1.0, 0.0, 2.0)}
    assert headlines({}) == {}


def test_a_grid_is_every_combination_with_the_last_field_fastest(noise):
    cells = cells_of(noise.Config(size=9), ["seed=0,1", "way=plain,warn"])

    assert [(cell.seed, cell.way, cell.size) for cell in cells] == [
        (0, "plain", 9), (0, "warn", 9), (1, "plain", 9), (1, "warn", 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed", "expected FIELD=VALUE"),
        ("seed=a", "seed: 'a' is not of type int"),
        ("seed=1.5", "seed: '1.5' is not of type int"),
        ("seed=1,,2", "seed: a value between the commas is empty"),
        ("seed=1,1", "seed=1,1: 1 is there twice"),
        ("sede=1", "no field 'sede'.*did you mean seed"),
        ("way=other", "way: 'other' is not one of plain, fail"),
        ("size=0", "which the config refuses: size is 0"),
        ("shift=1", "shift is given by --shift and by --grid"),
    ],
)
def test_a_grid_that_cannot_be_read_is_refused_by_the_name_of_its_field(noise, text, said):
    with pytest.raises(ValueError, match=said):
        cells_of(noise.Config(shift=0.5), [text])


def test_a_grid_reads_none_where_a_field_may_be_none():
    @dataclass(frozen=True)
    class Config:
        top: int | None = 3

    assert [cell.top for cell in cells_of(Config(), ["top=none,4"])] == [None, 4]


def test_experiments_are_found_by_reading_and_not_by_importing(noise, tmp_path):
    for name, text in {
        "loud": '"""Does this explode?"""\nraise SystemExit\nclass Config: ...\ndef run(): ...\n',
        "half": "def run(): ...\n",
        "wrong": "def run(:\n",
    }.items():
        (tmp_path / "experiments" / f"{name}.py").write_text(text)

    found = experiments.known()

    assert found["loud"].question == "Does this explode?"
    assert found["noise"].question == "Is noise zero on average?"
    assert "half" not in found
    assert "wrong" not in found
