"""A Pyro model made a function of its latent values alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyro
import torch
from pyro import poutine
from torch import Tensor

from nfvi.targets.pyro.all_rows import AllRows
from nfvi.targets.pyro.enum import Summation, SummedJoint
from nfvi.targets.pyro.handlers import Collect, Fixed, Joint, Values, is_data
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
        unscaled: for each plate that holds latent sites and is given fewer rows than there are, how
            many of how many. It does not scale the density: a prior must not be raised to a power.
        all_rows: where plates that draw their own hold latent sites, the runs over all rows. Values
            are then those of all of them, as are results.
        one_run: whether results are those of ``subsamples`` alone all the same.
        batch_dims: the most batch dimensions that any site has.
        feasible: values of the continuous latent sites that the model takes.
        from_prior: whether it does not take what the maps make of 0. The origin of z and the trial
            points are then draws from the prior.
        summation: how discrete sites are summed out; ``None`` without any.
        order: names of latent and deterministic sites as the model comes to them.
        deterministic: names of those ``pyro.deterministic`` sites that have one value a point.
        mixed: names of those whose value depends on which rows a run takes.
        not_mapped: why runs over all rows are not made in one call; empty where they are.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    params: Values = field(default_factory=dict)
    subsamples: dict[str, Tensor] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    random_plates: tuple[str, ...] = ()
    unscaled: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    all_rows: AllRows | None = None
    one_run: bool = False
    batch_dims: int = 0
    feasible: Values = field(default_factory=dict)
    from_prior: bool = False
    summation: Summation | None = None
    order: tuple[str, ...] = ()
    deterministic: tuple[str, ...] = ()
    mixed: frozenset[str] = frozenset()
    not_mapped: str = ""
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

    @property
    def kept(self) -> dict[str, Tensor]:
        """The indices of the plates that do not go through all of their rows."""
        gone = self._summed_over
        return {plate: rows for plate, rows in self.subsamples.items() if plate not in gone}

    def at(self, rows: Values) -> Program:
        """The model with given rows of some plates, and the results of one run."""
        return replace(self, subsamples={**self.subsamples, **rows}, one_run=True)

    def log_joint(self, values: Values, parts: Values | None = None) -> Tensor:
        """Log-density () of one point.

        Args:
            values: of every continuous latent site.
            parts: the unconstrained numbers of the sites whose prior is computed from them.
        """
        return self._total(Program._joint, values, parts or {})

    def log_joint_rows(self, values: Values, parts: Values | None = None) -> Tensor:
        r"""Log-densities (n,) of n points at once, for a model whose operations broadcast.

        Args:
            values: (n, 1, ..., 1, \*shape), with axes of length 1 that bring the batch
                dimensions of each site to ``batch_dims``.
            parts: likewise.
        """
        return self._total(Program._joint_rows, values, parts or {})

    def deterministics(self, values: Values) -> dict[str, Tensor]:
        """The values of the deterministic sites at one point."""
        return self._joined(Program._deterministics, values, events=True)

    def pointwise(self, values: Values) -> dict[str, Tensor]:
        """The log-likelihood of each observation at one point: site -> its batch shape."""
        return self._joined(Program._pointwise, values, events=False)

    def predict(self, values: Values, *, everything: bool) -> dict[str, Tensor]:
        """Data drawn anew at one point, from torch's global generator: see :class:`Predict`."""
        drawn = Program._predicted_all if everything else Program._predicted
        return self._joined(drawn, values, events=True, mapped=False)

    def observed(self) -> dict[str, Tensor]:
        """The data by site."""
        return self._joined(Program._observed, self.feasible, events=True, mapped=False)

    def taken(self, values: Values, like: Values | None = None) -> Values:
        """The values of all rows, cut down to those of one run.

        Args:
            values: by site.
            like: the values, where ``values`` are the unconstrained numbers behind them.
        """
        if self.all_rows is None:
            return values
        return self.all_rows.taken(values, self.subsamples, like)

    def trace(self, values: Values) -> Any:
        """A Pyro trace of one run of the model at one point."""
        here = self._beside(values)
        taken = here.taken(values)
        handler = Fixed(taken, here.params, here.subsamples, here._choices, here._unscaled)
        with process_wide(), made_on(device_of(values)), handler:
            return poutine.trace(self.model).get_trace(*self.args, **self.kwargs)

    def _joint(self, values: Values, parts: Values) -> Tensor:
        fixed, unscaled = (self.params, self.subsamples), self._unscaled
        joint: Joint
        if self.summation is None:
            joint = Joint(values, *fixed, None, unscaled, parts=parts, strict=self.from_prior)
        else:
            joint = SummedJoint(
                values, *fixed, self.summation, unscaled, parts=parts, strict=self.from_prior
            )
        return self._run(joint).result()

    def _joint_rows(self, values: Values, parts: Values) -> Tensor:
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
        return self._run(joint).result().expand(len(next(iter(values.values()))))

    def _deterministics(self, values: Values) -> dict[str, Tensor]:
        collect = Collect(values, self.params, self.subsamples, self._choices, self._unscaled)
        found = self._run(collect).found
        return {name: found[name] for name in self.deterministic}

    def _pointwise(self, values: Values) -> dict[str, Tensor]:
        handler = Pointwise(values, self.params, self.subsamples, self.summation, self._summed_over)
        return self._run(handler).result()

    def _predicted(self, values: Values, *, everything: bool = False) -> dict[str, Tensor]:
        handler = Predict(
            values, self.params, self.subsamples, self._summed_over, everything=everything
        )
        return self._run(handler).found

    def _observed(self, values: Values) -> dict[str, Tensor]:
        nodes = replace(self, all_rows=None).trace(values).nodes
        return {name: torch.as_tensor(n["value"]) for name, n in nodes.items() if is_data(n)}

    def _predicted_all(self, values: Values) -> dict[str, Tensor]:
        return self._predicted(values, everything=True)

    def _total(
        self, joint: Callable[[Program, Values, Values], Tensor], values: Values, parts: Values
    ) -> Tensor:
        """The log-density of all rows, or of those of one run."""
        here = self._beside(values)

        def run(rows: Values) -> Tensor:
            there = here.at(rows) if rows else here
            return joint(there, there.taken(values), there.taken(parts, like=values))

        if here.all_rows is None or here.one_run:
            return run({})
        return here.all_rows.total(run)

    def _joined(
        self,
        collect: Callable[[Program, Values], dict[str, Tensor]],
        values: Values,
        *,
        events: bool,
        mapped: bool | None = None,
    ) -> dict[str, Tensor]:
        """What runs give by site, for all rows or for those of one run."""
        here = self._beside(values)

        def run(rows: Values) -> dict[str, Tensor]:
            there = here.at(rows) if rows else here
            return collect(there, there.taken(values))

        if here.all_rows is None or here.one_run:
            return run({})
        return here.all_rows.joined(run, events=events, mapped=mapped)

    @property
    def _choices(self) -> Values | None:
        return None if self.summation is None else self.summation.choices

    @property
    def _unscaled(self) -> frozenset[str]:
        return frozenset(self.unscaled)

    @property
    def _summed_over(self) -> Mapping[str, int]:
        """The plates whose rows all come, run by run, and N of each."""
        return {} if self.all_rows is None else self.all_rows.sizes

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
        held = [*self.params.values(), *self.subsamples.values(), *choices.values()]
        if self.all_rows is not None:
            held.append(self.all_rows.weights)
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
                all_rows=None if self.all_rows is None else self.all_rows.to(device),
            )
        return self._moved[device]


def _to(tensors: Values, device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
