"""The chains and the bounds behind ``fit.verify()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nfvi.fit.chains import start_chains
from nfvi.fit.scalars import scalars
from nfvi.fit.verification import ScalarCheck, Verification
from nfvi.guides import AnyGuide, sample_in_pieces
from nfvi.targets import Target

__all__ = ["MOST_ITERATIONS", "verify_guide"]

# Some 90 leapfrog steps: several periods of a base space that is nearly normal. Shorter blocks
# may stand still by chance; the chains stop at two blocks where nothing moves.
BLOCK = 20
# Chains that still move after 200 iterations have shown enough; a verdict says that they did.
MOST_ITERATIONS = 10 * BLOCK
EVERY = 4
"""Iterations between those that count for the tails."""
# A guide that is right is called wrong in one check of a hundred at the most (Bonferroni).
LEVEL = 0.01
TAILS = (0.001, 0.01)
"""What the guide has beyond each of the quantiles where the tails are looked at."""
# 200 draws beyond the outermost quantile: its mass is known to 7 %, and that error is counted.
REFERENCE = 200_000
MOST_NUMBERS = 20_000_000
"""Of the reference draws, all coordinates together."""


def verify_guide(
    guide: AnyGuide,
    target: Target,
    chains: int,
    generator: torch.Generator,
    khat: float,
    enough: Callable[[], bool] = lambda: False,
    each: Callable[[], Any] = lambda: None,
) -> Verification:
    """Run chains from draws of a guide until their marginals settle, and compare.

    The chains of a single flow x = f(z) run in its base space, where the target is nearly the
    base distribution, so that they reach tails and necks that the guide is short of. Those of a
    mixture run in the base space of the component k that they come from, with a step size of its
    own, on the part p(x) r_k(x) of the target that it is answerable for.

    Args:
        guide: q.
        target: p.
        chains: how many; more than the dimension, up to 300 of them.
        generator: of draws and chains.
        khat: of the guide's importance weights, for the verdict.
        enough: asked after every iteration whether to end early.
        each: called after every iteration, of which there are :data:`MOST_ITERATIONS` at most.

    Raises:
        FitError: fewer than half of the draws have a finite log-density under the target.

    Reference:
        Wang, Kasprzak and Huggins, A targeted accuracy diagnostic for variational
        approximations, 2023; the base space is that of Hoffman et al., 2019.
    """
    chain = start_chains(guide, target, chains, generator)
    before = _scalars(target, chain.positions())
    names, first = list(before), _columns(before)
    tails = _Tails(guide, target, generator)
    last, settled, iterations, cut = first, False, 0, False
    while iterations < MOST_ITERATIONS and not settled and not cut:
        beyond = []
        for i in range(BLOCK):
            chain.step()
            each()
            iterations += 1
            cut = enough()
            if (i + 1) % EVERY == 0 or cut:
                new = _columns(_scalars(target, chain.positions()))
                beyond.append(tails.beyond(new))
            if cut:
                break
        settled = not cut and iterations > BLOCK and not bool((_bounds(last, new)[:2] > 0).any())
        last = new
    mean_error, sd_error, mean, sd = _bounds(first, last)
    excess = tails.excess(torch.stack(beyond).mean(0))
    found = (first.mean(0), mean, first.std(0), sd, mean_error, sd_error, excess)
    # What never varies, such as the zeros of a Cholesky factor, is nothing to verify.
    varies = ((first != first[0]) | (last != first[0])).any(0)
    rows = zip(names, *(v.tolist() for v in found), strict=True)
    return Verification(
        checks=tuple(ScalarCheck(*row) for row, one in zip(rows, varies, strict=True) if one),
        khat=khat,
        chains=len(first),
        iterations=iterations,
        settled=settled,
        accept=chain.accept,
        gradient_evaluations=chain.gradient_evaluations,
        not_finite=chain.not_finite,
    )


@torch.no_grad()
def _scalars(target: Target, x: Tensor) -> dict[str, Tensor]:
    """Every scalar of every site, by name without blanks: each (n), float64."""
    sites = {name: value.double() for name, value in target.constrain(x).items()}
    return {name.replace(" ", ""): column for name, column in scalars(sites)}


def _columns(found: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(found.values()), 1)


def _deviations(count: int) -> float:
    """Standard errors for one of the bounds of each scalar to hold with all others.

    A mean and an sd may be off to two sides, a tail is looked at on two sides and two levels.
    """
    share = LEVEL / ((4 + 2 * len(TAILS)) * count)
    return float(-torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))


def _bounds(before: Tensor, after: Tensor) -> Tensor:
    """Proven error of mean and sd, and mean and sd after: (4, scalars), from pairs (n, scalars).

    Chain i takes row i from before to after, so that differences are of pairs. The bounds hold
    for all scalars together but for a chance of 1 %.
    """
    n, count = before.shape
    z = _deviations(count)
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


class _Tails:
    """How much mass lies beyond the guide's outer quantiles.

    Args:
        guide: q; its quantiles are those of up to 200 000 draws.
        target: whose scalars are looked at.
        generator: of the draws.
    """

    def __init__(self, guide: AnyGuide, target: Target, generator: torch.Generator) -> None:
        self.draws = min(REFERENCE, max(10_000, MOST_NUMBERS // guide.dim))
        columns = _columns(_scalars(target, sample_in_pieces(guide, self.draws, generator)))
        rows = columns.T.contiguous()
        places = [round(level * self.draws) for level in TAILS]
        least, most = (
            rows.topk(max(places) + 1, largest=largest).values.T for largest in (False, True)
        )
        self.low, self.high = least[places], most[places]

    def beyond(self, after: Tensor) -> Tensor:
        """Which of (n, scalars) lie beyond: (2 · levels, n, scalars) of 0 and 1."""
        low, high = self.low.unsqueeze(1), self.high.unsqueeze(1)
        return torch.cat([after < low, after > high]).double()

    def excess(self, beyond: Tensor) -> Tensor:
        """The largest proven factor of the mass beyond over the guide's: (scalars), at least 1.

        Args:
            beyond: the share of the time that each chain spent there (2 · levels, n, scalars).
        """
        levels = torch.tensor(TAILS * 2, dtype=beyond.dtype, device=beyond.device).unsqueeze(1)
        ratio = beyond.mean(1) / levels
        error = beyond.std(1) / beyond.shape[1] ** 0.5 / levels
        # The quantiles are themselves known from so many draws.
        blur = ratio * (levels * self.draws).rsqrt()
        least = ratio - _deviations(beyond.shape[2]) * torch.hypot(error, blur)
        return least.amax(0).clamp_min(1)
