"""What a search says, for made-up numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from nfvi.search import MissedMass, Place

PLACE = Place(torch.tensor([-6.0, 0.25, 1e4, 3.0, 5.0], dtype=torch.float64), -1.25, 0.47, 17.5)
CLEAN = MissedMass((), 0.0, 0.0, 1.961, 1.961, 131_072, 512, 10.0, 40, 20_000)
FOUND = replace(CLEAN, places=(PLACE,), share=0.47, share_se=0.01, log_evidence=2.593)


def words(**changes: Any) -> str:
    """The text, in one line."""
    found = str(replace(FOUND, **changes))
    assert max(map(len, found.splitlines())) <= 88, found
    return " ".join(found.split())


def test_clean():
    text = words(places=(), share=0.0)
    assert text == (
        "No mass was found that the guide misses, in 131,072 draws out to 10 sds of the guide and"
        " of N(0, I), and 512 ascents from the best of them; narrower or farther parts cannot be"
        " excluded."
    )


def test_found():
    text = words()
    assert "misses about 47% of the mass: it has almost none at one place found by 131,072" in text
    assert "the log evidence is 2.593 and not 1.961; more may be missed" in text
    assert text.endswith("(-6.00, 0.250, 1.00e+04, 3.00, …) -1.2500 47.0% 17.5")


@pytest.mark.parametrize(("share", "clean"), [(0.03, True), (0.031, False), (math.nan, False)])
def test_three_percent_is_the_most_that_is_not_told(share, clean):
    assert replace(FOUND, share=share).clean is clean


def test_more_modes_than_are_looked_at():
    assert not replace(FOUND, share=0.0, crowded=True).clean
    text = words(crowded=True, share=0.01, places=(PLACE,) * 64)
    assert "almost none of the mass at 64 modes and more, found by 131,072 draws" in text
    assert "1% of the mass was counted there, and what lies at the others was not" in text


def test_a_file_that_says_nothing_of_crowds():
    values = FOUND.as_dict()
    del values["crowded"]
    assert MissedMass.from_dict(values).crowded is False


def test_a_long_list_is_cut():
    text = words(places=(PLACE,) * 12)
    assert "at 12 places" in text and text.count("17.5") == 10
    assert "... and 2 more in .places" in text


def test_what_the_budget_cut_short_says_so():
    assert "The search was cut short by the budget." in words(cut=True)
    assert "cut short by the budget" in words(cut=True, share=0.0)
    assert "cut short" not in words()


def test_the_prior_is_named_where_there_is_one():
    assert "10 sds of the guide and of the prior, and 512 ascents" in words(prior=True)


def test_nothing_was_searched():
    assert words(places=(), share=math.nan) == (
        "The guide has no log evidence to compare with: nothing was searched."
    )


def test_a_dict_and_back():
    """The Gaussian at a place is not kept."""
    known = replace(FOUND, places=(replace(PLACE, tril=torch.eye(5)),))
    again = MissedMass.from_dict(json.loads(json.dumps(known.as_dict())))
    assert str(again) == str(FOUND) and again.places[0].tril is None
    assert torch.equal(again.places[0].z, PLACE.z)
    assert replace(again, places=()) == replace(FOUND, places=())
    assert "z=" not in repr(again) and "tril=" not in repr(again)
