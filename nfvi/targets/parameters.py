"""Named parameters of a user's function: what may be said of each, and what becomes of it."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, cast

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from nfvi.errors import TargetError
from nfvi.targets.bijections import bare, bijection, support_of
from nfvi.targets.checks import USER_ERRORS, isolated
from nfvi.targets.log_space import Density, log_space_density
from nfvi.targets.sites import Site
from nfvi.targets.unchecked import unchecked

__all__ = ["Parameter", "declared_parameters", "read_parameters"]

WORDS: dict[str, constraints.Constraint] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit_interval": constraints.unit_interval,
    "simplex": constraints.simplex,
    "ordered": dist.constraints.ordered_vector,
    "positive_ordered": dist.constraints.positive_ordered_vector,
    "corr_cholesky": constraints.corr_cholesky,
    "corr_matrix": dist.constraints.corr_matrix,
    "lower_cholesky": constraints.lower_cholesky,
    "positive_definite": constraints.positive_definite,
}
HOW = (
    "give a number of entries, as 3; a shape, as torch.Size((3, 2)); a support, as 'positive',"
    " (0, 6.28), (0, None) or one of torch.distributions.constraints; both, as ('positive', 3); or"
    " a prior, as dist.HalfNormal(5.)"
)


@dataclass(frozen=True)
class Parameter:
    """A parameter and, where it has one, its prior.

    Attributes:
        site: name, shape, place in z and the map to its support.
        prior: its distribution; ``None`` where the function is all of the density.
    """

    site: Site
    prior: Distribution | None = None
    _priors: dict[torch.device, tuple[Distribution, Density | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Without copies on devices."""
        return {**self.__dict__, "_priors": {}}

    @property
    def is_proper(self) -> bool:
        """Whether it has a prior that integrates to 1: one that is neither masked nor flat."""
        inner: Any = self.prior
        while hasattr(inner, "base_dist") and not isinstance(inner, dist.MaskedDistribution):
            inner = inner.base_dist
        improper = (dist.MaskedDistribution, dist.ImproperUniform)
        return self.prior is not None and not isinstance(inner, improper)

    def log_prior(self, z: Tensor, value: Tensor) -> Tensor | None:
        """(n) from the numbers z (n, size) and the values (n, \\*shape); ``None`` for no prior."""
        if self.prior is None:
            return None
        prior, of_z = self._prior(z.device)
        log_prob = prior.log_prob(value) if of_z is None else of_z(self.site.unflatten(z))
        return log_prob.reshape(len(value), -1).sum(1)

    def _prior(self, device: torch.device) -> tuple[Distribution, Density | None]:
        """The prior on a device, and as a function of the numbers of z where it is computed so."""
        if device not in self._priors:
            prior = unchecked(cast(Distribution, self.prior), device)
            of_z = log_space_density(prior) if self.site.log_space else None
            self._priors[device] = prior, of_z
        return self._priors[device]


def read_parameters(parameters: Any) -> dict[str, Parameter]:
    """The parameters that a user names, in their order.

    Args:
        parameters: name -> number of entries, support, (support, shape) or prior.

    Raises:
        TargetError: a name or what is said of it cannot be used; the message names it.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise TargetError(
            "parameters= maps names to shapes, supports or priors, as in"
            f" {{'tau': 'positive', 'beta': 3}}; got {parameters!r}"
        )
    found: dict[str, Parameter] = {}
    start = 0
    for name, said in parameters.items():
        _check_name(name)
        try:
            parameter = _parameter(name, said, start)
        except (*USER_ERRORS, NotImplementedError) as error:
            if isinstance(error, TargetError):
                raise
            raise TargetError(f"parameter {name!r}: {said!r} cannot be used: {error}") from error
        found[name] = parameter
        start = parameter.site.stop
    return found


def declared_parameters(fn: Any) -> dict[str, Any] | None:
    """The parameters that a function declares by the defaults of its arguments.

    In ``def f(tau=dist.HalfNormal(5.0), phi=(0, 6.28))``, as :func:`read_parameters` takes them.
    ``None`` where it declares none: each argument must have a default, and one of them must be a
    distribution, a constraint or the word for one.
    """
    try:
        arguments = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    said = {a.name: a.default for a in arguments}
    telling = (Distribution, constraints.Constraint)
    told = any(isinstance(x, telling) or (isinstance(x, str) and x in WORDS) for x in said.values())
    takes = (*telling, str, tuple, list, int)
    return said if told and all(isinstance(x, takes) for x in said.values()) else None


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        if isinstance(name, str) and keyword.iskeyword(name):
            raise TargetError(
                f"parameters=: {name!r} is a keyword of Python; call it otherwise, such as"
                f" '{name}_'"
            )
        raise TargetError(
            f"parameters=: {name!r} is no name in Python; names are of letters, digits and _, such"
            " as 'tau_2'"
        )


def _parameter(name: str, said: Any, start: int) -> Parameter:
    if isinstance(said, Distribution):
        return _with_prior(name, said, start)
    support, shape = _support(name, said)
    return Parameter(_site(name, support, shape, start, torch.get_default_dtype()))


def _with_prior(name: str, prior: Distribution, start: int) -> Parameter:
    kind, support = type(bare(prior)).__name__, support_of(prior)
    if support.is_discrete or kind.endswith("StraightThrough"):
        rounded = "" if support.is_discrete else ", as its draws are rounded"
        raise TargetError(
            f"parameter {name!r}: {kind} is discrete{rounded}; sum over its values in the function"
        )
    shape = prior.batch_shape + prior.event_shape
    site = _site(name, support, shape, start, _dtype(prior))
    return Parameter(replace(site, log_space=log_space_density(prior) is not None), prior)


def _dtype(prior: Distribution) -> torch.dtype:
    """The dtype of its draws; torch's default where it has none."""
    try:
        with isolated():
            return prior.sample().dtype
    except NotImplementedError:
        return torch.get_default_dtype()


def _support(name: str, said: Any) -> tuple[constraints.Constraint, torch.Size]:
    """Support and shape of a parameter without a prior."""
    if isinstance(said, torch.Size):
        return constraints.real, said
    if _is_whole(said):
        return constraints.real, _shape(name, said)
    if isinstance(said, (tuple, list)) and len(said) == 2:
        first, second = said
        if isinstance(first, (str, tuple, list, constraints.Constraint)):
            return _constraint(name, first), _shape(name, second)
    return _constraint(name, said), torch.Size()


def _constraint(name: str, said: Any) -> constraints.Constraint:
    if isinstance(said, constraints.Constraint):
        return said
    if isinstance(said, str):
        if said not in WORDS:
            words = ", ".join(map(repr, WORDS))
            raise TargetError(f"parameter {name!r}: {said!r} is no support; there are {words}")
        return WORDS[said]
    if isinstance(said, (tuple, list)) and len(said) == 2:
        return _interval(name, *said)
    raise TargetError(f"parameter {name!r}: got {said!r}; {HOW}")


def _interval(name: str, low: Any, high: Any) -> constraints.Constraint:
    low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
    numbers = all(_is_whole(end) or isinstance(end, float) for end in (low, high))
    if not numbers or not low < high:
        shape = all(map(_is_whole, (low, high)))
        advice = f". A shape of two axes is torch.Size(({low}, {high}))" if shape else ""
        raise TargetError(
            f"parameter {name!r}: an interval is (low, high), two numbers with low < high, or None"
            f" for no end; got ({low!r}, {high!r}){advice}"
        )
    if math.isinf(low) and math.isinf(high):
        return constraints.real
    if math.isinf(high):
        return constraints.positive if low == 0 else constraints.greater_than(low)
    if math.isinf(low):
        return constraints.less_than(high)
    return constraints.unit_interval if (low, high) == (0, 1) else constraints.interval(low, high)


def _shape(name: str, said: Any) -> torch.Size:
    sizes = said if isinstance(said, (tuple, list)) else (said,)
    if not all(_is_whole(size) and size >= 1 for size in sizes):
        raise TargetError(
            f"parameter {name!r}: a shape is an integer of at least 1 or several; got {said!r}"
        )
    return torch.Size(map(int, sizes))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _site(
    name: str,
    support: constraints.Constraint,
    shape: torch.Size,
    start: int,
    dtype: torch.dtype,
) -> Site:
    if len(shape) < support.event_dim:
        raise TargetError(
            f"parameter {name!r}: a value of this support has {support.event_dim} or more axes, so"
            f" it needs a shape, as in ('simplex', 3); got shape {tuple(shape)}"
        )
    try:
        transform = bijection(support)
    except NotImplementedError as error:
        raise TargetError(
            f"parameter {name!r}: no smooth bijection leads from R^k to {support}; take R^k or"
            " another support, and map it in the function"
        ) from error
    inner = shape if transform is None else torch.Size(transform.inverse_shape(shape))
    if transform is not None and (not inner.numel() or transform.forward_shape(inner) != shape):
        raise TargetError(
            f"parameter {name!r}: no value of this support has shape {tuple(shape)}; matrices are"
            " square, and a simplex has two entries or more"
        )
    return Site(
        name=name,
        shape=shape,
        unconstrained_shape=inner,
        start=start,
        stop=start + inner.numel(),
        event_dim=support.event_dim,
        transform=transform,
        dtype=dtype,
    )
