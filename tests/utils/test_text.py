"""Tables are aligned, paragraphs narrow, numbers short."""

from __future__ import annotations

import math

from nfvi.utils.text import align, plus_minus, short, to_sd, wrapped


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


def test_plus_minus_follows_the_error():
    assert plus_minus(1.8, 0.003) == "1.8000 ± 0.0030"
    assert plus_minus(-123456.789, 12.3) == "-123457 ± 12"
    assert plus_minus(0.5, 6e-7) == "0.500000 ± 0.000001"
    assert plus_minus(-1e-6, 1e-7) == plus_minus(-1e-6, math.nan) == "0.0000"
    assert plus_minus(-math.inf, math.nan) == "-inf"


def test_wrapped_is_narrow_and_keeps_words():
    lines = wrapped("far-away " * 30 + "x" * 120)
    assert lines[0].startswith("  far-away") and lines[1].startswith("    far-away")
    assert all(len(line) <= 88 for line in lines[:-1]) and lines[-1].strip() == "x" * 120
    assert set(" ".join(lines[:-1]).split()) == {"far-away"}
