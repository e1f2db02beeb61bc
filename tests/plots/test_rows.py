"""Rows of data and draws of their density, column by column and in pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfvi import NFVI, DensityFit, plots

ROWS = np.random.default_rng(0).normal(size=(80, 4)) * [1.0, 10.0, 0.1, 1.0] + [0, 5, 0, 0]


@pytest.fixture(scope="module")
def fit() -> DensityFit:
    return NFVI("loc", seed=1).fit_data(ROWS, epochs=2, progress=False)


def test_both_are_where_their_numbers_are(fit: DensityFit) -> None:
    figure = plots.rows(fit, ROWS, names=["x[1]", "x[2]"])
    across, hidden, pair, _ = figure.axes
    assert not hidden.axison or hidden.get_legend() is not None
    assert (pair.get_xlabel(), pair.get_ylabel()) == ("x[1]", "x[2]")
    data, _ = (patch.get_data() for patch in across.patches)
    assert np.average(data.edges[:-1], weights=data.values) == pytest.approx(5.0, abs=3.0)
    labels = [text.get_text() for text in hidden.get_legend().get_texts()]
    assert labels == ["80 rows", "loc"]
    assert figure.get_suptitle().startswith("data: 80 rows and loc\n2 of 4 scalars; left out")


def test_columns_that_differ_most_come_first(fit: DensityFit) -> None:
    moved = ROWS + np.array([0.0, 0.0, 3.0, 0.0])
    figure = plots.rows(fit, moved, most=1)
    assert "left out: x[0], x[1], x[3]" in figure.get_suptitle()


def test_what_it_refuses(fit: DensityFit) -> None:
    with pytest.raises(ValueError, match=r"no scalar q; there are x\[0\]"):
        plots.rows(fit, ROWS, names=["q"])
    with pytest.raises(ValueError, match="x has"):
        plots.rows(fit, ROWS[:, :2])
    with pytest.raises(ValueError, match="most must be"):
        plots.rows(fit, ROWS, most=0)


def test_at_a_context() -> None:
    fit = NFVI("scale-loc", seed=1).fit_data(ROWS[:, :3], context=ROWS[:, 3], epochs=2)
    assert len(plots.rows(fit, ROWS[:, :3], context=[0.5]).axes) == 9
    with pytest.raises(ValueError, match="at one context"):
        plots.rows(fit, ROWS[:, :3], context=torch.zeros(80, 1))
