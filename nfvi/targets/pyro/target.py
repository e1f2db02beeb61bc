"""A Pyro model as a target on unconstrained space."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import unwrap
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import CheckedTarget
from nfvi.targets.checks import Evaluate, check_values, fixed_randomness
from nfvi.targets.minibatch import MinibatchTarget, random_rows
from nfvi.targets.pieced_sum import in_pieces
from nfvi.targets.pyro.batching import PyroBatching, map_rows
from nfvi.targets.pyro.evaluator import checked_evaluator
from nfvi.targets.pyro.facts import read_facts
from nfvi.targets.pyro.handlers import Values
from nfvi.targets.pyro.minibatch import (
    OfRows,
    density_of_all,
    density_of_rows,
    minibatch_plate,
    numbers_of_draw,
)
from nfvi.targets.pyro.notices import warn_of_constants
from nfvi.targets.pyro.predictive import by_observation, draw_data, with_arguments
from nfvi.targets.pyro.prior import draw_prior
from nfvi.targets.pyro.reader import read_program, trial_points
from nfvi.targets.sites import constrain_sites, sites_on_edge, unconstrain_sites

__all__ = ["PyroTarget"]


class PyroTarget(CheckedTarget, MinibatchTarget):
    """The posterior of a Pyro model's latent sites, log p(x, y) + log|det dx/dz|, up to a constant.

    The latent sites x, in the model's order, are put end to end in one vector z (d,), after each
    is mapped from its support to R^k. The model may have plates, observed data, ``pyro.factor``,
    masks, scales and ``pyro.deterministic`` sites.

    - **Discrete** latent sites marked for parallel enumeration are summed out; a deterministic
      site that depends on one is left out of :meth:`constrain`. Others are refused.
    - **Masks** of handlers act on data. A latent site has its prior where one masks it, as the
      part of ``obs_mask=`` has for which there are data: the density would have no finite
      integral. A distribution's own ``.mask(False)`` is a flat prior, as written.
    - **Subsampling plates** scale their log-likelihood by N/B. Where one plate draws its own B of N
      indices and holds data alone, ``log_prob`` is that of all N rows, and a step of a fit draws B
      of them anew, see docs/large-data. Where a plate that draws its own holds latent sites, these
      have all N rows, and every step sees all rows of all such plates; a density that is no sum
      over them, or that memory does not hold, is refused. Of several plates without latent sites,
      the indices are kept that are drawn, by a fixed seed, when the target is made, with a warning
      that the posterior is then that of the subsample. One that is given rows by ``subsample=``,
      and holds latent sites, is not scaled, with a warning that these rows alone are fitted.
    - **pyro.param** statements keep the value that the parameter store holds when the target is
      made, or their initial one, with a warning that they are not learned.
    - **Draws** are evaluated as a batch, by ``torch.func.vmap`` or else by broadcasting along an
      axis left of all others; where neither agrees with single runs, in a loop, with one warning.
    - **Edges**: the prior of a bounded or positive site (Beta, Dirichlet, Gamma, LKJ, ...) is
      computed from z, exact in both tails. Its value may sit on an edge of its support as floats
      go; :meth:`on_edge` tells for which z.
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
        dims: site -> the names of its batch dimensions: those of plates.
        subsamples: the indices (B,) kept for each plate that would draw its own.
        rows: N, where steps draw B of N rows of a plate anew; else 0.
        batch_size: B.
        fresh_plate: the name of that plate, or ``None``.
        dtype: the widest in which the model itself draws a site.
        program: the model and its arguments, with all that varies from run to run held fixed.
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
        super().__init__()
        self.name = name or _name_of(model)
        self.program, self.sites = read_program(self.name, model, args, kwargs)
        self.dim = sum(site.size for site in self.sites.values())
        self.dtype: torch.dtype = functools.reduce(
            torch.promote_types, (site.dtype for site in self.sites.values())
        )
        self.deterministic = self.program.deterministic
        self._facts = read_facts(self.program)
        self.dims = self._facts.dims
        self.subsamples = self.program.kept
        self.fresh_plate = minibatch_plate(self.program)
        self._of_rows: OfRows | None = None
        self._numbers = 0.0
        if self.fresh_plate is not None:
            self.rows = int(self.program.sizes[self.fresh_plate])
            self.batch_size = len(self.subsamples.pop(self.fresh_plate))
        self.batching: str = "vmap"
        self._collect: Callable[[Values], dict[str, Tensor]] | None = None
        warn_of_constants(self.name, self.program, self.fresh_plate)

    def __getstate__(self) -> dict[str, Any]:
        """Without functions that are made anew where they are needed."""
        return {**super().__getstate__(), "_collect": None, "_of_rows": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, sites={list(self.sites)})"

    def _probes(self, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        return trial_points(self.program, self.sites, n, dtype, device)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """Latent and deterministic sites at points z (n, d), in the model's order.

        Returns:
            (n, \\*shape) for each site; real values in the dtype of z.
        """
        values = self._values(z)
        if self.deterministic:
            with fixed_randomness():
                if self._collect is None:
                    self._collect = map_rows(self.program.deterministics, values)
                values |= self._collect(values)
        return {
            name: values[name].to(z.dtype) if values[name].is_floating_point() else values[name]
            for name in self.program.order
        }

    @property
    def observed_data(self) -> Mapping[str, Any]:
        """The data by site, as arrays."""
        return self._facts.observed

    @property
    def constant_data(self) -> Mapping[str, Any]:
        """The model's arguments that are arrays and no data, by name."""
        return self._facts.constants

    def log_likelihood(self, z: Tensor) -> dict[str, Tensor]:
        """log p(y | x) of every observation at points z (n, d): observed site -> (n, \\*shape).

        The shape is the site's batch shape: a vector drawn by ``to_event`` or a multivariate
        distribution is one observation. Where a mask hides one, it is 0. A discrete site that is
        summed out must belong to one observation.

        Raises:
            TargetError: there are no data, they are scaled, as in a plate that subsamples, or
                share a discrete site.
        """
        values = self._values(z)
        found = by_observation(self.program, self.name, values)
        return {name: value.to(z.dtype) for name, value in found.items()}

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
        sites are computed for them. A discrete site that is summed out is drawn from its prior, as
        for a new unit of its plate.

        Args:
            z: points, of the posterior or of the prior.
            seed: of the draws; no global random state changes.
            args: positional arguments in place of the model's own, for new data.
            kwargs: keyword arguments, likewise.

        Raises:
            TargetError: the model raised, has nothing to draw, or data share a discrete site.
        """
        program = with_arguments(self.program, args, kwargs)
        everything = args is not None or kwargs is not None
        found = draw_data(program, self.name, self._values(z), seed, everything=everything)
        return {
            name: value.to(z.dtype) if value.is_floating_point() else value
            for name, value in found.items()
        }

    def prior_draws(self, n: int, seed: int) -> Tensor | None:
        """n draws z (n, d) of the model's prior; ``None`` where it is improper.

        Args:
            n: how many; the model is run as often.
            seed: of the draws.
        """
        return draw_prior(self.program, self.sites, n, seed)

    def on_edge(self, z: Tensor) -> Tensor:
        """Whether a site's value at z (n, d) sits on an edge of its support: (n,) bool.

        There, the value, a float, no longer tells how far from the edge it is. Its prior is exact
        all the same; what the model computes of it is that of the last float.
        """
        self._require_shape(z)
        return sites_on_edge(self.sites, z.to(torch.promote_types(z.dtype, self.dtype)))

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
        unknown = [name for name in values if name not in self.program.order]
        if unknown:
            raise TargetError(
                f"{self.name!r} has no site {', '.join(unknown)}; its latent sites are "
                f"{', '.join(self.sites)}"
            )
        return unconstrain_sites(self.sites, values)

    def draw_rows(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The numbers of B rows of the plate that draws its own, at random and none twice."""
        index = torch.from_numpy(random_rows(self.rows, self.batch_size, generator))
        return (index.to(self.program.subsamples[self.fresh_plate or ""].device),)

    def log_prob_of(self, z: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """The estimate of log p(z) from some rows of that plate (n), at points z (n, d)."""
        if self._of_rows is None:
            self.check(z.dtype, z.device)
        return self._of_rows(z, rows[0])  # type: ignore[misc]

    def numbers_per_draw(self) -> float:
        return self._numbers

    def steps_of_a_look(self, n_mc: int) -> float:
        """N / B: the model is run as often."""
        return self.rows / self.batch_size

    def _site_places(self) -> Mapping[str, slice]:
        return {name: slice(site.start, site.stop) for name, site in self.sites.items()}

    def _improper(self, flat: tuple[int, ...]) -> str:
        missing = "of data that are missing in part, draw those alone that are missing"
        return f"{super()._improper(flat)}; {missing}, without obs_mask="

    def _values(self, z: Tensor) -> dict[str, Tensor]:
        """The values of the continuous latent sites, in a dtype no narrower than the model's."""
        self._require_shape(z)
        values, _ = constrain_sites(self.sites, z.to(torch.promote_types(z.dtype, self.dtype)))
        return values

    def _number_of_probes(self) -> int:
        """A number that is no dimension of a site, lest axes be mixed up."""
        taken = {size for site in self.sites.values() for size in site.shape}
        taken |= {len(rows) for rows in self.program.subsamples.values()}
        return next(n for n in range(3, 1000) if n not in taken)

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        evaluate, batching, reason, flat = checked_evaluator(
            self.program, self.sites, self.dtype, points, self.name
        )
        if self.fresh_plate is not None:
            evaluate = self._of_all(points, batching)
            flat = check_values(evaluate, points, self.name).flat
        elif self.program.all_rows is not None:
            evaluate = in_pieces(evaluate, self.program.all_rows.numbers)
        self._flat = flat  # a warning for later, as a check is silent
        why = (
            f"a batch of points does not go through it ({reason}); avoid .item(), writing into"
            " tensors and branches on values in the model"
        )
        return evaluate, batching, why

    def _of_all(self, points: Tensor, batching: PyroBatching) -> Evaluate:
        """The density of all rows of the plate that draws its own."""
        program, plate = self.program, self.fresh_plate or ""
        of_rows = density_of_rows(program, self.sites, plate, batching, self.dtype)
        rows = program.subsamples[plate]
        self._of_rows, self._numbers = of_rows, numbers_of_draw(of_rows, points, rows, batching)
        return density_of_all(program, plate, of_rows, self._numbers)


def _name_of(model: Callable[..., Any]) -> str:
    bare: Any = unwrap(model)
    return str(getattr(bare, "__name__", "") or type(bare).__name__)
