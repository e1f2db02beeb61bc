"""The contract of a flow, an invertible map from base to target that knows its log-determinant."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

__all__ = ["Flow"]


def _moved_last(build: Callable[..., None]) -> Callable[..., None]:
    """A constructor after which the flow goes to its device, once all of it is there."""

    @functools.wraps(build)
    def build_and_move(self: Flow, *args: Any, **options: Any) -> None:
        outermost = "_being_built" not in self.__dict__
        self.__dict__["_being_built"] = True
        build(self, *args, **options)
        if outermost:
            del self.__dict__["_being_built"]
            if self._device is not None:
                self.to(self._device)

    return build_and_move


class Flow(nn.Module, ABC):
    """An invertible map x = f(z) on R^d with its log-determinant; direction base -> target.

    Args:
        dim: d, the dimension, at least ``min_dim``.
        context_dim: c, the length of the context vectors that the map depends on beside its
            input; 0 for none. A family that does not take a context leaves it alone.
        index: how many layers of the same family come before this one in its formula, since the
            last permutation. Families that treat coordinates unequally take turns by it.
        jitter: standard deviation, at least 0, of the random perturbation of the identity that
            the parameters start from; 0 starts at the identity where the family contains it, and
            ``None`` means the family's ``default_jitter``.
        generator: source of that perturbation; ``None`` draws from torch's default generator.
        dtype: of the parameters; default ``torch.get_default_dtype()``.
        device: of the parameters; default the CPU. A start is computed on the CPU and moved there,
            so that a seed means the same one everywhere.

    Raises:
        ValueError: ``dim`` is below ``min_dim`` or not an integer, ``context_dim`` or ``index``
            is negative, or ``jitter`` is negative or not finite.
    """

    fast: ClassVar[Literal["both", "sampling", "density"]] = "both"
    """The direction that has a closed form; the other is solved numerically or in sequence."""
    min_dim: ClassVar[int] = 1
    advice: ClassVar[str] = ""
    """What to use for a dimension below the least."""
    takes_context: ClassVar[bool] = False
    permutes: ClassVar[bool] = False
    """Whether it is there to reorder the coordinates; layers behind it take turns anew."""
    # On pot1 (600 steps of 128 even draws, two seeds) `monotone*3` ends at KL 0.02 with it, at 0.06
    # with a quarter, and runs off in one of the two with four times as much; `planar*8` ends
    # at 0.15, 0.6 and 0.09.
    learning_rate: ClassVar[float] = 0.02
    """Of Adam, at which fits to a target do well; a formula takes the least of its flows."""
    smooth: ClassVar[bool] = True
    """Whether log|det| has a continuous derivative; where it jumps, path gradients are noisy."""
    # Enough for restarts to part, and little beside a target that is standardised; not measured.
    default_jitter: ClassVar[float] = 0.01

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int = 0,
        index: int = 0,
        jitter: float | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(dim, int) or isinstance(dim, bool) or dim < self.min_dim:
            raise ValueError(
                f"dim={dim!r}: {type(self).__name__} needs an integer of at least {self.min_dim}"
                f"{self.advice}"
            )
        for name, value in (("context_dim", context_dim), ("index", index)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name}={value!r}: it must be an integer of at least 0")
        self.dim, self.index = dim, index
        self.context_dim = context_dim if self.takes_context else 0
        self.jitter = self.default_jitter if jitter is None else jitter
        if not 0 <= self.jitter < math.inf:
            raise ValueError(f"jitter={jitter!r}: it must be a finite number of at least 0")
        self._generator, self._device = generator, device
        # On the CPU at first, whose roundings are the same everywhere: a GPU's differ from them in
        # the last bit, and a seed would mean another start.
        place = "meta" if str(device) == "meta" else "cpu"
        self._kind: dict[str, Any] = {"dtype": dtype or torch.get_default_dtype(), "device": place}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__init__ = _moved_last(cls.__init__)  # type: ignore[method-assign]

    def noise(self, *shape: int) -> Tensor:
        """Standard normal draws for an initial value, from the generator given at construction."""
        if self._kind["device"] == "meta":
            return torch.empty(shape, **self._kind)
        # Drawn on the generator's own device, which may be another one.
        device = self._generator.device if self._generator is not None else "cpu"
        noise = torch.randn(shape, generator=self._generator, dtype=torch.float64, device=device)
        return noise.to(**self._kind)

    @abstractmethod
    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map base to target.

        Args:
            z: points (\\*, d).
            context: (\\*, c), of the points' batch shape; needed where ``context_dim`` is over 0
                and without effect where it is 0.

        Returns:
            x = f(z) (\\*, d) and log|det df/dz| (\\*).
        """

    @abstractmethod
    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map target to base, with exact gradients with respect to x and the parameters.

        Args:
            x: points (\\*, d).
            z: f⁻¹(x) (\\*, d) when it is known, as for a sample just pushed forward; a flow
                without a closed-form inverse then skips its root find.
            context: as for :meth:`forward`.

        Returns:
            z = f⁻¹(x) (\\*, d) and log|det df⁻¹/dx| (\\*).
        """

    @classmethod
    def forward_run(
        cls, flows: Sequence[Flow], z: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply a run of consecutive layers of this family, first one first.

        A family overrides this where a whole run is cheaper than its layers one by one.
        """
        total = None
        for flow in flows:
            z, ladj = flow(z, context)
            total = ladj if total is None else total + ladj
        return z, total if total is not None else z.new_zeros(z.shape[:-1])

    @classmethod
    def inverse_run(
        cls,
        flows: Sequence[Flow],
        x: Tensor,
        z: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Undo a run of layers, last one first; ``z`` is the known input of the first layer."""
        known = cls._inputs(flows, z, context)
        total = None
        for flow, preimage in zip(reversed(flows), reversed(known), strict=True):
            x, ladj = flow.inverse(x, preimage, context)
            total = ladj if total is None else total + ladj
        return x, total if total is not None else x.new_zeros(x.shape[:-1])

    @classmethod
    def _inputs(
        cls, flows: Sequence[Flow], z: Tensor | None, context: Tensor | None
    ) -> list[Tensor | None]:
        """The known input of each layer; all ``None`` where the inverse has a closed form."""
        if z is None or cls.fast != "sampling":
            return [None] * len(flows)
        inputs: list[Tensor | None] = []
        with torch.no_grad():
            for flow in flows:
                inputs.append(z)
                if len(inputs) < len(flows):
                    z = flow(z, context)[0]
        return inputs
