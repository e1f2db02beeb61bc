"""N(1, 0.5²) from 10 000 draws: learned densities against the truth, and against the best Gaussian.

The Gaussian of highest likelihood is known in closed form: the mean and the sd of the sample. No
Gaussian can give the sample a higher likelihood, so here an optimiser can be held to account. What
flexible flows gain beyond it is noise that they have learned, and fresh draws take it back.

    python examples/gaussian_1d.py            # about half a minute; figures in out/gaussian_1d
    python examples/gaussian_1d.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from common import Example
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nfvi import NFVI, DensityFit, plots
from nfvi.density import Density
from nfvi.guides import Guide

SEED = 42
MEAN, SD = 1.0, 0.5
FORMULAS = ("scale-loc", "sinharcsinh", "maf", "spline(bins=8)")
SHOWN = "spline(bins=8)"
BOUND = 0.005
"""How far from the best Gaussian a fit may stay, nats a draw."""
GRID = torch.linspace(-2.5, 3.5, 601, dtype=torch.float64)


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("gaussian_1d", __doc__, argv)
    generator = torch.Generator().manual_seed(SEED)
    x = MEAN + SD * torch.randn(10_000, generator=generator, dtype=torch.float64)
    fresh = MEAN + SD * torch.randn(100_000, generator=generator, dtype=torch.float64)
    fit = table(example, x, fresh)
    example.heading("Before and after")
    raw = NFVI(SHOWN, seed=SEED).fit_data(
        x, standardize=False, progress=False, **example.fitting_data
    )
    print(f"{SHOWN} of columns as they are: {gap(raw, x, x):+.5f} nats a draw in-sample")
    example.save(before_and_after(x, fit, raw), "before-after")
    example.say(
        """Standardisation does the work where the data are Gaussian: the guide starts at their mean
        and sd. Without it the guide starts near N(0, 1), and gets within the same bound."""
    )


def table(example: Example, x: Tensor, fresh: Tensor) -> DensityFit:
    """Every formula beside the best Gaussian; returns the fit of the one that is shown."""
    example.heading("Negative log-likelihood, nats a draw")
    best_in, best_fresh = gaussian_nll(x, x), gaussian_nll(x, fresh)
    closed = x.std(correction=0).log().item() + 0.5 * math.log(2 * math.pi * math.e)
    print(f"log sd + log(2 pi e) / 2 with the sd of the sample: {closed:.5f}")
    print(f"{'':<20}{'10,000 draws it was fitted to':>31}{'100,000 fresh draws':>27}")
    print(f"{'best Gaussian':<20}{best_in:>20.5f}{'':>11}{best_fresh:>16.5f}")
    fits = {}
    for formula in FORMULAS:
        fit = NFVI(formula, seed=SEED).fit_data(x, progress=False, **example.fitting_data)
        within, outside = gap(fit, x, x), gap(fit, x, fresh)
        print(
            f"{formula:<20}{best_in + within:>20.5f}{within:>+11.5f}"
            f"{best_fresh + outside:>16.5f}{outside:>+11.5f}"
        )
        fits[formula] = fit
        if not example.quick and max(abs(within), abs(outside)) > BOUND:
            raise RuntimeError(f"{formula} is more than {BOUND} nats from the best Gaussian")
    count = sum(p.numel() for p in fits[SHOWN].guide.parameters())
    example.say(
        f"""{SHOWN} has {count} parameters, and the best Gaussian 2. By theory the other
        {count - 2} gain up to about {count - 2} / 2n = {(count - 2) / (2 * len(x)):.4f} nats on
        the draws that they were fitted to, and lose as much on fresh ones. The held-out tenth of
        the rows stops the fits, often before it has come to that."""
    )
    print(fits[SHOWN])
    return fits[SHOWN]


def gaussian_nll(x: Tensor, rows: Tensor) -> float:
    """Mean negative log-likelihood of rows under the Gaussian with the mean and sd of x."""
    sd = x.std(correction=0)
    nll = 0.5 * ((rows - x.mean()) / sd).square() + sd.log() + 0.5 * math.log(2 * math.pi)
    return nll.mean().item()


def gap(fit: DensityFit, x: Tensor, rows: Tensor) -> float:
    """How much the rows are less likely, nats each, than under the best Gaussian of x."""
    return -fit.score(rows) - gaussian_nll(x, rows)


def start_of(fit: DensityFit) -> Density:
    """The density that a fit started from: the guide of its seed, in the units of its data."""
    generator = torch.Generator().manual_seed(fit.seed)
    guide = Guide(fit.formula, fit.dim, generator=generator, dtype=fit.guide.dtype)
    return Density(guide, fit.standardization, fit.settings)


def before_and_after(x: Tensor, fit: DensityFit, raw: DensityFit) -> Figure:
    """Both fits before the first step and after the last, over a histogram of the draws."""
    figure = Figure(figsize=(10, 5.6), dpi=100, layout="constrained")
    above, below = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1.2))
    sides = zip(
        above, below, ("columns as they are", "standardised columns"), (raw, fit), strict=True
    )
    for upper, lower, name, each in sides:
        draw(upper, x, each)
        truth = torch.distributions.Normal(MEAN, SD).log_prob(GRID).exp()
        lower.axhline(0, color=plots.style.COLORS["exact"], lw=1, ls="--")
        lower.plot(GRID, density_of(each) - truth, color=plots.style.COLORS["left"], lw=1.5)
        lower.set(xlabel="x", ylim=(-0.06, 0.06))
        upper.set_title(f"{each.formula}, {name}")
        for ax in (upper, lower):
            plots.style.tidy(ax)
    above[0].set_ylabel("density")
    below[0].set_ylabel("learned − true")
    above[1].legend(frameon=False, fontsize=9)
    return figure


def draw(ax: Axes, x: Tensor, fit: DensityFit) -> None:
    """Draws, truth, start and end of a fit."""
    colors = plots.style.COLORS
    ax.hist(x, bins=80, density=True, color="0.88", label="10,000 draws")
    ax.plot(GRID, density_of(start_of(fit)), color=colors["right"], lw=1.5, label="before")
    ax.plot(GRID, density_of(fit), color=colors["left"], lw=2, label="after")
    truth = torch.distributions.Normal(MEAN, SD).log_prob(GRID).exp()
    ax.plot(GRID, truth, color=colors["exact"], lw=1.2, ls="--", label="N(1, 0.5²)")
    ax.set(xlim=(GRID[0].item(), GRID[-1].item()), ylim=(0, 1.0))


def density_of(fit: Density) -> Tensor:
    """The density on the grid."""
    with torch.no_grad():
        return fit.log_prob(GRID).exp()


if __name__ == "__main__":
    main()
