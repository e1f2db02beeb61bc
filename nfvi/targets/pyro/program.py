"""A Pyro model made a function of its latent values alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyro
import torch
from pyro import poutine
from torch import Tensor

from nfvi.targets.pyro.enum import Summation, SummedJoint
from nfvi.targets.pyro.handlers import Collect, Fixed, Joint, Values
from nfvi.targets.pyro.likelihood import Pointwise
from nfvi.targets.pyro.places import device_of, made_on
from nfvi.targets.pyro.prediction import Predict
from nfvi.utils import process_wide

__all__ = ["Program"]

Handler = TypeVar("Handler", bound=Fixed | Predict)


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
    _moved: dict[torch.device, Program] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Without copies on other devices."""
        return {**self.__dict__, "_moved": {}}

    @property
    def device(self) -> torch.device | None:
        """That of the arguments and parameters; ``None`` where they hold no tensor."""
        return device_of(self.args, self.kwargs, self.params)

    def log_joint(self, values: Values, parts: Values | None = None) -> Tensor:
        """Log-density () of one point.

        Args:
            values: of every continuous latent site.
            parts: the unconstrained numbers of the sites whose prior is computed from them.
        """
        here = self._beside(values)
        fixed, unscaled = (here.params, here.subsamples), self._unscaled
        joint: Joint
        if here.summation is None:
            joint = Joint(values, *fixed, None, unscaled, parts=parts, strict=self.from_prior)
        else:
            joint = SummedJoint(
                values, *fixed, here.summation, unscaled, parts=parts, strict=self.from_prior
            )
        return self._run(joint).result()

    def log_joint_rows(self, values: Values, parts: Values | None = None) -> Tensor:
        """Log-densities (n,) of n points at once, for a model whose operations broadcast.

        Args:
            values: (n, 1, ..., 1, \\*shape), with axes of length 1 that bring the batch
                dimensions of each site to ``batch_dims``.
            parts: likewise.
        """
        n, here = len(next(iter(values.values()))), self._beside(values)
        joint = Joint(
            values,
            here.params,
            here.subsamples,
            None,
            self._unscaled,
            parts=parts,
            strict=self.from_prior,
            batch_dims=self.batch_dims,
        )
        return self._run(joint).result().expand(n)

    def deterministics(self, values: Values) -> dict[str, Tensor]:
        """The values of the deterministic sites at one point."""
        here = self._beside(values)
        collect = Collect(values, here.params, here.subsamples, here._choices, self._unscaled)
        found = self._run(collect).found
        return {name: found[name] for name in self.deterministic}

    def pointwise(self, values: Values) -> dict[str, Tensor]:
        """The log-likelihood of each observation at one point: site -> its batch shape."""
        here = self._beside(values)
        handler = Pointwise(values, here.params, here.subsamples, here.summation)
        return self._run(handler).result()

    def predict(self, values: Values, *, everything: bool) -> dict[str, Tensor]:
        """Data drawn anew at one point, from torch's global generator: see :class:`Predict`."""
        here = self._beside(values)
        handler = Predict(values, here.params, here.subsamples, everything=everything)
        return self._run(handler).found

    def trace(self, values: Values) -> Any:
        """A Pyro trace of the model at one point."""
        here = self._beside(values)
        handler = Fixed(values, here.params, here.subsamples, here._choices, self._unscaled)
        with process_wide(), made_on(device_of(values)), handler:
            return poutine.trace(self.model).get_trace(*self.args, **self.kwargs)

    @property
    def _choices(self) -> Values | None:
        return None if self.summation is None else self.summation.choices

    @property
    def _unscaled(self) -> frozenset[str]:
        return frozenset(self.unscaled)

    def _run(self, handler: Handler) -> Handler:
        # Argument checks branch on values, which vmap cannot follow.
        place = made_on(device_of(handler.values))
        with process_wide(), pyro.validation_enabled(False), place, handler:
            self.model(*self.args, **self.kwargs)
        return handler

    def _beside(self, values: Values) -> Program:
        """The same with what is held fixed on the device of the values."""
        device = device_of(values)
        choices = self._choices or {}
        held = (*self.params.values(), *self.subsamples.values(), *choices.values())
        if device is None or all(tensor.device == device for tensor in held):
            return self
        if device not in self._moved:
            summation = self.summation
            if summation is not None:
                summation = replace(summation, choices=_to(choices, device))
            self._moved[device] = replace(
                self,
                params=_to(self.params, device),
                subsamples=_to(self.subsamples, device),
                summation=summation,
            )
        return self._moved[device]


def _to(tensors: Values, device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
