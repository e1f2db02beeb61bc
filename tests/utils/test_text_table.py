"""Tables are aligned; numbers are short."""

from __future__ import annotations

import math

from nfvi.utils.text_table import align, short, to_sd


def test_short():
    numbers = [0.0, 0.123456, -12.0, 1234.5678, 123456.0, 1e-9, math.nan, math.inf]
    assert [short(x) for x in numbers] == [
        "0.000", "0.1235", "-12.00", "1235", "1.235e+05", "1.000e-09", "-", "inf",
    ]  # fmt: skip


def test_to_sd():
    assert to_sd([1.0, 0.97117], 0.5) == ["1.000", "0.971"]
    assert to_sd([12345.678, math.nan], 250.0) == ["12346", "-"]
    assert to_sd([0.5], math.nan) == ["0.5000"]
    assert to_sd([1e-8], 1e-9) == ["1.000e-08"]


def test_align():
    text = align(["", "mean"], [["a long name", "1.0"], ["b", "-10.0"]])
    assert text.splitlines() == [
        "              mean",
        "a long name    1.0",
        "b            -10.0",
    ]
    assert align(["", "", "x"], [["a", "b", "1"]], left=2) == "      x\na  b  1"
