"""A guide beside its target: draws, densities, and how good the one is for the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nfvi.errors import FitWarning
from nfvi.fit.arviz import Labels, export, loo_of
from nfvi.fit.diagnostics import Diagnostics, WeightedDraws, diagnose
from nfvi.fit.expectation import Expectation, expectation_of
from nfvi.fit.measured import DIAGNOSTIC_DRAWS, MeasuredGuide
from nfvi.fit.prediction import draw_seed, new_inputs, points_for
from nfvi.fit.resampling import resample
from nfvi.fit.searching import search_guide
from nfvi.fit.verdict import NOT_TRUSTED, Findings, Verdict, judge
from nfvi.guides import AnyGuide
from nfvi.search import MissedMass
from nfvi.targets import Target
from nfvi.utils import check_flag, check_whole

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Approximation"]


class Approximation(MeasuredGuide):
    """A guide q as an approximation of a target p, with its quality.

    Args:
        guide: q on unconstrained space.
        target: p, or ``None`` where it is not available; draws and log q need none.
        settings: how the guide was made; ``seed``, ``target`` (its name) and ``named`` are read.
        diagnostics: if they are known already.
        missed: of a search for mass that q misses, if there was one.
        verified: whether the draws of q passed ``verify()``; ``None`` where it was not run.
        log_normalizer: log Z, if it is known and the target is not available to say it.
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
        super().__init__(guide, target, settings, diagnostics)
        self._missed, self._verified = missed, verified
        self._log_normalizer = log_normalizer
        self._warned = False

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

    def summary(self, n: int = 10_000, *, weighted: bool = False) -> pd.DataFrame:
        """Mean, sd, interval and Monte-Carlo errors of every scalar, from n draws of the guide.

        Args:
            n: draws.
            weighted: whether they count by their importance weights: numbers of the target then.

        Returns:
            A row for each scalar, with ``mean``, ``sd``, ``hdi_3%`` and ``hdi_97%`` (the narrowest
            interval with 94 % of the draws), ``mcse_mean`` and ``mcse_sd``, as ArviZ 0.x calls
            them. ``.attrs["verdict"]`` is the word on the fit, where it can be given.

        Raises:
            FitError: ``weighted``, and there is no target, or no draw has any weight.
        """
        check_flag("weighted", weighted)
        table = self._summarized(n, weighted)
        if self.has_verdict:
            verdict = self.verdict
            self.warn_of(verdict)
            table.attrs["verdict"] = verdict.word
        return table

    def predict(
        self,
        n: int = 1_000,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        weighted: bool = False,
        prior: bool = False,
        seed: int | None = None,
    ) -> dict[str, Tensor]:
        """Data drawn from the model at draws of the fit: the posterior predictive distribution.

        Args:
            n: how many draws.
            args: positional arguments of the model in place of those it was fitted with, for new
                data, with ``None`` for what is to be predicted: ``args=(x_new, None)``.
            kwargs: keyword arguments, likewise.
            data: new values of the ``pm.Data`` of a PyMC model, by name: ``data={"x": x_new}``.
            coords: labels along a dimension of a PyMC model, by name, which say how long it is.
            weighted: whether to resample the draws as :meth:`importance_resample` does.
            prior: whether to take draws from the prior in place of those of the fit.
            seed: for the same draws each time; ``None`` continues in the fit's own stream.

        Returns:
            Observed site -> (n, \\*shape); for new data the deterministic sites too.

        Raises:
            TargetError: the target is no model that data can be drawn from; the message says why.
            ValueError: both ``weighted`` and ``prior``, or arguments and ``data``.
        """
        check_whole("n", n, 1)
        target, stream = self._known_target(), self._stream(seed)
        new, made = new_inputs(args, kwargs, data, coords), draw_seed(stream)
        z, draws = points_for(self.guide, target, n, stream, weighted=weighted, prior=prior)
        if draws is not None:
            self._judge_by(draws)
        return new.predict(target, z, made)

    def loo(self, n: int = 4_000, *, var_name: str | None = None, seed: int | None = None) -> Any:
        """Leave-one-out cross-validation by PSIS, with the weights of the fit's own draws in it.

        ``az.loo(fit.to_arviz())`` takes the draws for exact ones; here they are weighted by p/q.

        Args:
            n: draws.
            var_name: which observed site, where there are several.
            seed: as for :meth:`predict`.

        Returns:
            ``arviz_stats.ELPDData`` with pointwise values, which ``arviz_stats.compare`` takes.

        Raises:
            FitError: a draw has no finite density.
            TargetError: the target does not tell its observations apart.

        Reference:
            Magnusson, Andersen, Jonasson and Vehtari, Bayesian leave-one-out cross-validation for
            large data, 2019.
        """
        draws = self.weighted_draws(n, seed=seed)
        self._judge_by(draws)
        return loo_of(self._known_target(), draws, var_name)

    def to_arviz(
        self,
        n: int = 1_000,
        *,
        log_likelihood: bool = True,
        predictions: bool = False,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        seed: int | None = None,
    ) -> Any:
        """n draws as one chain for ArviZ, with all that the target knows of its data: docs/arviz.

        ``sample_stats`` has log p, log q and the importance weights; the diagnostics and the word
        of the verdict are attributes. For the type, see :func:`nfvi.utils.to_inference_data`.

        Args:
            n: draws; all in one chain, as they are independent.
            log_likelihood: whether to add the group of that name, one number for each draw and
                observation, where the target tells its observations apart.
            predictions: whether to add ``posterior_predictive``, ``prior`` and
                ``prior_predictive``, of n draws each.
            dims: site -> names of its dimensions, in place of those that the target knows.
            coords: name of a dimension -> the labels along it, likewise.
            seed: as for :meth:`sample`.

        Raises:
            TargetError: with ``predictions=True``, no data can be drawn from the target.
            ValueError: ``dims`` or ``coords`` do not fit the sites; the message says how.
        """
        check_flag("log_likelihood", log_likelihood)
        check_flag("predictions", predictions)
        target = self._known_target()
        labels = Labels(target, dims or {}, coords or {})
        labels.check(self.guide.sample(1, generator=self._stream(0)))
        draws = self.weighted_draws(n, seed=seed)
        self.warn_of(self.verdict)
        attrs = {
            "inference_library": "nfvi",
            "verdict": self.verdict.word,
            **self._attributes(),
            **self.diagnostics.as_dict(),
        }
        made = draw_seed(self._stream(seed)) if predictions else None
        return export(target, draws, attrs, log_likelihood, made, labels)

    def search(
        self,
        *,
        draws: int | None = None,
        starts: int | None = None,
        seed: int | None = None,
        progress: bool | None = None,
        distribute: bool = False,
    ) -> MissedMass:
        """Look for mass of the target that the guide misses.

        Values at draws far wider than the guide find where to start ascents, and the mass at their
        ends that the guide does not cover is estimated. What is found is no proof that there is not
        more: needles of 1/20 of the width in ten dimensions are met by no number of draws.
        ``print(fit)`` and :attr:`verdict` search by themselves. ``NFVI("auto")`` covers its finds.

        Args:
            draws: default 131 072, or 2 097 152 in up to 5 dimensions; fewer where each is work.
            starts: ascents from the best of them, at most 512 by default.
            seed: fixes everything; default that of the fit.
            progress: whether to show that it runs; default in a terminal or notebook only.
            distribute: whether the processes of a group share it; all of them must call this.

        Raises:
            FitError, ValueError: the fit has no target; an argument is wrong; there is no group.
        """
        target, traced = self._known_target(), bool(self.settings.get("compile", True))
        # Another stream than those of the guides, the diagnostics, the mixture and the start.
        stream = (self.seed if seed is None else seed) + 4
        how: dict[str, Any] = {"starts": starts, "progress": progress, "distribute": distribute}
        known = self.guide, target, self.log_evidence
        self._missed = search_guide(*known, stream, traced, draws=draws, **how)
        return self._missed

    @property
    def missed(self) -> MissedMass | None:
        """The last search for mass that the guide misses; made now if there was none.

        ``None`` for a fit that was loaded without its target and saved without a search.
        """
        if self._missed is None and self.target is not None:
            self.search(progress=False)  # a cell of a notebook shows the fit alone
        return self._missed

    @property
    def verdict(self) -> Verdict:
        """``good``, ``usable`` or ``not to be trusted``, with the reasons; see docs/diagnostics."""
        return judge(self.findings())

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
            what = f"the fit of {str(self.formula)!r} to {self.settings['target']}"
            warnings.warn(verdict.warning_of(what), FitWarning, stacklevel=stacklevel)

    def _judge_by(self, draws: WeightedDraws) -> None:
        """Warn of a fit by what is known of it: its diagnostics, or else as many draws as those."""
        enough = len(draws.log_p) >= DIAGNOSTIC_DRAWS
        known = diagnose(draws) if self._diagnostics is None and enough else self._diagnostics
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
