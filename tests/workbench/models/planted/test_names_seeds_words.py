"""Names, seeds and words of planted models."""

import pytest
import torch
from torch.testing import assert_close

from workbench import models, tasks
from workbench.models import planted
from workbench.models.planted import vocabulary


def test_the_same_name_is_the_same_bits_and_another_seed_other_heads():
    one, again = (models.load("planted/backup").origin for _ in range(2))
    assert one == again
    roles = [planted.truth(f"planted/backup/{seed}").roles["backup"] for seed in range(6)]
    assert len(set(roles)) > 1
    assert models.load("planted/backup/1").origin.name == "planted/backup/1"
    assert models.load("planted/backup/0").origin == one


def test_all_shapes_of_a_model_have_their_heads_in_the_same_places():
    for name in ("or", "redundant"):
        truths = [planted.truth(f"planted/{name}{shape}/3") for shape in ("", "-gpt2", "-llama")]
        assert truths[0].roles == truths[1].roles == truths[2].roles


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    for name in ("or", "or-gpt2", "or-llama"):
        planted.load(f"planted/{name}")
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["or", "induction-pair-gpt2", "duplicate-gqa-llama"])
def test_other_precisions_compute_the_same_answers(name, dtype, measured):
    model = models.load(f"planted/{name}", dtype=dtype)
    task, truth = tasks.planted(model, prompts=4, seed=0), planted.truth(model)
    for known in truth.known[:2]:
        found = measured(model, task, known.heads, known.how).float()
        assert_close(found, torch.full_like(found, known.low + 1e-4), rtol=1e-2, atol=1e-2)


def test_a_prompt_starts_with_the_start_and_knows_its_words_only():
    model = models.load("planted/induction-pair")
    prompts = models.prompts(model, ["book ring unheard"])
    [said] = models.words(model, prompts)
    assert [word.strip() for word in said] == ["<s>", "book", "ring", "<unk>"]
    assert len(set(vocabulary.ORDINARY)) == 40


@pytest.mark.parametrize(
    "asked", ["planted/induction-pare", "planted/", "planted/or/x", "planted/tiny"]
)
def test_an_unknown_planted_model_lists_those_that_there_are(asked):
    hint = r"did you mean 'planted/induction-pair'" if asked.endswith("pare") else ""
    with pytest.raises(ValueError, match=rf"no planted model '{asked}'.*{hint}.*There are and, or"):
        models.load(asked)


def test_the_truth_of_a_model_that_was_not_planted_is_refused(tiny):
    with pytest.raises(ValueError, match="no planted model 'tiny'"):
        planted.truth(tiny)
    with pytest.raises(ValueError, match="no planted model 'tiny'"):
        tasks.planted(tiny, prompts=2, seed=0)
