"""What a guide is made from, whatever it is fitted to."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any

import torch

from nfvi.formula import Formula
from nfvi.guides import Base, Guide, Placement
from nfvi.targets import Target, takes_rows
from nfvi.training import Ranks

__all__ = ["GuideSpec"]


@dataclass(frozen=True)
class GuideSpec:
    """The arguments of :class:`nfvi.NFVI` after its checks.

    Attributes:
        formula: the flows, or ``"auto"``.
        base: what they start from.
        jitter: standard deviation of the random start around the identity; ``None`` leaves each
            flow its own.
        seed: of everything random; ``None`` for a new one in each fit.
        dtype: of the guide; ``None`` for that of what it is fitted to.
        device: of the guide.
    """

    formula: str | Formula
    base: Base
    jitter: float | None
    seed: int | None
    dtype: torch.dtype | None
    device: torch.device

    def guide(
        self,
        dim: int,
        dtype: torch.dtype,
        generator: torch.Generator,
        context_dim: int = 0,
        placement: Placement | None = None,
    ) -> Guide:
        """A new guide that starts from the given generator.

        Raises:
            FormulaError: a flow cannot have this dimension, or no flow takes a context.
        """
        return Guide(
            self.formula,
            dim,
            base=self.base,
            context_dim=context_dim,
            jitter=self.jitter,
            placement=placement,
            generator=generator,
            dtype=dtype,
            device=self.device,
        )

    def settings(self, dim: int, dtype: torch.dtype) -> dict[str, Any]:
        """What the settings of a fit say of its guide."""
        return {
            "formula": str(self.formula),
            "base": str(self.base),
            "dtype": str(dtype).removeprefix("torch."),
            "dim": dim,
        }

    def target_settings(self, target: Target, init: str) -> dict[str, Any]:
        """The same of a fit to a target, with what is said of the target and of ``init=``."""
        rows = {}
        if takes_rows(target):
            rows = {"rows": target.rows, "batch_size": target.batch_size}
        return {
            **self.settings(target.dim, self.target_dtype(target)),
            "target": target.name,
            "named": target.named,
            "init": init,
            **rows,
        }

    def target_dtype(self, target: Target) -> torch.dtype:
        """The dtype of a guide for a target."""
        return self.dtype_or(target.dtype)

    def dtype_or(self, own: torch.dtype | None) -> torch.dtype:
        """The dtype that was asked for, or that of what is fitted, or else torch's default."""
        return self.dtype or own or torch.get_default_dtype()

    def fresh_seed(self) -> int:
        """The seed that was given, or a new one."""
        return secrets.randbits(48) if self.seed is None else self.seed

    def shared(self, ranks: Ranks) -> GuideSpec:
        """The same with the seed of the first of several processes."""
        if ranks.size == 1:
            return self
        return replace(self, seed=ranks.first(self.fresh_seed(), self.device))
