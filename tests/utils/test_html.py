"""HTML for notebooks: escaped, without colours of its own, and well formed."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from nfvi.utils import card, folded, html_table, preformatted, sparkline

EVIL = "<script>alert('&\"')</script>"


def parsed(text: str) -> ElementTree.Element:
    """The elements, which must be closed in their order."""
    return ElementTree.fromstring(f"<all>{text.replace('<br>', '<br/>')}</all>")


def heights(svg: str) -> list[float]:
    points = re.search(r'points="([^"]*)"', svg).group(1).split()
    return [float(point.split(",")[1]) for point in points]


@pytest.mark.parametrize(
    "made",
    [
        card(EVIL, f"{EVIL}. {EVIL}"),
        folded(EVIL, ""),
        html_table([EVIL, ""], [[EVIL, EVIL]]),
        preformatted(EVIL),
        sparkline([1.0, 2.0], EVIL),
    ],
)
def test_text_stays_text(made: str) -> None:
    assert "<script" not in made
    tree = parsed(made)
    assert EVIL in "".join(tree.itertext())
    assert not re.search(r"#[0-9a-f]{3}|rgb|background:(?!none)", made)


def test_the_first_sentence_is_bold() -> None:
    tree = parsed(card("title", "Verdict: good. KL is 0.01 nats.", "", "<i>part</i>"))
    assert tree.find(".//b").text == "Verdict: good."
    assert "".join(tree.itertext()) == "Verdict: good. KL is 0.01 nats.titlepart"


def test_cells_stand_where_they_should() -> None:
    rows = parsed(html_table(["", "a"], [["x", "1"]])).findall(".//tr")
    assert [cell.text for row in rows for cell in row] == [None, "a", "x", "1"]
    sides = [cell.get("style").split("text-align:")[1] for cell in rows[1]]
    assert sides == ["left", "right;white-space:nowrap"]
    assert len(parsed(html_table([], [["x", "1"]])).findall(".//tr")) == 1


def test_a_curve_rises_where_its_values_do() -> None:
    y = heights(sparkline([float(i) for i in range(50)], "a"))
    assert len(y) == 50 and y == sorted(y, reverse=True) and y[0] > 50 > 5 > y[-1]


def test_a_huge_start_does_not_flatten_the_rest() -> None:
    values = [-1e9, *(float(i) for i in range(1_000))]
    y = heights(sparkline(values, "a"))
    assert len(y) == 160 and y[0] == max(y) and y[80] == pytest.approx(28, abs=5)


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert sparkline([], "a") == sparkline([1.0], "a") == sparkline([math.nan] * 5, "a") == ""
    y = heights(sparkline([1.0, math.nan, -math.inf, 1.0, 1.0], "a"))
    assert len(y) == 3 and len(set(y)) == 1
