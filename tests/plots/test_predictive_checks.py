"""Data stand where they are, and what is predicted around them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from nfvi import plots

GENERATOR = np.random.default_rng(0)


def test_observations_one_by_one() -> None:
    data = np.array([0.0, 5.0, np.nan, -0.1])
    figure = plots.predictive({"y": data}, {"y": torch.linspace(-1, 1, 201)[:, None].expand(-1, 4)})
    (ax,) = figure.axes
    assert ax.get_title() == "2 of 3 observations are within 90 %"
    dots = ax.lines[0].get_ydata()
    np.testing.assert_array_equal(dots, [0.0, 5.0, -0.1])
    wide, middle = (lines.get_segments() for lines in ax.collections)
    np.testing.assert_allclose(wide[0][:, 1], [-0.9, 0.9])
    np.testing.assert_allclose(middle[0][:, 1], [-0.5, 0.5])
    figure.savefig(io.BytesIO())


def test_many_counts_share_bars_of_whole_numbers() -> None:
    counts = GENERATOR.poisson(3.0, size=400)
    draws = GENERATOR.poisson(3.0, size=(200, 400))
    (ax,) = plots.predictive({"n": counts}, {"n": draws}).axes
    data = ax.patches[-1].get_data()
    assert (data.edges % 1 == 0.5).all()
    inside = slice(0, int(counts.max()) + 1)
    np.testing.assert_allclose(data.values[inside], np.bincount(counts)[inside] / 400)
    band = ax.patches[0].get_data()
    # Bars of 400 draws each have nine chances in ten; all but three of some dozen hold.
    within = (band.baseline <= data.values) & (data.values <= band.values)
    assert within.sum() >= len(within) - 3


def test_data_that_the_model_does_not_make_leave_the_band() -> None:
    data, draws = GENERATOR.normal(4.0, 1.0, 200), torch.randn(50, 200)
    (ax,) = plots.predictive({"y": data}, {"y": draws}).axes
    within, used = (int(ax.get_title().split()[i]) for i in (0, 2))
    assert within < used / 2


def test_sites_have_their_panels_and_four_are_the_most() -> None:
    draws = torch.randn(10, 3)
    names = [f"y{i}" for i in range(6)]
    observed, predicted = (dict.fromkeys(names, values) for values in (draws[0], draws))
    figure = plots.predictive(observed, predicted)
    assert len(figure.axes) == 4 and "left out: y4, y5" in figure.get_suptitle()
    assert len(plots.predictive(observed, predicted, names=["y5"]).axes) == 1


@pytest.mark.parametrize(
    ("observed", "predicted", "names", "text"),
    [
        ({}, {"y": torch.zeros(3, 2)}, None, r"observed \(none\) and predicted \(y\)"),
        ({"y": [1.0]}, {"y": torch.zeros(3, 2)}, None, r"shape \(1,\) and predictions of shape"),
        ({"y": [1.0]}, {"y": torch.zeros(3, 1)}, ["x"], "no data of x; there are y"),
        ([1.0], {"y": torch.zeros(3, 1)}, None, "observed must be a dict of sites, .* got list"),
        ({"y": [1.0]}, torch.zeros(3, 1), None, "predicted must be a dict of sites, .* got Tensor"),
        ({"y": [np.nan]}, {"y": torch.zeros(3, 1)}, None, "'y' has no data"),
    ],
)
def test_what_cannot_be_drawn(observed, predicted, names, text) -> None:
    with pytest.raises(ValueError, match=text):
        plots.predictive(observed, predicted, names=names)
