"""What a target is: an unnormalised log-density on unconstrained space."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import Evaluate, isolated, probe_points, shape_text

__all__ = ["CheckedTarget", "Sampler", "Target"]

Sampler: TypeAlias = Callable[[int, torch.Generator | None, torch.dtype, torch.device], Tensor]


class Target(ABC):
    """An unnormalised log-density log p(z) on R^d, with the map to what the user calls the sites.

    Attributes:
        dim: d, the dimension of the unconstrained space.
        name: how tables and figures call it.
        log_normalizer: log ∫ exp(log p(z)) dz where it is known, else ``None``.
        named: whether the sites are those of a model; ``Fit.sample`` then returns a dict.
        batching: ``"loop"`` where a batch is evaluated point by point, which is slow.
        dtype: that of the model behind it; ``None`` where there is no such thing.
        differentiable_once: whether values and gradients come from another library, by
            :func:`~nfvi.targets.known_gradient.by_another_library`. Steps are then not captured on
            CUDA, and second derivatives are differences of gradients.
        evidence_caveats: why the integral is no evidence, or of what; none where it is.
        work: numbers that one evaluation of one point writes, where torch does not see them.
        counted: the same where torch does, once it was counted.
        dims: site -> the names of its event's dimensions, for ArviZ; others are named by number.
        coords: name of a dimension -> the labels along it.
    """

    dim: int
    name: str
    log_normalizer: float | None = None
    named: bool = False
    batching: str = "batch"
    dtype: torch.dtype | None = None
    differentiable_once: bool = False
    evidence_caveats: tuple[str, ...] = ()
    work: float | None = None
    counted: float | None = None
    dims: Mapping[str, Sequence[str]] = MappingProxyType({})
    coords: Mapping[str, Sequence[Any]] = MappingProxyType({})
    _sampler: Sampler | None = None

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density at a batch of points z (n, d): (n,), differentiable, up to a constant."""

    def check(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        """Try the target out before a long run; a target that can find faults raises here.

        Raises:
            TargetError: it cannot be used in this dtype or on this device.
        """
        return None

    @abstractmethod
    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """The sites, by name, at a batch of points z (n, d): each (n, \\*event)."""

    def prior_draws(self, n: int, seed: int) -> Tensor | None:
        """n draws (n, d) of a prior, which know the scale of the problem; ``None`` for no prior."""
        return None

    def on_edge(self, z: Tensor) -> Tensor:
        """Whether a site's value at z (n, d) was rounded to an edge of its support: (n,) bool."""
        return torch.zeros(len(z), dtype=torch.bool, device=z.device)

    @property
    def observed_data(self) -> Mapping[str, Any]:
        """The data that the density is given, by name, as arrays; ArviZ's group of that name."""
        return {}

    @property
    def constant_data(self) -> Mapping[str, Any]:
        """Other arrays that the model reads, by name, such as covariates."""
        return {}

    def log_likelihood(self, z: Tensor) -> dict[str, Tensor]:
        """log p(y | x) of every observation at points z (n, d): observed site -> (n, \\*shape).

        Raises:
            TargetError: the target does not tell its observations apart; the message says why.
        """
        raise TargetError(
            f"target {self.name!r} is one function, in which observations cannot be told apart;"
            " write it as a Pyro, NumPyro or PyMC model for log-likelihoods of observations"
        )

    def predict(
        self,
        z: Tensor,
        *,
        seed: int,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """New data drawn at points z (n, d): observed site -> (n, \\*shape).

        Args:
            z: points, of the posterior or of the prior.
            seed: of the draws; no global random state changes.
            args: positional arguments of the model in place of those it has, for new data.
            kwargs: keyword arguments, likewise.

        Raises:
            TargetError: the target has nothing to draw data from; the message says why.
        """
        raise TargetError(
            f"target {self.name!r} is a density of z alone, from which no data can be drawn; write"
            " it as a Pyro, NumPyro or PyMC model, or draw data yourself from fit.sample(n)"
        )

    def predict_new(
        self,
        z: Tensor,
        *,
        seed: int,
        data: Mapping[str, Any] | None,
        coords: Mapping[str, Sequence[Any]] | None,
    ) -> dict[str, Tensor]:
        """New data drawn at points z (n, d), with other values in the containers of a PyMC model.

        Args:
            z: points, of the posterior or of the prior.
            seed: of the draws.
            data: name of a container -> its new values.
            coords: name of a dimension -> the labels along it.

        Raises:
            TargetError: the target is no PyMC model.
        """
        raise TargetError(
            f"data= and coords= are for the pm.Data of a PyMC model, which {self.name!r} is not;"
            " give a Pyro or NumPyro model its new arguments by args= or kwargs="
        )

    @property
    def has_sampler(self) -> bool:
        """Whether :meth:`sample` gives exact draws."""
        return self._sampler is not None

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Exact independent draws (n, d).

        Raises:
            TargetError: this target has no exact sampler, or one that returned another shape.
        """
        if self._sampler is None:
            raise TargetError(
                f"target {self.name!r} has no exact sampler; use nuts(target) for draws from it"
            )
        draws = self._sampler(n, generator, dtype or torch.get_default_dtype(), _device(device))
        if tuple(draws.shape) != (n, self.dim):
            raise TargetError(
                f"the sampler of {self.name!r} returned shape {shape_text(draws.shape)} "
                f"in place of {shape_text((n, self.dim))}"
            )
        return draws


class CheckedTarget(Target):
    """A target that is tried out once for each dtype and device, and chooses how to be evaluated.

    A subclass says on how many points, and chooses there.
    """

    def __init__(self) -> None:
        self._evaluators: dict[tuple[torch.dtype, torch.device], Evaluate] = {}
        self._warned_of_loop = self._warned_of_flat = False
        self._flat: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Without the functions that :meth:`check` chooses, and will choose again."""
        return {**self.__dict__, "_evaluators": {}}

    @abstractmethod
    def _number_of_probes(self) -> int:
        """How many points :meth:`_choose` is to see."""

    def _probes(self, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The points (n, d) at which the log-density is tried out."""
        return probe_points(n, self.dim, dtype, device)

    @abstractmethod
    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        """A function of z like these points (n, d) -> (n,), in the dtype of z.

        Returns:
            The function, its ``batching``, and for a loop what a warning says of the reason.

        Raises:
            TargetError: there is none that is a log-density.
        """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density at points z (n, d): (n,), in the dtype of z, up to a constant.

        Raises:
            TargetError: z is not (n, d), or the first call finds the target unusable.
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
        """Check the log-density on fixed points near the origin; :meth:`log_prob` does it once.

        Args:
            dtype: of z; default that of the model, if it has one, or else
                ``torch.get_default_dtype()``.
            device: of z; default ``torch.get_default_device()``.

        Raises:
            TargetError: the shape, dtype, values or gradient are not those of a log-density, or two
                calls differ. The exception of the user's own code, if it raised one, is its
                ``__cause__``.
        """
        dtype = dtype or self.dtype or torch.get_default_dtype()
        points = self._probes(self._number_of_probes(), dtype, _device(device))
        with isolated():
            evaluate, self.batching, reason = self._choose(points)
        if self.batching == "loop" and not self._warned_of_loop:
            self._warned_of_loop = True
            warnings.warn(
                f"{self.name!r} is evaluated one point at a time, which is slow, because {reason}",
                stacklevel=3,
            )
        self._evaluators[dtype, points.device] = evaluate
        if self._flat and not self._warned_of_flat:
            self._warned_of_flat = True
            warnings.warn(self._improper(self._flat), stacklevel=3)

    def _site_places(self) -> Mapping[str, slice]:
        """Where the numbers of each site of a model are in z."""
        return {}

    def _improper(self, flat: tuple[int, ...]) -> str:
        """What a warning says of coordinates of z on which the log-density of a model is flat.

        :meth:`_choose` keeps them in ``_flat``, as nothing can be warned of while a target is tried
        out. A function of the user's own is refused instead.
        """
        shown = ", ".join(
            f"{name!r} ({', '.join(map(str, own))} of {place.stop - place.start})"
            for name, place in self._site_places().items()
            if (own := [j - place.start for j in flat if place.start <= j < place.stop])
        )
        return (
            f"{self.name!r} is improper: its log-density does not depend on these numbers of site"
            f" {shown}, so that they spread without end in a fit. Give them a prior"
        )

    def _require_shape(self, z: Tensor) -> None:
        if z.dim() != 2 or z.shape[1] != self.dim:
            raise TargetError(
                f"{self.name!r} takes z of shape (n, {self.dim}); got {shape_text(z.shape)}"
            )


def _device(device: torch.device | str | None) -> torch.device:
    return torch.get_default_device() if device is None else torch.device(device)
