"""R-hat and effective sample sizes of chains whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from nfvi.mcmc.chain_stats import ess, mcse, mean_sd_hdi, rhat

KINDS = ("bulk", "tail", "mean", "sd")


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_ess_of_independent_draws_is_their_number(kind):
    """Its estimate scatters by some per cent at 4 × 1000 draws; 25 % is far out."""
    assert ess(normal(4, 1000, 2), kind) == pytest.approx([4000, 4000], rel=0.25)


def test_ess_of_an_autoregression():
    """At lag-one correlation ρ the ESS of the mean is n (1 − ρ)/(1 + ρ)."""
    noise, rho = normal(4, 4000), 0.8
    x = [noise[:, 0]]
    for e in noise.unbind(1)[1:]:
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * e)
    expected = 16_000 * (1 - rho) / (1 + rho)
    assert float(ess(torch.stack(x, 1), "mean")) == pytest.approx(expected, rel=0.2)


def test_rhat_of_equal_and_of_separate_chains():
    x = normal(4, 500)
    assert 0.99 < rhat(x) < 1.01
    assert rhat(x + torch.arange(4)[:, None]) > 1.3
    # the same place, another width: seen by the folded draws
    assert rhat(x * torch.tensor([1.0, 1.0, 1.0, 5.0])[:, None]) > 1.1


def test_shapes_and_what_is_undefined():
    x = normal(2, 50, 3, 2)
    x[..., 0, 0] = 1.0  # never moves
    x[0, 0, 2, 1] = math.nan
    for values in (rhat(x), *(ess(x, kind) for kind in KINDS)):
        assert values.shape == (3, 2)
        undefined = torch.zeros(3, 2, dtype=torch.bool)
        undefined[0, 0] = undefined[2, 1] = True
        assert torch.equal(values.isnan(), undefined)
    assert rhat(normal(1, 50)).isnan()
    assert not ess(normal(1, 50)).isnan()
    assert ess(normal(2, 3)).isnan()
    assert ess(normal(2, 50, 0)).shape == (0,)


def test_chains_that_stand_still_at_different_places():
    x = torch.tensor([0.0, 1.0])[:, None].expand(2, 20)
    assert rhat(x) == math.inf


def test_mean_sd_and_interval():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    sd = math.sqrt(float((x - 0.5).square().sum()) / 100)
    assert mean_sd_hdi(x) == pytest.approx([0.5, sd, 0.0, 0.94])


def test_a_single_draw_has_no_sd():
    found = mean_sd_hdi(torch.tensor([2.0], dtype=torch.float64))
    assert math.isnan(found[1]) and found[:1] + found[2:] == [2.0, 2.0, 2.0]


def test_errors_of_independent_draws():
    """sd/√n of the mean and sd/√(2n) of the sd, as far as the ESS of 8 000 draws is known."""
    x = 3 * torch.randn(4, 2_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert float(mcse(x, "mean")) == pytest.approx(3 / 8_000**0.5, rel=0.1)
    assert float(mcse(x, "sd")) == pytest.approx(3 / 16_000**0.5, rel=0.1)
    assert mcse(torch.ones(2, 9), "mean").isnan()
