"""Models of the same data compared by their evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nfvi.fit import NOT_TRUSTED, Approximation, Verdict, VerdictWord
from nfvi.targets import NamedDensity, PyroTarget, observed_sites, unnormalised_terms
from nfvi.utils import align, card, folded, html_table, plus_minus, wrapped

__all__ = ["EvidenceComparison", "EvidenceRow", "compare_evidence"]

NUMBERS = (
    *("log_evidence", "log_evidence_se", "difference", "difference_se"),
    *("bayes_factor", "bayes_factor_se", "prior", "probability", "probability_se"),
)
HEADER = ["", "log evidence", "difference", "Bayes factor", "probability", "verdict"]
Array = NDArray[np.float64]
CAVEAT = (
    "Evidence is that of all models being given the same data, and depends on their priors: a"
    " wider prior costs evidence even where the posterior does not change."
)


@dataclass(frozen=True)
class EvidenceRow:
    """One model of a comparison.

    Attributes:
        name: as given.
        log_evidence: log Z by importance sampling, nats.
        log_evidence_se: its standard error.
        difference: log Z less the largest one, nats; 0 for the best.
        difference_se: its standard error, that of both fits together; 0 for the best.
        bayes_factor: Z over the largest one, exp(difference).
        bayes_factor_se: its standard error by the delta method, good where ``difference_se`` is
            well below 1.
        prior: prior probability of the model.
        probability: posterior probability, prior · Z over the sum of these.
        probability_se: its standard error by the delta method.
        khat: Pareto k-hat of the weights behind ``log_evidence``.
        verdict: the word for the fit.
        warnings: why the number is not to be relied on, or is no evidence.
    """

    name: str
    log_evidence: float
    log_evidence_se: float
    difference: float
    difference_se: float
    bayes_factor: float
    bayes_factor_se: float
    prior: float
    probability: float
    probability_se: float
    khat: float
    verdict: VerdictWord
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EvidenceComparison:
    """Models in the order of their evidence; ``print`` shows them as a table.

    Attributes:
        rows: one for each model, the one with the most evidence first.
    """

    rows: tuple[EvidenceRow, ...]

    def __getitem__(self, name: str) -> EvidenceRow:
        """The row of a model."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no model {name!r}; there are {', '.join(row.name for row in self.rows)}")

    def log_bayes_factor(self, name: str, other: str) -> tuple[float, float]:
        """log Z of a model less that of another one, nats, and its standard error."""
        a, b = self[name], self[other]
        error = 0.0 if name == other else math.hypot(a.log_evidence_se, b.log_evidence_se)
        return a.log_evidence - b.log_evidence, error

    def __str__(self) -> str:
        table = align(HEADER, [_cells(row) for row in self.rows])
        texts = (*self._notes(), CAVEAT)
        return "\n".join([table, "", *(line for text in texts for line in wrapped(text))])

    def _repr_html_(self) -> str:
        best = self.rows[0]
        chance = plus_minus(best.probability, best.probability_se)
        lead = f"Most evidence: {best.name}, with a probability of {chance}."
        table = html_table(HEADER, [_cells(row) for row in self.rows])
        notes = [[note] for note in self._notes()]
        return card(
            "models by their evidence",
            lead,
            table,
            html_table([], notes),
            folded("what it means", CAVEAT),
        )

    def _notes(self) -> list[str]:
        return [f"{row.name}: {warning}." for row in self.rows for warning in row.warnings]


def compare_evidence(
    fits: Mapping[str, Approximation], *, prior: Mapping[str, float] | None = None
) -> EvidenceComparison:
    """Compare models of the same data by their evidence, log Z = log ∫ p(y, x) dx.

    Each log Z is the importance-sampling estimate of a fit, :attr:`nfvi.Fit.log_evidence`, and the
    estimates are independent of one another. The evidence of a model whose density has an unknown
    constant, as a bare log-density may, is relative to that constant: the table says so.

    Args:
        fits: name -> fit of the model, two or more.
        prior: name -> prior probability, or weight, of every model, over 0; default the same for
            all.

    Returns:
        Log evidences, Bayes factors against the best, and posterior model probabilities, with their
        standard errors.

    Raises:
        TypeError: ``fits`` holds something that is no fit.
        ValueError: there are fewer than two, an evidence is not finite, or ``prior`` does not give
            a positive number to each.
        FitError: a fit was loaded without target and diagnostics.

    Reference:
        Kass and Raftery, Bayes factors, 1995.

    Example:
        >>> from nfvi import NFVI
        >>> from models import eight_schools, eight_schools_noncentered
        >>> fits = {m.__name__: NFVI("scale-loc", seed=1).fit(m, steps=20, restarts=1)
        ...         for m in (eight_schools, eight_schools_noncentered)}
        >>> compare_evidence(fits).rows[0].difference
        0.0
    """
    _check_fits(fits)
    shares = _shares(fits, prior)
    for name, fit in fits.items():
        if not math.isfinite(fit.log_evidence):
            raise ValueError(
                f"the log evidence of {name!r} is {fit.log_evidence}: no draw of its fit has a"
                " finite log-density under the target"
            )
    rows = _rows(fits, shares)
    for fit in fits.values():
        fit.warn_of(fit.verdict)
    return EvidenceComparison(tuple(sorted(rows, key=lambda row: -row.log_evidence)))


def _rows(fits: Mapping[str, Approximation], shares: Mapping[str, float]) -> list[EvidenceRow]:
    log_z = np.array([fit.log_evidence for fit in fits.values()])
    se = np.array([fit.log_evidence_se for fit in fits.values()])
    chance, chance_se = _probabilities(log_z, se, np.array(list(shares.values())))
    best = int(log_z.argmax())
    difference = log_z - log_z[best]
    error = np.hypot(se, se[best])
    error[best] = 0
    factor = np.exp(difference)
    columns = (log_z, se, difference, error, factor, factor * error)
    rows = []
    for i, (name, fit) in enumerate(fits.items()):
        numbers = (*(column[i] for column in columns), shares[name], chance[i], chance_se[i])
        row = dict(zip(NUMBERS, map(float, numbers), strict=True))
        verdict = fit.verdict
        warned = _warnings(fit, verdict)
        rows.append(EvidenceRow(name, **row, khat=fit.khat, verdict=verdict.word, warnings=warned))
    return rows


def _probabilities(log_z: Array, se: Array, prior: Array) -> tuple[Array, Array]:
    """Posterior probabilities of the models, and their standard errors by the delta method."""
    weight = np.log(prior) + log_z
    weight = np.exp(weight - weight.max())
    p = weight / weight.sum()
    # d p_i / d log Z_j = p_i (δ_ij − p_j)
    slopes = p[:, None] * (np.eye(len(p)) - p)
    return p, np.sqrt(((slopes * se) ** 2).sum(1))


def _check_fits(fits: Mapping[str, Approximation]) -> None:
    if not isinstance(fits, Mapping):
        raise TypeError(
            f'fits must be a dict of fits by name, {{"name": fit}}, got {type(fits).__name__}'
        )
    if len(fits) < 2:
        raise ValueError(f"fits must hold two models or more, got {len(fits)}")
    for name, fit in fits.items():
        if not isinstance(fit, Approximation):
            raise TypeError(
                f"fits[{name!r}] must be a fit of a target, which has a log evidence; got"
                f" {type(fit).__name__}"
            )


def _shares(
    fits: Mapping[str, Approximation], prior: Mapping[str, float] | None
) -> dict[str, float]:
    """Prior probabilities that sum to 1."""
    if prior is None:
        return dict.fromkeys(fits, 1 / len(fits))
    if not isinstance(prior, Mapping) or prior.keys() != fits.keys():
        raise ValueError(f"prior must have a number for each of {', '.join(fits)}, got {prior!r}")
    numbers = [isinstance(p, int | float) and 0 < p < math.inf for p in prior.values()]
    if not all(numbers):
        raise ValueError(f"prior must be positive numbers, got {dict(prior)!r}")
    total = sum(prior.values())
    return {name: prior[name] / total for name in fits}


def _warnings(fit: Approximation, verdict: Verdict) -> tuple[str, ...]:
    found = []
    if verdict.word == NOT_TRUSTED:
        found.append(
            "the fit is not to be trusted, so that its log evidence and the error are unreliable: "
            + " ".join(verdict.reasons).removesuffix(".")
        )
    target = fit.target
    found += () if target is None else target.evidence_caveats
    if isinstance(target, PyroTarget):
        terms = unnormalised_terms(target, of_all_rows=True)
        found += [
            f"site {site!r} is {reason}, so that Z is no evidence" for site, reason in terms.items()
        ]
        if not observed_sites(target) and not terms:
            found.append("the model has no data, so that Z is 1 whatever its fit says")
    elif isinstance(target, NamedDensity) and target.without_prior:
        found.append(
            f"there is no proper prior of {', '.join(target.without_prior)}, so that Z is relative"
            " to the constant of the density"
        )
    elif not fit.settings["named"]:
        found.append(
            "a log-density is taken as it is: its evidence is relative to its own constant, and"
            " comparable where all constants are in it"
        )
    return tuple(found)


def _cells(row: EvidenceRow) -> list[str]:
    best = row.difference_se == 0 and row.difference == 0
    return [
        row.name,
        plus_minus(row.log_evidence, row.log_evidence_se),
        "" if best else plus_minus(row.difference, row.difference_se),
        "" if best else _factor(row),
        plus_minus(row.probability, row.probability_se),
        row.verdict,
    ]


def _factor(row: EvidenceRow) -> str:
    """The Bayes factor against the best, to the digits that its error leaves."""
    relative = row.difference_se
    error = f" ± {row.bayes_factor_se:.1g}" if relative < 1 else " or so"
    return f"{row.bayes_factor:.3g}{error}"
