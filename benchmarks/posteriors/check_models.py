"""Whether the Pyro models of posteriordb's posteriors have the density of the reference draws.

    python -m benchmarks.posteriors.check_models --posteriordb path/to/posterior_database
    ... --nuts                                              # an hour; without it, seconds

First two identities that hold for draws from p itself, with u the draws on unconstrained space and
whitened: E ∂_i log p(u) = 0 and E u_i ∂_i log p(u) = −1 for every i. A wrong prior, scale or
Jacobian breaks one of them. Each is printed as the largest |mean| over the coordinates in standard
errors; with 192 of them in all, one above 4 comes up once in 80 sets of draws.

Then, with ``--nuts``, the moments of NUTS, four chains of a thousand draws, against those of the
reference: the largest |difference| in standard errors that count the autocorrelation of both sides.
NUTS runs in coordinates whitened by the reference draws, which changes its speed alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import torch
from posteriordb import PosteriorDatabase
from torch import Tensor

from benchmarks.environment import describe_environment
from benchmarks.posteriors.metrics import posteriordb_reference
from benchmarks.progress import say, with_bar
from models.posteriordb import (
    POSTERIORS,
    Posterior,
    latent_sites,
    posteriordb_target,
    reference_draws,
    reference_scalars,
)
from nfvi import LogDensity, PyroTarget, nuts
from nfvi.mcmc import ess


def unconstrained_reference(posterior: Posterior, target: PyroTarget) -> Tensor:
    """The reference draws on unconstrained space, (n, d)."""
    scalars = {key: value.flatten() for key, value in reference_draws(posterior).items()}
    return target.unconstrain(latent_sites(posterior.name, scalars))


def identities(target: PyroTarget, u: Tensor) -> tuple[float, float]:
    """The largest z-scores of both identities over whitened coordinates of draws u (n, d)."""
    factor = torch.linalg.cholesky(torch.cov(u.T))
    white = torch.linalg.solve_triangular(factor, (u - u.mean(0)).T, upper=False).T
    score = torch.cat([_gradient(target, part) for part in u.split(500)]) @ factor
    return _largest(score), _largest(white * score + 1)


def _gradient(target: PyroTarget, u: Tensor) -> Tensor:
    u = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(u).sum(), u)
    return gradient


def _largest(terms: Tensor) -> float:
    """The largest |mean| of the columns of (n, d), in standard errors."""
    error = terms.std(0) / len(terms) ** 0.5
    return (terms.mean(0) / error).abs().max().item()


def compare_with_nuts(posterior: Posterior, target: PyroTarget, u: Tensor, seed: int) -> str:
    """One line on the moments of NUTS and of the reference."""
    mean, factor = u.mean(0), torch.linalg.cholesky(torch.cov(u.T))

    def whitened(w: Tensor) -> Tensor:
        return target.log_prob(mean + w @ factor.T)

    density = LogDensity(whitened, target.dim, name=posterior.name, batched=True)
    run = nuts(density, seed=seed, dtype=torch.float64, progress=False)
    z = mean + run.draws.double() @ factor.T
    sites = target.constrain(z.flatten(0, 1))
    chains = {name: value.unflatten(0, z.shape[:2]) for name, value in sites.items()}
    found, expected = reference_scalars(posterior.name, chains), reference_draws(posterior)
    bias = posteriordb_reference(posterior).bias(sites)
    return (
        f"max |z| of mean x {_distance(found, expected, 1):.2f}, of mean x²"
        f" {_distance(found, expected, 2):.2f}; worst b² {bias.worst:.5f}, average"
        f" {bias.average:.5f}; least ESS {ess(run.draws, 'bulk').min():.0f},"
        f" {int(run.diverging.sum())} divergences, {run.gradient_evaluations:,} gradients,"
        f" {run.wall_time:.0f} s"
    )


def _distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], power: int) -> float:
    """The largest distance of the means of x^power, in standard errors of both sides."""
    scores = []
    for key, reference in expected.items():
        (a, va), (b, vb) = _mean(found[key] ** power), _mean(reference**power)
        scores.append(abs(a - b) / (va + vb) ** 0.5)
    return max(scores)


def _mean(draws: Tensor) -> tuple[float, float]:
    """Mean of draws (chains, n), and the variance of that mean."""
    return draws.mean().item(), (draws.var() / ess(draws, "mean")).item()


def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posteriordb", required=True, help="folder of the database")
    parser.add_argument("--nuts", action="store_true", help="run NUTS as well")
    parser.add_argument("--only", nargs="*", default=list(POSTERIORS), help="names of posteriors")
    parser.add_argument("--seed", type=int, default=1, help="of NUTS (1)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_environment("posteriordb"), flush=True)
    database = PosteriorDatabase(options.posteriordb)
    for name in with_bar(options.only, "posteriors"):
        posterior = database.posterior(name)
        start = time.perf_counter()
        target = posteriordb_target(posterior)
        u = unconstrained_reference(posterior, target)
        score, stein = identities(target, u)
        say(
            f"{name} (d = {target.dim}, {target.batching}): max |z| of the score {score:.2f}, of"
            f" Stein's identity {stein:.2f}; {time.perf_counter() - start:.1f} s"
        )
        if options.nuts:
            say(f"  NUTS: {compare_with_nuts(posterior, target, u, options.seed)}")


if __name__ == "__main__":
    main()
