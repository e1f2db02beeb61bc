"""Where a guide starts: the affine map that is placed before the flows learn."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.guides import Placement
from nfvi.starts.curved import CURVED_LIMIT, fit_by_curvature
from nfvi.starts.gaussian_fit import (
    Enough,
    GaussianFit,
    fit_gaussians,
    gaussian_elbos,
    never,
)
from nfvi.starts.pathfinder import Ascent, ascend, pathfinder
from nfvi.targets import Target, affordable, laplace

__all__ = ["FULL_RANK_LIMIT", "STARTS", "Start", "StartName", "find_start"]

logger = logging.getLogger(__name__)

StartName: TypeAlias = Literal["auto", "gaussian", "laplace", "pathfinder", "uphill"]
STARTS = ("auto", "gaussian", "laplace", "pathfinder")
# On one core a step of full rank takes 0.07 s at d = 300 and 0.32 s at 600, without the target;
# some two hundred steps are 13 s and a minute.
FULL_RANK_LIMIT = 300
# Common draws, so that the noise of a difference is small; candidates that are close are as good.
COMPARED = 1_000


@dataclass(frozen=True)
class Start:
    """A Gaussian that a guide starts from.

    Attributes:
        loc: μ (d), float64.
        tril: L (d, d), lower triangular, or its diagonal (d); float64.
        name: the start that won: ``"gaussian"``, wherever its fit began, ``"laplace"`` or
            ``"pathfinder"``.
        elbo: of the Gaussian, nats.
        iterations: batched evaluations of the target, one after the other.
        gradient_evaluations: points at which its gradient was taken.
        diagonal: μ (d) and the diagonal of L (d) of the Gaussian without correlations that was
            tried; ``None`` if there was none.
        others: μ (d) and L (d, d) of the Gaussians of full rank that lost: what is narrow, such as
            Laplace's at a needle, has a lower ELBO than what is wide, and may hold mass too.
    """

    loc: Tensor
    tril: Tensor
    name: str
    elbo: float
    iterations: int
    gradient_evaluations: int
    diagonal: tuple[Tensor, Tensor] | None = None
    others: tuple[tuple[Tensor, Tensor], ...] = ()

    def placement(self, base_sd: float) -> Placement:
        """The map that gives a guide of base coordinates of this sd the Gaussian's moments."""
        return Placement(self.loc, self.tril / base_sd)


class _Candidates:
    """Gaussians to choose from, and what they have cost."""

    def __init__(
        self,
        target: Target,
        generator: torch.Generator,
        dtype: torch.dtype,
        enough: Enough,
        compared: int,
    ) -> None:
        self.target, self.generator, self.dtype = target, generator, dtype
        self._enough, self._compared = enough, compared
        self.full = target.dim <= FULL_RANK_LIMIT
        self.found: list[tuple[str, Tensor, Tensor]] = []
        self.iterations = self.gradient_evaluations = 0

    def gaussian(self, further: bool = False) -> None:
        """Natural gradients: a diagonal Gaussian from N(0, I), and one of full rank from either.

        Args:
            further: whether to fit on from Pathfinder's as well.
        """
        loc = torch.zeros(1, self.target.dim, dtype=torch.float64, device=self.generator.device)
        scale = torch.ones_like(loc)
        flat = self._fit(loc, scale, diagonal=True)
        self.found.append(("gaussian", flat.loc[0], flat.tril[0]))
        if not self.full or self.enough():
            return
        starts = [("gaussian", loc[0], scale[0].diag_embed())]
        starts += [("gaussian", flat.loc[0], flat.tril[0].diag_embed())]
        starts += [c for c in self.found if further and c[0] == "pathfinder"]
        _, locs, factors = zip(*starts, strict=True)
        fitted = self._fit(torch.stack(locs), torch.stack(factors))
        pairs = zip(fitted.loc, fitted.tril, strict=True)
        self.found += [("gaussian", loc, tril) for loc, tril in pairs]

    def uphill(self) -> None:
        """Laplace's approximation and Pathfinder along one path from the origin."""
        path = self._path()
        if path is None:
            return
        tril = laplace(self.target, path.points[-1], self.dtype)
        best = pathfinder(self.target, path, self.generator, self.dtype)
        self.iterations += 2
        self.gradient_evaluations += 2 * self.target.dim
        if tril is not None:
            self.found.append(("laplace", path.points[-1], tril))
        if best is not None:
            self.found.append(("pathfinder", *best))

    def curved(self) -> None:
        """Laplace's approximation and Newton's steps from there, where a regression costs much."""
        path = self._path()
        if path is None:
            return
        found = fit_by_curvature(
            self.target, path.points[-1], self.generator, self.dtype, self.enough
        )
        if found is not None:
            self.iterations += found.iterations
            self.gradient_evaluations += found.gradient_evaluations
            self.found.append(("laplace", found.loc, found.tril))

    def _path(self) -> Ascent | None:
        """From the origin uphill; ``None`` where it leads nowhere, or time is up."""
        zeros = torch.zeros(self.target.dim, dtype=torch.float64, device=self.generator.device)
        path = ascend(self.target, zeros, self.dtype, self.enough)
        self.iterations += path.iterations
        self.gradient_evaluations += path.gradient_evaluations
        return None if not len(path.points) or self.enough() else path

    def best(self, only: str | None = None) -> Start:
        """The candidate of highest ELBO on common draws.

        Raises:
            FitError: none has a finite ELBO.
        """
        shape = min(self._compared, affordable(self.target, COMPARED, 0.05)), self.target.dim
        noise = torch.randn(
            shape, generator=self.generator, dtype=self.dtype, device=self.generator.device
        )
        chosen = [c for c in self.found if only in (None, c[0])]
        elbos = [
            float(gaussian_elbos(self.target, loc[None], tril[None], noise)[0])
            for _, loc, tril in chosen
        ]
        self.iterations += len(chosen)
        best = max(range(len(chosen)), key=lambda i: elbos[i], default=None)
        if best is None or elbos[best] == -float("inf"):
            raise FitError(
                f"no Gaussian with a finite ELBO was found on {self.target.name!r} by"
                f' init={only or "auto"!r}; pass init="zeros" or a point'
            )
        for (found, _, factor), elbo in zip(chosen, elbos, strict=True):
            kind = "diagonal" if factor.dim() == 1 else "full rank"
            logger.debug("candidate %s, %s: ELBO %.4f", found, kind, elbo)
        name, loc, tril = chosen[best]
        logger.info(
            "start of %s: %s, of highest ELBO among %d, %.4f; %d gradients",
            *(self.target.name, name, len(chosen), elbos[best], self.gradient_evaluations),
        )
        flat = next(((m, s) for _, m, s in self.found if s.dim() == 1), None)
        cost = self.iterations, self.gradient_evaluations
        others = [
            (mean, factor)
            for i, (_, mean, factor) in enumerate(chosen)
            if i != best and factor.dim() == 2 and math.isfinite(elbos[i])
        ]
        return Start(loc, tril, name, elbos[best], *cost, diagonal=flat, others=tuple(others))

    def enough(self, further: int = 0) -> bool:
        """Whether to end, after so many gradients more than were counted."""
        return self._enough(self.gradient_evaluations + further)

    def _fit(self, loc: Tensor, tril: Tensor, diagonal: bool = False) -> GaussianFit:
        fitted = fit_gaussians(
            self.target,
            loc,
            tril,
            self.generator,
            diagonal=diagonal,
            dtype=self.dtype,
            enough=self.enough,
        )
        self.iterations += fitted.iterations
        self.gradient_evaluations += fitted.gradient_evaluations
        return fitted


def find_start(
    target: Target,
    name: StartName,
    generator: torch.Generator,
    dtype: torch.dtype,
    enough: Enough = never,
    compared: int = COMPARED,
) -> Start:
    """A Gaussian to start from.

    ``"gaussian"`` is fitted by natural gradients from N(0, I), diagonal and (up to 300 dimensions)
    of full rank. ``"laplace"`` is the mode that L-BFGS finds from 0, with the curvature there;
    ``"pathfinder"`` the best Gaussian on the way to it. ``"auto"`` tries all of them, fits on from
    Pathfinder's, and keeps the one of highest ELBO: no single one can be trusted, as the mode of
    a funnel is far from its mass, and a fit from N(0, I) may end in a poor place. Above 300
    dimensions it tries the diagonal one, and up to 2 000 Laplace's, moved on by Newton's steps from
    curvatures, see :func:`~nfvi.starts.curved.fit_by_curvature`. ``"uphill"``
    is the better one of Laplace's and Pathfinder's, at the cost of a few gradients.

    Args:
        target: log p.
        name: one of :data:`STARTS`, or ``"uphill"``.
        generator: of the draws, on the device of the target.
        dtype: in which the target is evaluated.
        enough: asked after every batch; what was found till then is compared, and for ``"auto"``
            and ``"gaussian"`` that is at least a diagonal Gaussian after one step.
        compared: draws by which the candidates are compared.

    Raises:
        FitError: no candidate has a finite ELBO, or Laplace's approximation does not exist.
    """
    candidates = _Candidates(target, generator, dtype, enough, compared)
    if name != "gaussian" and (candidates.full or name != "auto"):
        candidates.uphill()
    if name in ("auto", "gaussian"):
        candidates.gaussian(further=name == "auto")
    if name == "auto" and not candidates.full and target.dim <= CURVED_LIMIT:
        candidates.curved()
    if name == "laplace" and "laplace" not in [found for found, _, _ in candidates.found]:
        raise FitError(
            f'init="laplace": the mode of {target.name!r} has no curvature that is positive'
            ' definite, so there is no such Gaussian; use init="gaussian" or "auto"'
        )
    return candidates.best(None if name in ("auto", "uphill") else name)
