"""Anomalies as rows of low density: one column with a far cluster, and the exercise in two columns.

1-D: 99 % N(0, 1), 1 % N(10, 0.1²). 2-D: 50 000 rows, of which 0.1 % are from a second Gaussian.
Both densities are known, so that a score can be set beside the best there is, the likelihood ratio
of the two parts, and beside the exact density of all rows, which a perfect fit would learn.

    python examples/anomaly.py            # about a minute; figures in out/anomaly
    python examples/anomaly.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from common import Example
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest, multivariate_normal, norm
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor

from nfvi import NFVI, DensityFit, plots
from nfvi.assess import sliced_wasserstein

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Flags: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

SEED = 42
ALPHAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
ONE_COLUMN = ("scale-loc", "spline(bins=8)", "spline(bins=16, bound=8)")
FORMULA = "maf*3"
USUAL = multivariate_normal([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
STRANGE = multivariate_normal([1.5, -1.5], [[0.25, 0.0], [0.0, 0.25]])
"""Against the correlation, 4.7 sds of the usual rows away in its direction, and half as wide."""
ROWS, SHARE = 50_000, 0.001


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("anomaly", __doc__, argv)
    one_column(example)
    two_columns(example)


def one_column(example: Example) -> None:
    """99 % N(0, 1) and 1 % N(10, 0.1²): a better density is a worse score."""
    example.heading("One column: 99 % N(0, 1), 1 % N(10, 0.1²)")
    rng = np.random.default_rng(SEED)
    n, strange = 10_000, 100
    x = np.concatenate([rng.normal(size=n - strange), rng.normal(10, 0.1, strange)])
    anomaly = np.arange(n) >= n - strange
    exact = mixture(norm(0, 1).logpdf(x), norm(10, 0.1).logpdf(x), 0.01)
    fits = {
        formula: NFVI(formula, seed=SEED).fit_data(x, progress=False, **example.fitting_data)
        for formula in ONE_COLUMN
    }
    print(f"{'':<28}{'log-likelihood a row':>20}{'found at alpha = 1 %':>23}{'ROC AUC':>10}")
    scores = {formula: fit.score_samples(x) for formula, fit in fits.items()}
    for name, score in {**scores, "the exact density": exact}.items():
        found = found_by(-score, anomaly, [0.01])[0]
        print(f"{name:<28}{score.mean():>20.4f}{found:>23.0%}{auc(-score, anomaly)[0]:>10.4f}")
    best = fits[ONE_COLUMN[1]]
    flagged = best.score_samples(x) < best.anomaly_threshold(0.01)
    print(
        f"fit.anomaly_threshold(0.01) of {ONE_COLUMN[1]}: {best.anomaly_threshold(0.01):.2f};"
        f" {flagged.sum()} of {n:,} rows lie below, {(flagged & anomaly).sum()} of"
        f" {strange} anomalies among them"
    )
    example.save(picture_of_one(x, anomaly, fits), "one-column")
    example.say(
        """A low density means that a row has few like it. The hundred rows about 10 lie so close
        together that the exact density is as high there as 2.1 sds away from 0: the lowest 1 % are
        the tails of N(0, 1) and the rim of the cluster, and the closer a fit comes to the exact
        density, the fewer it finds. A coarse fit has no room for a second peak and finds them all.
        The knots of a spline start within 3 sds of the data, and the cluster is 7 away; bound=8
        puts knots there. Whoever looks for anomalies wants the density of usual rows: by a formula
        too simple for the others, or by training rows without them."""
    )


def two_columns(example: Example) -> None:
    """The exercise: fit, check, score, and compare."""
    example.heading("Two columns: 50 000 rows, 0.1 % from the second Gaussian")
    rng = np.random.default_rng(SEED)
    anomaly = rng.permutation(ROWS) < round(SHARE * ROWS)
    x = np.where(
        anomaly[:, None], STRANGE.rvs(ROWS, random_state=rng), USUAL.rvs(ROWS, random_state=rng)
    )
    print(f"usual rows: mean {USUAL.mean}, covariance {USUAL.cov.tolist()}")
    print(f"{anomaly.sum()} anomalies: mean {STRANGE.mean}, covariance {STRANGE.cov.tolist()}")
    train, test = x[:-5000], x[-5000:]
    fit = NFVI(FORMULA, seed=SEED).fit_data(train, progress=False, **example.fitting_data)
    plain = NFVI("scale-loc", seed=SEED).fit_data(train, progress=False, **example.fitting_data)
    print(fit)
    example.save(plots.history(fit), "history")
    usual, strange = USUAL.logpdf(x), STRANGE.logpdf(x)
    exact = mixture(usual, strange, SHARE)
    print(f"log-likelihood of the 5,000 other rows: {fit.score(test):.4f} nats a row,", end=" ")
    print(f"under the exact density {exact[-5000:].mean():.4f}")
    two_sample_tests(example, test, {FORMULA: fit, "scale-loc": plain})
    scores = {
        "exact likelihood ratio": strange - usual,
        "exact density": -exact,
        FORMULA: -fit.score_samples(x),
        **others(example, x),
    }
    compare(example, scores, anomaly)
    example.save(picture_of_two(x, anomaly, fit, scores), "two-columns")


def two_sample_tests(example: Example, rows: Array, fits: Mapping[str, DensityFit]) -> None:
    """Rows that no fit has seen against as many draws: does anything tell them apart?"""
    example.heading("Two-sample tests: 5 000 rows that the fit has not seen, and 5 000 draws of it")
    print(f"{'':<12}{'sliced Wasserstein distance':>28}{'p':>8}{'classifier: right':>21}{'p':>10}")
    for name, fit in fits.items():
        draws = np.asarray(fit.sample(len(rows), seed=SEED), dtype=np.float64)
        distance, p = permutation_test(rows, draws, 19 if example.quick else 199)
        right, p_right = classifier_test(rows, draws)
        print(f"{name:<12}{distance:>28.4f}{p:>8.3f}{right:>21.1%}{p_right:>10.2g}")
    example.say(
        """p is how often two sets from one density differ by as much. scale-loc knows of no
        correlation: the tests would see a fit that is wrong. They would not see the five
        anomalies among 5 000 rows being left out, which is why the score is checked below."""
    )


def permutation_test(x: Array, y: Array, permutations: int) -> tuple[float, float]:
    """Sliced Wasserstein distance of two sets (n, d), and the p of it among random halves."""
    both = torch.as_tensor(np.concatenate([x, y]))
    generator = torch.Generator().manual_seed(SEED)

    def distance(order: torch.Tensor) -> float:
        one, two = both[order].chunk(2)
        turns = torch.Generator().manual_seed(SEED)
        return sliced_wasserstein(one, two, directions=16, generator=turns)

    found = distance(torch.arange(len(both)))
    by_chance = [
        distance(torch.randperm(len(both), generator=generator)) for _ in range(permutations)
    ]
    return found, (1 + sum(d >= found for d in by_chance)) / (1 + permutations)


def classifier_test(x: Array, y: Array) -> tuple[float, float]:
    """How often boosted trees tell new rows of x from those of y, and the p of that.

    Reference:
        David Lopez-Paz and Maxime Oquab, "Revisiting classifier two-sample tests", 2017.
    """
    rows, side = np.concatenate([x, y]), np.repeat([0, 1], len(x))
    learn, test, known, truth = train_test_split(
        rows, side, test_size=0.5, stratify=side, random_state=SEED
    )
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=SEED).fit(learn, known)
    right = int((trees.predict(test) == truth).sum())
    return right / len(test), binomtest(right, len(test), 0.5, alternative="greater").pvalue


def others(example: Example, x: Array) -> dict[str, Array]:
    """Scores of scikit-learn's detectors, high for anomalies."""
    neighbours = (20,) if example.quick else (20, 200)
    forest = IsolationForest(random_state=SEED).fit(x)
    found = {"IsolationForest": -forest.score_samples(x)}
    for k in neighbours:
        local = LocalOutlierFactor(n_neighbors=k).fit(x)
        found[f"LocalOutlierFactor({k})"] = -local.negative_outlier_factor_
    return found


def compare(example: Example, scores: Mapping[str, Array], anomaly: Flags) -> None:
    """Fraction of the anomalies found when a fraction alpha of the rows is flagged, and ROC AUC."""
    example.heading("Fraction of the 50 anomalies found, by the fraction alpha of rows flagged")
    print(f"{'alpha':<24}" + "".join(f"{alpha:>8.1%}" for alpha in ALPHAS) + f"{'ROC AUC':>19}")
    for name, score in scores.items():
        found = "".join(f"{share:>8.0%}" for share in found_by(score, anomaly, ALPHAS))
        area, se = auc(score, anomaly)
        print(f"{name:<24}{found}{area:>10.4f} ± {se:.4f}")
    example.say(
        """The likelihood ratio needs to know what the anomalies are like. Without that nobody can
        rank rows by it, and a perfect fit would rank them as the exact density does. The flow does
        as well by ROC AUC, and better where few rows are flagged: it smooths over the low peak
        that the anomalies make, and that peak is what hides them. LocalOutlierFactor is blind to a
        cluster of more rows than the neighbours that it looks at, 20 by default; with 200, four
        times the anomalies there are, it ranks well. It is no density, and nothing says beforehand
        how many neighbours to take."""
    )


def mixture(usual: Array, strange: Array, share: float) -> Array:
    """The log-density of all rows from those of the two parts."""
    both: Array = np.logaddexp(np.log1p(-share) + usual, np.log(share) + strange)
    return both


def found_by(score: Array, anomaly: Flags, alphas: Sequence[float] | Array) -> Array:
    """Fractions of the anomalies among the fractions alpha of rows with the highest scores."""
    flagged = np.round(np.asarray(alphas) * len(score)).astype(int)
    found = np.cumsum(anomaly[np.argsort(-score)]) / anomaly.sum()
    shares: Array = found[np.maximum(flagged - 1, 0)]
    return shares


def auc(score: Array, anomaly: Flags) -> tuple[float, float]:
    """The probability that an anomaly scores above a usual row, and its standard error."""
    usual = np.sort(score[~anomaly])
    above = np.searchsorted(usual, score[anomaly], "left")
    ties = np.searchsorted(usual, score[anomaly], "right") - above
    places: Array = (above + ties / 2) / len(usual)
    return places.mean(), places.std(ddof=1) / np.sqrt(len(places))


def picture_of_one(x: Array, anomaly: Flags, fits: Mapping[str, DensityFit]) -> Figure:
    """Scores along x, and the anomalies found."""
    figure = Figure(figsize=(11, 4.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    grid = np.linspace(-5, 12, 1701)
    exact = [
        mixture(norm(0, 1).logpdf(places), norm(10, 0.1).logpdf(places), 0.01)
        for places in (grid, x)
    ]
    curves = {name: (fit.score_samples(grid), fit.score_samples(x)) for name, fit in fits.items()}
    lines = {"exact density": (exact[0], exact[1]), **curves}
    for (name, (along, score)), style in zip(lines.items(), styles(len(lines)), strict=True):
        left.plot(grid, along, label=name, **style)
        curve(right, name, -score, anomaly, style)
    colors = plots.style.COLORS
    for flags, color, name in ((~anomaly, "other", "usual rows"), (anomaly, "right", "anomalies")):
        left.plot(x[flags], np.full(flags.sum(), -14.5), "|", color=colors[color], ms=9, label=name)
    left.set(xlabel="x", ylabel="log-density (nats)", ylim=(-15.5, 0.5), xlim=(-5, 12))
    plots.style.tidy(left)
    plots.style.legend_below(left, 3)
    right.axvline(0.01, color="0.6", lw=0.8, zorder=0)
    finish(right)
    return figure


def picture_of_two(
    x: Array, anomaly: Flags, fit: DensityFit, scores: Mapping[str, Array]
) -> Figure:
    """Rows with the line below whose density 1 % of them lie, and the anomalies found."""
    figure = Figure(figsize=(11, 5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = plots.style.COLORS
    left.scatter(*x[~anomaly].T, s=2, color="0.75", lw=0, rasterized=True, label="usual rows")
    side = np.linspace(-4.8, 4.8, 240)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    height = fit.score_samples(points).reshape(len(side), -1)
    left.contour(
        side, side, height, [fit.anomaly_threshold(0.01)],
        colors=colors["left"], linewidths=1.5, linestyles="solid",
    )  # fmt: skip
    left.plot([], [], color=colors["left"], label=f"{FORMULA}: 1 % lie outside")
    left.scatter(*x[anomaly].T, s=14, color=colors["right"], lw=0, label="anomalies", zorder=3)
    left.set(xlabel="x[0]", ylabel="x[1]", aspect="equal", xlim=(-4.8, 4.8), ylim=(-4.8, 4.8))
    plots.style.tidy(left)
    left.legend(loc="upper left", frameon=False, fontsize=9)
    for (name, score), style in zip(scores.items(), styles(len(scores)), strict=True):
        curve(right, name, score, anomaly, style)
    finish(right)
    right.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def styles(n: int) -> list[dict[str, Any]]:
    """Black and broken for the first line; the second is broad, since others may cover it."""
    first: dict[str, Any] = {"color": plots.style.COLORS["exact"], "ls": "--", "lw": 1.5}
    widths = [3.0] + [1.6] * (n - 2)
    pairs = zip(plots.style.CYCLE, widths, strict=False)
    return [first, *({"color": color, "lw": width} for color, width in pairs)]


def curve(ax: Axes, name: str, score: Array, anomaly: Flags, style: dict[str, Any]) -> None:
    """The fraction found against alpha."""
    alphas = np.geomspace(1 / len(score), 1, 400)
    ax.plot(alphas, found_by(score, anomaly, alphas), label=name, **style)


def finish(ax: Axes) -> None:
    """Axes of fractions found."""
    ax.set(
        xscale="log", xlim=(3e-4, 1), ylim=(-0.02, 1.02),
        xlabel="fraction of rows flagged, α", ylabel="fraction of the anomalies found",
    )  # fmt: skip
    plots.style.tidy(ax)


if __name__ == "__main__":
    main()
