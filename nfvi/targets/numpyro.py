"""A NumPyro model as a target on unconstrained space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, shape_text
from nfvi.targets.jax import JaxTarget
from nfvi.targets.jax_batches import precision
from nfvi.targets.numpyro_predictive import draw_of_point, pointwise, with_arguments
from nfvi.targets.numpyro_reader import read_numpyro
from nfvi.utils import process_wide

__all__ = ["NumPyroTarget"]

# As for Pyro's sites, in units of z.
LOST = 0.5


class NumPyroTarget(JaxTarget):
    """The posterior of a NumPyro model, log p(x, y) + log|det dx/dz|, up to a constant.

    The latent sites x, in the model's order, are put end to end in one vector z (d,), after each
    is mapped from its support to R^k by NumPyro's ``biject_to``. The density is that of NumPyro's
    own NUTS, compiled with its gradient for batches of points, as in :class:`JaxLogDensity`.

    - **Discrete** latent sites marked for parallel enumeration are summed out by NumPyro; a
      deterministic site that depends on one is left out of :meth:`constrain`. Others are refused.
    - **Subsampling plates** keep the indices that are drawn when the target is made, with a
      warning; **numpyro.param** statements keep their initial value, with a warning.
    - **dtype**: results have that of z, and float64 is evaluated in float64 whatever JAX's global
      switch says; it is never changed. Arguments that are arrays of NumPy keep their precision;
      an array of JAX has the one that it was made with.
    - **Plates** give the dimensions their names in ``fit.to_arviz()``.

    Args:
        model: a NumPyro model, with or without handlers around it.
        args: its positional arguments; tensors of torch become arrays of NumPy.
        name: for tables and figures; default the model's own name.
        kwargs: its keyword arguments.

    Attributes:
        sites: the latent sites by name, with shapes, and places in z.
        deterministic: names of the deterministic sites in :meth:`constrain`.
        dims: site -> the names of its dimensions.
        dtype: float64 where JAX's global switch was on when the target was made; else ``None``,
            torch's default.

    Raises:
        ImportError: JAX or NumPyro is not installed.
        TargetError: the model raised, has no continuous latent site, or has discrete sites that
            are not marked.

    Example:
        >>> import numpyro, numpyro.distributions as dist  # doctest: +SKIP
        >>> def model(y):  # doctest: +SKIP
        ...     mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     with numpyro.plate("data", len(y)):
        ...         numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> NumPyroTarget(model, np.zeros(5)).log_prob(torch.zeros(3, 1)).shape  # doctest: +SKIP
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
        if not callable(model):
            raise TargetError(f"a NumPyro model is a function; got {type(model).__name__}")
        called = name or _name_of(model)
        self._model = read_numpyro(called, model, args, kwargs)
        super().__init__(called, self._model.dim)
        self.sites = self._model.sites
        self.deterministic = self._model.deterministic
        self.dims = self._model.dims
        self.evidence_caveats = self._model.caveats

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, sites={list(self.sites)})"

    @property
    def observed_data(self) -> Mapping[str, Any]:
        """The data by site, as arrays."""
        return self._model.observed

    @property
    def constant_data(self) -> Mapping[str, Any]:
        """The model's arguments that are arrays and no data, by name."""
        return self._model.constants

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """Latent and deterministic sites at points z (n, d), in the model's order.

        Returns:
            (n, \\*shape) for each site; real values in the dtype of z.
        """
        self._require_shape(z)
        values = self._mapped(self._model.constrained, z)
        return {
            name: x.to(z.dtype) if (x := values[name]).is_floating_point() else x
            for name in self._model.order
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
        given = {key: torch.as_tensor(value).detach() for key, value in values.items()}
        lead = self._lead(given)
        latent = {key: given[key].reshape(-1, *self.sites[key].shape) for key in self.sites}
        like = next(iter(latent.values()))
        z = self._each(self._model.unconstrained, latent).to(like.dtype)
        back = self.constrain(z)
        for key, value in latent.items():
            close = torch.isclose(back[key].to(value), value, rtol=1e-3, atol=1e-5).all()
            if not (z.isfinite().all() and close):
                raise TargetError(
                    f"site {key!r}: a value is outside its support, or on its edge; got values"
                    f" from {float(value.min()):g} to {float(value.max()):g}"
                )
        return z.reshape(*lead, self.dim)

    def on_edge(self, z: Tensor) -> Tensor:
        """Whether a site's value at z (n, d) sits on an edge of its support: (n,) bool.

        There, the value, a float, no longer tells how far from the edge it is.
        """
        self._require_shape(z)
        back = self._mapped(self._there_and_back, z)
        moved = (back - z.detach().to(back.dtype)).abs()
        inside: Tensor = (moved < LOST).all(1)
        return ~inside

    def log_likelihood(self, z: Tensor) -> dict[str, Tensor]:
        """log p(y | x) of every observation at points z (n, d): observed site -> (n, \\*shape).

        Raises:
            TargetError: there are no data, they are scaled, or discrete sites are summed out.
        """
        self._require_shape(z)
        return self._of_data(z, lambda z, _: pointwise(self._model, z), 0, "log-likelihoods of")

    def predict(
        self,
        z: Tensor,
        *,
        seed: int,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Data drawn anew at points z (n, d): observed site -> (n, \\*shape).

        With other arguments, sites that they give no data are drawn as well, and deterministic
        sites are computed for them.

        Args:
            z: points, of the posterior or of the prior.
            seed: of the draws.
            args: positional arguments in place of the model's own, for new data.
            kwargs: keyword arguments, likewise.

        Raises:
            TargetError: the model raised, has nothing to draw, or discrete sites are summed out.
        """
        self._require_shape(z)
        model = with_arguments(self._model, args, kwargs)
        everything = args is not None or kwargs is not None

        def draw(z: Any, key: Any) -> Any:
            return draw_of_point(self._model, model, z, key, everything=everything)

        return self._of_data(z, draw, seed, "drawing data from")

    def prior_draws(self, n: int, seed: int) -> Tensor | None:
        """n draws z (n, d) of the model's prior; ``None`` where it is improper.

        Args:
            n: how many.
            seed: of the draws.
        """
        import jax

        try:
            with process_wide(), precision(torch.float64):
                keys = jax.random.split(jax.random.PRNGKey(seed), n)
                z = jax.jit(jax.vmap(lambda key: self._model.prior_draw(key)))(keys)
                found = torch.from_numpy(np.array(z, dtype=np.float64))
        except (*USER_ERRORS, NotImplementedError):
            return None
        usable = found.isfinite().all(1)
        return found[usable] if bool(usable.any()) else None

    def _of_data(
        self, z: Tensor, fn: Callable[[Any, Any], Any], seed: int, what: str
    ) -> dict[str, Tensor]:
        """A function of a point and a key to arrays by site, for all of n points, in float64."""
        import jax

        try:
            with process_wide(), precision(torch.float64):
                points = jax.numpy.asarray(z.detach().double().cpu().numpy())
                keys = jax.random.split(jax.random.PRNGKey(seed), len(z))
                arrays = jax.jit(jax.vmap(fn))(points, keys)
                found = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
        except TargetError as error:
            raise TargetError(f"{self.name!r}: {error}") from error.__cause__
        except USER_ERRORS as error:
            raise TargetError(
                f"{self.name!r}: {what} it raised {type(error).__name__}: {error}. Latent sites"
                " keep the shapes they were fitted with: new data must have the same groups, and"
                " may have other rows"
            ) from error
        if not found:
            raise TargetError(f"{self.name!r} has no observed site with these arguments")
        return {
            name: x.to(z.device, z.dtype) if x.is_floating_point() else x.to(z.device)
            for name, x in found.items()
        }

    def _of_point(self, z: Any) -> Any:
        return self._model.log_joint(z)

    def _there_and_back(self, z: Any) -> Any:
        return self._model.unconstrained(self._model.constrained(z))

    def _each(self, fn: Callable[[Any], Any], values: Mapping[str, Tensor]) -> Tensor:
        """A function of the values of one draw, for all of n, in float64."""
        import jax

        with process_wide(), precision(torch.float64):
            arrays = {key: jax.numpy.asarray(x.cpu().numpy()) for key, x in values.items()}
            return torch.from_numpy(np.array(jax.vmap(lambda one: fn(one))(arrays)))

    def _lead(self, values: Mapping[str, Tensor]) -> torch.Size:
        """The shape () or (n,) in front of the values of all latent sites."""
        unknown = [key for key in values if key not in self._model.order]
        missing = [key for key in self.sites if key not in values]
        if unknown or missing:
            what = f"has no site {', '.join(unknown)}" if unknown else "needs a value for each site"
            raise TargetError(f"{self.name!r} {what}; its latent sites are {', '.join(self.sites)}")
        first = next(iter(self.sites.values()))
        lead = values[first.name].shape[: values[first.name].dim() - len(first.shape)]
        for key, site in self.sites.items():
            if len(lead) > 1 or values[key].shape != lead + site.shape:
                raise TargetError(
                    f"site {key!r} takes values of shape {shape_text(site.shape)}, or n of them in"
                    f" {shape_text(('n', *site.shape))}; got {shape_text(values[key].shape)}"
                )
        return lead

    def _site_places(self) -> Mapping[str, slice]:
        return {name: slice(site.start, site.stop) for name, site in self.sites.items()}

    def _refuse_flat(self, flat: tuple[int, ...]) -> None:
        self._flat = flat  # a warning for later, as a check is silent


def _name_of(model: Any) -> str:
    while not hasattr(model, "__name__") and getattr(model, "fn", None) is not None:
        model = model.fn
    return str(getattr(model, "__name__", "") or type(model).__name__)
