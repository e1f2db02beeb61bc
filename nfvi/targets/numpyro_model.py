"""A NumPyro model with its arguments: its sites, its density, and the maps between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

__all__ = [
    "SEED",
    "NumPyroModel",
    "NumPyroSite",
    "Trace",
    "Values",
    "copied",
    "run_traced",
    "with_seed",
]

SEED = 20
Values: TypeAlias = dict[str, Any]
Trace: TypeAlias = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class NumPyroSite:
    """A continuous latent site and its place in the unconstrained vector z (d,).

    Attributes:
        name: as in the model.
        shape: of its value, batch and event together.
        unconstrained_shape: of the numbers that its value is made from.
        start: index in z of the first of them.
        stop: index in z after the last.
    """

    name: str
    shape: tuple[int, ...]
    unconstrained_shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class NumPyroModel:
    """A model with its arguments, and what is held fixed of it.

    Attributes:
        model: as the user wrote it.
        args: its positional arguments; arrays of NumPy are copies.
        kwargs: its keyword arguments.
        held: the indices of plates that would draw their own, and the values of parameters.
        sites: the latent sites, in the model's order.
        deterministic: the deterministic sites that follow from these.
        order: both, in the model's order.
        dims: site -> the names of its dimensions, those of plates.
        observed: the data by site.
        constants: the arrays among the arguments that are no data, by name.
        nesting: 0 where no discrete site is summed out; else how many axes plates take, and 1.
        caveats: why the integral over the latent sites is no evidence.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    held: Values
    sites: dict[str, NumPyroSite]
    deterministic: tuple[str, ...]
    order: tuple[str, ...]
    dims: dict[str, tuple[str, ...]]
    observed: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    nesting: int
    caveats: tuple[str, ...]

    @property
    def dim(self) -> int:
        """d."""
        return max(site.stop for site in self.sites.values())

    def log_joint(self, z: Any) -> Any:
        """log p(x, y) + log|det dx/dz| at one point z (d,)."""
        from numpyro.infer.util import potential_energy

        model = self._seeded()
        if self.nesting:
            from numpyro.contrib.funsor import enum

            model = enum(model, -self.nesting)
        summed = bool(self.nesting)
        return -potential_energy(model, *self._arguments(), self.split(z), enum=summed)

    def constrained(self, z: Any) -> Values:
        """The values of latent and deterministic sites at one point z (d,)."""
        from numpyro.infer.util import constrain_fn

        values = constrain_fn(
            self._seeded(), *self._arguments(), self.split(z), return_deterministic=True
        )
        return {name: values[name] for name in self.order}

    def unconstrained(self, values: Values) -> Any:
        """z (d,) from the values of the latent sites."""
        from numpyro.distributions import biject_to
        from numpyro.handlers import substitute

        latent = {name: values[name] for name in self.sites}
        trace = run_traced(substitute(self._seeded(), data=latent), *self._arguments())
        return self.joined(
            {
                name: biject_to(trace[name]["fn"].support).inv(value)
                for name, value in latent.items()
            }
        )

    def prior_draw(self, key: Any) -> Any:
        """z (d,) drawn from the prior."""
        trace = run_traced(self._seeded(key), *self._arguments())
        return self.unconstrained({name: trace[name]["value"] for name in self.sites})

    def split(self, z: Any) -> Values:
        """The numbers of each site in z (d,)."""
        return {
            site.name: z[site.start : site.stop].reshape(site.unconstrained_shape)
            for site in self.sites.values()
        }

    def joined(self, parts: Values) -> Any:
        """z (d,) of the numbers of each site: the inverse of :meth:`split`."""
        import jax

        return jax.numpy.concatenate([parts[name].reshape(-1) for name in self.sites])

    def _seeded(self, key: Any = SEED) -> Any:
        return with_seed(self.model, key, self.held)

    def _arguments(self) -> tuple[tuple[Any, ...], Values]:
        """Copies, as JAX keeps the form, float32 or float64, that an array has had first."""
        args, kwargs = copied((self.args, dict(self.kwargs)))
        return args, kwargs


def with_seed(model: Callable[..., Any], key: Any, held: Values) -> Any:
    """A model with the key that its random numbers come from, and values for some of its sites."""
    import jax
    from numpyro.handlers import seed, substitute

    if not held:
        return seed(model, key)
    return substitute(seed(model, key), data=jax.tree.map(jax.numpy.asarray, held))


def run_traced(model: Any, args: tuple[Any, ...], kwargs: Values) -> Trace:
    """The sites of a run, by name."""
    from numpyro.handlers import trace

    found: Trace = trace(model).get_trace(*args, **kwargs)
    return found


def copied(tree: Any) -> Any:
    """The same with copies of arrays, and arrays of NumPy for tensors."""
    import jax

    return jax.tree.map(_copy, tree, is_leaf=lambda x: isinstance(x, torch.Tensor))


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    return value.copy() if isinstance(value, np.ndarray) else value
