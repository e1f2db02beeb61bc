"""What ``fit.verify()`` says: lower bounds on the error of every mean, sd and tail."""

from __future__ import annotations

from dataclasses import dataclass

from nfvi.fit.diagnostics import KHAT_LIMIT
from nfvi.utils import align, card, folded, html_table, preformatted, short, wrapped

__all__ = ["ScalarCheck", "Verification"]

# What a reader would mind, not what can be proven: smaller errors are below the Monte-Carlo error
# of a hundred draws. A tail may be short by more before anything but an extreme quantile changes.
MEAN_LIMIT = 0.1
SD_LIMIT = 0.1
TAIL_LIMIT = 2.0
ROWS_SHOWN = 20
HEADER = ["", "mean", "moved to", "error ≥, sds", "sd", "moved to", "error ≥", "tail ≥", ""]
CAVEAT = (
    "Short chains move within the modes that the guide has found: a mode that it misses stays"
    " unseen here too."
)


@dataclass(frozen=True)
class ScalarCheck:
    """One scalar of a site: what the guide says, and where the chains took it.

    Attributes:
        name: of the site, with an index.
        mean: of the guide's draws.
        moved_mean: after the chains.
        sd: of the guide's draws.
        moved_sd: after the chains.
        mean_error: the least error of the guide's mean that the chains prove, in units of
            ``moved_sd``; 0 where they prove none.
        sd_error: the least |sd / moved_sd − 1| that they prove.
        tail_factor: the least factor that they prove of the mass beyond one of the guide's 0.1, 1,
            99 and 99.9 % quantiles over what the guide has there; 1 where they prove none.
    """

    name: str
    mean: float
    moved_mean: float
    sd: float
    moved_sd: float
    mean_error: float
    sd_error: float
    tail_factor: float

    @property
    def passed(self) -> bool:
        """Whether no bound is over its limit: 0.1 sd, 10 % and a factor of 2."""
        right = self.mean_error <= MEAN_LIMIT and self.sd_error <= SD_LIMIT
        return right and self.tail_factor <= TAIL_LIMIT


@dataclass(frozen=True)
class Verification:
    """What :meth:`nfvi.Fit.verify` found.

    Attributes:
        checks: one for every scalar of every site that varies.
        khat: Pareto k-hat of the guide's importance weights.
        chains: how many chains were run.
        iterations: of each.
        settled: whether the marginals had stopped moving; if not, the bounds hold all the same
            and the errors may be larger.
        accept: mean acceptance at the end.
        gradient_evaluations: points at which the target's gradient was taken.
        not_finite: draws of the guide at which the log-density was NaN or +∞, where no chain is.
    """

    checks: tuple[ScalarCheck, ...]
    khat: float
    chains: int
    iterations: int
    settled: bool
    accept: float
    gradient_evaluations: int
    not_finite: int = 0

    @property
    def passed(self) -> bool:
        """Whether no error is proven, k-hat is below 0.7, and all chains moved freely."""
        right = self.khat < KHAT_LIMIT and all(check.passed for check in self.checks)
        right &= not self.not_finite
        return right and self.settled and self.accept > 0.5

    def __str__(self) -> str:
        head = (
            f"{self.chains:,} chains of {self.iterations} HMC iterations from draws of the guide,"
            f" {self.gradient_evaluations:,} gradients, acceptance {self.accept:.2f}"
        )
        rows = self._rows()
        more = len(self.checks) - len(rows)
        table = align(HEADER, rows) + (f"\n... and {more} more in .checks" if more else "")
        words = [line for text in (self._verdict(), CAVEAT) for line in wrapped(text)]
        return "\n".join([*wrapped(head), "", table, "", *words])

    def _repr_html_(self) -> str:
        title = f"verify(): {self.chains:,} chains of {self.iterations} HMC iterations"
        whole = folded("all of print(...)", preformatted(str(self)))
        return card(title, self._verdict(), html_table(HEADER, self._rows()), whole)

    def _rows(self) -> list[list[str]]:
        """The worst scalars first, not more than 20."""
        return [_row(c) for c in sorted(self.checks, key=_severity, reverse=True)[:ROWS_SHOWN]]

    def _verdict(self) -> str:
        wrong = sum(not check.passed for check in self.checks)
        if wrong:
            return (
                f"{wrong} of {len(self.checks)} scalars are wrong for certain: the guide is not"
                " the target. A richer formula, more steps, or fit.nuts() for exact draws."
            )
        if self.not_finite:
            return (
                f"At {self.not_finite} draws of the guide the log-density of the target is NaN or"
                " +∞: mass that no chain can move. Mend the target there."
            )
        if self.accept <= 0.5:
            return "The chains hardly moved, so nothing is proven either way."
        if not self.settled:
            return "The marginals still move: errors may be larger than these bounds."
        found = (
            "No mean is off by 0.1 sd or more, no sd by 10 %, and no tail is short by a factor of"
            " 2, as far as these chains tell."
        )
        if self.khat < KHAT_LIMIT:
            return found
        return (
            f"{found} But k-hat is {self.khat:.2f}: a few draws carry too much of the weight, so"
            " that the guide is not to be trusted where it has few of them."
        )


def _severity(check: ScalarCheck) -> float:
    """The largest bound in units of its limit."""
    errors = check.mean_error / MEAN_LIMIT, check.sd_error / SD_LIMIT
    return max(*errors, (check.tail_factor - 1) / (TAIL_LIMIT - 1))


def _row(c: ScalarCheck) -> list[str]:
    means = [short(c.mean), short(c.moved_mean), f"{c.mean_error:.2f}"]
    sds = [short(c.sd), short(c.moved_sd), f"{c.sd_error:.0%}"]
    return [c.name, *means, *sds, f"× {c.tail_factor:.1f}", "" if c.passed else "wrong"]
