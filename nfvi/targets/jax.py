"""A log-density given as a function of JAX."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import CheckedTarget
from nfvi.targets.checks import USER_ERRORS, Evaluate, check_values, name_of, shape_text
from nfvi.targets.jax_batches import OnBatches, jax_package, points_at_once, precision, work_of
from nfvi.targets.known_gradient import by_another_library
from nfvi.targets.log_density import checked_dimension, improper_text
from nfvi.utils import process_wide

__all__ = ["JaxLogDensity", "JaxTarget"]


class JaxTarget(CheckedTarget):
    """A target whose log p of one point (d,) is a function of JAX.

    From the first z in float64 on, all points are evaluated in float64: JAX keeps the form of an
    array of NumPy, float32 or float64, for as long as a compiled function holds it, and fails
    where the other is needed.
    """

    batching = "vmap"
    differentiable_once = True

    def __init__(self, name: str, dim: int) -> None:
        super().__init__()
        self.name, self.dim = name, dim
        jax = jax_package(type(self).__name__)
        self.dtype = torch.float64 if jax.config.jax_enable_x64 else None
        self._wide = False
        self._compiled: dict[Any, OnBatches] = {}

    @abstractmethod
    def _of_point(self, z: Any) -> Any:
        """log p () of one point (d,), arrays of JAX."""

    @abstractmethod
    def _refuse_flat(self, flat: tuple[int, ...]) -> None:
        """Say that the log-density does not depend on some coordinates."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what was compiled, which another process does for itself."""
        return {**self.__dict__, "_evaluators": {}, "_compiled": {}}

    def _number_of_probes(self) -> int:
        return 3

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        try:
            self._check_point(self._prepared(points))
            # With its gradient, which is compiled in any case.
            self._evaluate(points.clone().requires_grad_())
        except USER_ERRORS as error:
            if isinstance(error, TargetError):
                raise
            raise TargetError(_failed(self.name, self.dim, error)) from error
        found = check_values(self._evaluate, points, self.name)
        if found.flat:
            self._refuse_flat(found.flat)
        return lambda z: self._evaluate(z).to(z.dtype), "vmap", ""

    def _evaluate(self, z: Tensor) -> Tensor:
        """log p (n) of points (n, d); its gradient is computed with it, where one is asked for."""
        if not (z.requires_grad and torch.is_grad_enabled()):
            found: Tensor = self._mapped(self._of_point, z)
            return found
        return by_another_library(partial(self._mapped, self._of_point, with_gradient=True), z)

    def _mapped(self, fn: Callable[[Any], Any], z: Tensor, with_gradient: bool = False) -> Any:
        """The values of a function of one point at points z (n, d), apart from autograd."""
        # One precision at a time; and what is compiled runs the user's Python and its handlers.
        with process_wide():
            z = self._prepared(z.detach())
            return self._on_batches(fn, with_gradient)(z)

    def _prepared(self, z: Tensor) -> Tensor:
        """z in the precision in which all points are evaluated."""
        if z.dtype == torch.float64 and not self._wide:
            self._wide = True
            self._compiled.clear()
        return z.double() if self._wide else z

    def _on_batches(self, fn: Callable[[Any], Any], with_gradient: bool) -> OnBatches:
        """A function of one point, compiled once."""
        import jax

        key = (fn.__name__, with_gradient)
        if key not in self._compiled:
            if self.work is None:
                wide = torch.float64 if self._wide else torch.float32
                self.work = work_of(self._of_point, self.dim, wide)
            transform = jax.value_and_grad if with_gradient else lambda fn: fn
            self._compiled[key] = OnBatches(fn, points_at_once(self.work), transform)
        return self._compiled[key]

    def _check_point(self, points: Tensor) -> None:
        """What the function returns for one point, without a run of it.

        Raises:
            TargetError: it is no real number.
        """
        jax = jax_package(type(self).__name__)
        with precision(points.dtype):
            point = jax.ShapeDtypeStruct((self.dim,), str(points.dtype).removeprefix("torch."))
            value = jax.eval_shape(lambda z: self._of_point(z), point)
        shape = getattr(value, "shape", None)
        if shape != ():
            got = type(value).__name__ if shape is None else f"shape {shape_text(shape)}"
            raise TargetError(
                f"{self.name!r} returned {got} for one point z of shape {shape_text((self.dim,))};"
                " a log-density of JAX takes one point z (d,) and returns a scalar, for instance"
                " with .sum(); nfvi maps it over batches by jax.vmap"
            )
        if not jax.numpy.issubdtype(value.dtype, jax.numpy.floating):
            raise TargetError(
                f"{self.name!r} returned {value.dtype}; a log-density is a real number"
            )


class JaxLogDensity(JaxTarget):
    """An unnormalised log-density log p(z) on R^d from a function of JAX.

    The function takes one point. It is mapped over batches and compiled with its gradient,
    ``jit(vmap(value_and_grad(fn)))``, for a few sizes of batches. Points and values share memory
    with torch where they can. It is checked at the first call, as in :class:`LogDensity`.

    z in float64 is evaluated in float64: JAX's switch for it is set for the call, in this thread,
    and JAX's global setting stays as it is. Arrays that ``fn`` holds keep the precision they were
    made with, so keep data as NumPy arrays, or make arrays of JAX in float64.

    Args:
        fn: log p of one point, (d,) -> ().
        dim: d, at least 1.
        name: for tables and figures; default the function's own name.
        log_normalizer: log ∫ exp(log p(z)) dz, if known.

    Attributes:
        dtype: float64 where JAX's global switch was on when the target was made; else ``None``,
            torch's default.

    Raises:
        ImportError: JAX is not installed.
        TargetError: dim is not a positive integer, or fn cannot be called.

    Example:
        >>> import jax.numpy as jnp  # doctest: +SKIP
        >>> target = JaxLogDensity(lambda z: -0.5 * jnp.sum(z**2), dim=2)  # doctest: +SKIP
        >>> target.log_prob(torch.zeros(3, 2))  # doctest: +SKIP
        tensor([-0., -0., -0.])
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        dim: int,
        *,
        name: str | None = None,
        log_normalizer: float | None = None,
    ) -> None:
        if not callable(fn):
            raise TargetError(f"a log-density is a function of z; got {type(fn).__name__}")
        super().__init__(name or name_of(fn), checked_dimension(dim))
        self.fn = fn
        # What jax.jit made of a function holds arrays of NumPy in the dtype of its first call.
        self._bare = inspect.unwrap(fn) if type(fn).__name__ == "PjitFunction" else fn
        self.log_normalizer = log_normalizer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim})"

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """``{"z": z}``: a bare log-density lives on R^d itself."""
        return {"z": z}

    def _of_point(self, z: Any) -> Any:
        return self._bare(z)

    def _refuse_flat(self, flat: tuple[int, ...]) -> None:
        raise TargetError(improper_text(self.name, flat, self.dim))


def _failed(name: str, dim: int, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    clash = "same dtypes" in first or "verifier errors" in first
    advice = (
        "JAX keeps one form of an array of NumPy, float32 or float64: let the function hold copies"
        " of arrays (np.copy) that are in use elsewhere in another precision"
        if clash
        else "It must be a function that jax.jit, jax.vmap and jax.grad can go through, made of"
        " jax.numpy, and return a scalar"
    )
    return (
        f"{name!r} cannot be used as a log-density of JAX with dim={dim}. Called with one point z"
        f" of shape {shape_text((dim,))}, it raised {type(error).__name__}: {first} {advice}"
    )
