"""A Pyro model made a function of its latent values alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyro
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from nfvi.targets.pyro.enum import Summation, SummedJoint
from nfvi.targets.pyro.handlers import Collect, Fixed, Joint, Values
from nfvi.targets.pyro.likelihood import Pointwise
from nfvi.targets.pyro.prediction import Predict
from nfvi.utils import process_wide

__all__ = ["Program"]

Handler = TypeVar("Handler", bound=Messenger)


@dataclass(frozen=True)
class Program:
    """A Pyro model with its arguments, and all that varies from run to run held fixed.

    Attributes:
        model: the model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        params: the value of each ``pyro.param``.
        subsamples: the indices of each plate that would draw its own.
        sizes: the full size of each such plate.
        random_plates: those of them whose indices the density depends on.
        unscaled: for each plate that holds latent sites and takes fewer rows than there are, how
            many of how many. It does not scale the density: a prior must not be raised to a power.
        batch_dims: the most batch dimensions that any site has.
        feasible: values of the continuous latent sites that the model takes.
        from_prior: whether it does not take what the maps make of 0. The origin of z and the trial
            points are then draws from the prior.
        summation: how discrete sites are summed out; ``None`` without any.
        order: names of latent and deterministic sites as the model comes to them.
        deterministic: names of those ``pyro.deterministic`` sites that have one value a point.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    params: Values = field(default_factory=dict)
    subsamples: dict[str, Tensor] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    random_plates: tuple[str, ...] = ()
    unscaled: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    batch_dims: int = 0
    feasible: Values = field(default_factory=dict)
    from_prior: bool = False
    summation: Summation | None = None
    order: tuple[str, ...] = ()
    deterministic: tuple[str, ...] = ()

    def log_joint(self, values: Values, parts: Values | None = None) -> Tensor:
        """Log-density () of one point.

        Args:
            values: of every continuous latent site.
            parts: the unconstrained numbers of the sites whose prior is computed from them.
        """
        fixed = (self.params, self.subsamples)
        joint: Joint
        if self.summation is None:
            joint = Joint(values, *fixed, None, self._unscaled, parts=parts, strict=self.from_prior)
        else:
            joint = SummedJoint(
                values, *fixed, self.summation, self._unscaled, parts=parts, strict=self.from_prior
            )
        return self._run(joint).result()

    def log_joint_rows(self, values: Values, parts: Values | None = None) -> Tensor:
        """Log-densities (n,) of n points at once, for a model whose operations broadcast.

        Args:
            values: (n, 1, ..., 1, \\*shape), with axes of length 1 that bring the batch
                dimensions of each site to ``batch_dims``.
            parts: likewise.
        """
        n = len(next(iter(values.values())))
        joint = Joint(
            values,
            self.params,
            self.subsamples,
            None,
            self._unscaled,
            parts=parts,
            strict=self.from_prior,
            batch_dims=self.batch_dims,
        )
        return self._run(joint).result().expand(n)

    def deterministics(self, values: Values) -> dict[str, Tensor]:
        """The values of the deterministic sites at one point."""
        collect = Collect(values, self.params, self.subsamples, self._choices, self._unscaled)
        found = self._run(collect).found
        return {name: found[name] for name in self.deterministic}

    def pointwise(self, values: Values) -> dict[str, Tensor]:
        """The log-likelihood of each observation at one point: site -> its batch shape."""
        handler = Pointwise(values, self.params, self.subsamples, self.summation)
        return self._run(handler).result()

    def predict(self, values: Values, *, everything: bool) -> dict[str, Tensor]:
        """Data drawn anew at one point, from torch's global generator: see :class:`Predict`."""
        handler = Predict(values, self.params, self.subsamples, everything=everything)
        return self._run(handler).found

    def trace(self, values: Values) -> Any:
        """A Pyro trace of the model at one point."""
        handler = Fixed(values, self.params, self.subsamples, self._choices, self._unscaled)
        with process_wide(), handler:
            return poutine.trace(self.model).get_trace(*self.args, **self.kwargs)

    @property
    def _choices(self) -> Values | None:
        return None if self.summation is None else self.summation.choices

    @property
    def _unscaled(self) -> frozenset[str]:
        return frozenset(self.unscaled)

    def _run(self, handler: Handler) -> Handler:
        # Argument checks branch on values, which vmap cannot follow.
        with process_wide(), pyro.validation_enabled(False), handler:
            self.model(*self.args, **self.kwargs)
        return handler
