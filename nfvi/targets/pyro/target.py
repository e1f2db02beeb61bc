"""A Pyro model as a target on unconstrained space."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import unwrap
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import Target
from nfvi.targets.checks import Evaluate, fixed_randomness, isolated, probe_points, shape_text
from nfvi.targets.pyro.batching import map_deterministics
from nfvi.targets.pyro.evaluator import checked_evaluator, warn_of_flat
from nfvi.targets.pyro.handlers import Values
from nfvi.targets.pyro.reader import read_program, warn_of_constants
from nfvi.targets.pyro.sites import constrain_sites, unconstrain_sites

__all__ = ["PyroTarget"]


class PyroTarget(Target):
    """The posterior of a Pyro model's latent sites, log p(x, y) + log|det dx/dz|, up to a constant.

    The latent sites x, in the model's order, are put end to end in one vector z (d,), after each
    is mapped from its support to R^k. The model may have plates, observed data, ``pyro.factor``,
    masks, scales and ``pyro.deterministic`` sites.

    - **Discrete** latent sites marked for parallel enumeration are summed out; a deterministic
      site that depends on one is left out of :meth:`constrain`. Others are refused.
    - **Subsampling plates** scale their log-likelihood by N/B. A plate that draws its own B indices
      would make the density another one at each call; it keeps the indices that are drawn, by a
      fixed seed, when the target is made, with a warning that the posterior is then that of the
      subsample.
    - **pyro.param** statements keep the value that the parameter store holds when the target is
      made, or their initial one, with a warning that they are not learned.
    - **Draws** are evaluated as a batch, by ``torch.func.vmap`` or else by broadcasting along an
      axis left of all others; where neither agrees with single runs, in a loop, with one warning.
    - **dtype**: results have that of z. Where the model draws its sites in a wider one, it is
      evaluated in that. Where z is wider, the model gets values in the dtype of z, but numbers
      in it that torch makes float32 tensors of still limit the precision.

    No random state, parameter or validation flag of torch or Pyro is changed. The first evaluation
    for each dtype and device checks that the log-density is finite, differentiable, the same at
    the second call, and the same for a batch as for single points.

    Args:
        model: a Pyro model, with or without handlers around it.
        args: its positional arguments.
        name: for tables and figures; default the model's own name.
        kwargs: its keyword arguments.

    Attributes:
        sites: the latent sites by name, with shapes, and places in z.
        deterministic: names of the deterministic sites in :meth:`constrain`.
        subsamples: the indices (B,) kept for each plate that would draw its own.
        dtype: the widest in which the model itself draws a site.
        batching: ``"vmap"``, ``"broadcast"`` or ``"loop"``, as the last check found.

    Raises:
        TargetError: the model raised, has no continuous latent site, has discrete sites that are
            not marked, or sites that change from run to run.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> PyroTarget(model, torch.zeros(5)).log_prob(torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    named = True

    def __init__(
        self,
        model: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = name or _name_of(model)
        self._program, self.sites = read_program(self.name, model, args, kwargs)
        self.dim = sum(site.size for site in self.sites.values())
        self.dtype = functools.reduce(
            torch.promote_types, (site.dtype for site in self.sites.values())
        )
        self.deterministic = self._program.deterministic
        self.subsamples = dict(self._program.subsamples)
        self.batching: str = "vmap"
        self._evaluators: dict[tuple[torch.dtype, torch.device], Evaluate] = {}
        self._collect: Callable[[Values], dict[str, Tensor]] | None = None
        self._warned_of_loop = self._warned_of_flat = False
        warn_of_constants(self.name, self._program)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, sites={list(self.sites)})"

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(x(z), y) + log|det dx/dz| at points z (n, d): (n,), in the dtype of z.

        Raises:
            TargetError: z is not (n, d), or the first call finds the model unusable.
        """
        self._require_shape(z)
        evaluate = self._evaluators.get((z.dtype, z.device))
        if evaluate is None:
            self.check(z.dtype, z.device)
            evaluate = self._evaluators[z.dtype, z.device]
        return evaluate(z)

    def check(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        """Choose how a batch is evaluated and check the log-density, as the first call does.

        Args:
            dtype: of z; default that in which the model draws its sites.
            device: of z; default ``torch.get_default_device()``.

        Raises:
            TargetError: at fixed points near the origin the model raised, or its log-density is
                not finite or differentiable, or not the same in two calls.
        """
        dtype = dtype or self.dtype
        device = torch.device(device) if device is not None else torch.get_default_device()
        points = probe_points(self._uncommon_size(), self.dim, dtype, device)
        with isolated():
            evaluate, self.batching, reason, flat = checked_evaluator(
                self._program, self.sites, self.dtype, points, self.name
            )
        if self.batching == "loop" and not self._warned_of_loop:
            self._warned_of_loop = True
            warnings.warn(
                f"{self.name!r} is evaluated one point at a time, which is slow, because a batch "
                f"of points does not go through it ({reason}); avoid .item(), writing into tensors "
                "and branches on values in the model",
                stacklevel=3,
            )
        if flat and not self._warned_of_flat:
            self._warned_of_flat = True
            warn_of_flat(self.name, self.sites, flat)
        self._evaluators[dtype, points.device] = evaluate

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """Latent and deterministic sites at points z (n, d), in the model's order.

        Returns:
            (n, \\*shape) for each site; real values in the dtype of z.
        """
        self._require_shape(z)
        values, _ = constrain_sites(self.sites, z.to(torch.promote_types(z.dtype, self.dtype)))
        if self.deterministic:
            with fixed_randomness():
                if self._collect is None:
                    self._collect = map_deterministics(self._program, values)
                values |= self._collect(values)
        return {
            name: values[name].to(z.dtype) if values[name].is_floating_point() else values[name]
            for name in self._program.order
        }

    def unconstrain(self, values: Mapping[str, Tensor]) -> Tensor:
        """z from the values of the latent sites: the inverse of :meth:`constrain`.

        Args:
            values: (n, \\*shape) for every latent site, or all of them without n. Deterministic
                sites may be among them; they follow from the others.

        Returns:
            (n, d), or (d,) for values without n.

        Raises:
            TargetError: a site is missing, unknown, of another shape, or outside its support.
        """
        unknown = [name for name in values if name not in self._program.order]
        if unknown:
            raise TargetError(
                f"{self.name!r} has no site {', '.join(unknown)}; its latent sites are "
                f"{', '.join(self.sites)}"
            )
        return unconstrain_sites(self.sites, values)

    def _require_shape(self, z: Tensor) -> None:
        if z.dim() != 2 or z.shape[1] != self.dim:
            raise TargetError(
                f"{self.name!r} takes z of shape (n, {self.dim}); got {shape_text(z.shape)}"
            )

    def _uncommon_size(self) -> int:
        """A number of trial points that is no dimension of a site, lest axes be mixed up."""
        taken = {size for site in self.sites.values() for size in site.shape}
        return next(n for n in range(3, 1000) if n not in taken)


def _name_of(model: Callable[..., Any]) -> str:
    bare: Any = unwrap(model)
    return str(getattr(bare, "__name__", "") or type(bare).__name__)
