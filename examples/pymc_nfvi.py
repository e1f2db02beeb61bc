"""PyMC's NFVI, in the PyMC of today: PyMC3's notebook, and a hierarchical model with coordinates.

The notebook "Normalizing Flows Overview" of PyMC3 with its densities written for PyMC, by
pm.Potential: planar*2 on pot1 with its gradients tracked, planar*8, planar*10 on pot4, and PyMC's
NUTS beside them. Then eight schools, from a fit to what PyMC and ArviZ do with it.

    python examples/pymc_nfvi.py            # some minutes; figures in out/pymc_nfvi
    python examples/pymc_nfvi.py --quick    # half a minute, to see that it runs
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import torch
from common import Example
from matplotlib.figure import Figure

from models.potentials import mass_left
from models.potentials import pot1 as exact_pot1
from models.potentials import pot4 as exact_pot4
from nfvi import NFVI, Fit, GradientTracker, PyMCTarget, plots

SEED = 42
SCHOOLS = ["Choate", "Deerfield", "Andover", "Exeter", "Hotchkiss", "Lawrence", "Paul", "Mark"]
EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def pot1(z: Any) -> Any:
    """log p of two halves of a ring; the notebook's first potential."""
    ring = -0.5 * ((z.norm(2) - 2) / 0.4) ** 2
    return ring + pt.logaddexp(-0.5 * ((z[0] - 2) / 0.6) ** 2, -0.5 * ((z[0] + 2) / 0.6) ** 2)


def pot4(z: Any) -> Any:
    """log p of a wave that forks; the notebook's last one."""
    wave = pt.sin(2 * math.pi * z[0] / 4)
    fork = 3 * pt.sigmoid((z[0] - 1) / 0.3)
    upper = -0.5 * ((z[1] - wave) / 0.4) ** 2
    lower = -0.5 * ((z[1] - wave + fork) / 0.35) ** 2
    return pt.logaddexp(lower, upper) - 0.1 * abs(z[0])


def with_density(log_p: Callable[[Any], Any]) -> PyMCTarget:
    """A model whose density is ``log_p`` alone: a flat variable, and a potential."""
    with pm.Model(name=log_p.__name__) as model:
        z = pm.Flat("z", shape=2)
        pm.Potential("density", log_p(z))
    return PyMCTarget(model)


def compiling(example: Example) -> dict[str, Any]:
    """PyTensor's mode that compiles in no time, where little is to be run."""
    return {"compile_kwargs": {"mode": "FAST_COMPILE"}} if example.quick else {}


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("pymc_nfvi", __doc__, argv)
    target = with_density(pot1)
    gradients(example, target)
    ring = longer(example, target)
    beside_nuts(example, target, ring)
    wave(example)
    hierarchical(example)


def gradients(example: Example, target: PyMCTarget) -> None:
    """planar*2 with the gradients that its steps used."""
    example.heading("planar*2 on pot1, gradients tracked")
    tracker = GradientTracker(every=10)
    fit = NFVI("planar*2", seed=SEED).fit(
        target, callbacks=[tracker], progress=False, **example.fitting
    )
    found = exact_pot1.log_normalizer - fit.elbo
    print(f"KL(q || p) of planar*2: {found:.3f} nats; PyMC3's notebook: 0.99")
    example.save(plots.gradients(tracker), "planar2-gradients")


def longer(example: Example, target: PyMCTarget) -> Fit:
    """planar*8, which has both modes."""
    example.heading("planar*8 on pot1")
    fit = NFVI("planar*8", seed=SEED).fit(target, progress=False, **example.fitting)
    print(fit)
    found = exact_pot1.log_normalizer - fit.elbo
    print(f"KL(q || p) of planar*8: {found:.3f} nats; PyMC3's notebook: 0.10")
    example.save(plots.history(fit), "planar8-history")
    return fit


def beside_nuts(example: Example, target: PyMCTarget, fit: Fit) -> None:
    """PyMC's own NUTS on the same model, and the masses of the two modes."""
    example.heading("PyMC's NUTS beside it")
    count = {"draws": 20, "tune": 20} if example.quick else {"draws": 3000, "tune": 1000}
    options = {"chains": 2, "cores": 1, "progressbar": False, "random_seed": SEED}
    options |= compiling(example)
    with target.model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = pm.sample(initvals={"pot1::z": np.array([-2.0, 0.0])}, **count, **options)
    sampled = torch.from_numpy(trace["posterior"]["pot1::z"].values).flatten(0, 1)
    drawn = fit.sample(len(sampled), seed=SEED)["pot1::z"]
    print(
        f"mass left of 0: NUTS {mass_left(sampled):.3f}, planar*8 {mass_left(drawn):.3f};", end=""
    )
    print(" exact 0.500")
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    pairs = {"NUTS of PyMC": sampled, "planar*8": drawn}
    for ax, (name, z) in zip(
        figure.subplots(1, 2, sharex=True, sharey=True), pairs.items(), strict=True
    ):
        ax.scatter(*z.T, s=3, alpha=0.3, lw=0)
        ax.set(title=name, aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
    example.save(figure, "pot1")


def wave(example: Example) -> None:
    """planar*10 on pot4."""
    example.heading("planar*10 on pot4")
    fit = NFVI("planar*10", seed=SEED).fit(with_density(pot4), progress=False, **example.fitting)
    found = exact_pot4.log_normalizer - fit.elbo
    print(f"KL(q || p) of planar*10: {found:.3f} nats; PyMC3's notebook: 1.12")


def eight_schools() -> pm.Model:
    """The non-centred form, with the names of the schools."""
    with pm.Model(coords={"school": SCHOOLS}) as model:
        error = pm.Data("error", ERRORS, dims="school")
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        step = pm.Normal("step", dims="school")
        theta = pm.Deterministic("theta", mu + tau * step, dims="school")
        pm.Normal("effect", theta, error, observed=EFFECTS, dims="school")
    return model


def hierarchical(example: Example) -> None:
    """From a PyMC model to a fit, and back to PyMC and ArviZ."""
    example.heading("Eight schools, with coordinates")
    model = eight_schools()
    fit = NFVI("planar*8-scale-hh*10-loc", seed=SEED).fit(model, progress=False, **example.fitting)
    print(fit)
    data = fit.to_arviz(1000, seed=SEED)
    theta = data["posterior"]["theta"]
    for school in ("Choate", "Andover"):
        effect = theta.sel(school=school)
        print(f"effect of {school}: {float(effect.mean()):.1f} ± {float(effect.std()):.1f}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = pm.sample_posterior_predictive(
            data, model=model, progressbar=False, random_seed=SEED, **compiling(example)
        )
    new = predicted["posterior_predictive"]["effect"]
    print(f"posterior predictive draws of the effects: {dict(new.sizes)}")
    example.say(
        """Names, dimensions, coordinates and data are those of the model, so that whatever takes
        the draws of pm.sample takes these."""
    )


if __name__ == "__main__":
    main()
