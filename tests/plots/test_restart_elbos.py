"""Every restart has its place by its ELBO, and the one that is far behind its number."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from nfvi import plots


def restart(index: int, elbo: float, se: float = 0.01, **more: object) -> SimpleNamespace:
    plain = {"tempered": False, "dropped": False, "best": False, "pruned": None, "weight": None}
    return SimpleNamespace(index=index, elbo=elbo, elbo_se=se, **{**plain, **more})


def drawn(*restarts: SimpleNamespace):
    ax = plots.restarts(SimpleNamespace(formula="planar*8", restarts=restarts))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    points = {
        round(float(line.get_ydata()[0])): line
        for line in ax.lines
        if len(line.get_ydata()) == 1 and line.get_marker() not in ("|", "None")
    }
    return ax, labels, points


def test_the_best_is_on_top_and_filled() -> None:
    _, labels, points = drawn(restart(0, -2.0, tempered=True), restart(1, -1.0, best=True))
    assert labels == ["0, tempered", "1"]
    assert [float(points[i].get_xdata()[0]) for i in (0, 1)] == [-2.0, -1.0]
    assert points[0].get_markerfacecolor() == "white" != points[1].get_markerfacecolor()


def test_a_mixture_is_filled_with_its_weights() -> None:
    _, labels, points = drawn(
        restart(0, -1.0, best=True, weight=0.75), restart(1, -1.1, weight=0.25), restart(2, -1.2)
    )
    assert labels == ["2", "1, weight 0.250", "0, weight 0.750"]
    assert [points[i].get_markerfacecolor() == "white" for i in range(3)] == [True, False, False]


def test_what_is_far_behind_or_nowhere_stands_at_the_edge() -> None:
    ax, labels, _ = drawn(
        restart(0, -1.0, best=True), restart(1, -1.2), restart(2, -1e6),
        restart(3, math.nan, math.nan, dropped=True), restart(4, -1.5, pruned=300),
    )  # fmt: skip
    assert labels == ["3, dropped", "2", "4, pruned at step 300", "1", "0"]
    assert [text.get_text() for text in ax.texts] == ["none", "-1e+06"]
    assert -10 < ax.get_xlim()[0] < -1.5


def test_nothing_finite() -> None:
    with pytest.raises(ValueError, match="no restart has a finite ELBO"):
        drawn(restart(0, math.nan))
