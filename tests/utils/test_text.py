"""Tables are aligned, paragraphs narrow, numbers short."""

from __future__ import annotations

import math

import numpy as np

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
    assert all(len(line) <= 88 for line in lines)
    assert set(" ".join(lines).split()[:30]) == {"far-away"}
    assert "".join(line.strip() for line in lines).endswith("x" * 120)


class TestTablesThatAreTooWide:
    def test_long_cells_on_the_left_are_cut_behind_signs(self):
        name = "realnvp(hidden=[64, 64])*8-scale-loc"
        text = align(["", "a", "b"], [[name, "1", "2"], ["c", "3", "4"]], width=30)
        assert text.splitlines() == [
            "                          a  b",
            "realnvp(hidden=[64, 64])  1  2",
            "    *8-scale-loc",
            "c                         3  4",
        ]

    def test_columns_without_a_place_follow_below(self):
        header = ["", "first", "second", "third"]
        text = align(header, [["x", "1", "2", "3"], ["y", "4", "5", "6"]], width=17)
        assert text.splitlines() == [
            "   first  second",
            "x      1       2",
            "y      4       5",
            "",
            "   third",
            "x      3",
            "y      6",
        ]

    def test_nothing_is_lost_and_no_line_is_too_wide(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            wide, left = int(rng.integers(1, 9)), int(rng.integers(1, 3))
            rows = [
                ["x" * int(n) for n in rng.integers(0, 120, left)]
                + ["y" * int(n) for n in rng.integers(1, 100, wide)]
                for _ in range(3)
            ]
            text = align(["a"] * left + ["b"] * wide, rows, left=left)
            assert max(map(len, text.splitlines())) <= 88
            assert text.count("y") == sum(cell.count("y") for row in rows for cell in row)
