"""What can be read off the default model, beside its controls, and what it follows of that."""

import pytest

from workbench import metrics, probes, tasks

pytestmark = pytest.mark.slow

EARLY, MIDDLE, LAST = 4, 14, 29
OPTIONS = {"l2": (1e-2, 1e-1), "repeats": 1, "shuffles": 19, "control_sets": 2}


def _studied(model, labelled, *, layers, folds):
    """A study beside what the embedding of the token at which it reads gives away."""
    examples = probes.features_of(model, labelled, layers=layers)
    embedding = probes.features_of(model, labelled, stream="resid_pre", layers=[0])
    study = probes.study(
        examples, task=labelled.name, folds=folds, baselines={"embedding": embedding}, **OPTIONS
    )
    return examples, study


@pytest.fixture(scope="module")
def number(default_model):
    labelled = tasks.number(default_model, nouns=12, seed=0)
    return _studied(default_model, labelled, layers=(EARLY, MIDDLE, LAST), folds=4)


def test_the_number_of_the_subject_is_read_where_another_noun_stands_far_above_all_controls(number):
    _, found = number
    assert found.significant() == [EARLY, MIDDLE, LAST]
    assert found.chosen_low > 0.8 and "no claim" not in found.sentence()
    assert found.low[1] > 0.85
    # Words and embeddings say nothing: each of the nouns follows either number as often.
    assert found.baselines[-1] == "embedding" and found.baseline.max() <= 0.55
    assert found.random_direction[1] < 0.6 and found.shuffled[1].max() < 0.65
    # Attention brings it here: early layers have less of it, and learn the words as well.
    assert found.high[0] < found.low[1]
    assert found.selectivity_low[0] < 0 < 0.05 < found.selectivity_low[1]
    # Labels at random cost more to tell than they are; these cost much less.
    assert found.compression[1] > 1.5 > 1 > found.shuffled_compression[1]


@pytest.mark.parametrize(("subject", "sign"), [("singular", 1), ("plural", -1)])
def test_a_push_from_plural_to_singular_favours_the_singular_in_the_last_layer_and_not_before(
    default_model, number, subject, sign
):
    examples, study = number
    task = tasks.agreement(default_model, prompts=16, seed=5, attractor="other")
    own = [task.templates[group].endswith("plural") for group in task.group]
    task = task[[row for row, one in enumerate(own) if one == (subject == "plural")]]
    found = probes.steered(
        study, default_model, task, examples, metric=metrics.logit_diff,
        positions=task.clean.last, layers=(MIDDLE, LAST), against=probes.Placebos("spread", 39),
    )  # fmt: skip
    # Classes are in alphabetical order: 0 is plural, 1 singular. What a plural's verb is ahead by
    # shrinks, what a singular's is ahead by grows.
    assert sign * found.steer_low[2] > 2 and sign * found.steer_high[2] > 2
    assert found.steer_p[2] <= 0.05
    assert abs(found.steer[2]) > found.steer_placebo[2].abs().max()
    # In the middle it is read best, and a push does no more than others as long.
    assert found.accuracy[1] > found.accuracy[2] and found.steer_p[1] > 0.2
    assert "more than 39 random pushes as long in 1 of 2 layers" in found.sentence()


def test_the_truth_of_statements_beats_shuffled_labels_and_no_claim_is_made_of_it(default_model):
    labelled = tasks.truth(default_model, subjects=16, seed=0)
    _, found = _studied(default_model, labelled, layers=(EARLY, MIDDLE, 24), folds="held out")
    # Every city is as often in a true statement as in a false one: words alone give a half.
    assert found.baseline.max() <= 0.55
    assert found.significant() == [MIDDLE, 24]
    assert found.accuracy[2] > found.shuffled[2].max() + 0.1 > 0.6
    # Four templates are few: bounds reach what the words give, and the sentence says so.
    assert found.low[2] < found.majority < found.accuracy[2] < found.high[2]
    assert "embedding (50.0%): no claim about the model" in found.sentence()
