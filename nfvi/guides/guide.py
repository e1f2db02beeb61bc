"""The guide: a base distribution pushed through the flows of a formula."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import groupby
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from nfvi.flows import Flow
from nfvi.formula import Formula
from nfvi.guides.bases import Base, make_base
from nfvi.guides.placement import Placement

__all__ = ["FlowDistribution", "Guide"]

_Run: TypeAlias = tuple[type[Flow], list[Flow]]


class Guide(nn.Module):
    """The distribution of x = f_K(⋯ f_1(z)) for z from the base; log q(x) = log q₀(z) − Σ ladj_k.

    Args:
        formula: text such as ``"planar*8"`` or a :class:`Formula`.
        dim: d.
        base: ``"normal"``, ``"laplace"``, ``"studentt(df=5)"`` or a :class:`Base`.
        context_dim: c, the length of the context vectors of a conditional distribution q(x | c);
            0 for none.
        jitter: standard deviation of the start around the identity; ``None`` leaves each flow
            its own default.
        placement: a fixed affine map behind the flows; ``None`` for none.
        generator: source of that start; ``None`` draws from torch's default generator.
        dtype: default ``torch.get_default_dtype()``.
        device: default the CPU.

    Raises:
        FormulaError: the formula or base cannot be read, a flow cannot have this dimension, or
            no flow takes a context where there is one.

    Example:
        >>> guide = Guide("scale-loc", dim=2, generator=torch.Generator().manual_seed(0))
        >>> guide.log_prob(guide.sample(3)).shape
        torch.Size([3])
    """

    _kind: Tensor

    def __init__(
        self,
        formula: str | Formula,
        dim: int,
        *,
        base: str | Base = "normal",
        context_dim: int = 0,
        jitter: float | None = None,
        placement: Placement | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.formula = Formula.parse(formula)
        self.dim, self.context_dim = dim, context_dim
        self.base = make_base(base)
        flows = self.formula.build(
            dim,
            context_dim=context_dim,
            jitter=jitter,
            generator=generator,
            dtype=dtype,
            device=device,
        )
        # A guide of fixed flows alone has no parameter to ask for dtype and device.
        kind = torch.empty(0, dtype=dtype or torch.get_default_dtype(), device=device)
        self.register_buffer("_kind", kind, persistent=False)
        self.flows = nn.ModuleList(flows)
        self.placement = None if placement is None else copy.deepcopy(placement).to(kind)
        # Consecutive layers of one family run together: (class, first, last + 1).
        self._runs: list[tuple[type[Flow], int, int]] = []
        for cls, run in groupby(flows, type):
            start = self._runs[-1][2] if self._runs else 0
            self._runs.append((cls, start, start + len(list(run))))

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters."""
        return next(self.parameters(), self._kind).dtype

    @property
    def device(self) -> torch.device:
        """That of the parameters."""
        return next(self.parameters(), self._kind).device

    def tracked_names(self) -> dict[str, str]:
        """What a tracker calls each parameter, ``u_0, w_0, …``, by its name in the state dict."""
        return {
            f"flows.{i}.{name}": f"{name}_{i}"
            for i, flow in enumerate(self.flows)
            for name, _ in flow.named_parameters()
        }

    def transform(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Push base points z (\\*, d) through the flows: x (\\*, d) and log|det dx/dz| (\\*).

        Args:
            z: base points (\\*, d).
            context: (\\*, c), broadcast to the points; needed where ``context_dim`` is over 0.

        Raises:
            ValueError: the last dimension of points or context is wrong.
        """
        context = self._check(z, context)
        total: Tensor | None = None
        for cls, flows in self._each_run():
            z, ladj = cls.forward_run(flows, z, context)
            total = ladj if total is None else total + ladj
        if self.placement is None:
            return z, _known(total)
        x, ladj = self.placement(z)
        return x, _known(total) + ladj

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pull points x (\\*, d) back: z (\\*, d) and log|det dz/dx| (\\*).

        Args:
            x: points (\\*, d).
            z: the base points that x came from, if they are known; no root find runs then.
            context: as for :meth:`transform`.

        Raises:
            ValueError: the last dimension of points or context is wrong.
        """
        context = self._check(x, context)
        runs = list(self._each_run())
        inputs = _inputs(runs, z, context)
        total: Tensor | None = None
        if self.placement is not None:
            x, total = self.placement.inverse(x)
        for (cls, flows), known in zip(reversed(runs), reversed(inputs), strict=True):
            x, ladj = cls.inverse_run(flows, x, known, context)
            total = ladj if total is None else total + ladj
        return x, _known(total)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (\\*, d) and log q(x) (\\*) for base points z (\\*, d)."""
        x, ladj = self.transform(z, context)
        return x, self.base.log_prob(z) - ladj

    def log_prob(self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """log q(x) (\\*) at points x (\\*, d); ``z`` and ``context`` as for :meth:`inverse`."""
        z, ladj = self.inverse(x, z, context)
        return self.base.log_prob(z) + ladj

    def base_sample(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Base draws (\\*shape, d) in the guide's dtype and on its device."""
        return self.base.sample(
            (*shape, self.dim), generator=generator, dtype=self.dtype, device=self.device
        )

    def rsample_and_log_prob(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """n draws x (n, \\*, d), differentiable in the parameters, and log q(x) (n, \\*).

        Args:
            n: how many, for each context.
            context: (\\*, c); where the guide takes one.
            generator: source of the draws; ``None`` draws from torch's default generator.
        """
        shape = () if context is None else context.shape[:-1]
        x, log_q = self(self.base_sample(n, *shape, generator=generator), context)
        return x, log_q

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n draws x (n, \\*, d), for each context (\\*, c) where the guide takes one."""
        shape = () if context is None else context.shape[:-1]
        return self.transform(self.base_sample(n, *shape, generator=generator), context)[0]

    def distribution(self) -> FlowDistribution:
        """The guide as a ``torch.distributions.Distribution`` over vectors of length d.

        Raises:
            ValueError: the guide takes a context.
        """
        if self.context_dim:
            raise ValueError("distribution() is for a guide without context; use sample, log_prob")
        return FlowDistribution(self)

    def _check(self, points: Tensor, context: Tensor | None) -> Tensor | None:
        """The context in the points' batch shape."""
        if points.shape[-1:] != (self.dim,):
            raise ValueError(
                f"points of shape {tuple(points.shape)}: the last dimension must be dim={self.dim}"
            )
        if context is None and not self.context_dim:
            return None
        if context is None or context.shape[-1:] != (self.context_dim,):
            got = None if context is None else tuple(context.shape)
            wanted = f"(*, {self.context_dim})" if self.context_dim else "None"
            raise ValueError(f"context of shape {got}: this guide needs {wanted}")
        return context.expand(*points.shape[:-1], self.context_dim)

    def _each_run(self) -> Iterator[_Run]:
        flows: list[Flow] = list(self.flows)  # type: ignore[arg-type]
        return ((cls, flows[start:stop]) for cls, start, stop in self._runs)


class FlowDistribution(Distribution):
    """A guide as a torch distribution: event shape (d,), batch shape (), reparametrised draws.

    Draws come from torch's default generator, as for every torch distribution.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, guide: Guide, validate_args: bool | None = None) -> None:
        self.guide = guide
        super().__init__(event_shape=torch.Size([guide.dim]), validate_args=validate_args)

    def rsample(
        self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()
    ) -> Tensor:
        """Draws (\\*sample_shape, d), differentiable in the guide's parameters."""
        return self.guide.transform(self.guide.base_sample(*sample_shape))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) (\\*) for points (\\*, d)."""
        if self._validate_args:
            self._validate_sample(value)
        return self.guide.log_prob(value)


@torch.no_grad()
def _inputs(runs: list[_Run], z: Tensor | None, context: Tensor | None) -> list[Tensor | None]:
    """What is known of the input of each run, as far as a numeric inverse asks for it."""
    inputs: list[Tensor | None] = [None] * len(runs)
    last = max((i for i, (cls, _) in enumerate(runs) if cls.fast == "sampling"), default=-1)
    for i, (cls, flows) in enumerate(runs[: last + 1]):
        inputs[i] = z
        if z is not None and i < last:
            z = cls.forward_run(flows, z, context)[0]
    return inputs


def _known(total: Tensor | None) -> Tensor:
    if total is None:
        raise ValueError("a guide needs at least one flow")
    return total
