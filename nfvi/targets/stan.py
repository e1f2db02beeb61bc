"""A Stan model as a target on unconstrained space."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import CheckedTarget
from nfvi.targets.checks import Evaluate, check_values
from nfvi.targets.known_gradient import by_another_library
from nfvi.targets.stan_files import open_stan
from nfvi.targets.stan_models import REJECTED, StanModel, accepted, short

__all__ = ["StanTarget"]

# With fewer points for each, threads cost more than they save.
POINTS_A_THREAD = 8
CONSTANTS = (
    "PyStan leaves out the constants of statements with ~, so that Z is relative to them: give the"
    " path of the .stan file to StanTarget, which builds it with them"
)


class StanTarget(CheckedTarget):
    """The posterior of a Stan model, on the unconstrained space of Stan's own samplers.

    A model is compiled C++ that takes one point at a time, in float64, with its gradient. It comes
    by one of two ways:

    - **BridgeStan**: the density with all constants, and points side by side in threads where the
      model was built for them (``STAN_THREADS``). It builds ``.stan`` files where Stan's sources
      are, in ``$BRIDGESTAN`` or ``~/.bridgestan``; nothing is downloaded.
    - **PyStan** (httpstan), for ``.stan`` files where the former cannot: builds a model in about a
      minute, once, as it keeps what it built, for PyStan too. Functions of our own are built with
      it, by which it has the constants and the threads of BridgeStan. What ``stan.build`` returned
      lacks these: it is slower, and leaves out the constants of statements with ``~``, so that the
      log evidence is relative to them, as a warning says.

    A point at which the model raises, as Stan's samplers reject it, has log p = −∞.

    Args:
        model: the path of a ``.stan`` file or of a compiled model of BridgeStan; or a
            ``bridgestan.StanModel`` or what ``stan.build`` returned, which have their data.
        data: name -> number, array or tensor; or the path of a JSON file.
        name: for tables and figures; default the name of the file.

    Attributes:
        sites: parameters and transformed parameters by name, with their shapes.
        dtype: float64, in which Stan computes.

    Raises:
        ImportError: neither BridgeStan nor PyStan is installed.
        TargetError: the program, the data or a path are wrong.

    Example:
        >>> target = StanTarget("model.stan", data={"N": 3, "y": [1, 2, 3]})  # doctest: +SKIP
        >>> fit = NFVI("auto").fit(target)  # doctest: +SKIP
    """

    named = True
    differentiable_once = True
    dtype = torch.float64

    def __init__(self, model: Any, data: Any = None, *, name: str | None = None) -> None:
        super().__init__()
        self._model: StanModel = open_stan(model, data, name)
        self.name = name or self._model.name
        self.dim, self.work = self._model.dim, self._model.work
        if not self.dim:
            raise TargetError(f"{self.name!r} has no parameters, so there is nothing to infer")
        self.batching = "loop" if self._model.slow else "batch"
        self._warned_of_loop = True  # there is no faster way to write it
        self._places = _places(self._model.names)
        self.sites = {key: shape for key, (shape, _) in self._places.items()}
        if self._model.lacks_constants:
            self.evidence_caveats = (CONSTANTS,)
            warnings.warn(
                f"{self.name!r}: {CONSTANTS}. Draws are not touched",
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, sites={list(self.sites)})"

    def __getstate__(self) -> dict[str, Any]:
        """Without what was checked, which another process does for itself."""
        return {**self.__dict__, "_evaluators": {}}

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """Parameters and transformed parameters at points z (n, d), in the model's order.

        Returns:
            (n, \\*shape) for each, in the dtype of z; NaN where the model rejects the point.
        """
        self._require_shape(z)
        count = len(self._model.names)
        empty = np.full(count, np.nan)

        def constrained(points: np.ndarray) -> np.ndarray:
            rows = [accepted(self._model.constrained, point, empty) for point in points]
            return np.array(rows, float).reshape(len(points), count)

        flat = torch.from_numpy(np.concatenate(self._parts(constrained, z))).to(z)
        return {
            key: flat[:, place].reshape(len(z), *shape)
            for key, (shape, place) in self._places.items()
        }

    def _number_of_probes(self) -> int:
        return 3

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        self._require_accepted(points)
        found = check_values(self._evaluate, points, self.name)
        if found.flat:
            which = ", ".join(map(str, found.flat))
            raise TargetError(
                f"{self.name!r} is improper: it does not depend on the unconstrained parameters"
                f" {which} (counted from 0, of {self.dim}), along which its integral is infinite."
                " Give every parameter a prior"
            )
        return self._evaluate, self.batching, ""

    def _require_accepted(self, points: Tensor) -> None:
        errors = []
        for point in points.detach().to("cpu", torch.float64).numpy():
            try:
                self._model.density(point)
            except REJECTED as error:
                errors.append(error)
        if len(errors) == len(points):
            raise TargetError(
                f"{self.name!r} rejects every point tried. Stan says: {short(errors[0])}"
            ) from errors[0]

    def _evaluate(self, z: Tensor) -> Tensor:
        """log p (n) of points (n, d); its gradient is computed with it, where one is asked for."""
        if not (z.requires_grad and torch.is_grad_enabled()):
            return torch.from_numpy(np.concatenate(self._parts(self._model.densities, z))).to(z)
        return by_another_library(self._with_gradients, z)

    def _with_gradients(self, z: Tensor) -> tuple[Tensor, Tensor]:
        found = zip(*self._parts(self._model.with_gradients, z), strict=True)
        values, gradients = (torch.from_numpy(np.concatenate(part)).to(z) for part in found)
        return values, gradients

    def _parts(self, fn: Callable[[np.ndarray], Any], z: Tensor) -> list[Any]:
        """A function of points, for all of them: in threads where the model allows them."""
        points = z.detach().to("cpu", torch.float64).numpy()
        threads = min(torch.get_num_threads(), len(points) // POINTS_A_THREAD)
        if threads < 2 or not self._model.threads:
            return [fn(points)]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(fn, np.array_split(points, threads)))


def _places(names: list[str]) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """Variable -> shape, and where its scalars are among all, in the order of its shape.

    The names of scalars are those of Stan: ``a``, ``b.1``, ``c.2.1``, the last index slowest. Parts
    of tuples and of complex numbers, ``t:1.2`` and ``c.real``, are variables by themselves.
    """
    found: dict[str, list[tuple[tuple[int, ...], int]]] = {}
    for place, name in enumerate(names):
        match = re.fullmatch(r"(.*?)((?:\.\d+)*)", name)
        variable, index = match.groups() if match else (name, "")
        position = tuple(int(i) - 1 for i in index.split(".")[1:])
        found.setdefault(variable, []).append((position, place))
    return {variable: _placed(scalars) for variable, scalars in found.items()}


def _placed(scalars: list[tuple[tuple[int, ...], int]]) -> tuple[tuple[int, ...], np.ndarray]:
    shape = tuple(
        max(axis) + 1 for axis in zip(*(position for position, _ in scalars), strict=True)
    )
    places = np.empty(shape, dtype=int)
    for position, place in scalars:
        places[position] = place
    return shape, places.reshape(-1)
