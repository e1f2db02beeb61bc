"""What several pictures ask of what they draw: anything with these attributes can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "ComparisonLike",
    "DensityLike",
    "GuideLike",
    "MixtureLike",
    "RowLike",
    "SideLike",
    "SitesLike",
    "TargetLike",
]


class TargetLike(Protocol):
    """A log-density on unconstrained space, such as a :class:`nfvi.Target`."""

    @property
    def dim(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def named(self) -> bool: ...
    @property
    def log_normalizer(self) -> float | None: ...
    @property
    def has_sampler(self) -> bool: ...

    def log_prob(self, z: Tensor, /) -> Tensor:
        """The log-density at points z (n, d): (n)."""

    def constrain(self, z: Tensor, /) -> dict[str, Tensor]:
        """The sites at points z (n, d): each (n, \\*event)."""

    def sample(
        self, n: int, /, *, generator: torch.Generator | None, device: torch.device | str | None
    ) -> Tensor:
        """Exact draws (n, d), where ``has_sampler``."""


@runtime_checkable
class GuideLike(Protocol):
    """A normalised density on unconstrained space, such as a :class:`nfvi.Guide`."""

    @property
    def dim(self) -> int: ...
    @property
    def formula(self) -> object: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...

    def log_prob(self, x: Tensor, /) -> Tensor:
        """log q at points x (n, d): (n)."""

    def sample(self, n: int, /, *, generator: torch.Generator | None) -> Tensor:
        """Draws (n, d)."""


@runtime_checkable
class MixtureLike(GuideLike, Protocol):
    """A guide that is made of several, such as a :class:`nfvi.MixtureGuide`."""

    @property
    def guides(self) -> Sequence[GuideLike]: ...


@runtime_checkable
class DensityLike(Protocol):
    """A density in the units of data, such as a :class:`nfvi.DensityFit`."""

    @property
    def formula(self) -> object: ...
    @property
    def dim(self) -> int: ...
    @property
    def context_dim(self) -> int: ...
    @property
    def columns(self) -> tuple[str, ...] | None: ...

    def rows(self, x: Any, /) -> Tensor:
        """Data (n, d), checked, as a tensor."""

    def log_prob(self, x: Any, context: Any = None, /) -> Tensor:
        """log q(x | context) of points x (n, d): (n)."""

    def sample(self, n: int, context: Any = None, /, *, seed: int | None) -> Any:
        """Draws (n, d): a tensor or a table."""


class SitesLike(Protocol):
    """Draws of a target by site, each (n, \\*event), and what to call them."""

    @property
    def label(self) -> str: ...
    @property
    def target(self) -> TargetLike: ...
    @property
    def sites(self) -> Mapping[str, Tensor]: ...


class SideLike(SitesLike, Protocol):
    """One side of a comparison: the same draws also on unconstrained space (n, d)."""

    @property
    def draws(self) -> Tensor: ...


class RowLike(Protocol):
    """One scalar on both sides of a comparison."""

    @property
    def name(self) -> str: ...
    @property
    def mean_difference(self) -> float: ...
    @property
    def sd_ratio(self) -> float: ...


@runtime_checkable
class ComparisonLike(Protocol):
    """Two sides and what sets them apart, such as a :class:`nfvi.Comparison`."""

    @property
    def left(self) -> SideLike: ...
    @property
    def right(self) -> SideLike: ...
    @property
    def exact(self) -> SideLike | None: ...
    @property
    def table(self) -> Sequence[RowLike]: ...
