"""A Stan model by the functions that PyStan (httpstan) has for one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nfvi.errors import TargetError
from nfvi.targets.stan_builds import built
from nfvi.targets.stan_models import REJECTED, PointwiseModel, short

__all__ = ["HttpstanModel"]

TRIES = 20
COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"", re.DOTALL)


class HttpstanModel(PointwiseModel):
    """A model that PyStan built without our functions, called in this process.

    It reads its data at every call, and leaves out the constants of statements with ``~``.

    Args:
        program: the text of the program.
        data: as lists and numbers.
        name: for tables and figures.

    Raises:
        TargetError: the program or the data are wrong.
    """

    threads = False
    slow = True
    # It reads the data and makes the model anew at each call, some 50 µs on one core.
    work = 1e5

    def __init__(self, program: str, data: Mapping[str, Any], name: str) -> None:
        self._program, self._data, self.name = program, dict(data), name
        self.lacks_constants = "~" in COMMENTS.sub("", program)
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """Without the module of C++, which another process loads for itself."""
        return {key: value for key, value in self.__dict__.items() if key != "_module"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def density(self, point: np.ndarray) -> float:
        return float(self._module.log_prob(self._data, point.tolist(), True))

    def with_gradient(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        numbers = point.tolist()
        gradient = self._module.log_prob_grad(self._data, numbers, True)
        return float(self._module.log_prob(self._data, numbers, True)), np.array(gradient)

    def constrained(self, point: np.ndarray) -> np.ndarray:
        return np.array(self._module.write_array(self._data, point.tolist(), True, False))

    def _open(self) -> None:
        self._module = built(self._program, self.name)
        try:
            names = self._module.constrained_param_names(self._data)
        except REJECTED as error:
            raise TargetError(f"Stan refused the data of {self.name!r}: {short(error)}") from error
        self.dim = _unconstrained_dim(self._module, self._data, len(names))
        self.names = list(names)[: self._count()]  # generated quantities come last

    def _count(self) -> int:
        """How many scalars the parameters and transformed parameters are."""
        points = np.random.default_rng(0).uniform(-2, 2, (TRIES, self.dim))
        for point in points:
            try:
                return len(self.constrained(point))
            except REJECTED as error:
                found = error
        raise TargetError(
            f"{self.name!r} rejects every point tried, {TRIES} of them: {short(found)}"
        ) from found


def _unconstrained_dim(module: Any, data: Mapping[str, Any], most: int) -> int:
    """d, which httpstan does not tell other than by refusing points of another number."""
    for dim in range(most + 1):
        try:
            module.write_array(data, [0.0] * dim, False, False)
        except REJECTED as error:
            if "does not match the number of unconstrained" in str(error):
                continue
        return dim
    raise TargetError("the number of unconstrained parameters of the model was not found")
