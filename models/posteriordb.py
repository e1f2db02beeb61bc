"""Posteriors of posteriordb as targets: which model, which data, and what the reference calls them.

posteriordb has posteriors with data and with reference draws that have been checked. Its models are
written in Stan; here the same densities are Pyro models, and the data come from a copy of the
database, through the ``posteriordb`` package::

    from posteriordb import PosteriorDatabase

    posterior = PosteriorDatabase(path).posterior("kidiq-kidscore_momhsiq")
    fit = NFVI("scale-loc").fit(posteriordb_target(posterior))

Reference:
    Måns Magnusson, Jakob Torgander, Paul-Christian Bürkner, Lu Zhang, Bob Carpenter and Aki
    Vehtari, "posteriordb: Testing, Benchmarking and Developing Bayesian Inference Algorithms",
    2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from models.arma import arma11
from models.autoregression import autoregression
from models.eight_schools import eight_schools, eight_schools_noncentered
from models.gaussian_process import gp_regression
from models.posteriordb_data import (
    Arguments,
    arma_data,
    autoregression_data,
    diamonds_data,
    earnings_data,
    eight_schools_data,
    gp_data,
    kidscore_data,
    kilpisjarvi_data,
    mesquite_data,
    nes_data,
    regression_data,
)
from models.regressions import (
    centered_regression,
    flat_regression,
    half_cauchy_regression,
    line_regression,
    normal_regression,
)
from nfvi.errors import TargetError
from nfvi.targets import PyroTarget

__all__ = [
    "POSTERIORS",
    "Entry",
    "latent_sites",
    "posteriordb_target",
    "reference_draws",
    "reference_scalars",
]


class Dataset(Protocol):
    """The data of a posterior, as the posteriordb package has them."""

    def values(self) -> dict[str, Any]:
        """Numbers and lists by name."""


class Posterior(Protocol):
    """What is used of ``posteriordb.posterior.Posterior``."""

    name: str
    data: Dataset

    def reference_draws(self) -> list[dict[str, list[float]]]:
        """For each chain, the draws of each scalar."""


Sites = dict[str, Tensor]


def _as_they_are(sites: Sites) -> Sites:
    return sites


def _recover_eta(sites: Sites) -> Sites:
    """The reference has θ = μ + τ η and not η."""
    theta, mu, tau = sites["theta"], sites["mu"], sites["tau"]
    return {"mu": mu, "tau": tau, "eta": (theta - mu.unsqueeze(-1)) / tau.unsqueeze(-1)}


class Entry(NamedTuple):
    """How a posterior of the database becomes a target.

    Attributes:
        model: the Pyro model.
        arguments: the model's arguments, by name, from the data of the database.
        sites: the sites that the reference draws hold, in their order.
        latent: the model's latent sites from those of the reference.
    """

    model: Callable[..., None]
    arguments: Callable[[Mapping[str, Any]], Arguments]
    sites: tuple[str, ...]
    latent: Callable[[Sites], Sites] = _as_they_are


POSTERIORS = {
    "arK-arK": Entry(autoregression, autoregression_data, ("alpha", "beta", "sigma")),
    "arma-arma11": Entry(arma11, arma_data, ("mu", "phi", "theta", "sigma")),
    "diamonds-diamonds": Entry(centered_regression, diamonds_data, ("b", "Intercept", "sigma")),
    "earnings-logearn_interaction": Entry(flat_regression, earnings_data, ("beta", "sigma")),
    "eight_schools-eight_schools_centered": Entry(
        eight_schools, eight_schools_data, ("theta", "mu", "tau")
    ),
    "eight_schools-eight_schools_noncentered": Entry(
        eight_schools_noncentered, eight_schools_data, ("theta", "mu", "tau"), _recover_eta
    ),
    "gp_pois_regr-gp_regr": Entry(gp_regression, gp_data, ("rho", "alpha", "sigma")),
    "kidiq-kidscore_momhsiq": Entry(half_cauchy_regression, kidscore_data, ("beta", "sigma")),
    "kilpisjarvi_mod-kilpisjarvi": Entry(
        line_regression, kilpisjarvi_data, ("alpha", "beta", "sigma")
    ),
    "mesquite-mesquite": Entry(flat_regression, mesquite_data, ("beta", "sigma")),
    "nes2000-nes": Entry(flat_regression, nes_data, ("beta", "sigma")),
    "sblrc-blr": Entry(normal_regression, regression_data, ("beta", "sigma")),
}
"""The posteriors that have a Pyro model here, by posteriordb's names."""


def posteriordb_target(
    posterior: Posterior,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> PyroTarget:
    """The target of a posterior of the database.

    Args:
        posterior: from ``PosteriorDatabase(path).posterior(name)``.
        dtype: of the data; the posteriors are scaled so badly that float32 costs digits.
        device: of the data; default ``torch.get_default_device()``.

    Returns:
        The target, named as the posterior.

    Raises:
        TargetError: there is no model for this posterior.
    """
    entry = _entry(posterior.name)
    data = {
        name: value.to(dtype=dtype, device=device or torch.get_default_device())
        if isinstance(value, Tensor)
        else value
        for name, value in entry.arguments(posterior.data.values()).items()
    }
    return PyroTarget(entry.model, name=posterior.name, **data)


def reference_draws(posterior: Posterior) -> dict[str, Tensor]:
    """The reference draws by key, such as ``"beta[3]"``: each (chains, draws), float64.

    They are on the constrained scale. A posterior may take them from another one that has the same
    marginals, as both forms of eight schools do; the package looks after that.
    """
    chains = posterior.reference_draws()
    return {
        key: torch.tensor([chain[key] for chain in chains], dtype=torch.float64, device="cpu")
        for key in chains[0]
    }


def reference_scalars(posterior: str, sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scalars that the reference draws hold, from the sites of a target.

    Args:
        posterior: its name.
        sites: each (\\*lead, \\*event), as ``PyroTarget.constrain`` and ``Fit.sample`` give them.

    Returns:
        (\\*lead) by key, in the order of the reference: ``"sigma"`` for a scalar site, and
        ``"beta[1]"`` to ``"beta[p]"`` for a vector.

    Raises:
        TargetError: the posterior has no model here, or a site is missing.
    """
    names = _entry(posterior).sites
    missing = [name for name in names if name not in sites]
    if missing:
        raise TargetError(f"{posterior!r} needs the sites {', '.join(missing)} as well")
    lead = min(sites[name].dim() for name in names)
    scalars = {}
    for name in names:
        value = sites[name]
        if value.dim() == lead:
            scalars[name] = value
        else:
            parts = value.unbind(-1)
            scalars |= {f"{name}[{i}]": part for i, part in enumerate(parts, start=1)}
    return scalars


def latent_sites(posterior: str, scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The latent sites of the model from scalars of the reference, for ``PyroTarget.unconstrain``.

    Args:
        posterior: its name.
        scalars: (\\*lead) by key, as :func:`reference_draws` gives them.

    Returns:
        (\\*lead, \\*event) by site.

    Raises:
        TargetError: the posterior has no model here, or a scalar is missing.
    """
    entry = _entry(posterior)
    sites = {}
    for name in entry.sites:
        vector = [value for key, value in scalars.items() if key.startswith(f"{name}[")]
        if not vector and name not in scalars:
            raise TargetError(f"{posterior!r} needs the scalar {name!r} as well")
        sites[name] = torch.stack(vector, dim=-1) if vector else scalars[name]
    return entry.latent(sites)


def _entry(posterior: str) -> Entry:
    if posterior not in POSTERIORS:
        raise TargetError(
            f"there is no Pyro model for the posterior {posterior!r}; there is one for "
            f"{', '.join(POSTERIORS)}"
        )
    return POSTERIORS[posterior]
