"""What flows share whose maps are written for a run of layers at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nfvi.flows.base import Flow

__all__ = ["RunFlow"]


class RunFlow(Flow):
    """A flow whose layers in a row are cheaper together; one layer is a run of one. No context.

    A subclass says what a run does, by :meth:`_push` and :meth:`_pull`.
    """

    @classmethod
    @abstractmethod
    def _push(cls, layers: Sequence[Any], z: Tensor) -> tuple[Tensor, Tensor]:
        """x and log|det dx/dz| of the run at z (\\*, d), the first layer first."""

    @classmethod
    @abstractmethod
    def _pull(cls, layers: Sequence[Any], x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """z and log|det dz/dx| of the run at x (\\*, d); ``z`` is the answer where it is known."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._push([self], z)

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._pull([self], x, z)

    @classmethod
    def forward_run(
        cls, flows: Sequence[Flow], z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return cls._push(flows, z)

    @classmethod
    def inverse_run(
        cls,
        flows: Sequence[Flow],
        x: Tensor,
        z: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        return cls._pull(flows, x, z)
