"""One word for a fit, and why: computed here alone, and shown wherever a result leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nfvi.fit.diagnostics import Diagnostics
from nfvi.search import LEAST_SHARE, MissedMass
from nfvi.utils import KHAT_LIMIT

__all__ = ["GOOD", "NOT_TRUSTED", "USABLE", "Findings", "Verdict", "VerdictWord", "judge"]

VerdictWord: TypeAlias = Literal["good", "usable", "not to be trusted"]
GOOD: VerdictWord = "good"
USABLE: VerdictWord = "usable"
NOT_TRUSTED: VerdictWord = "not to be trusted"

CLOSE = 0.02
"""Nats of KL(q ‖ p). All of it in one mean of a Gaussian shifts that by √(2 KL) = 0.2 sd."""
FEWEST_ESS = 100.0
"""Effective draws: the standard error of a weighted mean is then 1 / √100 = 0.1 sd."""
MOST_UNUSABLE = 0.01
"""Share of the draws without a density, or at an edge of the floats: mass that is not counted."""
SHORT = 0.03
"""Nats by which log evidence may be below a known log Z, beside three standard errors."""
IMPROPER = 1e15
"""An sd over this is no answer: Gaussians on an improper target widen by a factor in each step."""


@dataclass(frozen=True)
class Findings:
    """What is known of a fit.

    Attributes:
        diagnostics: of draws of the guide.
        log_normalizer: log Z, where the target knows it.
        missed: of the search; ``None`` where there was none.
        verified: whether ``verify()`` passed; ``None`` where it was not run.
    """

    diagnostics: Diagnostics
    log_normalizer: float | None = None
    missed: MissedMass | None = None
    verified: bool | None = None

    @property
    def misses_mass(self) -> bool:
        """Whether a search has found mass that the guide misses."""
        missed = self.missed
        return missed is not None and (missed.share > LEAST_SHARE or missed.crowded)

    @property
    def improper(self) -> bool:
        """Whether the target has no finite mass, by the width of the guide or by the search."""
        wide = self.diagnostics.widest > IMPROPER
        return wide or (self.missed is not None and self.missed.improper)

    @property
    def kl(self) -> float:
        """KL(q ‖ p) in nats: exact where log Z is known, or else what the draws can see of it."""
        known = self.log_normalizer
        log_z = self.diagnostics.log_evidence if known is None else known
        return max(log_z - self.diagnostics.elbo, 0.0)


@dataclass(frozen=True)
class Verdict:
    """One word for a fit, and why.

    Attributes:
        word: ``"good"``: draws of the guide can be used as they are. ``"usable"``: weighted ones
            can. ``"not to be trusted"``: neither.
        reasons: what rules out a better word, or what makes it good, as sentences.
    """

    word: VerdictWord
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([f"Verdict: {self.word}.", *self.reasons])

    def warning_of(self, what: str) -> str:
        """What a warning says of a fit, with what to do next."""
        return (
            f"{what} is {self.word}. {' '.join(self.reasons)} print(fit) says what to try. This"
            " comes once for a fit; warnings.simplefilter('ignore', nfvi.FitWarning) turns it off"
        )


def judge(found: Findings, *, shell: bool = False) -> Verdict:
    """The verdict on a fit; docs/diagnostics.md has its limits in a table, with their reasons.

    Args:
        found: what is known of the fit.
        shell: whether to name options of the command line in place of methods.
    """
    against = _against_trust(found)
    if against:
        return Verdict(NOT_TRUSTED, tuple(against))
    flaws = _flaws(found)
    if flaws:
        how = "--weighted --out DIR" if shell else "fit.importance_resample(n)"
        return Verdict(USABLE, (*flaws, f"Use weighted draws: {how}."))
    off = math.sqrt(2 * found.kl)
    return Verdict(
        GOOD, (f"KL(q ‖ p) is {found.kl:.4f} nats: a mean is off by about {off:.2f} sd at most.",)
    )


def _against_trust(found: Findings) -> list[str]:
    """Why not even weighted draws can be used."""
    d = found.diagnostics
    if found.improper:
        seen = (
            f"The guide is {d.widest:.1e} wide and would widen on"
            if d.widest > IMPROPER
            else "log p is as high 100,000 sds away as it is anywhere"
        )
        return [
            f"{seen}: the target is improper, it has no finite mass. Look for a parameter without a"
            " prior, or one that the data say nothing about; or for two of which the data know only"
            " the sum or the difference."
        ]
    reasons = []
    if d.khat >= KHAT_LIMIT:
        reasons.append(f"{_khat(d.khat)}, and weighted draws need {KHAT_LIMIT}.")
    elif d.ess < FEWEST_ESS:
        reasons.append(
            f"{d.draws:,} draws are worth {d.ess:.0f} after weighting, and {FEWEST_ESS:.0f} are"
            " the least for a mean."
        )
    if d.not_finite > MOST_UNUSABLE * d.draws:
        reasons.append(
            f"{d.not_finite:,} of {d.draws:,} draws have no finite density: the mass there is not"
            " counted."
        )
    if d.at_edge > MOST_UNUSABLE:
        reasons.append(f"{d.at_edge:.0%} of the draws sit on the edge of what floats can hold.")
    if found.missed is not None and found.misses_mass:
        what = (
            f"at {len(found.missed.places)} modes and more"
            if found.missed.crowded
            else f"{found.missed.share:.0%} of all"
        )
        reasons.append(f"The search found mass that it misses: {what}.")
    short = _short_of_known(found)
    if short:
        reasons.append(short)
    return reasons


def _short_of_known(found: Findings) -> str:
    d, known = found.diagnostics, found.log_normalizer
    error = d.log_evidence_se if math.isfinite(d.log_evidence_se) else 0.0
    if known is None or d.log_evidence >= known - SHORT - 3 * error:
        return ""
    return (
        f"The log evidence is {known - d.log_evidence:.2f} nats below log Z, which is known here:"
        " mass is missed."
    )


def _flaws(found: Findings) -> list[str]:
    """Why draws cannot be used as they are."""
    d = found.diagnostics
    flaws = []
    if not found.kl <= CLOSE:
        off = math.sqrt(2 * found.kl)
        flaws.append(
            f"KL(q ‖ p) is {found.kl:.{2 if found.kl >= 0.1 else 3}f} nats: a mean may be off by"
            f" {off:.1f} sd."
            if math.isfinite(found.kl)
            else "Some draws fall where the target is 0."
        )
    if found.verified is False:
        flaws.append("verify() proves it wrong somewhere.")
    if d.not_finite:
        flaws.append(f"{d.not_finite:,} of {d.draws:,} draws have no finite density.")
    if d.at_edge:
        flaws.append(f"{d.at_edge:.2%} of the draws sit on the edge of what floats can hold.")
    return flaws


def _khat(khat: float) -> str:
    return "A few draws carry all the weight" if khat == math.inf else f"k-hat is {khat:.2f}"
