"""A density of named parameters: a function of their values, with or without priors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import CheckedTarget
from nfvi.targets.batching import Given, find_batching
from nfvi.targets.checks import (
    USER_ERRORS,
    Evaluate,
    check_dtype,
    check_values,
    checked_call,
    isolated,
    name_of,
    needed_arguments,
    shape_text,
)
from nfvi.targets.parameters import Parameter, read_parameters
from nfvi.targets.sites import constrain_sites, sites_on_edge, unconstrain_sites

__all__ = ["NamedDensity"]

BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class NamedDensity(CheckedTarget):
    """The density of named parameters x, on unconstrained space.

    ``parameters`` says of each what values it can have, or what prior it has::

        log p(z) = f(x) + Σ_priors log π(x_j) + log|det dx/dz|,    x = x(z)

    With priors, f is the log-likelihood. If every parameter has a normalised one, the log evidence
    of a fit is that of the model. Without, f is the whole log-density of x.

    Of each parameter, ``parameters`` gives

    - a number of entries or a ``torch.Size``, for real numbers: ``3``;
    - a support: ``"positive"``, ``"unit_interval"``, ``"simplex"``, ``"ordered"``,
      ``"corr_cholesky"``, ..., an interval ``(0, 6.28)`` or ``(0, None)``, or one of
      ``torch.distributions.constraints``;
    - both: ``("positive", 3)``, ``((0, 1), (3, 2))``, ``("simplex", 4)``;
    - or a prior: a distribution of torch or Pyro, with its batch and event shape.

    The densities of priors are exact in both tails of their supports: they are computed from z.

    Args:
        fn: f. It gets the values by keyword if its arguments have the names of the parameters,
            else as one dict; all values of a batch (n, \\*shape) -> (n,), or those of one point
            (\\*shape) -> (). Which of the two is found out, as for :class:`~nfvi.LogDensity`.
        parameters: name -> what it is, in the order of z.
        name: for tables and figures; default the function's own name.
        batched: ``True`` if fn takes a batch, ``False`` if one point; default: found out.

    Attributes:
        sites: the parameters by name, with shapes, and places in z.
        without_prior: the parameters whose prior is missing or improper; where there is none, the
            integral is the evidence.

    Raises:
        TargetError: the parameters cannot be used, or the function does not take them.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> y = torch.tensor([1.2, 0.7, 1.9])
        >>> def log_likelihood(mu, sigma):
        ...     return dist.Normal(mu, sigma).log_prob(y).sum()
        >>> priors = {"mu": dist.Normal(0.0, 1.0), "sigma": dist.HalfNormal(2.0)}
        >>> NamedDensity(log_likelihood, priors).dim
        2
    """

    named = True

    def __init__(
        self,
        fn: Callable[..., Any],
        parameters: Mapping[str, Any],
        *,
        name: str | None = None,
        batched: bool | None = None,
    ) -> None:
        if not callable(fn):
            raise TargetError(f"a log-density is a function; got {type(fn).__name__}")
        super().__init__()
        self.fn = fn
        self.name = name or name_of(fn)
        self._parameters = read_parameters(parameters)
        self.sites = {key: parameter.site for key, parameter in self._parameters.items()}
        self.dim = sum(site.size for site in self.sites.values())
        self.without_prior = tuple(k for k, p in self._parameters.items() if not p.is_proper)
        priors = [p.site.dtype for p in self._parameters.values() if p.prior is not None]
        self.dtype = torch.float64 if torch.float64 in priors else None
        self._batched = batched
        self._by_keyword = _takes_keywords(fn, self._parameters, self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, sites={list(self.sites)})"

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """The parameters at points z (n, d): name -> (n, \\*shape), in the dtype of z."""
        self._require_shape(z)
        values, _ = constrain_sites(self.sites, z)
        return values

    def unconstrain(self, values: Mapping[str, Tensor]) -> Tensor:
        """z from the values of all parameters: the inverse of :meth:`constrain`.

        Args:
            values: (n, \\*shape) for every parameter, or all of them without n.

        Returns:
            (n, d), or (d,) for values without n.

        Raises:
            TargetError: a parameter is missing, unknown, of another shape, or outside its support.
        """
        unknown = [key for key in values if key not in self.sites]
        if unknown:
            raise TargetError(
                f"{self.name!r} has no parameter {', '.join(unknown)}; it has"
                f" {', '.join(self.sites)}"
            )
        return unconstrain_sites(self.sites, values)

    def on_edge(self, z: Tensor) -> Tensor:
        """Whether a value at z (n, d) was rounded to an edge of its support: (n,) bool."""
        self._require_shape(z)
        return sites_on_edge(self.sites, z)

    @torch.no_grad()
    def prior_draws(self, n: int, seed: int) -> Tensor | None:
        """n draws z (n, d) of the priors; ``None`` where a parameter has none, or it has no draws.

        Args:
            n: how many.
            seed: of the draws.
        """
        if self.without_prior:
            return None
        try:
            with isolated(seed):
                values = {
                    key: parameter.prior.sample((n,))  # type: ignore[union-attr]
                    for key, parameter in self._parameters.items()
                }
            z = unconstrain_sites(self.sites, values)
        except (*USER_ERRORS, TargetError):
            return None
        usable = z.isfinite().all(1)
        return z[usable] if bool(usable.any()) else None

    def _number_of_probes(self) -> int:
        """A number that is no dimension of a parameter, lest axes be mixed up."""
        taken = {size for site in self.sites.values() for size in site.shape}
        return next(n for n in range(3, 1000) if n not in taken and n != self.dim)

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        raw, batching, reason = find_batching(
            self._of_points(), points, self.name, self._batched, self._given(len(points))
        )
        # Priors and Jacobians have the dtype of z, which would hide that of f.
        check_dtype(raw(points), points, self.name)

        def evaluate(z: Tensor) -> Tensor:
            total = checked_call(raw, z, self.name) + self._log_prior_and_jacobian(z)
            return total.to(z.dtype)

        found = check_values(evaluate, points, self.name)
        if found.flat:
            self._refuse_flat(found.flat)
        why = f"torch.func.vmap cannot map it ({reason}); write it for a batch of values"
        return evaluate, batching, why

    def _refuse_flat(self, flat: tuple[int, ...]) -> None:
        raise TargetError(_improper(self.name, self._parameters, flat))

    def _given(self, n: int) -> Given:
        """How messages call the values that f gets."""
        shapes = {key: tuple(site.shape) for key, site in self.sites.items()}
        batch = ", ".join(f"{key} {shape_text((n, *shape))}" for key, shape in shapes.items())
        point = ", ".join(f"{key} {shape_text(shape)}" for key, shape in shapes.items())
        return Given(
            f"of {', '.join(shapes)}",
            f"a batch of values, {batch}",
            f"those of one point, {point}",
            "values with an axis of n points left of all others",
            "each value",
        )

    def _of_points(self) -> Callable[[Tensor], Any]:
        """f as a function of a batch z (n, d), or of one point z (d)."""

        @functools.wraps(self.fn, updated=())  # messages name the place of an error in f
        def of_points(z: Tensor) -> Any:
            values, _ = constrain_sites(self.sites, z if z.dim() == 2 else z.unsqueeze(0))
            if z.dim() == 1:
                values = {key: value[0] for key, value in values.items()}
            return self.fn(**values) if self._by_keyword else self.fn(values)

        return of_points

    def _log_prior_and_jacobian(self, z: Tensor) -> Tensor:
        values, ladj = constrain_sites(self.sites, z)
        total = z.new_zeros(len(z)) if ladj is None else ladj
        for key, parameter in self._parameters.items():
            site = parameter.site
            log_prior = parameter.log_prior(z[:, site.start : site.stop], values[key])
            total = total if log_prior is None else total + log_prior
        return total


def _takes_keywords(fn: Any, parameters: Mapping[str, Parameter], name: str) -> bool:
    """Whether f takes the parameters by keyword; else it takes one dict.

    Raises:
        TargetError: it can take neither.
    """
    try:
        arguments = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a function of another language has no signature to read
        return False
    named = {a.name for a in arguments if a.kind in BY_KEYWORD}
    open_ended = any(a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments)
    required = {a.name for a in arguments if a.default is a.empty and a.kind in BY_KEYWORD}
    if required <= parameters.keys() and (open_ended or parameters.keys() <= named):
        return True
    places = [a for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    if places and len(needed_arguments(arguments)) <= 1 and not named & parameters.keys():
        return False
    raise TargetError(
        f"{name!r} takes {', '.join(a.name for a in arguments) or 'no arguments'}, and parameters="
        f" names {', '.join(parameters)}: use the same names, or write it for one dict of them"
    )


def _improper(name: str, parameters: Mapping[str, Parameter], flat: tuple[int, ...]) -> str:
    named = [
        key
        for key, parameter in parameters.items()
        if any(parameter.site.start <= column < parameter.site.stop for column in flat)
    ]
    return (
        f"{name!r} is improper: it does not depend on {', '.join(named)}, along which its integral"
        " is infinite. Give the parameter a prior, or leave it out"
    )
