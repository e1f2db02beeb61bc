"""A log-density given as a PyTorch function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import Target
from nfvi.targets.batching import find_batching
from nfvi.targets.checks import (
    Evaluate,
    check_values,
    checked_call,
    isolated,
    probe_points,
    shape_text,
)

__all__ = ["LogDensity", "log_density"]

Sampler = Callable[[int, torch.Generator | None, torch.dtype, torch.device], Tensor]


class LogDensity(Target):
    """An unnormalised log-density log p(z) on R^d from a function.

    The function is checked once for each dtype and device, at the first call of :meth:`log_prob`
    or by :meth:`check`: on two or three fixed points it must return one finite value a point
    (-inf says "outside the support"), with a finite gradient, and the same values for a batch as
    for single points. It must depend on every coordinate, since it is improper otherwise, and may
    not write into z. Later calls must return the same shape and dtype. The check leaves torch's
    random state alone. A function of one point is
    mapped over the batch with ``torch.func.vmap``, or by a Python loop, with one warning, where
    vmap cannot. Values in a wider dtype than z (float64 constants, float32 z) are cast to that of
    z; a narrower one is refused.

    Args:
        fn: log p as a function of a batch, (n, d) -> (n,), or of one point, (d,) -> ().
        dim: d, at least 1.
        name: for tables and figures; default the function's own name.
        log_normalizer: log ∫ exp(log p(z)) dz, if known.
        sampler: ``sampler(n, generator, dtype, device) -> (n, d)``, exact draws, if known.
        batched: ``True`` if fn takes a batch, ``False`` if one point; default: found out.

    Raises:
        TargetError: dim is not a positive integer, or fn cannot be called.

    Example:
        >>> target = LogDensity(lambda z: -0.5 * (z**2).sum(-1), dim=2)
        >>> target.log_prob(torch.zeros(3, 2))
        tensor([-0., -0., -0.])
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        dim: int,
        *,
        name: str | None = None,
        log_normalizer: float | None = None,
        sampler: Sampler | None = None,
        batched: bool | None = None,
    ) -> None:
        if not callable(fn):
            raise TargetError(f"a log-density is a function of z; got {type(fn).__name__}")
        self.fn = fn
        self.dim = _dimension(dim)
        self.name = name or _name_of(fn)
        self.log_normalizer = log_normalizer
        self._sampler = sampler
        self._batched = batched
        self._sign = 1
        self._evaluators: dict[tuple[torch.dtype, torch.device], Evaluate] = {}
        self._warned = False

    @classmethod
    def from_potential(
        cls,
        U: Callable[[Tensor], Tensor],
        *,
        dim: int,
        name: str | None = None,
        log_normalizer: float | None = None,
        sampler: Sampler | None = None,
        batched: bool | None = None,
    ) -> LogDensity:
        """The target with log p(z) = −U(z), from a potential (energy) U.

        Args:
            U: the potential, of a batch (n, d) -> (n,) or of one point (d,) -> ().
            dim: d, at least 1.
            name: default the name of U.
            log_normalizer: log ∫ exp(−U(z)) dz, if known.
            sampler: as for the class.
            batched: as for the class.
        """
        target = cls(
            U,
            dim,
            name=name,
            log_normalizer=log_normalizer,
            sampler=sampler,
            batched=batched,
        )
        target._sign = -1
        return target

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim})"

    def __call__(self, z: Tensor) -> Tensor:
        """The same as :meth:`log_prob`, so that a decorated function can still be called."""
        return self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density at points z (n, d): (n,), in the dtype of z, up to a constant.

        Raises:
            TargetError: z is not (n, d), the first call finds the function unusable, or a later
                one returns another shape or dtype, or writes into z.
        """
        if z.dim() != 2 or z.shape[1] != self.dim:
            raise TargetError(
                f"{self.name!r} takes z of shape (n, {self.dim}); got {shape_text(z.shape)}"
            )
        evaluate = self._evaluators.get((z.dtype, z.device))
        if evaluate is None:
            self.check(z.dtype, z.device)
            evaluate = self._evaluators[z.dtype, z.device]
        return evaluate(z)

    def check(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        """Check the function on fixed points of a dtype and device; :meth:`log_prob` does it once.

        Args:
            dtype: default ``torch.get_default_dtype()``.
            device: default ``torch.get_default_device()``.

        Raises:
            TargetError: the shape, dtype, values or gradient are not those of a log-density, it
                writes into z, or it does not depend on a coordinate. The function's own exception,
                if it raised one, is its ``__cause__``.
        """
        dtype = dtype or torch.get_default_dtype()
        device = torch.device(device) if device is not None else torch.get_default_device()
        # As many points as dimensions would let a function of one point pass for one of a batch.
        points = probe_points(3 if self.dim == 2 else 2, self.dim, dtype, device)
        with isolated():
            raw, batching, reason = find_batching(self.fn, points, self.name, self._batched)
            evaluate = self._signed(raw)
            found = check_values(evaluate, points, self.name)
        if found.flat:
            raise TargetError(_improper(self.name, found.flat, self.dim))
        self.batching = batching
        if batching == "loop":
            self._warn_of_loop(reason)
        self._evaluators[dtype, points.device] = _kept(evaluate, found.dtype, dtype, self.name)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """``{"z": z}``: a bare log-density lives on R^d itself."""
        return {"z": z}

    @property
    def has_sampler(self) -> bool:
        """Whether :meth:`sample` gives exact draws."""
        return self._sampler is not None

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Exact independent draws (n, d).

        Raises:
            TargetError: no sampler was given, or it returned another shape.
        """
        if self._sampler is None:
            return super().sample(n, generator=generator, dtype=dtype, device=device)
        dtype = dtype or torch.get_default_dtype()
        device = torch.device(device) if device is not None else torch.get_default_device()
        draws = self._sampler(n, generator, dtype, device)
        if tuple(draws.shape) != (n, self.dim):
            raise TargetError(
                f"the sampler of {self.name!r} returned shape {shape_text(draws.shape)} "
                f"in place of {shape_text((n, self.dim))}"
            )
        return draws

    def _signed(self, raw: Evaluate) -> Evaluate:
        return raw if self._sign == 1 else lambda z: -raw(z)

    def _warn_of_loop(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name!r} is evaluated one point at a time, which is slow, because "
                f"torch.func.vmap cannot map it ({reason}); write it for a batch z (n, d) -> (n,)",
                stacklevel=4,
            )


def log_density(
    *,
    dim: int,
    name: str | None = None,
    log_normalizer: float | None = None,
    sampler: Sampler | None = None,
    batched: bool | None = None,
) -> Callable[[Callable[[Tensor], Tensor]], LogDensity]:
    """Decorator that makes a :class:`LogDensity` of a function; arguments as there.

    Example:
        >>> @log_density(dim=2, log_normalizer=1.837877)  # log 2π
        ... def normal(z):
        ...     return -0.5 * (z**2).sum(-1)
        >>> normal.dim
        2
    """

    def decorate(fn: Callable[[Tensor], Tensor]) -> LogDensity:
        return LogDensity(
            fn,
            dim,
            name=name,
            log_normalizer=log_normalizer,
            sampler=sampler,
            batched=batched,
        )

    return decorate


def _dimension(dim: Any) -> int:
    if isinstance(dim, bool) or not isinstance(dim, Integral) or dim < 1:
        raise TargetError(f"dim= must be an integer of at least 1; got {dim!r}")
    return int(dim)


def _improper(name: str, flat: tuple[int, ...], dim: int) -> str:
    columns = ", ".join(f"z[:, {column}]" for column in flat)
    fewer = f", or leave it out, with dim={dim - len(flat)}" if len(flat) < dim else ""
    return (
        f"{name!r} is improper: it does not depend on {columns}, along which its integral is"
        f" infinite. Give that coordinate a density, such as -0.5 * z[:, {flat[0]}] ** 2{fewer}"
    )


def _kept(evaluate: Evaluate, returned: torch.dtype, dtype: torch.dtype, name: str) -> Evaluate:
    """The same function, whose values must stay as they were checked, cast to a dtype."""

    def kept(z: Tensor) -> Tensor:
        values = checked_call(evaluate, z, name)
        if values.dtype != returned:
            raise TargetError(
                f"{name!r} returned {values.dtype} for z in {z.dtype}, and {returned} when it was"
                " checked; it must always return the same dtype"
            )
        return values if returned == dtype else values.to(dtype)

    return kept


def _name_of(fn: Any) -> str:
    name = getattr(fn, "__name__", "") or type(fn).__name__
    return "log-density" if name == "<lambda>" else str(name)
