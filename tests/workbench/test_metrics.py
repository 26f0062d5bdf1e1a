import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts
from workbench import metrics
from workbench.tasks import Task

PROBABILITIES = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])


def task(answer=((2,), (0,)), foil=((3,), (1,))) -> Task:
    prompts = Prompts(torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([3, 2]))
    return Task(
        "by hand", prompts, prompts, torch.tensor(answer), torch.tensor(foil),
        {"END": prompts.last}, torch.zeros(2, dtype=torch.long),
    )  # fmt: skip


def logits(shift: float = 0.0) -> torch.Tensor:
    """The last real position of each prompt has known probabilities, the others do not."""
    full = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    full[0, 2], full[1, 1] = PROBABILITIES.log() + shift
    return full


def test_the_logit_difference_is_that_of_answer_and_foil_at_the_last_real_token():
    expected = torch.log(torch.tensor([0.3 / 0.4, 0.4 / 0.3]))
    assert_close(metrics.logit_diff(logits(), task()), expected)


def test_probabilities_of_several_right_answers_are_summed():
    both = task(answer=((2, 1), (0, -1)))
    assert_close(metrics.answer_prob(logits(), both), torch.tensor([0.5, 0.4]))
    assert_close(metrics.answer_logprob(logits(), both), torch.tensor([0.5, 0.4]).log())


def test_accuracy_counts_where_the_answer_is_likelier_and_a_tie_as_half():
    assert metrics.accuracy(logits(), task()).tolist() == [0.0, 1.0]
    assert metrics.accuracy(torch.zeros(2, 3, 4), task()).tolist() == [0.5, 0.5]


def test_no_metric_depends_on_a_constant_added_to_all_logits():
    for metric in (metrics.logit_diff, metrics.answer_logprob, metrics.mean_logprob):
        assert_close(metric(logits(), task()), metric(logits() + 7.5, task()))


def test_the_divergence_from_itself_is_zero_and_from_another_is_the_textbook_value():
    uniform = torch.zeros(2, 1, 4)
    metric = metrics.minus_kl(PROBABILITIES.log())
    assert_close(metric(PROBABILITIES.log()[:, None], task()), torch.zeros(2))
    expected = -(PROBABILITIES * (PROBABILITIES / 0.25).log()).sum(-1)
    assert_close(metric(uniform, task()), expected)
    assert_close(metric[1:](uniform[1:], task()[1:]), expected[1:])


def test_the_mean_log_probability_is_minus_the_usual_loss_on_real_tokens():
    found = metrics.mean_logprob(logits(), task())
    full = logits().log_softmax(-1)
    first = (full[0, 0, 2] + full[0, 1, 3]) / 2
    assert_close(found, torch.stack([first, full[1, 0, 2]]))


def test_rows_at_the_last_position_alone_are_enough():
    rows = torch.stack([logits()[0, 2], logits()[1, 1]])[:, None]
    assert_close(metrics.logit_diff(rows, task()), metrics.logit_diff(logits(), task()))


def test_a_metric_that_is_not_a_number_names_the_prompt():
    broken = logits()
    broken[1, 1, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="logit_diff is NaN or Inf for prompt 1"):
        metrics.logit_diff(broken, task())


def test_a_metric_of_the_wrong_shape_is_refused():
    wrong = metrics.Metric("odd", "nats", "last", "all", lambda logits, task, prompts: logits)
    with pytest.raises(ValueError, match="odd returned shape"):
        wrong(logits(), task())
    with pytest.raises(ValueError, match="3 rows of logits for 2 prompts"):
        metrics.logit_diff(torch.zeros(3, 1, 4), task())


def test_a_metric_that_returns_no_tensor_is_refused():
    wrong = metrics.Metric("odd", "nats", "last", "all", lambda logits, task, prompts: [0.1, 0.2])
    with pytest.raises(ValueError, match=r"odd returned \[0.1, 0.2\]; .* as a tensor"):
        wrong(logits(), task())


def test_a_metric_is_not_a_sequence_of_metrics():
    """It gives itself for some of the prompts, whichever are asked for: a loop would never end."""
    with pytest.raises(TypeError, match="not iterable"):
        iter(metrics.logit_diff)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda logits, task, prompts: logits[:, 0], "<function .* is no metric: give one, such"),
        ([metrics.logit_diff], r"metric=\[logit_diff \(nats\)\] is no metric: give one, such as"),
        (None, "metric=None is no metric"),
    ],
    ids=["a function", "a list", "nothing"],
)
def test_what_is_no_metric_is_refused_with_what_to_give(given, said):
    with pytest.raises(TypeError, match=said):
        metrics.check(given)


@pytest.mark.parametrize("given", [metrics.logit_diff, "logit_diff", None, {metrics.logit_diff}])
def test_metrics_that_are_no_list_are_refused(unchecked_types, given):
    with pytest.raises(TypeError, match=r"give a list: metrics=\[...\]"):
        metrics.check_all(given)
    metrics.check_all([metrics.logit_diff])
    metrics.check_all((metrics.logit_diff,))


@pytest.mark.parametrize("rows", [slice(0, 1), torch.tensor([0, 1, 1])])
def test_a_reference_of_other_prompts_is_refused_and_not_broadcast(rows):
    metric = metrics.minus_kl(PROBABILITIES.log()[rows])
    with pytest.raises(ValueError, match=r"reference of \d prompts for 2: choose the same rows"):
        metric(logits(), task())


def test_a_reference_with_positions_is_refused_with_what_to_take():
    with pytest.raises(Exception, match=r"\[:, 0\]|Type-check"):
        metrics.minus_kl(PROBABILITIES.log()[:, None])


def test_logits_of_other_positions_are_refused():
    with pytest.raises(ValueError, match="needs the logits of all 3 positions, got 1"):
        metrics.mean_logprob(logits()[:, -1:], task())
    with pytest.raises(ValueError, match="all 3 positions or of the last ones, got 2"):
        metrics.logit_diff(logits()[:, 1:], task())
