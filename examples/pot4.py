"""pot4, a wave that forks: NUTS against planar*10, and both against exact draws.

The last part of PyMC3's notebook "Normalizing Flows Overview". With U as the notebook has it, z[0]
is Laplace(0, 10) and z[1] given z[0] a mixture of two normals, so that exact draws exist and
neither side has to serve as the truth.

    python examples/pot4.py            # a few minutes; figures in out/pot4
    python examples/pot4.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from common import Example
from matplotlib.figure import Figure
from torch import Tensor

from models.potentials import pot4
from nfvi import NFVI, Comparison, Fit, compare, nuts, plots

SEED = 42
FORMULA = "planar*10"
NOTEBOOK_KL = 1.12
"""KL(q ‖ p) that the notebook's planar*10 reaches, nats, from its loss and the exact log Z."""
WINDOW = ((-5.0, 5.0), (-5.0, 5.0))
ROLES = ("right", "left")


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("pot4", __doc__, argv)
    example.heading("The target")
    ax = plots.target(pot4, window=WINDOW, log=True)
    ax.set_title("pot4, as it is usually shown")
    example.save(ax, "target")
    exact = pot4.sample(100_000, generator=torch.Generator().manual_seed(SEED))
    outside = (exact.abs() > 5).any(1).double().mean().item()
    example.say(
        f"""{outside:.0%} of the mass of pot4 lies outside of this square: z[0] is Laplace(0, 10),
        and P(|z[0]| > 5) = exp(-1/2) = {math.exp(-0.5):.0%}."""
    )
    example.heading("NUTS: 2 chains, target_accept=0.9, as in the notebook")
    run = nuts(
        pot4, chains=2, target_accept=0.9, seed=SEED, progress=False, **example.sampling(3000, 1000)
    )
    print(run)
    example.heading(FORMULA)
    start = NFVI(FORMULA, seed=SEED)
    example.save(plots.starting(start, pot4, seed=SEED), "start")
    fit = start.fit(pot4, progress=False, **example.fitting)
    print(fit)
    found = pot4.log_normalizer - fit.elbo
    print(f"KL(q || p) of {FORMULA}: {found:.3f} nats; PyMC3's notebook: {NOTEBOOK_KL:.2f}")
    example.save(plots.history(fit), "history")
    example.heading("Both against exact draws")
    comparison = compare(fit, run, seed=SEED)
    print(comparison)
    example.save(comparison.plot(), "comparison")
    square(example, comparison)
    verdict(example, fit, comparison)


def square(example: Example, comparison: Comparison) -> None:
    """The notebook's picture: target, NUTS and the flow on [-5, 5]²."""
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    grid = torch.linspace(*WINDOW[0], 200)
    density = pot4.log_prob(torch.cartesian_prod(grid, grid)).exp().reshape(200, 200).T
    levels = torch.linspace(0.03, 1.0, 12) * density.max()
    axes[0].contourf(grid, grid, density, levels, cmap="Greys")
    axes[0].set_title("pot4")
    for ax, side, role in zip(axes[1:], (comparison.right, comparison.left), ROLES, strict=True):
        ax.scatter(*side.draws.T, s=3, alpha=0.3, lw=0, color=plots.style.COLORS[role])
        outside = (side.draws.abs() > 5).any(1).double().mean().item()
        ax.set_title(f"{side.label}, {outside:.0%} outside")
    for ax in axes:
        ax.set(xlim=WINDOW[0], ylim=WINDOW[1], aspect="equal", xlabel="z[0]")
    axes[0].set_ylabel("z[1]")
    example.save(figure, "square")


def verdict(example: Example, fit: Fit, comparison: Comparison) -> None:
    """Numbers that are known exactly, on each side."""
    example.heading("What either side gets wrong")
    sides = {side.label: side.draws for side in (comparison.right, comparison.left)}
    exact = (10 * math.sqrt(2), math.exp(-0.5), 7 / 15)
    print(f"{'':<12}{'sd of z[0]':>12}{'P(|z[0]| > 5)':>16}{'lower branch, z[0] > 2':>25}")
    for name, values in {"exact": exact, **{k: features(x) for k, x in sides.items()}}.items():
        print(f"{name:<12}{values[0]:>12.2f}{values[1]:>16.3f}{values[2]:>25.3f}")
    floor = comparison.distances.exact_floor
    print(f"sliced Wasserstein distance to exact draws, in sds; two exact sets: {floor:.3f}")
    to_left, to_right = comparison.distances.to_exact
    print(f"  NUTS {to_right:.3f}, {FORMULA} {to_left:.3f}")
    print(
        f"log Z by importance sampling from {FORMULA}: {fit.log_evidence:.3f} ±"
        f" {fit.log_evidence_se:.3f}; exact {pot4.log_normalizer:.3f}"
    )
    example.say(
        """Ten planar flows follow the wave for two periods or so, miss the fork, and leave out the
        rest: the reverse KL punishes a guide for mass where the target has none, and hardly for
        the converse. What a guide never visits is in none of its own numbers: the log Z of its
        importance weights falls short by far more than its error says. NUTS follows every bend,
        and on the usual square it looks perfect; but along a narrow, winding valley it moves
        slowly, its effective draws are few, and how far it got is chance. R-hat and ESS say so."""
    )


def features(draws: Tensor) -> tuple[float, float, float]:
    """sd of z[0], share of |z[0]| > 5, and of the lower branch where z[0] > 2, of draws (n, 2)."""
    z0, z1 = draws.double().unbind(1)
    right = z0 > 2
    below = z1 < torch.sin(0.5 * math.pi * z0) - 1.5
    lower = (right & below).double().sum() / right.double().sum()
    return z0.std().item(), (z0.abs() > 5).double().mean().item(), lower.item()


if __name__ == "__main__":
    main()
