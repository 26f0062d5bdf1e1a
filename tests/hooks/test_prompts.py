import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts


def test_the_last_token_is_the_last_real_one():
    prompts = Prompts.padded([[5, 6, 7], [8]])
    assert prompts.last.tolist() == [2, 0]
    assert prompts.mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_bare_tensor_means_no_padding():
    prompts = Prompts.of(torch.ones(2, 4, dtype=torch.long))
    assert prompts.lengths.tolist() == [4, 4]


def test_some_of_the_prompts_are_cut_to_the_longest_of_them():
    prompts = Prompts.padded([[1, 2, 3, 4], [5, 6], [7]])
    assert_close(prompts[1:].tokens, torch.tensor([[5, 6], [7, 0]]))
    assert_close(prompts[1].tokens, torch.tensor([[5, 6]]))
    assert_close(prompts[-1].tokens, torch.tensor([[7]]))
    assert prompts[[2, 0]].lengths.tolist() == [1, 4]
    assert [len(batch) for batch in prompts.batches(2)] == [2, 1]


@pytest.mark.parametrize(
    ("tokens", "lengths", "message"),
    [
        (torch.ones(2, 3), torch.tensor([3, 3]), "integer ids|Type-check"),
        (torch.ones(2, 3, dtype=torch.long), torch.tensor([3, 4]), "prompt 1 has 4"),
        (torch.ones(2, 3, dtype=torch.long), torch.tensor([0, 3]), "prompt 0 has 0"),
        (torch.ones(2, 3, dtype=torch.long), torch.tensor([3]), "one length for each|Type-check"),
        (torch.ones(0, 3, dtype=torch.long), torch.ones(0, dtype=torch.long), "at least one"),
    ],
)
def test_what_cannot_be_prompts_is_refused(tokens, lengths, message):
    with pytest.raises(Exception, match=message):
        Prompts(tokens, lengths)


def test_strings_are_refused_with_what_to_do():
    with pytest.raises(Exception, match=r"models\.prompts|Type-check"):
        Prompts.of(["not tokens"])  # type: ignore[arg-type]
