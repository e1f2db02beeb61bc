"""Targets: what a fit or a sampler is run on."""

from nfvi.targets.anywhere import log_prob_anywhere
from nfvi.targets.base import Target
from nfvi.targets.checks import checked_call
from nfvi.targets.dispatch import as_target, takes_one_argument
from nfvi.targets.evaluated_by import alone, evaluated_by, log_prob_of
from nfvi.targets.factorization import evaluate_anywhere
from nfvi.targets.graph_scope import graphs, has_graph
from nfvi.targets.jax import JaxLogDensity
from nfvi.targets.known_gradient import by_another_library, known_gradient
from nfvi.targets.laplace import batches_of_laplace, laplace, laplace_all
from nfvi.targets.log_density import LogDensity, log_density
from nfvi.targets.minibatch import MinibatchTarget, affordable, takes_rows
from nfvi.targets.named_density import NamedDensity
from nfvi.targets.numpyro import NumPyroTarget
from nfvi.targets.observations import known_likelihood
from nfvi.targets.parameters import declared_parameters
from nfvi.targets.pymc import PyMCTarget
from nfvi.targets.pyro import (
    PyroTarget,
    check_simulable,
    given_data,
    observed_sites,
    simulate,
    unnormalised_terms,
)
from nfvi.targets.rows import RowsTarget
from nfvi.targets.score import log_prob_and_score
from nfvi.targets.stan import StanTarget
from nfvi.targets.work import costs_by_points, numbers_per_point

__all__ = [
    "JaxLogDensity",
    "LogDensity",
    "MinibatchTarget",
    "NamedDensity",
    "NumPyroTarget",
    "PyMCTarget",
    "PyroTarget",
    "RowsTarget",
    "StanTarget",
    "Target",
    "affordable",
    "alone",
    "as_target",
    "batches_of_laplace",
    "by_another_library",
    "check_simulable",
    "checked_call",
    "costs_by_points",
    "declared_parameters",
    "evaluate_anywhere",
    "evaluated_by",
    "given_data",
    "graphs",
    "has_graph",
    "known_gradient",
    "known_likelihood",
    "laplace",
    "laplace_all",
    "log_density",
    "log_prob_and_score",
    "log_prob_anywhere",
    "log_prob_of",
    "numbers_per_point",
    "observed_sites",
    "simulate",
    "takes_one_argument",
    "takes_rows",
    "unnormalised_terms",
]
