"""What benchmarks/rows.py takes for the posterior, against an integral."""

from __future__ import annotations

import torch

from benchmarks.rows import log_likelihood, log_prior, posterior, simulated


def test_the_posterior_is_that_of_quadrature():
    x, y = simulated(400, 1)
    x = x + 0.5  # without it the posterior is hardly skew
    mean, sd = posterior(x, y)
    grid = torch.linspace(float(mean - 10 * sd), float(mean + 10 * sd), 20_001).double()
    log_p = log_likelihood(grid[None], x.double(), y.double()[:, None]).sum(0)
    weights = (log_p + log_prior(grid[:, None])).softmax(0)
    exact = (weights * grid).sum()
    spread = (weights * (grid - exact) ** 2).sum().sqrt()
    # The mode itself is off by several times as much.
    assert abs(float(mean[0] - exact)) < 0.003 * float(spread)
    assert abs(float(sd[0] / spread) - 1) < 0.02
