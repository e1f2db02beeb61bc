"""A guide as Pyro sees it: a distribution, and its parts, base and transform."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Transform, constraints

from nfvi.guides.guide import FlowDistribution, Guide

__all__ = ["BaseDistribution", "FlowPosterior", "FlowTransform"]


class _Draw(NamedTuple):
    x: Tensor
    log_q: Tensor
    versions: tuple[int, ...]


class FlowPosterior(FlowDistribution, TorchDistributionMixin):
    """A guide as a Pyro distribution: that of torch, with a batch shape and ``expand``.

    Pyro asks for the log-density of each draw that it makes. That is known from the way there,
    and no inverse runs for it, as long as draw and parameters are the same tensors, unchanged.

    Args:
        guide: the guide.
        batch_shape: shape of independent copies.
        validate_args: whether to check arguments; default Pyro's setting.
    """

    def __init__(
        self,
        guide: Guide,
        batch_shape: torch.Size | tuple[int, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(guide, validate_args)
        self._batch_shape = torch.Size(batch_shape)
        self._draw: _Draw | None = None

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowPosterior:
        """The same distribution with another batch shape."""
        return FlowPosterior(self.guide, torch.Size(batch_shape), self._validate_args)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, d), differentiable in the guide's parameters."""
        x, log_q = self.guide.forward(self.guide.base_sample(*sample_shape, *self.batch_shape))
        self._draw = _Draw(x, log_q, self._versions(x))
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) (\\*) for points (\\*, d)."""
        draw = self._draw
        if draw is None or draw.x is not value or draw.versions != self._versions(value):
            return super().log_prob(value)
        if not torch.is_grad_enabled():
            return draw.log_q.detach()
        # A draw made without gradients is a constant, at which the density still has one.
        return draw.log_q if draw.log_q.requires_grad else super().log_prob(value)

    def _versions(self, x: Tensor) -> tuple[int, ...]:
        """Counters that go up whenever a parameter or the draw is written to."""
        return (x._version, *(p._version for p in self.guide.parameters()))


class BaseDistribution(TorchDistribution):
    """The base of a guide, over vectors of length d."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, guide: Guide, batch_shape: torch.Size | tuple[int, ...] = ()) -> None:
        self.guide = guide
        super().__init__(torch.Size(batch_shape), torch.Size([guide.dim]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> BaseDistribution:
        """The same distribution with another batch shape."""
        return BaseDistribution(self.guide, torch.Size(batch_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, d)."""
        return self.guide.base_sample(*sample_shape, *self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density (\\*) at points (\\*, d)."""
        return self.guide.base.log_prob(value)


class FlowTransform(Transform):
    """The flows of a guide as a torch transform of vectors, from base to target."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, guide: Guide) -> None:
        super().__init__(cache_size=0)
        self.guide = guide

    def _call(self, x: Tensor) -> Tensor:
        return self.guide.transform(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.guide.inverse(y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx| (\\*) at points x (\\*, d)."""
        return self.guide.transform(x)[1]

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        """The same: nothing is cached."""
        return self
