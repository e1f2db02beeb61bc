"""The model zoo: targets with known answers, and Pyro models with their data.

Ready targets and models have lower-case names and need no arguments; ``make_...`` and the classes
build others of the same family. Each file says where its model comes from.
"""

from models.banana import banana, make_banana
from models.eight_schools import eight_schools, eight_schools_noncentered
from models.funnel import funnel, funnel_2d, make_funnel
from models.gaussian import Gaussian, gaussian, make_gaussian
from models.hierarchical_correlation import hierarchical_correlation
from models.linear_regression import linear_regression, linear_regression_posterior
from models.logistic_regression import logistic_regression
from models.mixture import GaussianMixture, mixture
from models.potentials import pot1, pot2, pot3, pot4

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "banana",
    "eight_schools",
    "eight_schools_noncentered",
    "funnel",
    "funnel_2d",
    "gaussian",
    "hierarchical_correlation",
    "linear_regression",
    "linear_regression_posterior",
    "logistic_regression",
    "make_banana",
    "make_funnel",
    "make_gaussian",
    "mixture",
    "pot1",
    "pot2",
    "pot3",
    "pot4",
]
