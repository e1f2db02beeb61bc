"""A log-density given as a PyTorch function."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import CheckedTarget, Sampler
from nfvi.targets.batching import find_batching
from nfvi.targets.checks import Evaluate, check_values, checked_call, name_of

__all__ = ["LogDensity", "checked_dimension", "improper_text", "log_density"]


class LogDensity(CheckedTarget):
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
        super().__init__()
        self.fn = fn
        self.dim = checked_dimension(dim)
        self.name = name or name_of(fn)
        self.log_normalizer = log_normalizer
        self._sampler = sampler
        self._batched = batched
        self._sign = 1

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

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """``{"z": z}``: a bare log-density lives on R^d itself."""
        return {"z": z}

    def _number_of_probes(self) -> int:
        # As many points as dimensions would let a function of one point pass for one of a batch.
        return 3 if self.dim == 2 else 2

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        raw, batching, reason = find_batching(self.fn, points, self.name, self._batched)
        evaluate = raw if self._sign == 1 else lambda z: -raw(z)
        found = check_values(evaluate, points, self.name)
        if found.flat:
            raise TargetError(improper_text(self.name, found.flat, self.dim))
        evaluate = _kept(evaluate, found.dtype, points.dtype, self.name)
        why = f"torch.func.vmap cannot map it ({reason}); write it for a batch z (n, d) -> (n,)"
        return evaluate, batching, why


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


def checked_dimension(dim: Any) -> int:
    """The argument ``dim=`` of a log-density.

    Raises:
        TargetError: it is no integer of at least 1.
    """
    if isinstance(dim, bool) or not isinstance(dim, Integral) or dim < 1:
        raise TargetError(f"dim= must be an integer of at least 1; got {dim!r}")
    return int(dim)


def improper_text(name: str, flat: tuple[int, ...], dim: int) -> str:
    """What an error says of coordinates on which a log-density does not depend."""
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
