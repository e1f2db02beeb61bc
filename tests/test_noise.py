"""Randomised quasi-Monte Carlo: draws of the right distribution, unbiased, and more even."""

from __future__ import annotations

import pytest
import torch

from models import make_gaussian, pot1
from nfvi import NFVI, Checkpoint
from nfvi.bases import Laplace, Normal, StudentT
from nfvi.training.noise import SobolNoise

N, SETS = 128, 400


def sets(base: Normal | Laplace, dim: int = 2, seed: int = 0) -> torch.Tensor:
    """Many shifts of one Sobol set: (SETS, N, d)."""
    noise = SobolNoise(base, N, dim, seed, torch.empty(0, dtype=torch.float64))
    return noise.draw(SETS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("base", [Normal(), Laplace()], ids=str)
def test_averages_are_unbiased_and_less_noisy_than_independent_draws(base):
    """Over 400 shifts the mean of averages is within 4.5 of its errors of the exact moments.

    Independent draws would spread by sd/√128; the shifted sets spread by half of that at most,
    also where tails count, as in the square of a Laplace draw.
    """
    draws = sets(base)
    independent = base.sample(
        (SETS, N, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    square = {"normal": 1.0, "laplace": 2.0}[str(base)]
    for f, exact in ((lambda z: z, 0.0), (lambda z: z.square(), square), (torch.tanh, 0.0)):
        averages = f(draws).mean(1)
        spread = averages.std(0)
        assert ((averages.mean(0) - exact).abs() <= 4.5 * spread / SETS**0.5).all()
        assert (spread < 0.5 * f(independent).mean(1).std(0)).all()


@pytest.mark.parametrize("base", [Normal(), Laplace()], ids=str)
def test_each_draw_has_the_distribution_of_the_base(base):
    """The first point of every set: its quantile is uniform, by Kolmogorov and Smirnov.

    The distance of 400 uniform draws from the diagonal exceeds 0.13 for fewer than one in 10⁵.
    """
    first = sets(base)[:, 0, 0]
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    edges = base.from_uniform(grid)
    share = (first[:, None] <= edges).double().mean(0)
    assert (share - grid).abs().max() < 0.13


@pytest.mark.parametrize("base", [Normal(), Laplace()], ids=str)
def test_the_quantile_function_inverts_the_distribution(base):
    """By the density: d quantile / du = 1 / density at the quantile."""
    u = torch.linspace(0.001, 0.999, 50, dtype=torch.float64).requires_grad_()
    z = base.from_uniform(u)
    (slope,) = torch.autograd.grad(z.sum(), u)
    torch.testing.assert_close(slope.log(), -base.log_prob(z.unsqueeze(-1)))
    assert abs(base.from_uniform(torch.tensor(0.5, dtype=torch.float64))) < 1e-15


def test_the_spread_within_a_set_says_too_much_of_the_error():
    """What the history reports as the ELBO's error is an upper one here."""
    fit = NFVI("scale-loc", seed=0).fit(
        make_gaussian(2, condition=4.0, seed=0), steps=200, restarts=1, lr=1e-12, draws="qmc"
    )
    assert fit.history.elbo.std() < 0.3 * fit.history.elbo_se.mean()


def test_a_fit_by_even_draws_is_right_repeats_and_resumes(tmp_path):
    target = make_gaussian(2, condition=1.0, seed=0)
    options = {"steps": 400, "restarts": 2, "draws": "qmc", "progress": False}
    file = tmp_path / "fit.ckpt"
    first = NFVI("scale-loc", seed=5).fit(target, callbacks=[Checkpoint(file, 150)], **options)
    again = NFVI("scale-loc", seed=5).fit(target, **options)
    assert abs(target.log_normalizer - first.elbo) < 1e-4
    assert first.settings["draws"] == "qmc"
    assert torch.equal(first.history.elbo, again.history.elbo)
    assert not torch.equal(first.history.elbo[:, 0], first.history.elbo[:, 1])
    half = NFVI("scale-loc", seed=5).fit(
        target, callbacks=[Checkpoint(file, 150), lambda s: stop_at(s, 170)], **options
    )
    assert half.steps == 170
    # The rest of the run is that of the run that was never stopped.
    half.refine(230)
    assert torch.equal(half.history.elbo, first.history.elbo)


def stop_at(state, step):
    from nfvi import Stop

    return Stop("enough") if state.step == step else None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": "sobol"}, 'draws must be "iid" or "qmc", got \'sobol\''),
        ({"draws": "qmc", "base": StudentT()}, "has no quantile function"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    base = options.pop("base", "normal")
    with pytest.raises(ValueError, match=message):
        NFVI("scale-loc", base=base, seed=0).fit(pot1, steps=3, **options)


def test_dimensions_beyond_sobol_s_are_refused():
    with pytest.raises(ValueError, match="goes up to 21201 dimensions, and this target has 30000"):
        SobolNoise(Normal(), 4, 30_000, 0, torch.empty(0))
