"""A mixture of Gaussians as one product, and EM on weighted points."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfvi.auto.normal_mixture import NormalMixture, features, fitted, split

FIVE = 5.0
"""Standard errors allowed."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(size: int = 3, dim: int = 3) -> NormalMixture:
    generator = seeded(size + 10 * dim)
    half = torch.randn(size, dim, dim, generator=generator, dtype=torch.float64)
    loc = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    weights = 1 + torch.arange(size, dtype=torch.float64)
    return NormalMixture(weights, loc, half @ half.mT + 0.1 * torch.eye(dim))


def log_density(mixture: NormalMixture, x: Tensor) -> Tensor:
    each = MultivariateNormal(mixture.loc, mixture.covariance)
    return (each.log_prob(x.unsqueeze(1)) + mixture.weights.log()).logsumexp(1)


def log_t(mixture: NormalMixture, x: Tensor) -> Tensor:
    """The same with multivariate t distributions of 3 degrees of freedom, by their formula."""
    d = mixture.dim
    apart = x.unsqueeze(1) - mixture.loc
    turned = torch.linalg.solve(mixture.covariance, apart.unsqueeze(3)).squeeze(3)
    square = (turned * apart).sum(2)
    constant = math.lgamma(0.5 * (3 + d)) - math.lgamma(1.5) - 0.5 * d * math.log(3 * math.pi)
    volume = 0.5 * mixture.covariance.logdet()
    logs = constant - volume - 0.5 * (3 + d) * torch.log1p(square / 3)
    return (logs + mixture.weights.log()).logsumexp(1)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_both_densities_are_those_of_their_formulas(dim: int) -> None:
    mixture = some(4, dim)
    # More points than are taken at once.
    x = 2 * torch.randn(5_000, dim, generator=seeded(0), dtype=torch.float64)
    own, wide = mixture.log_both(features(x))
    torch.testing.assert_close(own, log_density(mixture, x))
    torch.testing.assert_close(wide, log_t(mixture, x))


@pytest.mark.parametrize("wide", [False, True])
def test_draws_have_the_density(wide: bool) -> None:
    mixture, n = some(3, 2), 100_000
    x, which = mixture.sample(n, seeded(1), wide)
    shares = which.bincount(minlength=3) / n
    torch.testing.assert_close(shares.double(), mixture.weights, rtol=0, atol=1.1 / n)
    # E[q′(x) / q(x)] = 1 for any density q′: here a narrower Gaussian at the mean of them all.
    q = mixture.log_both(features(x))[int(wide)]
    other = MultivariateNormal(mixture.weights @ mixture.loc, 0.2 * torch.eye(2).double())
    ratio = (other.log_prob(x) - q).exp()
    assert abs(float(ratio.mean()) - 1) < FIVE * float(ratio.std()) / n**0.5


def test_one_component_takes_the_weighted_moments() -> None:
    x = torch.randn(500, 3, generator=seeded(2), dtype=torch.float64)
    omega = torch.rand(500, generator=seeded(3), dtype=torch.float64)
    omega /= omega.sum()
    one = NormalMixture(
        torch.ones(1).double(), torch.ones(1, 3).double(), torch.eye(3).double()[None]
    )
    found = fitted(one, features(x), omega, 1)
    mean = omega @ x
    torch.testing.assert_close(found.loc[0], mean)
    # The ridge is a millionth of the mean variance.
    torch.testing.assert_close(
        found.covariance[0], (x - mean).mT @ ((x - mean) * omega[:, None]), rtol=1e-4, atol=1e-5
    )


def test_each_step_raises_the_weighted_likelihood_up_to_the_truth() -> None:
    truth = NormalMixture(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double(),
        torch.stack([0.1 * torch.eye(2), 0.3 * torch.eye(2)]).double(),
    )
    x, _ = truth.sample(20_000, seeded(4))
    points, omega = features(x), torch.full((20_000,), 1 / 20_000, dtype=torch.float64)
    start = NormalMixture(
        torch.ones(2).double(),
        torch.tensor([[-0.1, 0.0], [0.1, 0.0]]).double(),
        torch.eye(2)[None].expand(2, 2, 2).double(),
    )
    values = []
    for _ in range(60):
        values.append(float(omega @ start.log_both(points)[0]))
        start = fitted(start, points, omega, 1)
    assert all(b > a - 1e-6 for a, b in pairwise(values))
    order = start.loc[:, 0].argsort()
    torch.testing.assert_close(start.weights[order], truth.weights, rtol=0, atol=0.02)
    torch.testing.assert_close(start.loc[order], truth.loc, rtol=0, atol=0.03)
    torch.testing.assert_close(start.covariance[order], truth.covariance, rtol=0, atol=0.02)


def test_components_of_few_points_are_dropped() -> None:
    x = torch.randn(1_000, 2, generator=seeded(5), dtype=torch.float64)
    x[:4] = 100 + 0.01 * x[:4]
    pair = NormalMixture(
        torch.ones(2).double(),
        torch.tensor([[0.0, 0.0], [100.0, 100.0]]).double(),
        torch.eye(2).double().expand(2, 2, 2),
    )
    omega = torch.full((1_000,), 1e-3, dtype=torch.float64)
    assert fitted(pair, features(x), omega, 1).size == 1


def test_what_has_no_density_is_left_out() -> None:
    covariance = torch.stack([torch.eye(2), torch.zeros(2, 2), torch.eye(2)]).double()
    loc = torch.zeros(3, 2).double()
    mixture = NormalMixture(torch.tensor([1.0, 1.0, 0.0]).double(), loc, covariance)
    assert mixture.size == 1
    assert float(mixture.weights) == 1


class TestSplit:
    def test_halves_keep_the_mean_and_nearly_the_covariance(self) -> None:
        mixture = some(1, 2)
        pair = split(mixture, 64)
        assert pair.size == 2
        mean = pair.weights @ pair.loc
        torch.testing.assert_close(mean, mixture.loc[0])
        apart = pair.loc - mean
        whole = pair.weights[:, None, None] * (pair.covariance + apart[:, :, None] * apart[:, None])
        longest = torch.linalg.eigvalsh(mixture.covariance[0])[-1]
        # A tenth of the 0.36 that the halves' distance makes is left in each.
        excess = torch.linalg.eigvalsh(whole.sum(0) - mixture.covariance[0])
        torch.testing.assert_close(excess[-1], 0.036 * longest)
        torch.testing.assert_close(excess[0], torch.zeros(()).double(), rtol=0, atol=1e-9)

    def test_those_that_come_first_are_halved_where_not_all_can_be(self) -> None:
        mixture = some(3, 2)
        more = split(mixture, 4, torch.tensor([0.0, 5.0, 1.0]))
        assert more.size == 4
        left = {tuple(row) for row in more.loc.tolist()}
        assert [tuple(row) in left for row in mixture.loc.tolist()] == [True, False, True]

    def test_no_more_than_the_most(self) -> None:
        mixture = some(3, 2)
        assert split(mixture, 3) is mixture
        assert split(mixture, 100).size == 6
