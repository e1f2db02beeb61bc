"""Compiled Stan models behind one interface, and those of BridgeStan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

__all__ = [
    "NO_STAN",
    "REJECTED",
    "BridgeModel",
    "PointwiseModel",
    "StanModel",
    "accepted",
    "one_line",
    "short",
]

NO_STAN = (
    "StanTarget needs BridgeStan or PyStan, the extra `stan`: pip install 'nfvi[stan]'. PyStan"
    " brings what it builds a model with; BridgeStan builds one where Stan's sources are, in"
    " $BRIDGESTAN or ~/.bridgestan, or takes a model that is built"
)
# What a C++ model raises where it has no density: a scale below 0, a matrix that is no covariance.
REJECTED = (RuntimeError, ValueError)


class StanModel(Protocol):
    """A model with its data.

    Attributes:
        name: as in the program.
        dim: d.
        names: of the scalars of all parameters and transformed parameters, such as ``a.2.1``.
        lacks_constants: whether the density is without the constants of statements with ``~``.
        threads: whether points can be evaluated side by side.
        slow: whether a fit should spare points, as of a function in a loop of Python.
        work: numbers that one evaluation of one point is like writing.
    """

    name: str
    dim: int
    names: list[str]
    lacks_constants: bool
    threads: bool
    slow: bool
    work: float

    def density(self, point: np.ndarray) -> float:
        """log p at one point (d,) of unconstrained space.

        Raises:
            RuntimeError, ValueError: the model rejects the point.
        """

    def densities(self, points: np.ndarray) -> np.ndarray:
        """The same at points (n, d): (n,); −∞ where the model rejects one."""

    def with_gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same with the gradients (n, d), 0 where the model rejects a point."""

    def constrained(self, point: np.ndarray) -> np.ndarray:
        """The scalars that ``names`` tells of, at one point."""


class PointwiseModel(StanModel):
    """A model whose library takes one point at a time."""

    @abstractmethod
    def with_gradient(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """log p and its gradient (d,) at one point."""

    def densities(self, points: np.ndarray) -> np.ndarray:
        return np.array([accepted(self.density, point, -np.inf) for point in points], float)

    def with_gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nothing = -np.inf, np.zeros(self.dim)
        found = [accepted(self.with_gradient, point, nothing) for point in points]
        gradients = np.array([gradient for _, gradient in found], float).reshape(points.shape)
        return np.array([value for value, _ in found], float), gradients


class BridgeModel(PointwiseModel):
    """A model of BridgeStan.

    Args:
        made: a ``bridgestan.StanModel``.
    """

    lacks_constants = False
    slow = False
    work = 1e4

    def __init__(self, made: Any) -> None:
        self._made = made
        self.name = str(made.name()).removesuffix("_model")
        self.dim = int(made.param_unc_num())
        self.names = [name for name in made.param_names(include_tp=True) if name]
        self.threads = "STAN_THREADS=true" in made.model_info()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._made.lib_path, self._made.data)

    def density(self, point: np.ndarray) -> float:
        return float(self._made.log_density(point, propto=False, jacobian=True))

    def with_gradient(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        # propto=False keeps the constants, without which there is no evidence.
        value, gradient = self._made.log_density_gradient(point, propto=False, jacobian=True)
        return float(value), gradient

    def constrained(self, point: np.ndarray) -> np.ndarray:
        values: np.ndarray = self._made.param_constrain(point, include_tp=True)
        return values


def _reopened(lib_path: str, data: Any) -> BridgeModel:
    import bridgestan

    return BridgeModel(bridgestan.StanModel(lib_path, data, capture_stan_prints=False))


def accepted(fn: Callable[[np.ndarray], Any], point: np.ndarray, otherwise: Any) -> Any:
    """The value of a function of the model, or another where the model rejects the point."""
    try:
        return fn(point)
    except REJECTED:
        return otherwise


def short(error: BaseException) -> str:
    """What an error of Stan says, in one line."""
    return one_line(str(error))


def one_line(text: str) -> str:
    """The beginning of a text in one line."""
    return " ".join(text.split())[:500]
