"""Whether a fit is right where its draws are: lower bounds on the error of every mean and sd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit_text import wrapped
from nfvi.mixture_guide import AnyGuide
from nfvi.parallel_hmc import ParallelHMC
from nfvi.targets import Target
from nfvi.text_table import align, short

__all__ = ["ScalarCheck", "Verification", "verify_guide"]

BLOCK = 20
MOST_BLOCKS = 10
LEVEL = 0.01
MEAN_LIMIT = 0.1
SD_LIMIT = 0.1
ROWS_SHOWN = 20
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
    """

    name: str
    mean: float
    moved_mean: float
    sd: float
    moved_sd: float
    mean_error: float
    sd_error: float

    @property
    def passed(self) -> bool:
        """Whether neither bound is over its limit, 0.1 sd and 10 %."""
        return self.mean_error <= MEAN_LIMIT and self.sd_error <= SD_LIMIT


@dataclass(frozen=True)
class Verification:
    """What :meth:`nfvi.Fit.verify` found.

    Attributes:
        checks: one for every scalar of every site.
        chains: how many chains were run.
        iterations: of each.
        settled: whether the marginals had stopped moving; if not, the bounds hold all the same
            and the errors may be larger.
        accept: mean acceptance at the end.
        gradient_evaluations: points at which the target's gradient was taken.
    """

    checks: tuple[ScalarCheck, ...]
    chains: int
    iterations: int
    settled: bool
    accept: float
    gradient_evaluations: int

    @property
    def passed(self) -> bool:
        """Whether no error is proven, and the chains moved freely."""
        return self.settled and self.accept > 0.5 and all(check.passed for check in self.checks)

    def __str__(self) -> str:
        head = (
            f"{self.chains:,} chains of {self.iterations} HMC iterations from draws of the guide,"
            f" {self.gradient_evaluations:,} gradients, acceptance {self.accept:.2f}"
        )
        header = ["", "mean", "moved to", "error ≥, sds", "sd", "moved to", "error ≥", ""]
        order = sorted(self.checks, key=lambda c: -max(c.mean_error, c.sd_error))
        rows = [_row(check) for check in order[:ROWS_SHOWN]]
        more = len(order) - len(rows)
        table = align(header, rows) + (f"\n... and {more} more in .checks" if more else "")
        words = [line for text in (self._verdict(), CAVEAT) for line in wrapped(text)]
        return "\n".join([*wrapped(head), "", table, "", *words])

    def _verdict(self) -> str:
        wrong = sum(not check.passed for check in self.checks)
        if wrong:
            return (
                f"{wrong} of {len(self.checks)} scalars are wrong for certain: the guide is not"
                " the target. A richer formula, more steps, or fit.nuts() for exact draws."
            )
        if self.accept <= 0.5:
            return "The chains hardly moved, so nothing is proven either way."
        if not self.settled:
            return "The marginals still move: errors may be larger than these bounds."
        return "No mean is off by 0.1 sd or more, and no sd by 10 %, as far as these chains tell."


def _row(c: ScalarCheck) -> list[str]:
    means = [short(c.mean), short(c.moved_mean), f"{c.mean_error:.2f}"]
    sds = [short(c.sd), short(c.moved_sd), f"{c.sd_error:.0%}"]
    return [c.name, *means, *sds, "" if c.passed else "wrong"]


def verify_guide(
    guide: AnyGuide, target: Target, chains: int, generator: torch.Generator
) -> Verification:
    """Run chains from draws of a guide until their marginals settle, and compare.

    Args:
        guide: q.
        target: p.
        chains: how many, more than the dimension.
        generator: of draws and chains.

    Raises:
        FitError: fewer than half of the draws have a finite log-density under the target.

    Reference:
        Wang, Kasprzak and Huggins, A targeted accuracy diagnostic for variational
        approximations, 2023.
    """
    start = guide.sample(chains, generator=generator)
    with torch.no_grad():
        start = start[target.log_prob(start).isfinite()]
    if len(start) < max(chains // 2, guide.dim + 1):
        raise FitError("fewer than half of the guide's draws have a finite log-density")
    hmc = ParallelHMC(target, start, generator)
    before = scalars(target, start)
    names, first = list(before), torch.stack(list(before.values()), 1)
    last, settled, blocks = first, False, 0
    while blocks < MOST_BLOCKS and not settled:
        for z in hmc.run(BLOCK):
            end = z
        blocks += 1
        new = torch.stack(list(scalars(target, end).values()), 1)
        settled = blocks > 1 and not bool((_bounds(last, new)[:2] > 0).any())
        last = new
    mean_error, sd_error, mean, sd = _bounds(first, last)
    rows = zip(
        names,
        *(v.tolist() for v in (first.mean(0), mean, first.std(0), sd, mean_error, sd_error)),
        strict=True,
    )
    return Verification(
        checks=tuple(ScalarCheck(*row) for row in rows),
        chains=len(start),
        iterations=BLOCK * blocks,
        settled=settled,
        accept=hmc.accept,
        gradient_evaluations=hmc.gradient_evaluations,
    )


@torch.no_grad()
def scalars(target: Target, z: Tensor) -> dict[str, Tensor]:
    """Every scalar of every site that varies, by name: each (n), float64."""
    found = {}
    for name, value in target.constrain(z).items():
        columns = value.double().reshape(len(z), -1)
        for i, column in enumerate(columns.T):
            label = name if value.dim() == 1 else f"{name}{list(_place(i, value.shape[1:]))}"
            found[label.replace(" ", "")] = column
    return found


def _place(flat: int, shape: torch.Size) -> tuple[int, ...]:
    place: list[int] = []
    for size in reversed(shape):
        place.insert(0, flat % size)
        flat //= size
    return tuple(place)


def _bounds(before: Tensor, after: Tensor) -> Tensor:
    """Proven error of mean and sd, and mean and sd after: (4, scalars), from pairs (n, scalars).

    Chain i takes row i from before to after, so that differences are of pairs. The bounds hold
    for all scalars together but for a chance of 1 %.
    """
    n, count = before.shape
    z = float(-torch.special.ndtri(torch.tensor(LEVEL / (4 * count), dtype=torch.float64)))
    sd = after.std(0).clamp_min(torch.finfo(after.dtype).tiny)
    moved = (after - before) / sd
    mean_error = (moved.mean(0).abs() - z * moved.std(0) / n**0.5).clamp_min(0)
    # d log sd = ½ of the mean of (x − m)²/s² − 1, chain by chain.
    first_sd = before.std(0).clamp_min(torch.finfo(after.dtype).tiny)
    pull = ((after - after.mean(0)) / sd).square() - ((before - before.mean(0)) / first_sd).square()
    log_ratio = (first_sd / sd).log()
    least = (log_ratio.abs() - z * 0.5 * pull.std(0) / n**0.5).clamp_min(0)
    sd_error = torch.where(log_ratio > 0, least.expm1(), -(-least).expm1())
    return torch.stack([mean_error, sd_error, after.mean(0), sd])
