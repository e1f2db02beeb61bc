"""A Pyro model as a target."""

from nfvi.targets.pyro.simulation import check_simulable, given_data, simulate
from nfvi.targets.pyro.target import PyroTarget
from nfvi.targets.pyro.terms import observed_sites, unnormalised_terms

__all__ = [
    "PyroTarget",
    "check_simulable",
    "given_data",
    "observed_sites",
    "simulate",
    "unnormalised_terms",
]
