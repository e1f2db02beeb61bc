"""A mixture of Gaussians that is fitted to its own weighted draws, in a few dimensions."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.auto.failure import carries_best
from nfvi.auto.gaussians import keep_guide
from nfvi.auto.normal_mixture import NormalMixture, features, fitted, split
from nfvi.auto.record import Record
from nfvi.fit import smoothed_weights
from nfvi.guides import AnyGuide, MixtureGuide, parts
from nfvi.starts import gaussian_guide, gaussian_of
from nfvi.targets import Target, log_prob_anywhere

__all__ = ["ENOUGH", "populate"]

logger = logging.getLogger(__name__)

DIMENSIONS = 5
"""K Gaussians that are fitted to n draws are off by K (1 + d + d (d + 1) / 2) / 2n nats: with 32 in
ten dimensions 10⁶ draws are needed for 0.001, in five 300 000, in two 100 000."""
MOST = 64
"""Components."""
FIRST, LEAST, LARGEST, POOL, IN_ALL = 8_192, 1_024, 65_536, 131_072, 400_000
"""Draws of a round, of those that EM looks at, and of all rounds."""
ROUNDS = 16
ENOUGH = 0.002
"""Nats below the log evidence; no more is asked of a rung."""
HOPELESS, HALF = 0.06, 0.5
"""Nats, at the most components: other families come nearer, unless the last round halved them."""
NOISE = 0.4
"""Of a gap: where the error by the number of draws is more, more draws come before more parts."""
LIGHT = 0.6
"""A k-hat by 4 000 draws, from which on more is asked: by 10 000 it may be 0.7."""
SURE = 16_384
"""Draws by which a gap is believed: of 4 000 of its own none may be in a far component of weight
1e-4, of which the ELBO knows."""
NEAR, HEAVIEST = 0.02, 10.0
"""Nats, from which on draws that the mixture takes too seldom count up to 10 times as much: on pot1
k-hats of 0.82 and 0.69 fell to 0.16 and 0.56. Further off, a few draws would rule a fit."""
FAR = 1e6
"""Nats; where log p is not finite, +∞ included, a draw counts as that far behind."""
GAIN, PATIENCE = 0.85, 2
"""Rounds that do not take a gap to that part of the lowest, the last with 32 768 draws or more."""
FULL = 0.95
"""Of the most components. 0.8 left 53 on the 40 modes of gmm40, some of them on two modes each and
0.08 nats off; with 11 more, halves of the worst, it is 0.0008."""
HALVINGS = 4
"""At once, from fewer than 8 Gaussians; along narrow waves EM drops the halves again."""
FEWEST_EFFECTIVE = 300
STEPS, STEPS_OF_HALVES, LARGE, STEPS_OF_LARGE = 10, 6, 65_536, 5
BISECTIONS = 30


@dataclass(frozen=True)
class Seen:
    """What the draws say of the last proposal.

    Attributes:
        gap: how far its ELBO is below the log evidence (nats); 0.002 more where k-hat is 0.6 or
            more, so that it is never enough then.
        omega: weights (n) of all draws by which the next mixture is fitted, of sum 1.
        effective: draws.
        losses: the share of each component (K) in the gap, in units of its sum.
    """

    gap: float
    omega: Tensor
    effective: float
    losses: Tensor


class Population:
    """Rounds of draws, each of a mixture that is fitted to the weighted draws before it.

    All draws of the last rounds are weighed together: ω_i ∝ p(x_i) / Σ_t n_t q_t(x_i), truncated at
    √n times their mean. Close to the target, half of ω_i is multiplied by p / q, up to 10, for the
    last mixture q, which is the weight by which the α-divergence with α = 2 is minimised: of the
    ELBO tails hardly matter, and of k-hat they do.

    Draws are in coordinates in which the first mixture has mean 0 and covariance I.

    Args:
        target: log p.
        loc, tril: m (d) and L (d, d): x = m + L u.
        generator: of the draws.
        dtype: in which the target is evaluated.

    Attributes:
        mixtures: the proposals of the rounds that are held, T of them.
        counts: their draws.
        points: features of these draws (n, F).
        log_p: of the target there (n).
        log_q: of each round there (n, T).

    Reference:
        Cappé, Douc, Guillin, Marin and Robert, Adaptive importance sampling in general mixture
        classes, 2008. Cornuet, Marin, Mira and Robert, Adaptive multiple importance sampling,
        2012. Ionides, Truncated importance sampling, 2008.
    """

    def __init__(
        self,
        target: Target,
        loc: Tensor,
        tril: Tensor,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        self.target, self.loc, self.tril = target, loc, tril
        self.generator, self.dtype = generator, dtype
        self.mixtures: list[NormalMixture] = []
        self.counts: list[int] = []
        self.points = features(loc.new_zeros(0, len(loc)))
        self.log_p, self.log_q = loc.new_zeros(0), loc.new_zeros(0, 0)

    def draw(self, mixture: NormalMixture, n: int) -> Seen:
        """Take n draws, an even number, and let go of the oldest where there are too many."""
        half = n // 2
        u, which = mixture.sample(half, self.generator)
        u = torch.cat([u, mixture.sample(half, self.generator, wide=True)[0]])
        z = (self.loc + u @ self.tril.mT).to(self.dtype)
        log_p = log_prob_anywhere(self.target, z).double() + self.tril.diagonal().log().sum()
        points = features(u)
        before = [_halves(*each.log_both(points)) for each in self.mixtures]
        self.points = torch.cat([self.points, points])
        self.log_p = torch.cat([self.log_p, log_p])
        own, wide = mixture.log_both(self.points)
        known = torch.stack(before, 1) if before else log_p.new_zeros(len(u), 0)
        column = _halves(own, wide).unsqueeze(1)
        self.log_q = torch.cat([torch.cat([self.log_q, known]), column], 1)
        self.mixtures.append(mixture)
        self.counts.append(len(u))
        dropped = self._forget()
        return self._seen(own[dropped:], which, mixture.size)

    def _forget(self) -> int:
        """Let go of the oldest rounds, as long as there are enough draws without; of how many."""
        dropped = 0
        while len(self.counts) > 1 and sum(self.counts[1:]) >= POOL:
            first = self.counts.pop(0)
            dropped += first
            self.mixtures.pop(0)
            self.points, self.log_p = self.points[first:], self.log_p[first:]
            self.log_q = self.log_q[first:, 1:]
        return dropped

    def _seen(self, own: Tensor, which: Tensor, size: int) -> Seen:
        """What all draws say of the last mixture, from its log-density (n) there.

        ``which`` are the components of those draws that are its own, ``size`` their number.
        """
        log_all = (self.log_q + self.log_q.new_tensor(self.counts).log()).logsumexp(1)
        ratio = self.log_p - log_all
        ratio = torch.where(ratio.isfinite(), ratio, -torch.inf)
        log_z = float(ratio.logsumexp(0))
        if not math.isfinite(log_z):
            return Seen(math.inf, torch.zeros_like(ratio), 0.0, ratio.new_zeros(size))
        omega = ratio.clamp_max(log_z - 0.5 * math.log(len(ratio))).softmax(0)
        effective = 1 / float(omega.square().sum())
        # ∫ q = 1: the error of the same sum for q is nearly that for p, and so cancels.
        log_z -= float((own - log_all).logsumexp(0))
        behind = torch.where(self.log_p.isfinite(), log_z - self.log_p + own, FAR).clamp_max(FAR)
        gap = float((own - log_all).softmax(0) @ behind)
        first = len(own) - self.counts[-1]
        mine = behind[first : first + len(which)]
        losses = behind.new_zeros(size).index_add(0, which, mine)
        khat = float(smoothed_weights(-mine)[1])
        if effective < FEWEST_EFFECTIVE:
            omega = _flatter(ratio)
        elif gap < NEAR:
            short = (-behind).exp().clamp_max(HEAVIEST)
            omega = omega * (0.5 + 0.5 * short)
            omega = omega / omega.sum()
        return Seen(gap + (ENOUGH if khat >= LIGHT else 0.0), omega, effective, losses)


def _halves(own: Tensor, wide: Tensor) -> Tensor:
    """Log-density (n) of what the draws of a round come from."""
    return torch.logaddexp(own, wide) - math.log(2)


def _flatter(ratio: Tensor) -> Tensor:
    """Weights (n) ∝ (p / q)^β of the largest β that leaves enough effective draws."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        enough = 1 / float((middle * ratio).softmax(0).square().sum()) > FEWEST_EFFECTIVE
        low, high = (middle, high) if enough else (low, middle)
    return (low * ratio).nan_to_num(-math.inf).softmax(0)


@carries_best
@torch.no_grad()
def populate(record: Record, generator: torch.Generator, dtype: torch.dtype) -> None:
    """Keep a mixture of more Gaussians, where the best rung is made of them; up to 5 dimensions.

    Each round draws from the mixture and from t distributions in its place, weighs the draws of all
    rounds, and fits the next mixture to them by EM, which needs no value of the target. Where draws
    are too few for the mixture, the next round takes more; where they are not, components are
    halved. It ends at 0.002 nats, where neither helps, or with the budget.

    Args:
        record: of the climb, with one rung at least.
        generator: of all draws.
        dtype: of the guides.
    """
    guide = record.tried[record.best()].guide
    dim = record.target.dim
    n = _even(record.affordable(FIRST, 0))
    if dim > DIMENSIONS or n < LEAST or not all(map(_is_gaussian, parts(guide))):
        return
    record.stage("mixtures of Gaussians")
    mixture, loc, tril = _whitened(guide)
    population = Population(record.target, loc, tril, generator, dtype)
    found = _rounds(record, population, mixture, n, max(MOST, mixture.size))
    if found is not None:
        keep_guide(record, _guide(found, loc, tril, dtype))


def _rounds(
    record: Record, population: Population, mixture: NormalMixture, n: int, most: int
) -> NormalMixture | None:
    """The best mixture of all rounds; ``None`` if that is the first."""
    start, best, found, taken, stale = mixture, math.inf, None, 0, 0
    for _ in range(ROUNDS):
        seen = population.draw(mixture, n)
        taken += n
        record.count(1, 0, values=n)
        logger.info(
            "%d Gaussians, %d draws: %.4f nats below the log evidence", mixture.size, n, seen.gap
        )
        more = _even(record.affordable(min(2 * n, LARGEST), n))
        if seen.gap <= ENOUGH and n < SURE and more > n and not record.enough(0):
            n = more
            continue
        stale = stale + 1 if seen.gap > GAIN * best else 0
        hopeless = seen.gap > HALF * best
        if seen.gap < best:
            best, found = seen.gap, None if mixture is start else mixture
        hopeless &= best > HOPELESS
        # What a fit by so many draws is off by: half a nat for each parameter and draw.
        noisy = mixture.parameters > 2 * NOISE * seen.gap * seen.effective
        noisy &= n < LARGEST or not stale  # there are no more draws to be had
        full = mixture.size > FULL * most
        tried = hopeless or (stale >= PATIENCE and n >= LARGEST // 2)
        ended = taken >= IN_ALL or (full and tried)
        if best <= ENOUGH or ended or seen.effective == 0 or record.enough(0):
            break
        if (noisy and seen.effective >= FEWEST_EFFECTIVE) or (full and stale):
            n = more
        mixture = _next(population, mixture, seen, most, noisy or full)
        if mixture.size == 0:
            break
    return found


def _next(
    population: Population, mixture: NormalMixture, seen: Seen, most: int, same: bool
) -> NormalMixture:
    """The mixture that is fitted to all draws, of the same components or of their halves."""
    points, omega = population.points, seen.omega
    first: Tensor | None = seen.losses
    for _ in range(0 if same else HALVINGS):
        before = mixture.size
        mixture = fitted(split(mixture, most, first), points, omega, STEPS_OF_HALVES)
        if before >= most // 8 or not mixture.size:
            break
        first = None
    return fitted(mixture, points, omega, STEPS if len(points) <= LARGE else STEPS_OF_LARGE)


def _even(n: int) -> int:
    return n - n % 2


def _is_gaussian(guide: AnyGuide) -> bool:
    return str(guide.formula) in ("tril", "scale-loc") and str(guide.base) == "normal"


def _whitened(guide: AnyGuide) -> tuple[NormalMixture, Tensor, Tensor]:
    """A mixture of Gaussians in coordinates u in which it is white, and m and L of x = m + L u."""
    pairs = [gaussian_of(part) for part in parts(guide)]
    loc, tril = (torch.stack(values) for values in zip(*pairs, strict=True))
    weights = guide.weights if isinstance(guide, MixtureGuide) else loc.new_ones(1)
    mean = weights @ loc
    apart = loc - mean
    each = tril @ tril.mT + apart.unsqueeze(2) * apart.unsqueeze(1)
    covariance = (weights[:, None, None] * each).sum(0)
    whole, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):  # in units so unlike that floats hold no correlation of them
        whole = covariance.diagonal().sqrt().diag()
    factor = torch.linalg.solve_triangular(whole, tril, upper=False)
    centre = torch.linalg.solve_triangular(whole, apart.mT, upper=False).mT
    return NormalMixture(weights, centre, factor @ factor.mT), mean, whole


def _guide(mixture: NormalMixture, loc: Tensor, tril: Tensor, dtype: torch.dtype) -> AnyGuide:
    """The mixture as a guide, in the coordinates of the target."""
    places = loc + mixture.loc @ tril.mT
    guides = [
        gaussian_guide(m, factor, dtype)
        for m, factor in zip(places, tril @ mixture.tril, strict=True)
    ]
    return MixtureGuide(guides, mixture.weights) if len(guides) > 1 else guides[0]
