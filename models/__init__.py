"""The model zoo: targets with known answers, and Pyro models with their data.

Ready targets and models have lower-case names and need no arguments; ``make_...`` and the classes
build others of the same family. The models of posteriordb take their data as arguments, which
``posteriordb_target`` reads from the database. Each file says where its model comes from.
"""

from models.arma import arma11
from models.autoregression import autoregression
from models.banana import banana, make_banana
from models.eight_schools import eight_schools, eight_schools_noncentered
from models.funnel import funnel, funnel_2d, make_funnel
from models.gaussian import Gaussian, gaussian, gaussian_20d, make_gaussian
from models.gaussian_process import gp_regression
from models.hierarchical_correlation import hierarchical_correlation
from models.linear_regression import linear_regression, linear_regression_posterior
from models.logistic_regression import logistic_regression
from models.mixture import GaussianMixture, mixture, mixture_10d
from models.moments import Moments, exact_moments
from models.posteriordb import posteriordb_target
from models.potentials import pot1, pot2, pot3, pot4
from models.regressions import (
    centered_regression,
    flat_regression,
    half_cauchy_regression,
    line_regression,
    normal_regression,
)

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "Moments",
    "arma11",
    "autoregression",
    "banana",
    "centered_regression",
    "eight_schools",
    "eight_schools_noncentered",
    "exact_moments",
    "flat_regression",
    "funnel",
    "funnel_2d",
    "gaussian",
    "gaussian_20d",
    "gp_regression",
    "half_cauchy_regression",
    "hierarchical_correlation",
    "line_regression",
    "linear_regression",
    "linear_regression_posterior",
    "logistic_regression",
    "make_banana",
    "make_funnel",
    "make_gaussian",
    "mixture",
    "mixture_10d",
    "normal_regression",
    "posteriordb_target",
    "pot1",
    "pot2",
    "pot3",
    "pot4",
]
