"""The arguments of a fit as records: which of them are set."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from nfvi import NFVI
from nfvi.inference.arguments import DataArguments, FitArguments

# What a record of arguments leaves to others: what is fitted, who watches and shares, and when
# "auto" ends.
OTHERS = {"self", "callbacks", "progress", "distribute"}
OF_THE_FIT = OTHERS | {"target", "args", "dim", "parameters", "budget"}
OF_THE_DATA = OTHERS | {"x", "weights", "context"}


@pytest.mark.parametrize(
    ("record", "method", "others"),
    [(FitArguments, NFVI.fit, OF_THE_FIT), (DataArguments, NFVI.fit_data, OF_THE_DATA)],
)
def test_every_argument_is_in_the_record(record, method, others) -> None:
    names = {field.name for field in fields(record)}
    assert names == inspect.signature(method).parameters.keys() - others


def test_those_that_are_set_in_the_order_in_which_they_are_refused() -> None:
    assert FitArguments().given() == []
    assert FitArguments(gradient="path", lr=0.1, steps=0, prune=False).given() == [
        "steps",
        "prune",
        "lr",
        "gradient",
    ]


def test_what_has_a_default_of_its_own_is_not_set() -> None:
    nothing = DataArguments(0.1, True, None, None, None, None, None)
    assert nothing.given() == []
    assert DataArguments(0.2, False, 4, None, 3, None, None).given() == ["batch_size", "patience"]
