"""Eight schools, a Pyro model: centred and non-centred, sites by name, ArviZ, against NUTS.

The same posterior in two coordinate systems. The centred form has a funnel between tau and the
effects of the schools; in the non-centred form the coordinates are nearly independent. The log
evidence, -31.31135, is known by quadrature, so that KL = log Z - ELBO is known too.

    python examples/eight_schools.py            # ten minutes or so; figures in out/eight_schools
    python examples/eight_schools.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from common import Example
from matplotlib.figure import Figure

from models.eight_schools import LOG_EVIDENCE, eight_schools, eight_schools_noncentered
from nfvi import NFVI, Fit, MCMCRun, compare, nuts, plots

SEED = 42
FORMULA = "scale-hh*10-loc"
RICHER = "planar*8-scale-hh*10-loc"


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("eight_schools", __doc__, argv)
    centred = fitted(example, eight_schools, FORMULA)
    noncentred = fitted(example, eight_schools_noncentered, FORMULA)
    richer = fitted(example, eight_schools_noncentered, RICHER)
    gaps(example, [centred, noncentred, richer])
    by_name(example, richer)
    run = against_nuts(example, richer)
    taus(example, centred, richer, run)


def fitted(example: Example, model: Callable[..., None], formula: str) -> Fit:
    """A fit of a model that is written down in models/eight_schools.py."""
    example.heading(f"{formula} on {model.__name__}")
    fit = NFVI(formula, seed=SEED).fit(model, progress=False, **example.fitting)
    print(fit)
    return fit


def gaps(example: Example, fits: Sequence[Fit]) -> None:
    """KL of each fit."""
    example.heading("How far each is from the posterior")
    for fit in fits:
        name = f"{fit.formula} on {fit.target.name}"
        print(f"{name:<54} KL {LOG_EVIDENCE - fit.elbo:.3f} nats, k-hat {fit.khat:.2f}")
    example.say(
        """The model is the same and so is the formula: what changes is the coordinates. A normal
        guide cannot follow the funnel of the centred form, where the spread of the eight
        effects depends on tau; write a hierarchical model in the non-centred form first, and
        take a richer formula next."""
    )


def by_name(example: Example, fit: Fit) -> None:
    """Draws and summaries by site, and the way to ArviZ."""
    example.heading("Sites by name")
    draws = fit.sample(1000, seed=SEED)
    for name, value in draws.items():
        print(f"fit.sample(1000)[{name!r}]: {tuple(value.shape)}, from {value.min().item():.2f} up")
    print(f"\n{fit.summary()}")
    with warnings.catch_warnings():
        # ArviZ 0.23 announces its next version at import.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    data = fit.to_arviz(2000, seed=SEED)
    print("\naz.summary(fit.to_arviz(2000), var_names=['mu', 'tau'], kind='stats')")
    print(az.summary(data, var_names=["mu", "tau"], kind="stats"))
    example.say(
        """tau is positive in every draw: the guide lives on unconstrained space, and sites come
        back through the transforms of their supports, with theta computed from mu, tau and eta."""
    )


def against_nuts(example: Example, fit: Fit) -> MCMCRun:
    """The non-centred fit beside NUTS."""
    example.heading("Against NUTS")
    run = nuts(
        eight_schools_noncentered, chains=4, seed=SEED, progress=False, **example.sampling(500, 500)
    )
    print(run)
    comparison = compare(fit, run, seed=SEED)
    print(f"\n{comparison}")
    example.save(plots.comparison(comparison, names=["mu", "tau", "theta[0]"]), "nuts")
    return run


def taus(example: Example, centred: Fit, richer: Fit, run: MCMCRun) -> None:
    """The marginal of tau in all of them, the place where the centred fit goes wrong."""
    example.heading("tau, where the forms differ")
    sides = {
        "NUTS, non-centred": run.sample()["tau"],
        f"{richer.formula}, non-centred": richer.sample(20_000, seed=SEED)["tau"],
        f"{centred.formula}, centred": centred.sample(20_000, seed=SEED)["tau"],
    }
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    ax = figure.subplots()
    colors = [plots.style.COLORS[role] for role in ("right", "left", "other")]
    for color, (name, tau) in zip(colors, sides.items(), strict=True):
        share = (tau < 1).double().mean().item()
        print(f"{name:<40} mean {tau.double().mean():.2f}, P(tau < 1) {share:.3f}")
        ax.hist(
            tau.numpy(), bins=45, range=(0, 15), density=True, histtype="step",
            color=color, lw=1.6, label=name,
        )  # fmt: skip
    ax.set(xlabel="tau (a few draws are over 15)", ylabel="density", xlim=(0, 15))
    ax.legend()
    example.save(figure, "tau")
    example.say(
        """Small tau is the neck of the funnel, where the eight effects are squeezed together. The
        normal guide of the centred form stays out of it, and out of the far tail: it gives tau
        a narrow bump. Its draws look no worse for it; its k-hat tells."""
    )


if __name__ == "__main__":
    main()
