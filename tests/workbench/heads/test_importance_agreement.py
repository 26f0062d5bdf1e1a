import math
from dataclasses import dataclass, replace

import pytest
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from workbench import heads, metrics, models, plots, results, tasks
from workbench.heads.reasons import Reading, reasons

FAST = heads.Effort(1, heads.Descent(steps=25, rate=0.6), players=6, orders=8)


@dataclass(frozen=True, eq=False)
class MadeUp(heads.Importance):
    """Scores that were made up."""

    name: str
    values: Float[Tensor, "layer head"]
    prompts: Float[Tensor, "layer head batch"] | None = None
    metric: str = "logit_diff"
    unit: str = "nats"
    task: str = "by hand"
    task_digest: str = "1"
    model: str = "a model"
    model_digest: str = "2"
    caveat: str = ""

    @property
    def way(self):
        return self.name

    @property
    def kind(self):
        return "alone"

    @property
    def score(self):
        return self.values

    @property
    def score_of_prompts(self):
        return self.prompts


def drawn(seed: int = 0, layers: int = 4, width: int = 5) -> Tensor:
    return torch.randn(layers, width, generator=torch.Generator().manual_seed(seed))


def test_correlations_are_spearmans_over_the_heads_that_both_score():
    one, other = drawn(0), drawn(1)
    other[0, 0] = other[2, 3] = float("nan")
    found = heads.agreement([MadeUp("one", one), MadeUp("other", other)], top=3)
    both = ~other.isnan()
    expected = stats.spearmanr(one[both], other[both]).statistic
    assert found.between("one", "other").value == pytest.approx(expected, abs=1e-6)
    assert found.heads.tolist() == [[20, 18], [18, 18]]
    assert found.low.isnan().all()  # nothing to draw prompts from
    assert found.rank[1, 0, 0].isnan() and found.rank[0].flatten().sort().values[0] == 1
    assert int(found.rank[0].argmin()) == int(one.argmax())


def test_an_order_agrees_with_itself_and_not_with_its_reverse():
    one = drawn()
    found = heads.agreement(
        [MadeUp("one", one), MadeUp("cubed", one**3), MadeUp("against", -one)], top=4
    )
    assert found.between("one", "cubed").value == pytest.approx(1)
    assert found.between("one", "against").value == pytest.approx(-1)
    assert found.overlap[0].tolist() == [1, 1, 0]
    assert found.headline()["greatest"] == pytest.approx(1)
    assert "3 measures of the importance of 20 heads" in found.sentence()
    assert "from -1.00 (one and against)" in found.sentence()
    assert "signs differ" in found.why(found.disagreed(1)[0])


def test_bounds_are_as_wide_as_correlations_scatter_between_samples_of_prompts():
    truth, generator = drawn(), torch.Generator().manual_seed(5)
    values, errors = [], []
    for _ in range(40):
        sides = [truth[..., None] + 4 * torch.randn(4, 5, 48, generator=generator) for _ in "ab"]
        measured = [MadeUp(str(at), side.mean(-1), side) for at, side in enumerate(sides)]
        found = heads.agreement(measured, top=3, resamples=50).between("0", "1")
        assert found.low < found.value < found.high
        values.append(math.atanh(found.value))
        errors.append((math.atanh(found.high) - math.atanh(found.low)) / 2 / 1.96)
    scatter = torch.tensor(values).std().item()
    assert 0.7 < sum(errors) / len(errors) / scatter < 1.5


def test_a_measure_that_tells_no_heads_apart_overlaps_by_chance_and_has_no_correlation():
    one, blind = MadeUp("one", drawn()), MadeUp("blind", torch.zeros(4, 5))
    found = heads.agreement([one, blind], top=4)
    assert found.between("one", "blind").value != found.between("one", "blind").value
    assert float(found.overlap[0, 1]) == pytest.approx(4 / 20)
    assert "none of them tells heads apart" in found.sentence()
    both = heads.agreement([one, blind, MadeUp("other", drawn(1))], top=4)
    assert "(blind: the same for all)" in both.sentence()


def test_no_overlap_is_given_where_all_heads_would_be_among_the_first():
    found = heads.agreement([MadeUp("one", drawn()), MadeUp("other", drawn(1))], top=20)
    assert found.overlap.isnan().all()


def test_what_cannot_be_compared_is_refused():
    one = MadeUp("one", drawn())
    for changed, message in (
        ({"metric": "accuracy"}, "has the metric logit_diff, other has accuracy"),
        ({"task_digest": "9"}, "task_digest"),
        ({"values": drawn(width=6)}, r"scores \(4, 5\) heads, other \(4, 6\)"),
        ({"name": "one"}, "one was given twice"),
    ):
        other = replace(one, **{"name": "other", **changed})
        with pytest.raises(ValueError, match=message):
            heads.agreement([one, other])
    with pytest.raises(ValueError, match="give two or more"):
        heads.agreement([one])
    with pytest.raises(KeyError, match="no measure 'none' was compared; there are one, two"):
        heads.agreement([one, MadeUp("two", drawn(1))]).between("one", "none")


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([("alone", 0.0, 0.0), ("set", 4.0, 1.0)], "costs little alone, much in a set"),
        ([("alone", 8.0, 1.0), ("set", 4.0, 1.0)], "needed by others"),
        ([("slope", 0.0, 0.0), ("alone", 8.0, 1.0)], "saturated"),
        ([("slope", 8.0, 1.0), ("alone", 0.0, 0.0)], "its loss is made up for"),
        ([("slope", 4.0, 1.0), ("signed slope", 0.1, 0.1)], "helps some prompts, hurts others"),
        ([("gates", 0.1, 0.1), ("alone", 4.0, 1.0)], "learned gates do without it"),
        ([("gates", 0.9, 1.0), ("alone", 0.0, 0.0)], "learned gates keep it"),
        ([("alone", 4.0, 1.0), ("alone", 0.1, 0.1)], "what stands in its place matters"),
        ([("alone", 4.0, 0.5), ("gating", -1.0, -1.0)], "signs differ"),
    ],
)
def test_a_reason_by_hand(readings, expected):
    found = reasons([Reading(*one) for one in readings])
    assert len(found) == 1 and expected in found[0]


def test_measures_that_say_the_same_need_no_reason():
    same = [("alone", 2.0, 0.5), ("set", 2.0, 0.5), ("slope", 2.0, 0.5), ("gates", 1.0, 1.0)]
    assert reasons([Reading(*one) for one in same]) == []


def test_each_measure_in_turn_names_a_head_for_the_shortlist():
    one = MadeUp("one", torch.tensor([[5.0, 4.0], [0.1, 0.0]]))
    other = MadeUp("other", torch.tensor([[0.1, 0.0], [-3.0, float("nan")]]))
    assert heads.shortlist([one, other], 3) == [(0, 0), (1, 0), (0, 1)]
    assert heads.shortlist([one, other], 9) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    blind = MadeUp("blind", torch.zeros(2, 2))
    assert heads.shortlist([blind, other], 1) == [(1, 0)]


@pytest.fixture(scope="module")
def backup():
    model = models.load("planted/backup")
    task, truth = tasks.planted(model, prompts=4, seed=0), models.planted.truth(model)
    return heads.importance(model, task, metric=metrics.logit_diff, effort=FAST), truth


@pytest.mark.slow
def test_a_planted_backup_is_found_by_sets_and_missed_by_every_single_ablation(backup, tmp_path):
    measured, truth = backup
    found = heads.agreement(measured, top=3)
    assert found.method == [
        "zero ablation", "mean ablation", "resample ablation", "counterfactual ablation",
        "mask gradient", "signed mask gradient", "hard-concrete gates", "causal gating",
        "Shapley value",
    ]  # fmt: skip
    ((second,), (first,)) = truth.roles["backup"], truth.roles["first"]
    for place, kind in enumerate(found.kinds):
        if kind == "alone":
            assert abs(float(found.score[(place, *second)])) < 1e-3
    assert float(found.share[(-1, *second)]) > 0.05
    assert "costs little alone, much in a set" in found.why(second)
    assert "its slope is steep, its loss is made up for" in found.why(first)
    for head in truth.irrelevant:
        assert float(found.share[(slice(None), *head)].abs().nan_to_num(0).max()) < 0.05
    results.save(found, tmp_path / "found.nc")
    again = results.load(heads.ImportanceAgreement, tmp_path / "found.nc")
    assert results.digest(again) == results.digest(found)
    assert plots.png(found)[:4] == b"\x89PNG"
    assert "(9) Shapley value" in found.table() and "zero ablation" in found.correlations()


@pytest.mark.slow
def test_every_measure_offers_a_full_ranking(backup):
    for one in backup[0]:
        score, order = one.score, one.ranked()
        assert score.shape == (3, 4)
        assert len(order) == int((~score.isnan()).sum()) == len(set(order))
        values = [float(score[head]) for head in order]
        assert values == sorted(values, reverse=True)
        if one.kind != "set":
            assert len(order) == 12


def test_nothing_to_ablate_by_is_refused(tiny):
    task = tasks.ioi(tiny, prompts=3, seed=0, corruption="third")
    with pytest.raises(ValueError, match="no ablation was given"):
        heads.importance(tiny, task, metric=metrics.logit_diff, ablations=())
