"""Formulas: three kinds of normal guide, where they start, and what each can reach.

The first part of PyMC3's notebook "Normalizing Flows Overview": the formulas of a mean-field, a
full-rank and a low-rank normal, on N(0, I) in 100 dimensions, with and without jitter. Then, what
the notebook does not show: where the three differ once the target is correlated.

    python examples/formulas.py            # a few minutes; figures in out/formulas
    python examples/formulas.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from common import Example
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from models.gaussian import Gaussian, make_gaussian
from nfvi import NFVI, Fit, Guide, plots

SEED = 42
DIM = 100
DUMMY = Gaussian(torch.zeros(DIM), torch.eye(DIM), name="N(0, I) in 100 dimensions")
FORMULAS = {
    "scale-loc": "mean field: a normal with independent coordinates",
    "scale-hh*100-loc": "full rank: as many reflections as dimensions reach every normal",
    "scale-hh*10-loc": "low rank: ten reflections turn the axes within ten directions",
}
JITTERS = (0.001, None, 0.5)
DRAWS = 120
CORRELATED = make_gaussian(20, condition=100.0, seed=SEED)
REFLECTIONS = (0, 2, 5, 10, 20)


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("formulas", __doc__, argv)
    sizes(example)
    starts(example)
    dummy(example)
    correlated(example)


def sizes(example: Example) -> None:
    """How many parameters each formula has."""
    example.heading("Three formulas on 100 dimensions")
    for formula, words in FORMULAS.items():
        guide = Guide(formula, DIM, generator=torch.Generator().manual_seed(SEED))
        parameters = sum(p.numel() for p in guide.parameters())
        print(f"{formula:<17}{len(guide.formula):>4} flows {parameters:>7,} parameters   {words}")
    example.say(
        """A formula is read from left to right: the first flow is applied to the base first.
        `scale` sets the standard deviations, each `hh` reflects, `loc` shifts. Reflections keep
        volumes, so that `scale` alone sets the scale."""
    )


def starts(example: Example) -> None:
    """The starting distribution of each formula, for three sizes of jitter."""
    example.heading("Where a fit starts")
    figure = Figure(figsize=(10, 10), dpi=100, layout="constrained")
    grid = figure.subplots(len(JITTERS), len(FORMULAS), sharex=True, sharey=True)
    for row, jitter in zip(grid, JITTERS, strict=True):
        for ax, formula in zip(row, FORMULAS, strict=True):
            start(ax, formula, jitter)
        row[0].set_ylabel(f"jitter={jitter}\nz[1]")
    for ax in grid[-1]:
        ax.set_xlabel("z[0]")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, markerscale=2)
    example.save(figure, "starting")
    example.say(
        """Two of the hundred coordinates; a line leads from each draw of the base to where the
        guide puts it. With jitter 0.001 scale and loc leave the draws where they are; so do
        reflections, of which every two that point the same way cancel. The default, None,
        leaves each flow its own jitter: 0.01 for scale and loc, and directions spread at random
        for hh. The draws move then, yet their distribution stays N(0, I), which is the same
        from all sides. Only with 0.5 do scales and centres differ from those of the base; that
        can free a fit from a start that is too symmetric, and is a detour elsewhere."""
    )


def start(ax: Axes, formula: str, jitter: float | None) -> None:
    """One panel: draws of the base, of the guide before the first step, and lines between them."""
    guide = Guide(formula, DIM, jitter=jitter, generator=torch.Generator().manual_seed(SEED))
    base = guide.base_sample(DRAWS, generator=torch.Generator().manual_seed(SEED))
    moved, _ = guide.transform(base)
    lines = torch.stack([base, moved.detach()], 1)[:, :, :2].numpy()
    ax.add_collection(LineCollection(lines, colors="0.6", linewidths=0.5, zorder=0))
    plots.starting(guide, draws=DRAWS, seed=SEED, ax=ax)
    ax.get_legend().remove()
    ax.set(title=formula, xlim=(-4, 4), ylim=(-4, 4), xlabel="", ylabel="")


def dummy(example: Example) -> None:
    """Fits to N(0, I), which every formula contains: KL must go to 0."""
    example.heading("Fits to N(0, I): what the optimiser leaves")
    for formula in FORMULAS:
        options = {"steps": 2000, "n_mc": 64, **example.fitting}
        fit = NFVI(formula, jitter=0.5, seed=SEED).fit(DUMMY, restarts=1, anneal=False, **options)
        print(
            f"{formula:<17} KL {kl(fit):9.6f} nats after {fit.steps} steps, {fit.wall_time:.0f} s"
        )
    example.say(
        """All three contain N(0, I), so that KL = log Z - ELBO, known exactly here, has to go to
        0. It does, to rounding, from a start of jitter 0.5: the path gradient loses its noise
        as the guide nears the target."""
    )


def correlated(example: Example) -> None:
    """KL by number of reflections on a correlated Gaussian."""
    example.heading("Where they differ: a correlated normal, 20 dimensions, condition number 100")
    floor = mean_field_kl(CORRELATED)
    print(f"closed form: no guide scale-loc can be closer than {floor:.3f} nats")
    reached = []
    for k in REFLECTIONS:
        formula = f"scale-hh*{k}-loc" if k else "scale-loc"
        # A normal has one mode: one restart and no tempering will do.
        fit = NFVI(formula, seed=SEED).fit(CORRELATED, restarts=1, anneal=False, **example.fitting)
        reached.append(kl(fit))
        print(
            f"{formula:<17} KL {reached[-1]:.3f} ± {fit.elbo_se:.3f} nats, k-hat {fit.khat:.2f},"
            f" {fit.wall_time:.0f} s"
        )
    figure = Figure(figsize=(6.5, 4), dpi=100, layout="constrained")
    ax = figure.subplots()
    ax.plot(REFLECTIONS, reached, "o-", color=plots.style.COLORS["left"], label="fitted")
    ax.axhline(floor, color="0.4", ls="--", lw=1, label="best scale-loc, in closed form")
    ax.set(xlabel="reflections k in scale-hh*k-loc", ylabel="KL(q ‖ p), nats", xticks=REFLECTIONS)
    ax.set_ylim(bottom=min(0.0, *reached))
    ax.set_title("A correlated normal, d = 20")
    ax.legend()
    example.save(figure, "reflections")
    example.say(
        """The mean-field guide stays where the closed form says, and each reflection takes some of
        the rest; with as many as there are dimensions nothing is left, and all importance
        weights are equal (k-hat -inf). k-hat tells where importance weights can mend a guide,
        not how far off it is: it is much the same for two reflections and for five."""
    )


def kl(fit: Fit) -> float:
    """KL(q ‖ p) = log Z − ELBO, nats."""
    return float(fit.target.log_normalizer) - fit.elbo


def mean_field_kl(target: Gaussian) -> float:
    """The least KL(q ‖ p) of a q with independent coordinates: ½ (Σ log Λ_ii − log det Λ), Λ = Σ⁻¹.

    Reference:
        Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 10.1.2.
    """
    precision = torch.linalg.inv(target.covariance)
    best = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    return best if math.isfinite(best) else float("nan")


if __name__ == "__main__":
    main()
