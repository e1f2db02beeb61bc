"""Randomised quasi-Monte Carlo: draws of the right distribution, unbiased, and more even."""

from __future__ import annotations

import math

import pytest
import torch

from models import make_gaussian, pot1
from nfvi import NFVI, Checkpoint
from nfvi.fit.diagnostics import elbo_of, evaluate
from nfvi.guides.bases import Base, Laplace, Normal, StudentT
from nfvi.guides.guide import Guide
from nfvi.guides.mixture import MixtureGuide
from nfvi.targets import LogDensity
from nfvi.training.noise import SobolNoise, qmc_elbo

N, SETS = 128, 400
BASES = [Normal(), Laplace(), StudentT(20.0)]


def sets(base: Base, dim: int = 2, seed: int = 0) -> torch.Tensor:
    """Many shifts of one Sobol set: (SETS, N, d)."""
    noise = SobolNoise(base, N, dim, seed, torch.empty(0, dtype=torch.float64))
    return noise.draw(SETS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("base", BASES, ids=str)
def test_averages_are_unbiased_and_less_noisy_than_independent_draws(base):
    """Over 400 shifts the mean of averages is within 4.5 of its errors of the exact moments.

    Independent draws would spread by sd/√128; the shifted sets spread by half of that at most,
    also where tails count, as in the square of a Laplace draw.
    """
    draws = sets(base)
    independent = base.sample(
        (SETS, N, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    square = base.sd**2
    for f, exact in ((lambda z: z, 0.0), (lambda z: z.square(), square), (torch.tanh, 0.0)):
        averages = f(draws).mean(1)
        spread = averages.std(0)
        assert ((averages.mean(0) - exact).abs() <= 4.5 * spread / SETS**0.5).all()
        assert (spread < 0.5 * f(independent).mean(1).std(0)).all()


@pytest.mark.parametrize("base", BASES, ids=str)
def test_each_draw_has_the_distribution_of_the_base(base):
    """The first point of every set: its quantile is uniform, by Kolmogorov and Smirnov.

    The distance of 400 uniform draws from the diagonal exceeds 0.13 for fewer than one in 10⁵.
    """
    first = sets(base)[:, 0, 0]
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    edges = base.from_uniform(grid)
    share = (first[:, None] <= edges).double().mean(0)
    assert (share - grid).abs().max() < 0.13


@pytest.mark.parametrize("base", BASES, ids=str)
def test_the_quantile_function_inverts_the_distribution(base):
    """By the density: d quantile / du = 1 / density at the quantile."""
    u = torch.linspace(0.001, 0.999, 50, dtype=torch.float64).requires_grad_()
    z = base.from_uniform(u)
    (slope,) = torch.autograd.grad(z.sum(), u)
    # A Student-t has a table, whose cubics have slopes to 1e-5.
    near = {"atol": 1e-5, "rtol": 0} if isinstance(base, StudentT) else {}
    torch.testing.assert_close(slope.log(), -base.log_prob(z.unsqueeze(-1)), **near)
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
        ({"draws": "qmc", "base": StudentT(0.5)}, "studentt with df of 1 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    base = options.pop("base", "normal")
    with pytest.raises(ValueError, match=message):
        NFVI("scale-loc", base=base, seed=0).fit(pot1, steps=3, **options)


def test_dimensions_beyond_sobol_s_are_refused():
    with pytest.raises(ValueError, match="goes up to 21201 dimensions, and this target has 30000"):
        SobolNoise(Normal(), 4, 30_000, 0, torch.empty(0))


class TestElboOverShifts:
    """``qmc_elbo`` against the closed form: a Gaussian guide and a Gaussian target."""

    target = make_gaussian(2, condition=4.0, seed=0)

    @staticmethod
    def guide(seed: int = 1, base: str = "normal") -> Guide:
        start = torch.Generator().manual_seed(seed)
        return Guide(
            "scale-loc", 2, base=base, jitter=0.3, generator=start, dtype=torch.float64
        ).requires_grad_(False)

    def exact(self, guide: Guide) -> float:
        """log Z − KL of two Gaussians."""
        zero = torch.zeros(1, 2, dtype=torch.float64)
        loc = guide.transform(zero)[0][0]
        sd = guide.transform(torch.ones_like(zero))[0][0] - loc
        precision, off = torch.linalg.inv(self.target.covariance), loc - self.target.mean
        quadratic = (precision @ sd.square().diag_embed()).trace() + off @ precision @ off
        return float(sd.log().sum() + math.log(2 * math.pi) + 1 - 0.5 * quadratic)

    @pytest.mark.parametrize("n", [2, 100, 128])
    def test_it_is_unbiased_and_its_error_is_the_true_one(self, n):
        """300 scramblings with 16 shifts each.

        Their mean is within 4.5 of its errors of the exact ELBO (false alarms: 1 in 10⁵). A z-score
        of 15 degrees of freedom has the sd √(15/13) = 1.074; that of 300 of them is within 0.2 of
        it with more than 4 standard errors (0.047 each).
        """
        guide = self.guide()
        found = torch.tensor(
            [qmc_elbo(guide, self.target, n, 16, seed) for seed in range(300)], dtype=torch.float64
        )
        value, error = found.T
        z = (value - self.exact(guide)) / error
        assert abs(value.mean() - self.exact(guide)) < 4.5 * value.std() / 300**0.5
        assert abs(z.std() - 1.074) < 0.2

    def test_it_is_far_smaller_than_that_of_as_many_independent_draws(self):
        guide = self.guide()
        _, error = qmc_elbo(guide, self.target, 128, 16, 0)
        found = evaluate(guide, self.target, 128 * 16, torch.Generator().manual_seed(0))
        assert error < 0.5 * elbo_of(found.log_p, found.log_q)[1]

    def test_the_error_within_a_set_is_not_its_own(self):
        """What ``history.elbo_se`` would say of one set is several times the truth."""
        guide = self.guide()
        noise = SobolNoise(guide.base, 128, 2, 0, torch.empty(0, dtype=torch.float64))
        x, log_q = guide(noise.draw(200, torch.Generator().manual_seed(0)))
        ratio = self.target.log_prob(x.flatten(0, 1)).reshape(200, 128) - log_q
        claimed, true = ratio.std(1).mean() / 128**0.5, ratio.mean(1).std()
        assert claimed > 2 * true

    def test_a_mixture_is_its_components_by_their_weights(self):
        """Against 400 000 independent draws, within 5 standard errors of the difference."""
        start = torch.Generator().manual_seed(4)
        parts = [self.guide(seed) for seed in (1, 2)]
        mixture = MixtureGuide(parts, [0.2, 0.8])
        value, error = qmc_elbo(mixture, self.target, 256, 20, 0)
        found = evaluate(mixture, self.target, 400_000, start)
        expected, expected_error = elbo_of(found.log_p, found.log_q)
        assert abs(value - expected) < 5 * math.hypot(error, expected_error)
        # Equal shares, or either component alone, would give another number.
        for other in (*parts, MixtureGuide(parts, [0.5, 0.5])):
            assert abs(qmc_elbo(other, self.target, 256, 20, 0)[0] - value) > 10 * error

    def test_the_restarts_of_a_fit_by_even_draws_have_it(self):
        """20 shifts of 1 000 points; a fit by independent draws has the other error."""
        options = {"steps": 20, "restarts": 2, "n_mc": 64, "progress": False}
        for draws in ("qmc", "iid"):
            nfvi = NFVI("scale-loc", seed=3, dtype=torch.float64)
            fit = nfvi.fit(self.target, draws=draws, **options)
            best = next(r for r in fit.restarts if r.best)
            expected = qmc_elbo(fit.guide, self.target, 1_000, 20, fit.seed)
            assert ((best.elbo, best.elbo_se) == expected) == (draws == "qmc")

    def test_draws_without_a_density_are_not_hidden(self):
        nowhere = LogDensity(
            lambda z: torch.where(z[:, 0] > 0, -z.square().sum(-1), -torch.inf), 2, batched=True
        )
        value, error = qmc_elbo(self.guide(), nowhere, 8, 4, 0)
        assert value == -math.inf and math.isnan(error)

    @pytest.mark.parametrize(
        ("base", "n", "replicates", "message"),
        [
            ("normal", 1, 4, "n must be an integer of at least 2"),
            ("normal", 8, 1, "replicates must be an integer of at least 2"),
            ("studentt(df=0.9)", 8, 4, "no quantile function"),
        ],
    )
    def test_what_gives_no_error_is_refused(self, base, n, replicates, message):
        with pytest.raises(ValueError, match=message):
            qmc_elbo(self.guide(base=base), self.target, n, replicates, 0)
