"""A row of benchmarks.posteriors about the path gradient beside the total one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch

from benchmarks.posteriors.cases import Case
from benchmarks.posteriors.rows import DRAWS, check_complete
from benchmarks.posteriors.store import Row
from nfvi import NFVI, Fit
from nfvi.fit import KHAT_LIMIT, diagnose, draw_weighted
from nfvi.guides import Guide, parts

__all__ = [
    *("AUTO", "GAIN", "NEAR", "Comparison"),
    *("gradients_row", "kept", "path_holds", "settings_key", "settings_of"),
]

AUTO = "auto"
GAIN, NEAR = 0.1, 0.02
LEAST_DRAWS = 256
EVEN = ("normal", "laplace")


@dataclass(frozen=True)
class Comparison:
    """What the fits by either gradient have in common.

    Attributes:
        formula: of the guide, or of each component.
        steps: of the optimiser.
        base: of the guide.
        components: of a mixture, or 1.
        start: ``"auto"``, a Gaussian that is fitted first; ``"zeros"``, the base itself, with
            tempering in the first 60 % of the steps; ``"fit"``, the components that were kept.
        n_mc: draws a step; ``None`` is the default.
        lr: learning rate; ``None`` is the default.
    """

    formula: str
    steps: int
    base: str = "normal"
    components: int = 1
    start: str = "auto"
    n_mc: int | None = None
    lr: float | None = None

    def fit(self, case: Case, gradient: str, seed: int, found: Fit | None = None) -> Fit:
        """The fit by one gradient.

        Args:
            case: what is fitted.
            gradient: ``"path"`` or ``"total"``.
            seed: of the fit.
            found: the fit that ``start="fit"`` continues from.

        Raises:
            KeyboardInterrupt: it was interrupted.
        """
        fit = NFVI(self.formula, base=self.base, seed=seed).fit(
            case.target,
            init=found if self.start == "fit" else self.start,
            steps=self.steps,
            n_mc=self.n_mc,
            lr=self.lr,
            restarts=self.components,
            combine="mixture" if self.components > 1 else "best",
            anneal=self.start == "zeros",
            draws="qmc" if self.base in EVEN else "iid",
            gradient=gradient,
            progress=False,
        )
        check_complete(fit)
        return fit


def kept(fit: Fit, least: int) -> Comparison:
    """What ``"auto"`` kept: formula, base, steps, draws and learning rate of its best rung.

    A single guide starts as ``init="auto"``, untempered, since tempering would leave the start
    again. One from the tournament of few dimensions starts from the base itself, tempered, as all
    do there: with 4 000 steps of 256 draws for the sums of waves, the better of the two gradients
    ends 0.001 and 0.003 nats below log Z on pot2 and pot3, and 0.18 and 0.11 from ``init="auto"``.
    The components of a mixture start where they were, as a formula by itself has one start.

    Args:
        fit: by ``NFVI("auto")``.
        least: steps, where the rung took fewer; of draws the least are 256.
    """
    rung = fit.path[fit.path.best]
    guides = parts(fit.guide)
    start = "fit" if len(guides) > 1 else "zeros" if _stands_on_base(guides[0]) else "auto"
    return Comparison(
        formula=str(fit.formula),
        steps=max(rung.steps, least),
        base=str(fit.guide.base),
        components=len(guides),
        start=start,
        n_mc=max(fit.settings["n_mc"], LEAST_DRAWS) if rung.steps else None,
        lr=fit.settings["lr"],
    )


def _stands_on_base(guide: Guide) -> bool:
    """Whether learned flows have no Gaussian under them: the place of the tournament."""
    place = guide.placement
    if place is None:
        return False
    points = torch.ones_like(place.loc).diag_embed()
    return torch.equal(place(points)[0], points)


def settings_key(formula: str, steps: int) -> str:
    """What tells the rows of one comparison from those of another."""
    return f"{formula}, {steps} steps" + (" or more" if formula == AUTO else "")


def settings_of(rows: Iterable[Row]) -> list[str]:
    """The comparisons among rows; the first is the one that counts.

    That of ``"auto"`` comes before those of fixed formulas, and then the one with more rows.
    """
    found = Counter(row["settings"] for row in rows if row["method"] == "gradients")
    return sorted(found, key=lambda name: (not name.startswith(f"{AUTO}, "), -found[name]))


def gradients_row(case: Case, formula: str, seed: int, steps: int) -> Row:
    """The same fit by either gradient: the same seed, start, draws and steps; one restart.

    log Z is the known one, else the evidence by importance sampling from the better of the two
    where its k-hat allows that.

    Args:
        case: what is fitted.
        formula: of the guides; ``"auto"`` takes what ``NFVI("auto", seed=seed)`` keeps, see
            :func:`kept`.
        seed: of all fits.
        steps: of the optimiser; with ``"auto"`` the least.

    Raises:
        KeyboardInterrupt: a fit was interrupted.
    """
    source = None
    comparison = Comparison(formula, steps)
    if formula == AUTO:
        source = NFVI(AUTO, seed=seed).fit(case.target, progress=False)
        check_complete(source)
        comparison = kept(source, steps)
    found = {}
    for gradient in ("path", "total"):
        fit = comparison.fit(case, gradient, seed, source)
        generator = torch.Generator(fit.guide.device).manual_seed(seed + 1)
        found[gradient] = diagnose(draw_weighted(fit.guide, case.target, DRAWS, generator))
    better = min(found.values(), key=lambda d: d.khat)
    estimate = better.log_evidence if better.khat < KHAT_LIMIT else None
    return {
        **asdict(comparison),
        "log_z": estimate if case.log_z is None else case.log_z,
        "log_z_known": case.log_z is not None,
        **{f"elbo_{name}": d.elbo for name, d in found.items()},
        **{f"elbo_se_{name}": d.elbo_se for name, d in found.items()},
        **{f"khat_{name}": d.khat for name, d in found.items()},
    }


def path_holds(row: Row) -> bool:
    """Whether the path gradient's ELBO is better by 0.1 nats, or both are within 0.02 of log Z."""
    if row["elbo_path"] - row["elbo_total"] >= GAIN:
        return True
    log_z = row["log_z"]
    elbos = row["elbo_path"], row["elbo_total"]
    return log_z is not None and all(abs(log_z - elbo) <= NEAR for elbo in elbos)
