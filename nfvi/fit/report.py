"""The sections of ``fit.report(path)``: what is known of a fit, in tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nfvi.fit.diagnostics import WeightedDraws
from nfvi.fit.path import ClimbPath
from nfvi.fit.predictive_check import predictive_check
from nfvi.fit.restarts import Restart
from nfvi.fit.text import FitReport, advice, describe, number_rows
from nfvi.fit.verdict import judge
from nfvi.fit.verification import Verification
from nfvi.guides import AnyGuide
from nfvi.mcmc import MCMCRun
from nfvi.search import MissedMass
from nfvi.targets import Target
from nfvi.training import GradientTracker, History
from nfvi.utils import (
    Report,
    Section,
    facts,
    folded,
    frame,
    picture,
    preformatted,
    scrolled,
    short,
    to_sd,
    words,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["ComparedLike", "check_beside", "fit_report"]

ROWS_SHOWN = 200
DRAWS = 10_000
MOST_NUMBERS = 20_000_000
"""Of draws that are held, all coordinates together."""


class ComparedLike(Protocol):
    """A fit beside something else, such as what :func:`nfvi.compare` returns."""

    @property
    def left(self) -> Any: ...
    @property
    def right(self) -> Any: ...
    @property
    def exact(self) -> Any: ...
    @property
    def table(self) -> Sequence[Any]: ...


def check_beside(compare: Any, tracker: Any) -> None:
    """Check what is to stand beside a fit in its report.

    Raises:
        TypeError: it is neither ``None`` nor what the argument takes.
    """
    compared = all(hasattr(compare, name) for name in ("left", "right", "exact", "table"))
    if not (compare is None or isinstance(compare, MCMCRun) or compared):
        raise TypeError(
            "compare= takes chains, nuts(fit.target), or compare(fit, run); got"
            f" {type(compare).__name__}"
        )
    if not (tracker is None or isinstance(tracker, GradientTracker)):
        raise TypeError(
            "tracker= takes the GradientTracker that was among callbacks= of the fit; got"
            f" {type(tracker).__name__}"
        )


class Reported(Protocol):
    """What a report asks of a fit."""

    @property
    def dim(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def guide(self) -> AnyGuide: ...
    @property
    def target(self) -> Target | None: ...
    @property
    def formula(self) -> object: ...
    @property
    def steps(self) -> int: ...
    @property
    def history(self) -> History: ...
    @property
    def restarts(self) -> tuple[Restart, ...]: ...
    @property
    def kept(self) -> Sequence[int]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def khat(self) -> float: ...
    @property
    def log_evidence(self) -> float: ...
    @property
    def path(self) -> ClimbPath | None: ...
    @property
    def missed(self) -> MissedMass | None: ...
    @property
    def verification(self) -> Verification | None: ...

    def sample(self, n: int, *, seed: int | None = None) -> Any:
        """n draws."""

    def summary(self, n: int = ...) -> pd.DataFrame:
        """A row for each scalar."""

    def predict(self, n: int = ..., *, seed: int | None = None) -> dict[str, Tensor]:
        """Data drawn at n draws."""

    def weighted_draws(self, n: int, *, seed: int | None = None) -> WeightedDraws:
        """n draws with their weights."""


def fit_report(
    fit: Reported,
    facts_of_fit: FitReport,
    compared: ComparedLike | None,
    tracker: GradientTracker | None,
) -> Report:
    """What a report says of a fit; what was not run has no section.

    Args:
        fit: with its target, or without.
        facts_of_fit: its text in numbers and words.
        compared: the fit beside chains.
        tracker: of the gradients of this fit.
    """
    from nfvi import plots

    found = facts_of_fit.findings
    title = f"{facts_of_fit.formula} on {facts_of_fit.target}"
    sections = [
        Section("Verdict", tuple(_verdict(facts_of_fit))),
        Section("Summary", (frame(fit.summary(_fewer(DRAWS, fit))),)) if _has_sites(fit) else None,
        Section("Posterior", tuple(_posterior(fit))) if fit.target is not None else None,
        Section("Course of the fit", tuple(_course(fit))),
        _climb(fit.path),
        _gradients(tracker),
        _predictive(fit),
        _weights(fit, DRAWS if found is None else found.diagnostics.draws),
        _verification(fit.verification),
        _search(fit.missed),
        _beside(compared, plots),
        Section("Settings", (facts(_settings(fit, facts_of_fit)),)),
    ]
    kept = tuple(section for section in sections if section is not None and section.parts)
    if found is None:
        return Report(title, "No diagnostics: load the fit with target= to compute them.", (), kept)
    verdict = judge(found, shell=facts_of_fit.shell)
    lead = f"Verdict: {verdict.word}."
    return Report(title, lead, verdict.reasons, kept, verdict.word)


def _fewer(draws: int, fit: Reported) -> int:
    """So many draws, or as many as can be held at once."""
    return min(draws, max(100, MOST_NUMBERS // fit.dim))


def _has_sites(fit: Reported) -> bool:
    """Whether draws can be named: not those of a model that was left behind."""
    return fit.target is not None or not fit.settings["named"]


def _verdict(fit: FitReport) -> Iterator[str]:
    """What the verdict rests on, and what to try next."""
    if fit.findings is not None:
        # The last text is of the search, which has a section of its own where it was made.
        last = None if fit.findings.missed is None else -1
        yield from map(words, advice(fit, fit.findings)[1:last])
        yield scrolled(["", "", ""], number_rows(fit.findings), left=3)
    yield folded("all of print(fit)", preformatted(describe(fit)))


def _posterior(fit: Reported) -> Iterator[str]:
    """Marginals and pairs, and in two dimensions the densities."""
    from nfvi import plots

    yield picture(
        lambda: plots.pairs(fit, draws=_fewer(4_000, fit)), "marginals and pairs of scalars"
    )
    if fit.dim == 2:
        yield picture(lambda: plots.fitted(fit), "the density of the target and that of the fit")


def _course(fit: Reported) -> Iterator[str]:
    """The ELBO of every restart, as a curve and where it ended."""
    from nfvi import plots

    if fit.steps:
        yield picture(lambda: plots.history(fit), "the ELBO of every restart over the steps")
    if len(fit.restarts) > 1:
        yield picture(lambda: plots.restarts(fit), "the ELBO that each restart ended with")
        header = ["restart", "", "ELBO", "±", "tempered", "steps skipped"]
        yield scrolled(header, [_restart(restart) for restart in fit.restarts], left=2)


def _restart(one: Restart) -> list[str]:
    became = "kept" if one.best else ""
    if one.weight is not None:
        became = f"weight {one.weight:.3f}"
    if one.dropped or one.pruned is not None:
        became = "dropped" if one.dropped else f"pruned at step {one.pruned:,}"
    tempered = "yes" if one.tempered else "no"
    elbo = short(one.elbo, 6), short(one.elbo_se, 2)
    return [str(one.index), became, *elbo, tempered, str(one.skipped)]


def _climb(path: ClimbPath | None) -> Section | None:
    from nfvi import plots

    if path is None:
        return None
    seen = picture(lambda: plots.path(path), "ELBO and k-hat of each rung against its cost")
    return Section("Rungs of the climb", (seen, preformatted(str(path))))


def _gradients(tracker: GradientTracker | None) -> Section | None:
    from nfvi import plots

    if tracker is None or len(tracker) < 2:
        return None
    seen = picture(lambda: plots.gradients(tracker), "parameters and gradients of each flow")
    return Section("Gradients by flow", (seen,))


def _predictive(fit: Reported) -> Section | None:
    if fit.target is None:
        return None
    seed = fit.seed + 3  # another stream than those of the ranking, the diagnostics, the weights
    return predictive_check(fit.target.observed_data, lambda n: fit.predict(n, seed=seed))


def _weights(fit: Reported, n: int) -> Section | None:
    from nfvi import plots

    if fit.target is None:
        return None
    draws = fit.weighted_draws(_fewer(n, fit), seed=fit.seed + 1)  # those of the diagnostics
    seen = picture(lambda: plots.weights(draws), "the tail of the importance weights")
    return Section("Importance weights", (seen,))


def _verification(found: Verification | None) -> Section | None:
    from nfvi import plots

    if found is None:
        return None
    seen = picture(lambda: plots.verification(found), "each scalar before and after the chains")
    return Section("Verification", (seen, preformatted(str(found))))


def _search(missed: MissedMass | None) -> Section | None:
    if missed is None:
        return None
    table = str(missed).partition("\n\n")[2]
    parts = words(missed.describe()), *([preformatted(table)] if table else [])
    return Section("Missed mass", parts)


def _beside(compared: ComparedLike | None, plots: Any) -> Section | None:
    if compared is None:
        return None
    left, right = compared.left.label, compared.right.label
    header = ["", f"{left}: mean", "sd", f"{right}: mean", "sd", "gap / sd", "sd ratio"]
    rows = [
        [
            row.name,
            *to_sd((row.left.mean, row.left.sd, row.right.mean, row.right.sd), row.right.sd),
            f"{row.mean_difference:.3f}",
            f"{row.sd_ratio:.3f}",
        ]
        for row in compared.table[:ROWS_SHOWN]
    ]
    seen = picture(lambda: plots.comparison(compared), f"{left} and {right}")
    whole = folded(f"all that is said of {right}", preformatted(str(compared)))
    return Section(f"Beside {right}", (seen, scrolled(header, rows), whole))


def _settings(fit: Reported, report: FitReport) -> dict[str, Any]:
    return {
        **fit.settings,
        "steps done": f"{report.steps:,}",
        "gradients of the target": f"{report.gradient_evaluations:,}",
        "batches of them": f"{report.batched_evaluations:,}",
        "seconds": f"{report.wall_time:.1f}",
        "stopped": report.stopped,
    }
