"""The numbers of the README on pot1, pot4 and Gaussians, and what a step costs.

    python -m benchmarks.potentials             # everything; about 15 minutes on 2 cores
    python -m benchmarks.potentials --seeds 3   # a quick look

Every fit uses the default settings of NFVI; only the seed changes. KL is exact up to Monte-Carlo
error: log Z − ELBO with log Z known and the ELBO from 100 000 draws.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.environment import describe_environment
from benchmarks.progress import say, with_bar
from models.gaussian import Gaussian, make_gaussian
from models.potentials import mass_left, pot1, pot4
from nfvi import NFVI, Fit
from nfvi.fit import elbo_of, evaluate
from nfvi.guides import Guide
from nfvi.training import Plan, build_trainer

DRAWS = 100_000


def exact_kl(fit: Fit) -> tuple[float, float]:
    """log Z − ELBO and the standard error of the ELBO, from 100 000 fresh draws; nats."""
    generator = torch.Generator().manual_seed(12345)
    if fit.target is None or fit.target.log_normalizer is None:
        raise ValueError("exact KL needs a target with a known log_normalizer")
    found = evaluate(fit.guide, fit.target, DRAWS, generator, keep=0)
    elbo, se = elbo_of(found.log_p, found.log_q)
    return fit.target.log_normalizer - elbo, se


def potential(target: Any, formula: str, seeds: int, base: str = "normal") -> None:
    """Exact KL, mass left of 0 and wall time of default fits."""
    kls, masses, seconds = [], [], []
    for seed in with_bar(range(seeds), f"{target.name} {formula}", name="seed {}".format):
        fit = NFVI(formula, base=base, seed=seed).fit(target, progress=False)
        kl, se = exact_kl(fit)
        kls.append(kl)
        masses.append(float(mass_left(fit.guide.sample(DRAWS))))
        seconds.append(fit.wall_time)
        say(
            f"  {target.name} {formula} seed {seed:2d}: KL {kl:.4f} ± {se:.4f},"
            f" mass left {masses[-1]:.3f}, {fit.wall_time:.1f} s"
        )
    print(
        f"{target.name} {formula}: exact KL median {statistics.median(kls):.4f}"
        f" (lowest {min(kls):.4f}, highest {max(kls):.4f}) nats; mass left of 0 from"
        f" {min(masses):.3f} to {max(masses):.3f}; wall time median"
        f" {statistics.median(seconds):.1f} s; {seeds} seeds",
        flush=True,
    )


def diagonal_gaussian() -> None:
    """Moments of scale-loc on a Gaussian with known means and sds."""
    mean = torch.tensor([-3.0, 0.0, 0.5, 2.0, 10.0], dtype=torch.float64)
    sd = torch.tensor([0.1, 1.0, 2.0, 0.5, 5.0], dtype=torch.float64)
    fit = NFVI("scale-loc", seed=0).fit(Gaussian(mean, torch.diag(sd**2)), progress=False)
    # A guide scale-loc is N(f(0), diag((f(1) − f(0))²)): no Monte Carlo is needed.
    x = fit.guide.transform(torch.stack([torch.zeros(5), torch.ones(5)]).to(fit.guide.dtype))[0]
    found_mean, found_sd = x[0].double(), (x[1] - x[0]).double()
    print(
        "scale-loc on a 5-d Gaussian: means off by at most"
        f" {float(((found_mean - mean) / sd).abs().max()):.1e} sd, sds by at most"
        f" {float((found_sd / sd - 1).abs().max()):.1e}; {fit.wall_time:.1f} s",
        flush=True,
    )


def correlated_gaussian(seeds: int) -> None:
    """ELBO gap of scale-hh*20-loc on a 20-d Gaussian of condition number 100."""
    gaps = []
    for seed in with_bar(range(seeds), "20-d Gaussian scale-hh*20-loc", name="seed {}".format):
        target = make_gaussian(20, condition=100.0, seed=seed)
        fit = NFVI("scale-hh*20-loc", seed=seed).fit(target, progress=False)
        gaps.append(exact_kl(fit)[0])
    print(
        f"scale-hh*20-loc on a 20-d Gaussian, condition 100: log Z − ELBO median"
        f" {statistics.median(gaps):.4f}, highest {max(gaps):.4f} nats; {fit.wall_time:.1f} s;"
        f" {seeds} seeds",
        flush=True,
    )


def step_costs() -> None:
    """What a step of planar*8 costs: one restart, eight restarts, and Pyro."""
    one, eight = _stepper(1, "total"), _stepper(8, "total")
    one_path, eight_path = _stepper(1, "path"), _stepper(8, "path")
    pyro_step = _pyro_stepper()
    times = alternate([one, eight, one_path, eight_path, pyro_step])
    ms = [1e3 * t for t in times]
    print(f"a step of planar*8, d = 2, n_mc = 100, total gradient, one restart: {ms[0]:.2f} ms")
    print(f"  8 restarts: {ms[1]:.2f} ms, {ms[1] / ms[0]:.2f} × one")
    print(f"  path gradient: {ms[2]:.2f} ms; 8 restarts {ms[3]:.2f} ms, {ms[3] / ms[2]:.2f} × one")
    print(
        f"  Pyro AutoNormalizingFlow (8 planar), SVI with 100 vectorised particles: {ms[4]:.2f} ms;"
        f" nfvi takes {ms[0] / ms[4]:.3f} of that",
        flush=True,
    )


def alternate(steppers: list[Callable[[], None]], rounds: int = 30, steps: int = 10) -> list[float]:
    """Median seconds a step of each, in turns, so that a noisy machine is noisy for all."""
    for step in steppers:
        for _ in range(steps):
            step()
    seconds: list[list[float]] = [[] for _ in steppers]
    for _ in range(rounds):
        for step, taken in zip(steppers, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(steps):
                step()
            taken.append((time.perf_counter() - start) / steps)
    return [statistics.median(taken) for taken in seconds]


def _stepper(restarts: int, gradient: Any) -> Callable[[], None]:
    plan = Plan(steps=10**6, n_mc=100, lengths=(0,) * restarts, gradient=gradient, lr=None, seed=0)
    trainer = build_trainer(
        lambda generator: Guide("planar*8", 2, generator=generator), pot1, plan, None, {}
    )
    return lambda: trainer._one_step(0)


def _pyro_stepper() -> Callable[[], None]:
    import pyro
    from pyro import distributions as dist
    from pyro.distributions.transforms import iterated, planar
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormalizingFlow

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(False))
        pyro.factor("potential", pot1.log_prob(z.reshape(-1, 2)).reshape(z.shape[:-1]))

    guide = AutoNormalizingFlow(model, lambda dim: iterated(8, planar, dim))
    loss = Trace_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss)

    def step() -> None:
        svi.step()

    return step


def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="fits of pot1 planar*8 (20)")
    parser.add_argument("--only", choices=["pot1", "reports", "gaussians", "steps"])
    options = parser.parse_args()
    print(describe_environment(), flush=True)
    few = min(options.seeds, 5)
    if options.only in (None, "steps"):
        step_costs()
    if options.only in (None, "gaussians"):
        diagonal_gaussian()
        correlated_gaussian(min(few, 3))
    if options.only in (None, "reports"):
        potential(pot1, "planar*2", few)
        potential(pot4, "planar*10", few)
    if options.only in (None, "pot1"):
        potential(pot1, "planar*8", options.seeds)


if __name__ == "__main__":
    main()
