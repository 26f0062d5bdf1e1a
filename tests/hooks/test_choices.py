"""A word that is not among those there are is never taken for another one."""

from typing import Literal

import pytest

from hooks.choices import check_choice

Colour = Literal["red", "green"]


def test_the_words_there_are_pass_and_others_are_named_with_them():
    check_choice("paint", "red", Colour)
    with pytest.raises(ValueError, match="paint='blue': choose one of red, green"):
        check_choice("paint", "blue", Colour)
    with pytest.raises(ValueError, match="paint=None: choose one of red, green"):
        check_choice("paint", None, Colour)
