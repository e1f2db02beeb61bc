"""pot1 to pot4 by learned flows: exact KL, and pictures of all the mass.

log Z of all four is known, so that KL(q ‖ p) = log Z − ELBO has no unknown in it.

pot1 is a plain job for ``monotone*3``. The others are not what the usual square shows: with their
term 0.1 |z[0]| they hold z[0] ~ Laplace(0, 10) exactly, and z[1] given z[0] a normal, or two, about
sin(π z[0] / 2): about 25 periods where the mass is. The formula for them says just that:

- ``base="laplace"`` and ``scale``: z[0], tails and kink at 0 included, before any flow.
- ``features=fourier(8)``: the networks are given sines of z[0] of learned frequencies. A network of
  z[0] alone would have to bend once for every half-period.
- ``alternate=false``: of two ``monotone`` layers the second would go through the coordinates from
  last to first. As it is, both take z[0] first, like the target, and shape z[1] given z[0].

    python examples/potentials.py            # six to eight minutes; figures in out/potentials
    python examples/potentials.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from common import Example
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.potentials import mass_left, pot1, pot2, pot3, pot4
from nfvi import NFVI, Fit, plots
from nfvi.fit import elbo_of, evaluate
from nfvi.plots.grids import grid_of_guide, grid_of_target
from nfvi.targets import LogDensity

SEED = 42
DRAWS = 100_000
WAVES = "scale-monotone(features=fourier(8), alternate=false)*2"
FITS = {
    pot1: ("monotone*3", "normal"),
    pot2: (WAVES, "laplace"),
    pot3: (WAVES, "laplace"),
    pot4: (WAVES, "laplace"),
}
SQUARE = ((-5.0, 5.0), (-5.0, 5.0))
WHOLE = ((-50.0, 50.0), (-6.0, 3.0))


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("potentials", __doc__, argv)
    fits = {}
    for target, (formula, base) in FITS.items():
        example.heading(f"{target.name}: {formula}, base {base}")
        fit = NFVI(formula, base=base, seed=SEED).fit(target, progress=False, **example.fitting)
        print(fit)
        fits[target] = fit
    table(example, fits)
    example.save(squares(fits), "square")
    example.save(waves(fits), "whole")
    example.save(bent_grids(fits), "grids")
    example.say(
        """In the figure of the whole, shades are regions of 25 to 99 % of the mass: 61 % of that of
        pot2 to pot4 lies outside of the square, and the flows follow it there. The grids are lines
        of equal z in the base, 5 % of its mass apart, as the flows bend them."""
    )


def table(example: Example, fits: Mapping[LogDensity, Fit]) -> None:
    """The exact KL of each fit, and a feature of the target that is known exactly."""
    example.heading("KL(q || p) = log Z - ELBO, with log Z known and the ELBO from 100 000 draws")
    print(f"{'':<6}{'KL, nats':>21}{'k-hat':>8}{'seconds':>9}   share of the draws")
    for target, fit in fits.items():
        kl, se = exact_kl(target, fit)
        draws = fit.sample(DRAWS, seed=SEED)
        if target is pot1:
            words = f"left of 0: {mass_left(draws):.3f}, exactly 0.5"
        else:
            far = (draws[:, 0].abs() > 5).double().mean().item()
            words = f"|z[0]| > 5: {far:.3f}, exactly {math.exp(-0.5):.3f}"
        errors = f"{kl:>12.4f} ± {se:.4f}{fit.khat:>8.2f}{fit.wall_time:>9.0f}"
        print(f"{target.name:<6}{errors}   {words}")


def exact_kl(target: LogDensity, fit: Fit) -> tuple[float, float]:
    """log Z − ELBO and the standard error of the ELBO, nats, from fresh draws."""
    generator = torch.Generator().manual_seed(SEED)
    found = evaluate(fit.guide, target, DRAWS, generator, keep=0)
    elbo, se = elbo_of(found.log_p, found.log_q)
    return (target.log_normalizer or 0.0) - elbo, se


def squares(fits: Mapping[LogDensity, Fit]) -> Figure:
    """Target above and learned density below, on the usual square."""
    figure = Figure(figsize=(12, 6.8), dpi=100, layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    for (target, fit), (above, below) in zip(fits.items(), axes.T, strict=True):
        exact, learned = grid_of_target(target, SQUARE), grid_of_guide(fit.guide, SQUARE)
        levels = torch.linspace(0.03, 1.0, 12) * exact.density.max()
        above.contourf(exact.x, exact.y, exact.density, levels, cmap="Greys", extend="max")
        below.contourf(learned.x, learned.y, learned.density, levels, cmap="Blues", extend="max")
        above.set_title(target.name)
        below.set_title("learned")
        for ax in (above, below):
            ax.set(xlabel="z[0]", ylabel="z[1]", aspect="equal")
            ax.label_outer()
    return figure


def waves(fits: Mapping[LogDensity, Fit]) -> Figure:
    """Target above and learned density below, on all of pot2 to pot4 but 0.7 % of the mass."""
    figure = Figure(figsize=(12, 10), dpi=100, layout="constrained")
    axes = figure.subplots(6, 1, sharex=True, sharey=True)
    for i, target in enumerate((pot2, pot3, pot4)):
        plots.target(target, window=WHOLE, ax=axes[2 * i])
        plots.guide(fits[target], window=WHOLE, ax=axes[2 * i + 1])
    names = ("pot2", "learned", "pot3", "learned", "pot4", "learned")
    for ax, name in zip(axes, names, strict=True):
        ax.label_outer()
        for words in list(ax.texts):
            words.remove()
        ax.set_title("")
        ax.text(0.01, 0.06, name, transform=ax.transAxes)
    return figure


def bent_grids(fits: Mapping[LogDensity, Fit]) -> Figure:
    """Where the flows take a grid of the base."""
    figure = Figure(figsize=(12, 3.8), dpi=100, layout="constrained")
    axes = figure.subplots(1, 4, sharex=True, sharey=True)
    for ax, (target, fit) in zip(axes, fits.items(), strict=True):
        draw_grid(ax, fit)
        ax.set(
            xlim=SQUARE[0], ylim=SQUARE[1], aspect="equal", title=target.name,
            xlabel="z[0]", ylabel="z[1]",
        )  # fmt: skip
        ax.label_outer()
    return figure


def draw_grid(ax: Axes, fit: Fit) -> None:
    """Lines of equal z[0] and of equal z[1] in the base, 5 % of its mass apart."""
    generator = torch.Generator().manual_seed(SEED)
    base = fit.guide.base_sample(DRAWS, generator=generator)[:, 0]
    places = torch.quantile(base, torch.linspace(0.025, 0.975, 20).to(base))
    along = torch.linspace(base.min().item(), base.max().item(), 4000).to(base)
    for i, color in enumerate((plots.style.COLORS["left"], plots.style.COLORS["right"])):
        for place in places:
            line = torch.stack([torch.full_like(along, place.item()), along], dim=-1)
            with torch.no_grad():
                moved, _ = fit.guide.transform(line if i == 0 else line.flip(-1))
            ax.plot(*moved.T, color=color, lw=0.7)


if __name__ == "__main__":
    main()
