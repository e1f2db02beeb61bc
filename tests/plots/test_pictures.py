"""Pictures: what is drawn is what the data say, and Matplotlib's state stays as it was."""

from __future__ import annotations

import dataclasses
import importlib
import io
import math
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nfvi import NFVI, GradientTracker, Guide, LogDensity, compare, nuts, plots
from nfvi.fit import ClimbPath, Rung, WeightedDraws
from nfvi.fit.diagnostics import smoothed_weights
from nfvi.fit.verification import ScalarCheck, Verification
from nfvi.plots.grids import grid, window_of
from nfvi.plots.smoothing import running
from nfvi.plots.style import COLORS, listed

LOG_Z = math.log(2 * math.pi)
WINDOW = ((-5.0, 5.0), (-4.0, 4.0))


def log_p(z):
    return -0.5 * z.square().sum(-1)


def normal_draws(n, generator, dtype, device):
    return torch.randn(n, 2, generator=generator, dtype=dtype, device=device)


NORMAL = LogDensity(log_p, 2, name="normal", log_normalizer=LOG_Z, sampler=normal_draws)
BARE = LogDensity(log_p, 2, name="bare")
WIDE = LogDensity(log_p, 7, name="wide")


@pytest.fixture(scope="module")
def tracked():
    tracker = GradientTracker(every=2)
    fit = NFVI("planar*2-loc", seed=3).fit(
        NORMAL, steps=60, restarts=3, n_mc=32, callbacks=[tracker]
    )
    return fit, tracker


@pytest.fixture(scope="module")
def compared(tracked):
    run = nuts(NORMAL, draws=50, warmup=50, chains=2, seed=1, progress=False)
    return compare(tracked[0], run, draws=400, seed=1)


@pytest.fixture(scope="module")
def wide():
    fit = NFVI("scale-loc", seed=3).fit(WIDE, steps=20, restarts=1, n_mc=16)
    return compare(fit, fit, draws=300, seed=1)


@pytest.fixture(autouse=True)
def leaves_matplotlib_alone():
    before = dict(mpl.rcParams)
    figures = plt.get_fignums()
    yield
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == figures


def rendered(shown):
    figure = shown.get_figure(root=True) if isinstance(shown, Axes) else shown
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return len(buffer.getvalue())


def words(figure):
    return [t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text()]


def by_label(ax):
    return dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))


def test_a_picture_of_its_own_can_show_itself(tracked):
    fit, _ = tracked
    for shown in (plots.history(fit), plots.fitted(fit)):
        assert shown._repr_png_()[:4] == b"\x89PNG"
    given = plt.figure()
    try:
        ax = plots.history(fit, ax=given.subplots())
        assert not hasattr(ax, "_repr_png_")
    finally:
        plt.close(given)


# weights, rungs, verification


def weighted(shape, n=5_000):
    """Draws whose weights are Pareto with a given shape, and what PSIS says of them."""
    share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    log_ratio = -shape * share.log()
    log_weights, khat = smoothed_weights(log_ratio)
    zero = torch.zeros(n, dtype=torch.float64)
    return WeightedDraws(zero.unsqueeze(1), log_ratio, zero, log_weights, khat)


@pytest.mark.parametrize(("shape", "over"), [(0.3, False), (0.95, True)])
def test_weights_rise_over_the_limit_where_their_tail_is_too_heavy(shape, over):
    draws = weighted(shape)
    ax = plots.weights(draws)
    shown = by_label(ax)
    limit = shown["k = 0.7, the limit"].get_ydata()
    weights, tail = shown["weights"].get_ydata(), len(limit)
    assert draws.khat == pytest.approx(shape, abs=0.1)
    assert (weights[0] > limit[0]) == over
    assert weights[tail // 2] == pytest.approx(limit[tail // 2], rel=0.05)
    assert f"k = {draws.khat:.2f}, fitted" in shown and f"{draws.khat:.2f}" in ax.get_title()
    # Of Pareto weights x of shape k, over their mean 1/(1 − k).
    raw = (0.5 / 5_000) ** -shape, ((tail + 0.5) / 5_000) ** -shape
    mean = np.mean(((np.arange(5_000) + 0.5) / 5_000) ** -shape)
    assert weights[0] == pytest.approx((raw[0] - raw[1]) / mean)
    assert rendered(ax) > 1000


def test_weights_without_a_tail_or_too_few():
    equal = weighted(0.0)
    ax = plots.weights(equal)
    assert "there is no tail" in ax.get_title() and len(by_label(ax)) == 1
    with pytest.raises(ValueError, match="20 draws have a weight, and 25 are the least"):
        plots.weights(weighted(0.3, 20))


def rung(formula, elbo, khat, batches):
    return Rung(formula, elbo, 0.01, khat, 0.9, -1.0, 10, batches, 100, 1.0)


def test_rungs_stand_at_their_cost_and_the_kept_one_is_ringed():
    rungs = rung("loc", -2.0, 0.9, 10), rung("tril", -1.5, math.inf, 10), rung("maf", -1.1, 0.3, 90)
    figure = plots.path(ClimbPath(rungs, 2, "enough", 90, 900))
    upper, lower = figure.axes
    line, ring = (one.get_xydata().tolist() for one in upper.lines[:2])
    assert line == [[10, -2.0], [10, -1.5], [90, -1.1]] and ring == [[90, -1.1]]
    assert lower.lines[0].get_ydata().tolist() == [0.9, 3.0, 0.3]
    assert upper.get_ylim()[0] < -2.0 and upper.get_ylim()[1] > -1.0
    assert "1: loc   2: tril   3: maf (kept)" in words(figure)
    assert rendered(figure) > 1000


def test_verification_has_the_wrong_scalars_first_and_bold():
    fine = ScalarCheck("a", 1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 1.0)
    wrong = ScalarCheck("b", 3.0, 1.0, 1.0, 2.0, 0.9, 0.4, 1.0)
    ax = plots.verification(Verification((fine, wrong), 0.3, 100, 40, True, 0.9, 1))
    labels = ax.get_yticklabels()
    assert [label.get_text() for label in labels] == ["b", "a"]
    assert [label.get_fontweight() for label in labels] == ["bold", "normal"]
    guide, chains = (box.lines[0] for box in ax.containers)
    assert guide.get_xdata().tolist() == [1.0, 0.0] and chains.get_xdata().tolist() == [0.0, 0.0]
    (bars,) = ax.containers[0].lines[2]
    assert [np.ptp(bar[:, 0]) for bar in bars.get_segments()] == [1.0, 2.0]
    assert ax.get_title() == "1 of 2 scalars are proven wrong"
    assert rendered(ax) > 1000
    few = plots.verification(Verification((fine, wrong), 0.3, 100, 40, True, 0.9, 1), most=1)
    assert few.get_title().endswith("; 1 shown")
    with pytest.raises(ValueError, match="no scalar varies"):
        plots.verification(Verification((), 0.3, 100, 40, True, 0.9, 1))


# history


def test_running_mean_and_sd_are_those_of_the_window():
    values = np.random.default_rng(0).normal(size=(40, 2)) + 1e8
    values[[3, 4, 5, 20], 1] = [np.nan, np.inf, -np.inf, np.nan]
    mean, sd = running(values, 3)
    for i in range(40):
        for r in range(2):
            window = values[max(0, i - 2) : i + 1, r]
            window = window[np.isfinite(window)]
            assert np.isnan(mean[i, r]) == (len(window) == 0)
            if len(window):
                # Values of 1e8 in float64 hold the mean to 1e-7.
                np.testing.assert_allclose(mean[i, r], window.mean(), rtol=1e-14, atol=1e-7)
                np.testing.assert_allclose(sd[i, r], window.std(), atol=1e-6)


def test_history_shows_every_restart_and_marks_the_kept_one(tracked):
    fit, _ = tracked
    ax = plots.history(fit, smooth=1)
    best = next(r.index for r in fit.restarts if r.best)
    lines = [line for line in ax.lines if len(line.get_xdata()) == fit.steps]
    assert len(lines) == len(fit.restarts)
    kept = [line for line in lines if to_hex(line.get_color()) == COLORS["left"].lower()]
    assert len(kept) == 1
    np.testing.assert_allclose(kept[0].get_ydata(), fit.history.elbo[:, best].numpy(), rtol=1e-6)
    assert kept[0].get_label() == f"restart {best}, kept"
    np.testing.assert_array_equal(kept[0].get_xdata(), np.arange(1, fit.steps + 1))
    assert rendered(ax) > 1000


@pytest.mark.parametrize(("quantity", "sign"), [("elbo", 1), ("loss", -1)])
def test_history_has_log_z_and_the_end_of_the_fit_within_its_limits(tracked, quantity, sign):
    fit, _ = tracked
    ax = plots.history(fit, quantity=quantity, smooth=1)
    (line,) = [line for line in ax.lines if "log Z" in str(line.get_label())]
    assert line.get_ydata()[0] == sign * LOG_Z
    low, high = ax.get_ylim()
    best = next(r.index for r in fit.restarts if r.best)
    assert low < sign * LOG_Z < high
    assert low < float(getattr(fit.history, quantity)[-1, best]) < high
    assert "nats" in ax.get_ylabel()


def test_history_shades_the_tempered_steps(tracked):
    fit, _ = tracked
    ax = plots.history(fit)
    shade = by_label(ax)["β rises to 1 (restarts 0, 2)"]
    tempered = int((fit.history.beta < 1).any(1).sum())
    assert shade.get_extents().transformed(ax.transData.inverted()).x1 == pytest.approx(tempered)
    plain = NFVI("loc", seed=1).fit(BARE, steps=20, restarts=2, anneal=False)
    assert not [name for name in by_label(plots.history(plain)) if "β" in name]


def test_history_leaves_out_the_huge_values_of_the_first_steps(tracked):
    fit, _ = tracked
    before = plots.history(fit).get_ylim()
    original = fit.history._rows[0].clone()
    fit.history._rows[0] = torch.full_like(original, -1e9)
    try:
        after = plots.history(fit, smooth=1).get_ylim()
    finally:
        fit.history._rows[0] = original
    assert after[1] - after[0] < 10 * (before[1] - before[0])


def test_history_estimates_log_z_where_it_is_not_known():
    fit = NFVI("scale-loc", seed=1).fit(BARE, steps=50, restarts=1)
    ax = plots.history(fit)
    line = by_label(ax)["log Z by importance sampling"]
    assert line.get_ydata()[0] == fit.log_evidence


def test_history_of_a_file_without_its_target(tracked, tmp_path):
    fit, _ = tracked
    fit.save(tmp_path / "fit.safetensors")
    ax = plots.history(type(fit).load(tmp_path / "fit.safetensors"))
    assert ax.get_title() == "planar*2-loc on normal"
    assert not [name for name in by_label(ax) if "log Z" in name]


def test_history_refuses_what_it_cannot_draw(tracked):
    fit, _ = tracked
    with pytest.raises(ValueError, match="quantity must be one of elbo, loss, grad_norm"):
        plots.history(fit, quantity="kl")
    with pytest.raises(ValueError, match="smooth must be at least 1"):
        plots.history(fit, smooth=0)


@pytest.fixture(scope="module")
def to_data():
    x = np.random.default_rng(0).normal(size=(400, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]])
    return NFVI("tril", seed=1).fit_data(x, epochs=30, batch_size=60, lr=0.05), x


def test_history_of_a_fit_to_data_has_both_likelihoods_and_the_state_that_was_kept(to_data):
    fit, _ = to_data
    ax = plots.history(fit, smooth=1)
    shown = by_label(ax)
    steps, looks = np.arange(1, fit.steps + 1), fit.validation
    np.testing.assert_array_equal(shown["training rows"].get_xdata(), steps)
    np.testing.assert_allclose(
        shown["training rows"].get_ydata(), fit.history.log_likelihood[:, 0], rtol=1e-6
    )
    np.testing.assert_array_equal(shown["40 held-out rows"].get_xdata(), looks.steps)
    np.testing.assert_array_equal(shown["40 held-out rows"].get_ydata(), looks.log_likelihood)
    kept = shown[f"kept, after step {looks.best_step}"]
    assert kept.get_xydata().tolist() == [[looks.best_step, float(looks.log_likelihood.max())]]
    low, high = ax.get_ylim()
    assert low < fit.quality.held_out.mean < high
    assert ax.get_ylabel() == "log-likelihood (nats a row)"
    assert ax.get_title() == "tril on data"
    # A Gaussian again, so that its own best one is near.
    gaussian = shown["a Gaussian, on those"].get_ydata()[0]
    assert gaussian == fit.quality.held_out.gaussian
    assert rendered(ax) > 1000


def test_history_of_a_fit_to_data_is_smoothed_over_epochs(to_data):
    fit, _ = to_data
    # 360 rows in batches of 60 are 6 steps an epoch, and 1/50 of the 180 steps would be 3.
    assert "± sd of one step, over 6 steps" in by_label(plots.history(fit))


def test_history_of_a_fit_to_data_has_the_other_quantities(to_data):
    fit, _ = to_data
    loss = plots.history(fit, quantity="loss", smooth=1)
    looks = by_label(loss)["40 held-out rows"].get_ydata()
    np.testing.assert_array_equal(looks, -fit.validation.log_likelihood)
    low, high = loss.get_ylim()
    assert low < -fit.quality.held_out.mean < high
    lengths = plots.history(fit, quantity="grad_norm")
    assert lengths.get_yscale() == "log"
    assert by_label(lengths)[f"kept, after step {fit.validation.best_step}"].get_xdata()[
        0
    ] == pytest.approx(fit.validation.best_step)
    with pytest.raises(ValueError, match="quantity must be one of log_likelihood, loss, grad_norm"):
        plots.history(fit, quantity="elbo")
    with pytest.raises(ValueError, match="smooth must be at least 1"):
        plots.history(fit, smooth=0)


def test_history_of_a_fit_to_data_without_held_out_rows_or_from_a_file(to_data, tmp_path):
    fit, x = to_data
    fit.save(tmp_path / "fit.safetensors")
    again = plots.history(type(fit).load(tmp_path / "fit.safetensors"))
    assert set(by_label(again)) == set(by_label(plots.history(fit)))
    alone = NFVI("loc", seed=1).fit_data(x, epochs=2, validation=0)
    assert set(by_label(plots.history(alone))) == {"training rows"}
    assert rendered(plots.history(alone)) > 1000


def test_history_of_a_fit_to_data_passes_over_looks_that_are_not_finite(to_data):
    fit, _ = to_data
    before = plots.history(fit).get_ylim()
    original = fit.validation.log_likelihood[1].clone()
    fit.validation.log_likelihood[1] = -torch.inf
    try:
        after = plots.history(fit)
    finally:
        fit.validation.log_likelihood[1] = original
    assert np.isnan(by_label(after)["40 held-out rows"].get_ydata()[1])
    assert after.get_ylim() == pytest.approx(before)


def test_gradient_length_has_a_logarithmic_scale(tracked):
    assert plots.history(tracked[0], quantity="grad_norm").get_yscale() == "log"


# densities


@pytest.mark.parametrize("log_normalizer", [LOG_Z, None])
def test_levels_of_a_normal_are_those_of_the_closed_form(log_normalizer):
    # The region {p > c} of a standard normal in two dimensions has the mass 1 − 2πc.
    found = grid(log_p, ((-7.0, 7.0), (-7.0, 7.0)), log_normalizer=log_normalizer)
    masses = (0.9, 0.5, 0.25)
    expected = [(1 - m) / (2 * math.pi) for m in masses]
    # A cell of (14/239)² = 0.0034 holds 0.0005 of the mass where the density is 1/2π.
    np.testing.assert_allclose(found.levels(masses), expected, atol=5e-3 / (2 * math.pi))
    x, density = found.marginal(0)
    exact = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(density, exact, atol=1e-6)


def test_masses_that_the_window_cuts_are_left_out():
    # The square [−1, 1]² holds 0.683² = 0.466 of the mass.
    found = grid(log_p, ((-1.0, 1.0), (-1.0, 1.0)), log_normalizer=LOG_Z)
    assert len(found.levels((0.9, 0.5, 0.25))) == 1


def test_a_long_window_has_more_points_along_it():
    found = grid(log_p, ((-1.0, 1.0), (-9.0, 9.0)), log_normalizer=None)
    assert found.density.shape == (480, 160)


def test_the_window_comes_from_quantiles():
    draws = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    outlier = torch.tensor([[1e6, -1e6], [float("nan"), 0.0]])
    (left, right), (bottom, top) = window_of(torch.cat([draws, outlier]))
    # 2.33 is the 99 % quantile, and 12 % of twice that is added; its error is about 0.06.
    assert [-left, right, -bottom, top] == pytest.approx([2.33 * 1.24] * 4, abs=0.3)
    with pytest.raises(ValueError, match="no draw is finite"):
        window_of(torch.full((3, 2), float("nan")))


@pytest.mark.parametrize("log", [False, True])
def test_target_fills_the_window(log):
    ax = plots.target(NORMAL, window=WINDOW, log=log)
    assert (ax.get_xlim(), ax.get_ylim()) == WINDOW
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("z[0]", "z[1]", "normal")
    figure = ax.get_figure(root=True)
    assert len(figure.axes) == 1 + log
    if log:
        assert "nats" in figure.axes[1].get_ylabel()
    assert rendered(ax) > 1000


def test_overlaid_draws_are_where_they_are():
    draws = torch.tensor([[0.0, 0.0], [1.0, -1.0], [9.0, 0.0], [0.0, 9.0]])
    ax = plots.target(BARE, window=WINDOW, draws=draws)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), draws)
    assert any("50% outside" in text for text in words(ax))


@pytest.mark.parametrize("reach", [1.5, 2.0])
@pytest.mark.parametrize("given", [False, True])
def test_notes_below_panels_leave_room_for_titles(compared, reach, given):
    fig = Figure(figsize=(8.0, 5.2), layout="constrained") if given else None
    figure = plots.comparison(compared, window=((-reach, reach), (-reach, reach)), fig=fig)
    assert sum("outside" in text for text in words(figure)) == 2
    rendered(figure)
    height = figure.bbox.height
    upper = [ax for ax in figure.axes if ax.get_title()]
    assert len(upper) == 3
    assert all(ax.title.get_window_extent().y1 < height for ax in upper)
    floor = max(ax.get_window_extent().y1 for ax in figure.axes if ax not in upper)
    notes = [text.get_window_extent() for ax in upper for text in ax.texts]
    assert all(box.y0 > floor for box in notes)


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    ("reach", "promised"), [(5.0, "50, 75, 90, 99"), (2.0, "50, 75, 90"), (0.2, None)]
)
def test_a_caption_promises_only_what_is_seen(lines, reach, promised):
    ax = plots.target(NORMAL, window=((-reach, reach), (-reach, reach)), lines=lines)
    (caption,) = [text for text in words(ax) if "of the mass" in text]
    if promised is None:
        assert caption.startswith("the window holds less than ")
        return
    numbers = promised.replace(" 75,", "") if lines else f"25, {promised}"
    assert f": {numbers} % of the mass" in caption
    assert caption.endswith("the window cuts more") is (reach < 5)
    assert len(ax.collections[0].get_paths()) >= len(numbers.split(", "))


def test_the_mass_of_a_density_without_its_constant_is_that_in_the_window():
    ax = plots.target(BARE, window=((-1.0, 1.0), (-1.0, 1.0)))
    assert any(text.endswith("99 % of the mass in the window") for text in words(ax))


def test_lines_go_over_another_picture(tracked):
    fit, _ = tracked
    ax = plots.guide(fit, draws=100)
    before = len(ax.collections)
    assert plots.target(NORMAL, lines=True, ax=ax) is ax
    assert len(ax.collections) == before + 1
    assert ax.get_title() == "planar*2-loc"


def test_guide_takes_fits_and_guides(tracked):
    fit, _ = tracked
    axes = [plots.guide(shown, window=WINDOW) for shown in (fit, fit.guide)]
    assert [ax.get_title() for ax in axes] == ["planar*2-loc"] * 2


def test_a_target_needs_two_dimensions_and_a_window():
    with pytest.raises(ValueError, match="needs d = 2, got d = 7"):
        plots.target(WIDE)
    with pytest.raises(ValueError, match="pass window="):
        plots.target(BARE)
    with pytest.raises(ValueError, match="window must be"):
        plots.target(BARE, window=((1.0, -1.0), (0.0, 1.0)))
    with pytest.raises(ValueError, match="density is 0 everywhere"):
        plots.target(
            LogDensity(lambda z: log_p(z).where(z[:, 0] < 1, -torch.inf), 2, name="cut"),
            window=((2.0, 3.0), (0.0, 1.0)),
        )


def test_fitted_puts_target_and_guide_on_one_window(tracked):
    fit, _ = tracked
    figure = plots.fitted(fit)
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert (left.get_title(), right.get_title()) == ("normal, the target", "planar*2-loc")


# densities of data


def test_density_of_one_column_is_its_curve_over_the_data(to_data):
    _, x = to_data
    fit = NFVI("scale-loc", seed=1).fit_data(x[:, 0], epochs=2)
    ax = plots.density(fit, x[:, 0], window=(-9, 9))
    shown = by_label(ax)
    places, height = shown["scale-loc"].get_data()
    np.testing.assert_allclose(np.log(height), fit.score_samples(places), rtol=1e-5)
    bars = shown["400 rows"].get_data()
    inside = (np.abs(x[:, 0]) <= 9).mean()
    assert np.sum(bars.values * np.diff(bars.edges)) == pytest.approx(inside)
    assert (ax.get_xlim(), ax.get_xlabel(), ax.get_title()) == (
        (-9, 9),
        "x[0]",
        "scale-loc on data",
    )
    assert plots.density(fit, log=True).get_yscale() == "log"
    assert rendered(ax) > 1000


@pytest.mark.parametrize("lines", [False, True])
def test_density_of_two_columns_is_in_the_units_of_the_data(to_data, lines):
    fit, x = to_data
    ax = plots.density(fit, x, lines=lines)
    dots = next(c for c in ax.collections if len(c.get_offsets()) == len(x))
    np.testing.assert_allclose(dots.get_offsets(), x)
    # The central 98 % of normal columns, of sd 2 and 1.1, and 12 % more on each side.
    assert ax.get_xlim()[1] == pytest.approx(2 * 2.33 * 1.24, rel=0.2)
    assert ax.get_ylim()[1] == pytest.approx(1.118 * 2.33 * 1.24, rel=0.2)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x[0]", "x[1]")
    # 50 % of a normal in two dimensions is within √(2 log 2) of its middle.
    (levels,) = [c.levels for c in ax.collections if hasattr(c, "levels")]
    inside = np.exp(fit.score_samples(x)) > levels[2 if not lines else -1]
    assert inside.mean() == pytest.approx(0.5 if lines else 0.75, abs=0.1)
    assert rendered(ax) > 1000


def test_density_at_a_context(to_data):
    _, x = to_data
    fit = NFVI("scale-loc", seed=1).fit_data(x[:, :1], context=x[:, 1:], epochs=2)
    heights = [by_label(plots.density(fit, context=c, window=(-3, 3)))["scale-loc"].get_ydata()
               for c in (0.0, [2.0])]  # fmt: skip
    expected = fit.score_samples(np.linspace(-3, 3, 800), [2.0])
    np.testing.assert_allclose(np.log(heights[1]), expected, rtol=1e-4)
    assert not np.allclose(*heights)
    with pytest.raises(ValueError, match="at one context"):
        plots.density(fit, context=x[:, 1:])


def test_density_refuses_what_it_cannot_draw(to_data):
    fit, x = to_data
    with pytest.raises(ValueError, match="needs d = 1 or 2, got d = 3"):
        plots.density(NFVI("loc", seed=1).fit_data(np.random.default_rng(0).normal(size=(30, 3))))
    with pytest.raises(ValueError, match="window must be"):
        plots.density(fit, window=(0, 1))
    with pytest.raises(ValueError, match=r"window must be \(left, right\)"):
        plots.density(NFVI("loc", seed=1).fit_data(x[:, 0], epochs=1), window=(1, 0))
    with pytest.raises(ValueError, match="x has 1 columns"):
        plots.density(fit, x[:, :1])
    with pytest.raises(TypeError, match=r"plots\.density\(fit, x\)"):
        plots.guide(fit)


# starting


def test_starting_names_the_lines_that_the_window_shows():
    wider = LogDensity(lambda z: log_p(z / 2), 2, name="wider", log_normalizer=LOG_Z + math.log(4))
    ax = plots.starting(NFVI("scale-loc", seed=5), wider)
    assert any(text == "wider: 50 %" for text in words(ax))


def test_starting_is_the_start_of_the_first_restart():
    tracker = GradientTracker()
    nfvi = NFVI("planar*3", seed=5, jitter=0.5)
    nfvi.fit(NORMAL, steps=1, restarts=2, lr=1e-12, callbacks=[tracker])
    ax = plots.starting(nfvi, NORMAL, draws=50)
    guide = Guide("planar*3", 2, generator=torch.Generator().manual_seed(0))
    named = {name: value[0, 0] for name, value in tracker.parameters.items()}
    guide.load_state_dict({key: named[name] for key, name in guide.tracked_names().items()})
    base = guide.base_sample(50, generator=torch.Generator().manual_seed(0))
    dots = by_label(ax)
    np.testing.assert_allclose(dots["base"].get_offsets(), base)
    moved = guide.transform(base)[0].detach()
    # One step of Adam moves a parameter by lr at most.
    np.testing.assert_allclose(dots["guide"].get_offsets(), moved, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_starting_of_a_formula_in_any_dimension(dim):
    ax = plots.starting(NFVI("scale-loc", seed=1), dim=dim)
    assert set(by_label(ax)) == {"base", "guide"}
    assert ax.get_title() == "scale-loc before the first step"
    assert rendered(ax) > 1000


def test_starting_needs_one_dimension():
    with pytest.raises(ValueError, match="needs target= or dim="):
        plots.starting(NFVI("loc"))
    with pytest.raises(ValueError, match="the target has d = 2 and dim= has d = 3"):
        plots.starting(NFVI("loc"), NORMAL, dim=3)
    with pytest.raises(ValueError, match=r"dims\[1\] must be an integer from 0 to 6"):
        plots.starting(NFVI("loc"), WIDE, dims=(0, 7))


# gradients


def test_gradients_has_a_row_for_each_flow(tracked):
    _, tracker = tracked
    figure = plots.gradients(tracker, smooth=1)
    assert len(figure.axes) == 2 * (3 + 1)
    labels = [ax.get_ylabel() for ax in figure.axes[::2]]
    assert labels == ["planar 0", "planar 1", "loc 2", "gradient length"]
    best = tracker.best
    left, right = figure.axes[:2]
    assert len(left.lines) == 5
    np.testing.assert_allclose(left.lines[0].get_ydata(), tracker.parameters["u_0"][:, best, 0])
    np.testing.assert_array_equal(left.lines[0].get_xdata(), tracker.steps)
    drawn = [line.get_ydata() for line in right.lines]
    slope = tracker.gradients["u_0"][:, best, 0]
    assert any(len(y) == len(slope) and np.allclose(y, slope) for y in drawn)
    ratios = figure.axes[-1].lines
    for flow in range(3):
        np.testing.assert_allclose(
            ratios[flow].get_ydata(), tracker.flow_snr[:, best, flow], rtol=1e-5
        )
    assert rendered(figure) > 1000


def test_gradients_of_a_chosen_restart_and_flow(tracked):
    _, tracker = tracked
    figure = plots.gradients(tracker, restart=1, flows=[2])
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == ["loc 2", "gradient length"]
    shown = figure.axes[0].lines[0].get_ydata()
    (name,) = [name for name in tracker.parameters if name.endswith("_2")]
    np.testing.assert_allclose(shown, tracker.parameters[name][:, 1, 0])
    assert figure.get_suptitle() == "parameters and gradients; restart 1 of 3; 1 of 3 flows"


def test_gradients_of_many_flows_and_components_says_what_it_left_out():
    tracker = GradientTracker(every=1)
    target = LogDensity(log_p, 30)
    NFVI("hh*12", seed=1).fit(target, steps=4, restarts=1, n_mc=8, callbacks=[tracker])
    figure = plots.gradients(tracker)
    assert len(figure.axes) == 2 * (8 + 1)
    assert len(figure.axes[0].lines) == 12
    said = figure.get_suptitle()
    assert "8 of 12 flows" in said
    assert "12 of 30 components" in said


def test_gradients_refuses_what_is_not_there(tracked):
    _, tracker = tracked
    with pytest.raises(ValueError, match="two records or more, got 0"):
        plots.gradients(GradientTracker())
    with pytest.raises(ValueError, match="restart must be an integer from 0 to 2"):
        plots.gradients(tracker, restart=3)
    with pytest.raises(ValueError, match="flows must be an integer from 0 to 2"):
        plots.gradients(tracker, flows=[3])


# comparison


def test_comparison_in_two_dimensions_is_side_by_side(compared):
    figure = compared.plot()
    panels, marginals = figure.axes[:3], figure.axes[3:]
    titles = [ax.get_title() for ax in panels]
    assert titles == ["normal, the target", "NUTS, 100 draws", "planar*2-loc, 400 draws"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in panels}) == 1
    np.testing.assert_allclose(
        panels[1].collections[-1].get_offsets(), compared.right.draws, rtol=1e-6
    )
    np.testing.assert_allclose(
        panels[2].collections[-1].get_offsets(), compared.left.draws, rtol=1e-6
    )
    assert [ax.get_xlabel() for ax in marginals] == ["z[0]", "z[1]"]
    assert set(by_label(marginals[0])) == {"planar*2-loc", "NUTS", "target"}
    line = by_label(marginals[1])["target"]
    exact = np.exp(-(line.get_xdata() ** 2) / 2) / math.sqrt(2 * math.pi)
    # The window cuts 1 % at each end of the other coordinate at most.
    np.testing.assert_allclose(line.get_ydata(), exact, rtol=0.02)
    assert rendered(figure) > 1000


def test_a_long_window_stacks_the_panels(compared):
    figure = plots.comparison(compared, window=((-40.0, 40.0), (-4.0, 4.0)))
    boxes = [ax.get_position() for ax in figure.axes[:3]]
    assert boxes[0].y0 > boxes[1].y0 > boxes[2].y0


def test_histograms_hold_the_share_of_the_draws_in_the_limits(compared):
    figure = plots.comparison(compared, window=((0.0, 5.0), (-5.0, 5.0)))
    (stairs,) = [p for p in figure.axes[3].patches if p.get_label() == "planar*2-loc"]
    heights, edges, _ = stairs.get_data()
    share = float((compared.left.draws[:, 0] > 0).double().mean())
    assert heights @ np.diff(edges) == pytest.approx(share, abs=1e-6)


def test_pairs_shows_the_scalars_that_differ_most(wide):
    figure = plots.comparison(wide)
    gap = {r.name: max(abs(r.mean_difference), abs(r.sd_ratio - 1)) for r in wide.table}
    chosen = sorted(sorted(gap, key=gap.get)[-5:])
    assert len(figure.axes) == 25
    assert [ax.get_xlabel() for ax in figure.axes[-5:]] == chosen
    left_out = [name for name in gap if name not in chosen]
    assert figure.get_suptitle().endswith(
        f"5 of 7 scalars, those that differ most; left out: {', '.join(left_out)}"
    )
    labels = [
        t.get_text()
        for ax in figure.axes
        for t in (ax.get_legend().texts if ax.get_legend() else [])
    ]
    assert labels == ["scale-loc (1)", "scale-loc (2)"]
    assert rendered(figure) > 1000


def test_pairs_puts_both_sides_where_their_draws_are(wide):
    figure = plots.pairs(wide, names=["z[0]", "z[6]"])
    dots = figure.axes[2].collections[0]
    offsets = np.asarray(dots.get_offsets())
    blue = np.array([to_hex(c) == COLORS["left"].lower() for c in dots.get_facecolors()])
    for shown, side in ((offsets[blue], wide.left), (offsets[~blue], wide.right)):
        expected = np.array(sorted(side.draws[:, [0, 6]].tolist()))
        np.testing.assert_allclose(shown[np.lexsort(shown.T[::-1])], expected, rtol=1e-6)


def test_pairs_of_one_fit(tracked):
    figure = plots.pairs(tracked[0], names=["z[1]"], draws=100)
    (ax,) = figure.axes
    assert ax.get_xlabel() == "z[1]"
    assert figure.get_suptitle() == "normal: planar*2-loc\n1 of 2 scalars; left out: z[0]"


def test_pairs_marks_draws_that_diverged():
    run = nuts(WIDE, draws=20, warmup=4, chains=2, seed=1, progress=False)
    assert "diverged" not in plots.pairs(run).get_suptitle()
    diverging = torch.zeros(2, 20, dtype=torch.bool)
    diverging[1, [3, 5]] = True
    figure = plots.pairs(dataclasses.replace(run, diverging=diverging), names=["z[0]", "z[1]"])
    assert "2 of 40 draws diverged (crosses)" in figure.get_suptitle()
    crosses = figure.axes[2].collections[-1].get_offsets()
    np.testing.assert_allclose(crosses, run.draws[1, [3, 5], :2])


def test_pairs_names_what_there_is(wide):
    with pytest.raises(ValueError, match=r"no scalar tau; there are z\[0\], z\[1\]"):
        plots.pairs(wide, names=["tau"])
    with pytest.raises(ValueError, match="names= is empty"):
        plots.pairs(wide, names=[])
    with pytest.raises(ValueError, match="window= is for log-densities with d = 2"):
        plots.comparison(wide, window=WINDOW)


# house rules


def test_axes_and_figures_that_are_given_are_drawn_in(tracked, compared):
    fit, tracker = tracked
    ax = Figure().subplots()
    assert plots.history(fit, ax=ax) is ax
    left, right = Figure(layout="constrained", figsize=(16, 8)).subfigures(1, 2)
    assert plots.comparison(compared, fig=left) is left
    assert plots.gradients(tracker, fig=right) is right
    assert rendered(left.get_figure(root=True)) > 1000


def test_many_names_are_counted():
    assert listed(list("abc")) == "a, b, c"
    assert listed(list("abcdef"), most=2) == "a, b and 4 more"


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("nfvi.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError) as caught:
        importlib.import_module("nfvi.plots")
    assert str(caught.value) == "pictures need Matplotlib: pip install 'nfvi[plots]'"
