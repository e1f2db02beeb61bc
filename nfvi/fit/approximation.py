"""A guide beside its target: draws, densities, and how good the one is for the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.errors import FitError, FitWarning
from nfvi.fit.diagnostics import Diagnostics, WeightedDraws, diagnose, draw_weighted
from nfvi.fit.expectation import Expectation, expectation_of
from nfvi.fit.fitted_guide import FittedGuide
from nfvi.fit.resampling import resample
from nfvi.fit.scalars import summarize
from nfvi.fit.verdict import NOT_TRUSTED, Findings, Verdict, judge
from nfvi.guides import AnyGuide, log_prob_in_pieces, sample_in_pieces
from nfvi.search import MissedMass, search_mass
from nfvi.targets import Target, affordable
from nfvi.training import Ranks
from nfvi.utils import check_whole, held, to_inference_data

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Approximation"]

# An ELBO to 0.01 sd of log w, and the 300 largest weights for k-hat. A hundredth as many would see
# nothing of a mode that a thousandth of the draws are in.
DIAGNOSTIC_DRAWS = 10_000


class Approximation(FittedGuide):
    """A guide q as an approximation of a target p, with its quality.

    Args:
        guide: q on unconstrained space.
        target: p, or ``None`` where it is not at hand; draws and log q need none.
        settings: how the guide was made; ``seed``, ``target`` (its name) and ``named`` are read.
        diagnostics: if they are known already.
        missed: of a search for mass that q misses, if there was one.
        verified: whether the draws of q passed ``verify()``; ``None`` where it was not run.
        log_normalizer: log Z, if it is known and the target is not at hand to say it.
    """

    def __init__(
        self,
        guide: AnyGuide,
        target: Target | None,
        settings: dict[str, Any],
        diagnostics: Diagnostics | None = None,
        *,
        missed: MissedMass | None = None,
        verified: bool | None = None,
        log_normalizer: float | None = None,
    ) -> None:
        super().__init__(guide, settings)
        self.target = target
        self._diagnostics, self._missed, self._verified = diagnostics, missed, verified
        self._log_normalizer = log_normalizer
        self._warned = False

    @property
    def diagnostics(self) -> Diagnostics:
        """All numbers about the quality of the fit, computed once, from 10 000 draws.

        They are fewer for a target of over 100 000 rows, all of which are taken.
        """
        if self._diagnostics is None:
            self._diagnostics = self._diagnosed(Ranks())
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
            seed: for the same draws each time; ``None`` goes on in the fit's own stream.

        Returns:
            A tensor (n, d) for a log-density; a dict of constrained sites, each (n, \\*event),
            for a model.
        """
        check_whole("n", n, 1)
        return self._sites(sample_in_pieces(self.guide, n, self._stream(seed)))

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

    def expectation(
        self, function: Callable[[Any], Tensor], n: int = 10_000, *, seed: int | None = None
    ) -> Expectation:
        """E_p[f] under the target itself, by Pareto-smoothed importance sampling.

        Args:
            function: f, from what :meth:`sample` returns, a tensor (n, d) or a dict of sites,
                to values (n, \\*shape).
            n: draws.
            seed: as for :meth:`sample`.

        Returns:
            The mean with its standard error, and the k-hat that says whether to believe it.

        Raises:
            FitError: the fit was loaded without its target, or no draw has any weight.
            TypeError: ``function`` is none.
            ValueError: the function does not return one finite value for each draw.

        Example:
            >>> fit.expectation(lambda z: z.square()).mean  # doctest: +SKIP
        """
        if not callable(function):
            raise TypeError(
                f"function must take the draws, as in lambda z: z.square(), got {function!r}"
            )
        draws = self.weighted_draws(n, seed=seed)
        self._judge_by(draws)
        return expectation_of(function, self._sites(draws.z), draws)

    def importance_resample(self, n: int, *, seed: int | None = None) -> Any:
        """Draws from the guide resampled by their importance weights, closer to the target.

        10 n draws (at least 10 000) are weighted with Pareto-smoothed weights, and n of them
        are chosen with replacement. Only as good as k-hat allows, see ``print(fit)``.

        Args:
            n: how many.
            seed: as for :meth:`sample`.

        Returns:
            The same form as :meth:`sample`.

        Reference:
            Smith and Gelfand, Bayesian statistics without tears: a sampling-resampling
            perspective, 1992.
        """
        check_whole("n", n, 1)
        z, draws = resample(self.guide, self._known_target(), n, self._stream(seed))
        self._judge_by(draws)
        return self._sites(z)

    def summary(self, n: int = 10_000) -> pd.DataFrame:
        """Mean, sd, quantiles and Monte-Carlo errors of every scalar, from n draws of the guide.

        Returns:
            A row for each scalar, with columns ``mean``, ``sd``, ``5%``, ``50%``, ``95%``,
            ``mcse_mean`` and ``mcse_sd``. The word of the verdict on the fit is in
            ``.attrs["verdict"]``, where it can be given.
        """
        draws = self.sample(n, seed=0)
        table = summarize(draws if isinstance(draws, dict) else {"z": draws})
        if self.has_verdict:
            verdict = self.verdict
            self.warn_of(verdict)
            table.attrs["verdict"] = verdict.word
        return table

    def to_arviz(self, n: int = 1_000, *, seed: int | None = None) -> Any:
        """n draws as one chain for ArviZ, with log p and log q in ``sample_stats``.

        The diagnostics and the word of the verdict are attributes; names of dimensions and data are
        those that the target knows. See
        :func:`nfvi.utils.to_inference_data` for the type.
        """
        draws, target = self.weighted_draws(n, seed=seed), self._known_target()
        posterior = target.constrain(draws.z)
        self.warn_of(self.verdict)
        attrs = {
            "inference_library": "nfvi",
            "verdict": self.verdict.word,
            **self._attributes(),
            **self.diagnostics.as_dict(),
        }
        return to_inference_data(
            {name: value.unsqueeze(0) for name, value in posterior.items()},
            {"lp": draws.log_p.unsqueeze(0), "log_q": draws.log_q.unsqueeze(0)},
            attrs,
            observed_data=target.observed_data,
            constant_data=target.constant_data,
            dims=target.dims,
            coords=target.coords,
        )

    def search(
        self, *, draws: int | None = None, starts: int | None = None, seed: int | None = None
    ) -> MissedMass:
        """Look for mass of the target that the guide misses.

        Values at draws far wider than the guide find where to start ascents, and the mass at their
        ends that the guide does not cover is estimated. ``print(fit.search())`` says what was
        searched and found. What is found is no proof that there is not more: needles of 1/20 of the
        width in ten dimensions are met by no number of draws.

        ``print(fit)`` and :attr:`verdict` search by themselves, and ``NFVI("auto")`` takes what it
        finds into a mixture.

        Args:
            draws: how many; default 131 072, or 2 097 152 in up to 5 dimensions, but fewer of a
                target that takes much work.
            starts: ascents from the best of them, at most 512 by default.
            seed: fixes everything; default that of the fit.

        Raises:
            FitError: the fit was loaded without its target.
        """
        if draws is not None:
            check_whole("draws", draws, 1)
        if starts is not None:
            check_whole("starts", starts, 1)
        generator = torch.Generator(self.guide.device)
        # Another stream than those of the guides, the diagnostics, the mixture and the start.
        generator.manual_seed((self.seed if seed is None else seed) + 4)
        target, log_evidence = self._known_target(), self.log_evidence
        self._missed = search_mass(
            self.guide, target, log_evidence, generator, draws=draws, starts=starts
        )
        return self._missed

    @property
    def missed(self) -> MissedMass | None:
        """The last search for mass that the guide misses; made now if there was none.

        ``None`` for a fit that was loaded without its target and saved without a search.
        """
        if self._missed is None and self.target is not None:
            self.search()
        return self._missed

    @property
    def verdict(self) -> Verdict:
        """``good``, ``usable`` or ``not to be trusted``, with the reasons; see docs/diagnostics."""
        return judge(self.findings())

    @property
    def has_verdict(self) -> bool:
        """Whether there is anything to judge by: the target, or diagnostics that were kept."""
        return self.target is not None or self._diagnostics is not None

    def findings(self, *, search: bool = True) -> Findings:
        """What the verdict rests on.

        Args:
            search: whether to look for missed mass if that was not done yet.
        """
        missed = self.missed if search else self._missed
        return Findings(self.diagnostics, self.log_normalizer, missed, self._verified)

    def warn_of(self, verdict: Verdict, *, stacklevel: int = 3) -> None:
        """Give a :class:`~nfvi.FitWarning`, once for this fit, if it is not to be trusted.

        Args:
            verdict: on this fit.
            stacklevel: whose line is named; default that of the caller's caller.
        """
        if verdict.word == NOT_TRUSTED and not self._warned:
            self._warned = True
            message = f"the fit of {str(self.formula)!r} to {self.settings['target']} is"
            reasons = " ".join(verdict.reasons)
            warnings.warn(f"{message} {verdict.word}. {reasons}", FitWarning, stacklevel=stacklevel)

    def _judge_by(self, draws: WeightedDraws) -> None:
        """Warn of a fit by what is known of it: its diagnostics, or else as many draws as those."""
        known = self._diagnostics
        if known is None and len(draws.log_p) >= DIAGNOSTIC_DRAWS:
            known = diagnose(draws)
        if known is not None:
            found = Findings(known, self.log_normalizer, self._missed, self._verified)
            self.warn_of(judge(found), stacklevel=4)

    @property
    def log_normalizer(self) -> float | None:
        """log Z as the target knows it, or knew it when the fit was saved."""
        return self._log_normalizer if self.target is None else self.target.log_normalizer

    def _attributes(self) -> dict[str, Any]:
        """What ArviZ is told of the approximation, beside the diagnostics."""
        return {"formula": str(self.formula), "base": str(self.guide.base), "seed": self.seed}

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
