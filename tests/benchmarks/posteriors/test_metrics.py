"""b² of benchmarks/posteriors/metrics.py by hand, weighted and in law, and what it refers to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import models
from benchmarks.posteriors.importance_reference import importance_reference
from benchmarks.posteriors.metrics import exact_reference, posteriordb_reference, squared_bias
from models.moments import Moments, exact_moments, moments_of
from nfvi import LogDensity, PyroTarget
from nfvi.errors import TargetError


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bias_is_the_squared_error_over_the_variance() -> None:
    draws = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    reference = Moments(row(1, 1), row(4, 9), row(4, 2), row(5, 16))
    bias = squared_bias(draws, reference)
    # The means of x are 2 and 0, those of x² are 5 and 0.
    torch.testing.assert_close(bias.x, row(1 / 4, 1 / 9))
    torch.testing.assert_close(bias.square, row(1 / 5, 4 / 16))
    assert bias.worst == pytest.approx(1 / 4)
    assert bias.average == pytest.approx((1 / 4 + 1 / 9 + 1 / 5 + 1 / 4) / 4)


def test_weights_count_draws_as_copies_would() -> None:
    draws = torch.randn(4, 3)
    copies = draws[[0, 0, 0, 1, 1, 2, 3, 3]]
    weights = torch.tensor([3.0, 2.0, 1.0, 2.0]) / 8
    reference = moments_of(torch.randn(50, 3))
    weighted = squared_bias(draws, reference, weights)
    torch.testing.assert_close(weighted, squared_bias(copies, reference))


def test_independent_draws_have_a_bias_of_one_over_their_number() -> None:
    """n b² is near chi-squared with one degree of freedom: mean 1 and sd √2 over repetitions.

    The 400 averages over 20 coordinates of x and of x² that go in are worth 400 repetitions at
    least, so that five standard errors are 5 √(2 / 400): one seed in a million fails.
    """
    n, repetitions = 100, 400
    reference = exact_reference(models.gaussian_20d)
    generator = torch.Generator().manual_seed(2)
    averages = [
        reference.bias({"z": models.gaussian_20d.sample(n, generator=generator)}).average
        for _ in range(repetitions)
    ]
    assert abs(n * sum(averages) / repetitions - 1) < 5 * (2 / repetitions) ** 0.5


def test_a_nan_is_not_lost() -> None:
    draws = torch.tensor([[1.0, float("nan")], [3.0, 0.0]])
    bias = squared_bias(draws, Moments(*[row(1, 1)] * 4))
    assert bias.worst != bias.worst


def test_what_does_not_go_together_is_refused() -> None:
    reference = Moments(*[row(1, 1)] * 4)
    with pytest.raises(ValueError, match=r"values must be \(n, 2\).*got \(5, 3\)"):
        squared_bias(torch.zeros(5, 3), reference)
    with pytest.raises(ValueError, match=r"weights must be \(5,\) with the sum 1.*sum 5"):
        squared_bias(torch.zeros(5, 2), reference, torch.ones(5))
    with pytest.raises(ValueError, match=r"weights must be \(5,\)"):
        squared_bias(torch.zeros(5, 2), reference, torch.full((4,), 0.25))


def test_a_reference_of_posteriordb_compares_scalar_by_scalar() -> None:
    chains = [{"beta[1]": [1.0, 3.0], "beta[2]": [0.0, 2.0], "sigma": [1.0, 2.0]}] * 2
    posterior = SimpleNamespace(name="sblrc-blr", reference_draws=lambda: chains)
    reference = posteriordb_reference(posterior)
    assert reference.keys == ("beta[1]", "beta[2]", "sigma")
    torch.testing.assert_close(reference.moments.mean, row(2, 1, 1.5))
    torch.testing.assert_close(reference.moments.variance, row(4 / 3, 4 / 3, 1 / 3))
    torch.testing.assert_close(reference.moments.square_mean, row(5, 2, 2.5))
    bias = reference.bias({"sigma": torch.full((4,), 2.0), "beta": torch.tensor([[2.0, 1.0]] * 4)})
    torch.testing.assert_close(bias.x, row(0, 0, 0.25 / (1 / 3)))


@pytest.mark.parametrize(
    "target",
    [models.gaussian_20d, models.mixture, models.mixture_10d, models.banana],
    ids=lambda target: target.name,
)
def test_closed_forms_are_the_moments_of_the_sampler(target: LogDensity) -> None:
    """Mean of x, x² and x⁴, each within five standard errors: a false alarm in 15 000 seeds."""
    n = 200_000
    mean, variance, square_mean, square_variance = exact_moments(target)
    torch.testing.assert_close(square_mean, variance + mean.square())
    x = target.sample(n, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = {1: mean, 2: square_mean, 4: square_variance + square_mean.square()}
    for power, value in expected.items():
        error = (x**power).std(0) / n**0.5
        assert bool(((x**power).mean(0) - value).abs().lt(5 * error).all())


def test_the_funnel_has_the_moments_of_a_log_normal_scale() -> None:
    """With E e^{kv} = e^{k² s² / 2}; of v alone, the normal's."""
    moments = exact_moments(models.funnel)
    second, fourth = torch.tensor(4.5).double().exp(), 3 * torch.tensor(18.0).double().exp()
    assert moments.square_mean[0] == moments.variance[0] == 9
    assert moments.square_variance[0] == pytest.approx(2 * 81)
    torch.testing.assert_close(moments.variance[1:], second.expand(9))
    torch.testing.assert_close(moments.square_variance[1:], (fourth - second**2).expand(9))


def test_other_targets_are_drawn_from_by_a_seed_of_their_own() -> None:
    found = exact_moments(models.pot2, draws=100_000)
    # z0 is Laplace(0, 10): E z0² = 200 and var z0² = 200 000, within five standard errors.
    assert abs(found.square_mean[0] - 200) < 5 * (2e5 / 1e5) ** 0.5
    again = exact_moments(models.pot2, draws=100_000)
    assert all(map(torch.equal, found, again))
    with pytest.raises(TargetError, match="no exact sampler"):
        exact_moments(LogDensity(lambda z: -z.square().sum(-1), 2, name="plain"))


def test_importance_sampling_finds_an_evidence_and_moments_that_are_known() -> None:
    """The coefficients are a multivariate t, and log λ is nearly normal; five standard errors each.

    The moments of both sides are compared, of x and of x², for 12 coordinates: with the evidence
    one seed in 70 000 fails.
    """
    n = 20_000
    found = importance_reference(PyroTarget(models.linear_regression), draws=n)
    exact = models.linear_regression_posterior()
    assert found.khat < 0.5
    # The model's own prior constants are float32, as in the test of its evidence.
    assert abs(found.log_evidence - exact.log_evidence) < 5 * found.error + 2e-6
    draws = exact.sample(n, generator=torch.Generator().manual_seed(5))
    bias = found.reference.bias(draws)
    assert bias.worst < 25 * (1 / n + 1 / found.ess)
