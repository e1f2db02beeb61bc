"""The posteriors that benchmarks.posteriors runs on, with what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import models
from benchmarks.posteriors.importance_reference import importance_reference
from benchmarks.posteriors.metrics import Reference, exact_reference, posteriordb_reference
from benchmarks.posteriors.sufficient_statistics import SUMMARISED, summarised_target
from models.eight_schools import LOG_EVIDENCE
from models.mixture import GaussianMixture
from models.posteriordb import POSTERIORS, posteriordb_target
from nfvi import LogDensity, PyroTarget
from nfvi.targets import Target

__all__ = ["CENTRED", "EXACT", "NAMES", "NONCENTRED", "Case", "case", "modes_found"]

CENTRED = "eight_schools-eight_schools_centered"
NONCENTRED = "eight_schools-eight_schools_noncentered"
EXACT: dict[str, LogDensity] = {
    target.name: target
    for target in (
        *(models.pot1, models.pot2, models.pot3, models.pot4, models.funnel, models.banana),
        *(models.gaussian_20d, models.mixture_10d),
    )
}
NAMES = (*POSTERIORS, *EXACT, "logistic_regression")
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Case:
    """A target, and what its draws are compared with.

    Attributes:
        name: of posteriordb, or of the zoo.
        group: ``"posteriordb"`` or ``"exact"``.
        target: what is fitted.
        reference: the moments.
        log_z: log ∫ p where it is known, else ``None``.
        log_z_se: its standard error; 0 but for importance sampling.
        summarised: the same density by sufficient statistics, for NUTS where it takes millions of
            gradients.
    """

    name: str
    group: str
    target: Target
    reference: Reference
    log_z: float | None
    log_z_se: float = 0.0
    summarised: Target | None = None


@cache
def case(name: str, database: str) -> Case:
    """One case by its name; the reference is made once in a run.

    Args:
        name: one of ``NAMES``.
        database: folder of posteriordb's database.
    """
    if name in EXACT:
        target = EXACT[name]
        return Case(name, "exact", target, exact_reference(target), target.log_normalizer)
    if name == "logistic_regression":
        model = PyroTarget(models.logistic_regression)
        found = importance_reference(model)
        return Case(name, "exact", model, found.reference, found.log_evidence, found.error)
    from posteriordb import PosteriorDatabase  # the other targets do without

    posterior = PosteriorDatabase(database).posterior(name)
    known = LOG_EVIDENCE if name in (CENTRED, NONCENTRED) else None
    reference = posteriordb_reference(posterior)
    summarised = summarised_target(posterior) if name in SUMMARISED else None
    target = posteriordb_target(posterior)
    return Case(name, "posteriordb", target, reference, known, summarised=summarised)


def modes_found(target: Target, draws: object) -> tuple[int, int] | None:
    """How many components of a mixture the draws (n, d) found, and how many there are.

    A component is found where the draws give it at least a tenth of its weight. ``None`` for a
    target that is no mixture.
    """
    if not isinstance(target, GaussianMixture):
        return None
    shares = target.responsibilities(draws).double().mean(0)
    found = shares >= LEAST_SHARE * target.weights.to(shares)
    return int(found.sum()), len(target.weights)
