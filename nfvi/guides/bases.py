"""Base distributions of a guide: independent coordinates with zero location and unit scale."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from nfvi.flows import Option
from nfvi.formula import parse_call
from nfvi.guides.student_quantile import student_quantile

__all__ = ["BASES", "Base", "Laplace", "Normal", "StudentT", "make_base"]


NORMAL = 1 / 0.6744897501960817
"""The sd of a normal distribution in units of its upper quartile."""
LEAST_WITH_QUANTILES = 1.0
"""Degrees of freedom of a Student-t."""


class Base(ABC):
    """A distribution on R^d with independent, identically distributed coordinates."""

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws of the given shape (\\*, d); the generator must live on ``device``."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density at z (\\*, d), summed over coordinates: (\\*)."""

    @property
    def sd(self) -> float:
        """Standard deviation of a coordinate.

        A base that has none gives 0.741 times its interquartile range, which for a normal
        distribution is the standard deviation.

        Raises:
            NotImplementedError: this base does not say.
        """
        raise NotImplementedError(f"base {self} does not say its sd; give its class a property sd")

    @property
    def has_quantiles(self) -> bool:
        """Whether :meth:`from_uniform` can be had, so that draws can be quasi-Monte Carlo."""
        return type(self).from_uniform is not Base.from_uniform

    def from_uniform(self, u: Tensor) -> Tensor:
        """The quantile function at u within (0, 1), entry by entry.

        Raises:
            ValueError: this base has none.
        """
        raise ValueError(
            f'base {self} has no quantile function here, which draws="qmc" needs; use normal,'
            ' laplace or studentt with df of 1 or more, or draws="iid"'
        )


@dataclass(frozen=True)
class Normal(Base):
    """Standard normal coordinates."""

    def sample(
        self,
        shape: tuple[int, ...],
        *,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z * z).sum(-1) - 0.5 * math.log(2 * math.pi) * z.shape[-1]

    @property
    def sd(self) -> float:
        return 1.0

    def from_uniform(self, u: Tensor) -> Tensor:
        quantile: Tensor = torch.special.ndtri(u)
        return quantile

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True)
class Laplace(Base):
    """Coordinates with density exp(−|z|) / 2: tails heavier than the normal's."""

    def sample(
        self,
        shape: tuple[int, ...],
        *,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> Tensor:
        draw = torch.empty(shape, dtype=dtype, device=device).exponential_(generator=generator)
        sign = torch.rand(shape, generator=generator, dtype=dtype, device=device) < 0.5
        return torch.where(sign, -draw, draw)

    def log_prob(self, z: Tensor) -> Tensor:
        return -z.abs().sum(-1) - math.log(2) * z.shape[-1]

    @property
    def sd(self) -> float:
        return math.sqrt(2)

    def from_uniform(self, u: Tensor) -> Tensor:
        return torch.where(u < 0.5, (2 * u).log(), -(2 * (1 - u)).log())

    def __str__(self) -> str:
        return "laplace"


@dataclass(frozen=True)
class StudentT(Base):
    """Student-t coordinates with ``df`` degrees of freedom, above 0 up to 10⁶: polynomial tails.

    There are quantiles for ``df`` of 1 and more; below, single draws outweigh whole sets.
    """

    df: float = 5.0

    def __post_init__(self) -> None:
        number = isinstance(self.df, int | float) and not isinstance(self.df, bool)
        # Far above, the normalising constant is a difference of huge numbers.
        if not number or not 0 < self.df <= 1e6:
            raise ValueError(
                f"df={self.df!r}: the degrees of freedom must be a number above 0 and at most 1e6; "
                "beyond that take the base normal"
            )

    def sample(
        self,
        shape: tuple[int, ...],
        *,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> Tensor:
        normal = torch.randn(shape, generator=generator, dtype=dtype, device=device)
        gamma = torch._standard_gamma(torch.full_like(normal, self.df / 2), generator=generator)
        # A gamma draw can underflow to 0 for small df; the quotient and its square stay in range.
        least = torch.finfo(normal.dtype).eps ** 4
        return normal * (self.df / 2 / gamma.clamp_min(least)).sqrt()

    def log_prob(self, z: Tensor) -> Tensor:
        half = (self.df + 1) / 2
        constant = math.lgamma(half) - math.lgamma(self.df / 2) - 0.5 * math.log(self.df * math.pi)
        return (constant - half * (z * z / self.df).log1p()).sum(-1)

    @property
    def has_quantiles(self) -> bool:
        return self.df >= LEAST_WITH_QUANTILES

    def from_uniform(self, u: Tensor) -> Tensor:
        return student_quantile(u, self.df) if self.has_quantiles else super().from_uniform(u)

    @property
    def sd(self) -> float:
        if self.df > 2:
            return math.sqrt(self.df / (self.df - 2))
        from scipy.special import stdtrit  # with init= alone, since it takes a second to import

        return float(stdtrit(self.df, 0.75)) * NORMAL

    def __str__(self) -> str:
        # Every digit, so that the text names this very base.
        df = int(self.df) if self.df == int(self.df) else self.df
        return f"studentt(df={df!r})"


BASES: dict[str, type[Base]] = {"normal": Normal, "laplace": Laplace, "studentt": StudentT}

_OPTIONS = {
    name: {field.name: Option(field.name, field.default, float) for field in fields(cls)}  # type: ignore[arg-type]
    for name, cls in BASES.items()
}


def make_base(base: str | Base) -> Base:
    """The base that a text such as ``"normal"`` or ``"studentt(df=5)"`` names.

    Raises:
        FormulaError: no such base, option or value; the message shows the place.
    """
    if isinstance(base, Base):
        return base
    call = parse_call(base, "base", _OPTIONS)
    try:
        return BASES[call.name](**call.kwargs)
    except ValueError as error:
        raise call.wrong(str(error)) from error
