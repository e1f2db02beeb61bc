"""Compiled Stan models behind one interface: those of BridgeStan and those of PyStan."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from nfvi.errors import TargetError

__all__ = ["NO_STAN", "REJECTED", "BridgeModel", "HttpstanModel", "StanModel", "short"]

NO_STAN = (
    "StanTarget needs BridgeStan or PyStan, the extra `stan`: pip install 'nfvi[stan]'. PyStan"
    " brings what it builds a model with; BridgeStan builds one where Stan's sources are, in"
    " $BRIDGESTAN or ~/.bridgestan, or takes a model that is built"
)
# What a C++ model raises where it has no density: a scale below 0, a matrix that is no covariance.
REJECTED = (RuntimeError, ValueError)
TRIES = 20
COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"", re.DOTALL)


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

    def with_gradient(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """The same with its gradient (d,)."""

    def constrained(self, point: np.ndarray) -> np.ndarray:
        """The scalars that ``names`` tells of, at one point."""


class BridgeModel(StanModel):
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


class HttpstanModel(StanModel):
    """A model that httpstan has built or builds, called in this process.

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
        self._module = _built(self._program, self.name)
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


def _reopened(lib_path: str, data: Any) -> BridgeModel:
    import bridgestan

    return BridgeModel(bridgestan.StanModel(lib_path, data, capture_stan_prints=False))


def _built(program: str, name: str) -> Any:
    """The module of C++ of a program, from httpstan's own cache or built now, which takes a minute.

    Raises:
        ImportError: httpstan is not installed.
        TargetError: the program cannot be compiled.
    """
    try:
        from httpstan import models
    except ImportError as error:
        raise ImportError(NO_STAN) from error
    key = models.calculate_model_name(program)
    try:
        return models.import_services_extension_module(key)
    except KeyError:
        pass
    try:
        # In a thread of its own, as a notebook has a loop of events that runs already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _build(program, key)).result()
    except (*REJECTED, OSError, subprocess.SubprocessError) as error:
        raise TargetError(f"Stan could not compile {name!r}: {short(error)}") from error
    return models.import_services_extension_module(key)


async def _build(program: str, key: str) -> None:
    """Build the module, with all that PyStan looks for beside one that is built already."""
    from httpstan import cache, compile, models

    _, warnings = compile.compile(program, f"model_{key.removeprefix('models/')}")
    output = await models.build_services_extension_module(program)
    cache.dump_stanc_warnings(warnings, key)
    cache.dump_services_extension_module_compiler_output(output, key)


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


def short(error: BaseException) -> str:
    """What an error of Stan says, in one line."""
    return " ".join(str(error).split())[:500]
