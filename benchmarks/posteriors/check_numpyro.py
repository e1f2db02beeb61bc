"""Whether the NumPyro models have the densities of the Pyro models, up to a constant.

    python -m benchmarks.posteriors.check_numpyro \\
        --posteriordb path/to/posterior_database numpyro.json

At the reference draws whose log-densities ``numpyro_nuts.py`` wrote down: how far the differences
lie apart, which should be rounding.
"""

from __future__ import annotations

import argparse

import pyro
from posteriordb import PosteriorDatabase

from benchmarks.posteriors.store import read_rows
from models.posteriordb import POSTERIORS, Posterior, latent_sites, reference_draws

TOLERANCE = 1e-6


def pyro_log_densities(posterior: Posterior, n: int) -> list[float]:
    """log p of the Pyro model at the first n draws of the reference, on the constrained scale."""
    entry = POSTERIORS[posterior.name]
    scalars = {key: value.flatten()[:n] for key, value in reference_draws(posterior).items()}
    sites = latent_sites(posterior.name, scalars)
    arguments = entry.arguments(posterior.data.values())
    found = []
    for i in range(n):
        point = {name: value[i] for name, value in sites.items()}
        conditioned = pyro.poutine.trace(pyro.condition(entry.model, data=point))
        found.append(conditioned.get_trace(**arguments).log_prob_sum().item())
    return found


def main() -> None:
    """One line a posterior; an error if one is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posteriordb", required=True, help="folder of the database")
    parser.add_argument("rows", help="file of numpyro_nuts.py")
    options = parser.parse_args()
    database, worst = PosteriorDatabase(options.posteriordb), 0.0
    for row in read_rows(options.rows):
        there = row["log_densities"]
        here = pyro_log_densities(database.posterior(row["target"]), len(there))
        differences = [a - b for a, b in zip(here, there, strict=True)]
        spread = max(differences) - min(differences)
        worst = max(worst, spread)
        print(f"{row['target']}: spread {spread:.1e}, constant {differences[0]:.6f}")
    if worst > TOLERANCE:
        raise SystemExit(f"a NumPyro model has another density: off by {worst:.1e} nats")


if __name__ == "__main__":
    main()
