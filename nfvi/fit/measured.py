"""A guide beside its target: draws with their weights, and the numbers that these give."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.diagnostics import Diagnostics, WeightedDraws, diagnose, draw_weighted
from nfvi.fit.expectation import weights_of
from nfvi.fit.fitted_guide import FittedGuide
from nfvi.fit.scalars import draws_frame, summarize
from nfvi.fit.sending import received, sendable
from nfvi.guides import AnyGuide, log_prob_in_pieces, sample_in_pieces
from nfvi.targets import Target, affordable
from nfvi.training import Ranks
from nfvi.utils import check_whole, held

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DIAGNOSTIC_DRAWS", "MeasuredGuide"]

logger = logging.getLogger(__name__)

# An ELBO to 0.01 sd of log w, and the 300 largest weights for k-hat. A hundredth as many would see
# nothing of a mode that a thousandth of the draws are in.
DIAGNOSTIC_DRAWS = 10_000


class MeasuredGuide(FittedGuide):
    """A guide q, its target p, and how the draws of the one weigh under the other.

    Args:
        guide: q on unconstrained space.
        target: p, or ``None`` where it is not available; draws and log q need none.
        settings: how the guide was made; ``seed``, ``target`` (its name) and ``named`` are read.
        diagnostics: if they are known already.
    """

    def __init__(
        self,
        guide: AnyGuide,
        target: Target | None,
        settings: dict[str, Any],
        diagnostics: Diagnostics | None = None,
    ) -> None:
        super().__init__(guide, settings)
        self.target = target
        self._diagnostics = diagnostics

    def __getstate__(self) -> dict[str, Any]:
        """All but the optimiser, and a target that cannot be pickled, of which a warning tells."""
        left = {"_trainer": None} if "_trainer" in self.__dict__ else {}
        return {**self.__dict__, **left, "target": sendable(self.target)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From what :meth:`__getstate__` gave."""
        self.__dict__.update({**state, "target": received(state["target"])})

    @property
    def has_verdict(self) -> bool:
        """Whether there is anything to judge by: the target, or diagnostics that were kept."""
        return self.target is not None or self._diagnostics is not None

    @property
    def diagnostics(self) -> Diagnostics:
        """All numbers about the quality of the fit, computed once, from 10 000 draws.

        They are fewer for a target of over 100 000 rows, all of which are taken.
        """
        if self._diagnostics is None:
            self._diagnostics = found = self._diagnosed(Ranks())
            logger.info(
                "diagnostics: ELBO %.4f, k-hat %.2f, efficiency %.3f, log evidence %.4f",
                *(found.elbo, found.khat, found.efficiency, found.log_evidence),
            )
        return self._diagnostics

    def _diagnosed(self, ranks: Ranks) -> Diagnostics:
        generator = torch.Generator(self.guide.device).manual_seed(self.seed + 1)
        target = self._known_target()
        n = affordable(target, DIAGNOSTIC_DRAWS)
        keep = held(n, self.dim)
        return diagnose(draw_weighted(self.guide, target, n, generator, keep=keep, ranks=ranks))

    @property
    def elbo(self) -> float:
        """E_q[log p − log q] = log Z − KL(q ‖ p), nats."""
        return self.diagnostics.elbo

    @property
    def elbo_se(self) -> float:
        """Monte-Carlo standard error of :attr:`elbo`."""
        return self.diagnostics.elbo_se

    @property
    def khat(self) -> float:
        """Pareto k-hat of the importance weights; below 0.7 they can be used."""
        return self.diagnostics.khat

    @property
    def ess(self) -> float:
        """Effective draws after importance weighting, out of ``diagnostics.draws``."""
        return self.diagnostics.ess

    @property
    def log_evidence(self) -> float:
        """Importance-sampling estimate of log Z, nats."""
        return self.diagnostics.log_evidence

    @property
    def log_evidence_se(self) -> float:
        """Standard error of :attr:`log_evidence`."""
        return self.diagnostics.log_evidence_se

    def sample(self, n: int, *, seed: int | None = None) -> Any:
        """Draws from the guide.

        Args:
            n: how many.
            seed: for the same draws each time; ``None`` continues in the fit's own stream.

        Returns:
            A tensor (n, d) for a log-density; a dict of constrained sites, each (n, \\*event),
            for a model.
        """
        check_whole("n", n, 1)
        return self._sites(sample_in_pieces(self.guide, n, self._stream(seed)))

    def to_dataframe(self, n: int = 1_000, *, seed: int | None = None) -> pd.DataFrame:
        """n draws as a table: a row for each, and a column for each scalar, such as ``theta[0]``.

        Args:
            n: how many.
            seed: as for :meth:`sample`.
        """
        draws = self.sample(n, seed=seed)
        return draws_frame(draws if isinstance(draws, dict) else {"z": draws})

    def _summarized(self, n: int, weighted: bool) -> pd.DataFrame:
        """The summary of n draws, always the same ones."""
        known = self.weighted_draws(n, seed=0) if weighted else None
        draws = self.sample(n, seed=0) if known is None else self._sites(known.z)
        return summarize(draws, None if known is None else weights_of(known))

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) (\\*) at points z (\\*, d) of unconstrained space."""
        if not isinstance(z, Tensor) or z.shape[-1:] != (self.dim,):
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"z must be a tensor (*, {self.dim}) for this fit, got {got}")
        return log_prob_in_pieces(self.guide, z)

    def weighted_draws(self, n: int, *, seed: int | None = None) -> WeightedDraws:
        """n unconstrained draws with log p, log q and Pareto-smoothed importance weights."""
        check_whole("n", n, 1)
        return draw_weighted(self.guide, self._known_target(), n, self._stream(seed))

    def _sites(self, z: Tensor) -> Any:
        if self.target is None and self.settings["named"]:
            self._known_target()
        if self.target is None or not self.target.named:
            return z
        return self.target.constrain(z)

    def _known_target(self) -> Target:
        if self.target is None:
            raise FitError(
                f"this fit was loaded without its target {self.settings['target']!r}; pass it as"
                " Fit.load(path, target=...). fit.guide.sample(n) gives unconstrained draws"
            )
        return self.target
