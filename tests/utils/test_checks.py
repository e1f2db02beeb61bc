"""Checks of arguments."""

from __future__ import annotations

import pytest

from nfvi.utils.checks import common_dim


def test_the_dimension_that_all_agree_on():
    assert common_dim({"a": 2, "b": None, "c": 2}) == 2
    assert common_dim({"a": None}) is None
    with pytest.raises(ValueError, match="dimensions differ: a has d = 2 and c has d = 3"):
        common_dim({"a": 2, "b": None, "c": 3})
