"""Effect handlers that run a Pyro model at given values and add up its log-density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from nfvi.errors import TargetError
from nfvi.targets.bijections import bare
from nfvi.targets.log_space import log_space_density

__all__ = [
    "Collect",
    "Fixed",
    "Joint",
    "Message",
    "Outermost",
    "Values",
    "in_density",
    "is_data",
    "is_deterministic",
    "is_discrete",
    "is_enumerated",
    "is_latent",
    "is_rounded",
    "shrinking_plates",
]

STRAIGHT_THROUGH = (
    dist.RelaxedBernoulliStraightThrough,
    dist.RelaxedOneHotCategoricalStraightThrough,
)

Message = Any  # Pyro's Message is a TypedDict whose fields are mostly optional.
Values = Mapping[str, Tensor]


def is_deterministic(site: Message) -> bool:
    """Whether a site was written by ``pyro.deterministic``."""
    return site["type"] == "sample" and bool(site["infer"].get("_deterministic"))


def is_latent(site: Message) -> bool:
    """Whether a site has a value to infer: not observed, and not the indices of a plate."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not isinstance(site["fn"], _Subsample)
    )


def is_discrete(site: Message) -> bool:
    """Whether a site's values are set apart from one another."""
    return is_rounded(site) or bool(getattr(site["fn"].support, "is_discrete", False))


def is_rounded(site: Message) -> bool:
    """Whether draws are corners of a support that calls itself continuous: straight-through."""
    return isinstance(bare(site["fn"]), STRAIGHT_THROUGH)


def is_enumerated(site: Message) -> bool:
    """Whether a site is marked to be summed out."""
    return is_latent(site) and site["infer"].get("enumerate") == "parallel" and is_discrete(site)


def in_density(site: Message) -> bool:
    """Whether a site has a term in the log-density."""
    return (
        site["type"] == "sample"
        and not isinstance(site["fn"], _Subsample)
        and not is_deterministic(site)
    )


def is_data(site: Message) -> bool:
    """Whether a site has data: observed, and no ``pyro.factor``."""
    return (
        in_density(site)
        and bool(site["is_observed"])
        and not isinstance(bare(site["fn"]), dist.Unit)
    )


def shrinking_plates(site: Message) -> tuple[Any, ...]:
    """The frames of plates that take fewer rows than there are, and scale the density up."""
    return tuple(filter(_shrinks, site["cond_indep_stack"]))


def _shrinks(frame: Any) -> bool:
    return frame.full_size is not None and frame.size < frame.full_size


def _unscale(msg: Message, plates: frozenset[str]) -> None:
    """Take back the scale of some of the plates around a site, but not ``poutine.scale``."""
    factor = 1.0
    for frame in shrinking_plates(msg):
        if frame.name in plates:
            factor *= frame.full_size / frame.size
    if factor != 1.0:
        scale = msg["scale"] / factor
        exact = not isinstance(scale, Tensor) and math.isclose(scale, 1.0, rel_tol=1e-12)
        msg["scale"] = 1.0 if exact else scale


def _unmask(msg: Message) -> None:
    """Give a latent site its prior where a handler masks it, as the hidden part of ``obs_mask=``.

    A distribution's own ``.mask(False)`` stays: there it is the model that asks for a flat prior.
    """
    msg["mask"] = None


def _where_valid(fn: Any, log_prob: Tensor) -> Tensor:
    """The log-density, -inf where a parameter of the distribution is out of its range."""
    inner = bare(fn)
    events = max(len(inner.batch_shape) - len(fn.batch_shape), 0)
    for name, constraint in inner.arg_constraints.items():
        derived = isinstance(getattr(type(inner), name, None), lazy_property)
        if constraints.is_dependent(constraint) or (derived and name not in vars(inner)):
            continue
        valid = constraint.check(getattr(inner, name))
        if events:
            valid = valid.expand(inner.batch_shape).flatten(-events).all(-1)
        log_prob = torch.where(valid, log_prob, -torch.inf)
    return log_prob


class Outermost(Messenger):
    """A handler that hides the model from those around it, and keeps the parameter store as it is.

    Args:
        params: the value of each ``pyro.param``.
        subsamples: the indices of each plate that draws its own.
        unscaled: subsampling plates that do not scale the density.
    """

    def __init__(
        self, params: Values, subsamples: Values, unscaled: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.params = params
        self.subsamples = subsamples
        self.unscaled = unscaled

    def _process_message(self, msg: Message) -> None:
        super()._process_message(msg)
        msg["stop"] = True

    def _pyro_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], _Subsample):
            if msg["value"] is None:
                msg["value"] = self.subsamples.get(msg["name"])
            return
        if self.unscaled:
            _unscale(msg, self.unscaled)
        if not msg["is_observed"]:
            _unmask(msg)
            if msg["value"] is None:
                self._latent(msg)

    def _pyro_param(self, msg: Message) -> None:
        # A plate that subsamples a parameter looks for the one it came from, and writes its indices
        # there, which are no use after the run.
        value = self.params[msg["name"]].detach()
        value._pyro_unconstrained_param = value  # type: ignore[attr-defined]
        msg["value"] = value

    def _latent(self, msg: Message) -> None:
        raise NotImplementedError


class Fixed(Outermost):
    """Gives each latent site the value it is to have.

    Args:
        values: of the continuous latent sites.
        params: the value of each ``pyro.param``.
        subsamples: the indices of each plate that draws its own.
        choices: values of the discrete ones; those without are left to Pyro.
        unscaled: subsampling plates that do not scale the density.
    """

    def __init__(
        self,
        values: Values,
        params: Values,
        subsamples: Values,
        choices: Values | None = None,
        unscaled: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(params, subsamples, unscaled)
        self.values = values
        self.choices = choices or {}

    def _latent(self, msg: Message) -> None:
        name = msg["name"]
        if name in self.values:
            msg["value"] = self.values[name]
        elif not is_enumerated(msg):
            raise TargetError(
                f"site {name!r} appears in some runs of the model and not in others; the sites "
                "must be the same whatever their values"
            )
        elif name not in self.choices:
            return
        else:
            msg["value"] = self.choices[name]
        msg["done"] = True


class Joint(Fixed):
    """Adds up the log-density of all sites, scaled and masked as the model says.

    Args:
        values: as in ``Fixed``, as all others.
        params: likewise.
        subsamples: likewise.
        choices: likewise.
        unscaled: likewise.
        parts: the unconstrained numbers of the sites whose prior is computed from them.
        strict: whether a distribution with a parameter out of its range has log-density -inf. Its
            formula may well give a number, such as log|Γ(a)| for a < 0.
        batch_dims: ``None`` for values of one point. Else the values hold n points, of which each
            site's log-density has one on the axis left of its last ``batch_dims`` ones.

    Attributes:
        total: the sum, () or (n,).
    """

    def __init__(
        self,
        values: Values,
        params: Values,
        subsamples: Values,
        choices: Values | None = None,
        unscaled: frozenset[str] = frozenset(),
        *,
        parts: Values | None = None,
        strict: bool = False,
        batch_dims: int | None = None,
    ) -> None:
        super().__init__(values, params, subsamples, choices, unscaled)
        self.total: Tensor | float = 0.0
        self._parts = parts or {}
        self._strict = strict
        self._batch_dims = batch_dims
        self._seen = 0

    def _latent(self, msg: Message) -> None:
        super()._latent(msg)
        self._seen += msg["name"] in self.values

    def _pyro_post_sample(self, msg: Message) -> None:
        if in_density(msg):
            log_prob = self._log_prob(msg)
            if self._strict:
                log_prob = _where_valid(msg["fn"], log_prob)
            self._add(msg, log_prob)

    def _log_prob(self, msg: Message) -> Tensor:
        fn, part = msg["fn"], self._parts.get(msg["name"])
        density = None if part is None else log_space_density(fn)
        if part is None or density is None:
            log_prob: Tensor = fn.log_prob(msg["value"], *msg["args"], **msg["kwargs"])
            return log_prob
        return density(part)

    def _add(self, msg: Message, log_prob: Tensor) -> None:
        log_prob = scale_and_mask(log_prob, msg["scale"], msg["mask"])
        if self._batch_dims is None or log_prob.dim() <= self._batch_dims:
            self.total = self.total + log_prob.sum()
        else:
            self.total = self.total + log_prob.reshape(len(log_prob), -1).sum(1)

    def result(self) -> Tensor:
        """The sum, once the model has run.

        Raises:
            TargetError: a latent site did not appear in this run.
        """
        if self._seen != len(self.values):
            raise TargetError(
                f"the latent sites {', '.join(self.values)} do not all appear in every run of the "
                "model; the sites must be the same whatever their values"
            )
        return torch.as_tensor(self.total)


class Collect(Fixed):
    """Writes down the values of the ``pyro.deterministic`` sites; arguments as in ``Fixed``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.found: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        if is_deterministic(msg):
            self.found[msg["name"]] = msg["value"]
