"""The reverse KL: its value, and that both gradients estimate the same thing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nfvi.guides.guide import Guide
from nfvi.targets import LogDensity
from nfvi.training.ensemble import Ensemble
from nfvi.training.objectives import Evaluation, ReverseKL

FIVE = 5.0
"""Standard errors allowed: false alarm 6e-7 a comparison for a normal error."""
BATCHES, N_MC = 400, 64
DTYPE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_normal(z: Tensor) -> Tensor:
    return -0.5 * (z * z).sum(-1)


def ensemble(formula: str, dim: int = 2, jitter: float = 0.3, size: int = 1) -> Ensemble:
    return Ensemble(
        [Guide(formula, dim, jitter=jitter, generator=seeded(i), dtype=DTYPE) for i in range(size)]
    )


def evaluate(
    made: Ensemble, gradient: str, noise: Tensor, target: LogDensity, beta: float = 1.0
) -> tuple[Evaluation, Tensor]:
    """The evaluation and the gradient of its mean loss (R, P)."""
    objective = ReverseKL(target, noise.shape[1], gradient)  # type: ignore[arg-type]
    value = objective(made, noise, torch.full((made.size,), beta, dtype=DTYPE))
    (slope,) = torch.autograd.grad(value.loss.mean(1).sum(), made.flat)
    return value, slope


def many(
    made: Ensemble, gradient: str, target: LogDensity, beta: float = 1.0, seed: int = 5
) -> Tensor:
    """Gradients (BATCHES, P) of the loss on fresh draws: restarts that are all the same guide."""
    copies = Ensemble([made.guide(0)] * BATCHES)
    noise = copies.draw(N_MC, seeded(seed))
    return evaluate(copies, gradient, noise, target, beta)[1]


def agree(a: Tensor, exact: Tensor) -> None:
    """The mean of independent rows (n, P) is within five standard errors of exact (P)."""
    error = a.std(0) / len(a) ** 0.5
    # Rounding is all there is where an estimator has no noise.
    assert bool(((a.mean(0) - exact).abs() <= FIVE * error + 1e-12).all())


each_gradient = pytest.mark.parametrize("gradient", ["path", "total"])


class TestGaussian:
    """q = N(m, s²) in each coordinate, p ∝ N(0, I): KL = Σ (s² + m²)/2 − log s + constant."""

    def exact(self, made: Ensemble, beta: float = 1.0) -> Tensor:
        """∂/∂(ρ, m) of E[log q − β log p], with s = softplus(ρ): (β s − 1/s) sigmoid(ρ), β m."""
        rho, loc = made.flat[0].detach().split(2)
        s = torch.nn.functional.softplus(rho)
        return torch.cat([(beta * s - 1 / s) * rho.sigmoid(), beta * loc])

    @each_gradient
    @pytest.mark.parametrize("beta", [1.0, 0.3, 0.01])
    def test_unbiased(self, gradient: str, beta: float) -> None:
        made = ensemble("scale-loc")
        found = many(made, gradient, LogDensity(standard_normal, 2), beta)
        agree(found, self.exact(made, beta))

    @each_gradient
    def test_loss_is_the_kl(self, gradient: str) -> None:
        made = ensemble("scale-loc")
        rho, loc = made.flat[0].detach().split(2)
        s = torch.nn.functional.softplus(rho)
        noise = made.draw(200_000, seeded())
        value, _ = evaluate(made, gradient, noise, LogDensity(standard_normal, 2), beta=0.3)
        log_q, log_p = -s.log() - 0.5 - 0.5 * math.log(2 * math.pi), -(s**2 + loc**2) / 2
        for found, exact in (
            (value.loss, (log_q - 0.3 * log_p).sum()),
            (value.elbo, (log_p - log_q).sum()),
        ):
            assert abs(found.mean() - exact) < FIVE * found.std() / found.shape[1] ** 0.5

    def test_total_has_noise_where_path_has_none(self) -> None:
        # q = p: the path gradient is 0 draw by draw, the total one only on average.
        made = ensemble("scale-loc", jitter=0.0)
        target = LogDensity(standard_normal, 2)
        total, path = many(made, "total", target), many(made, "path", target)
        assert path.abs().max() < 100 * torch.finfo(DTYPE).eps
        # ∂/∂ρ of one draw: (z² − 1) sigmoid(ρ) with variance 2 sigmoid², over N_MC draws.
        sd = math.sqrt(2 / N_MC) * (1 - 1 / math.e)
        relative = FIVE * math.sqrt(1 / (2 * BATCHES))
        assert total.std(0)[:2].tolist() == pytest.approx([sd, sd], rel=relative)
        agree(total, torch.zeros(4, dtype=DTYPE))

    def test_path_noise_falls_as_q_nears_p(self) -> None:
        target = LogDensity(standard_normal, 2)
        noise = [
            many(ensemble("scale-loc", jitter=jitter), "path", target).std(0).max().item()
            for jitter in (1e-1, 1e-3, 1e-5)
        ]
        # The estimator is linear in q − p to first order.
        assert noise[1] == pytest.approx(noise[0] * 1e-2, rel=0.3)
        assert noise[2] == pytest.approx(noise[0] * 1e-4, rel=0.3)


def skewed(z: Tensor) -> Tensor:
    """A target that no formula here can reach: both gradients keep their noise."""
    return -0.5 * (z[:, 0] - 1) ** 2 - 0.5 * (z[:, 1:] - 0.5 * z[:, :1] ** 2).square().sum(-1)


FORMULAS = [
    "loc",
    "scale",
    "hh*2",
    "planar",
    "planar*3",
    "radial",
    "scale-hh*2-planar*2-radial-loc",
]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("beta", [1.0, 0.2])
def test_path_and_total_have_one_mean(formula: str, beta: float) -> None:
    made, target = ensemble(formula), LogDensity(skewed, 2)
    # The same draws for both, so that the noise they share cancels in the difference.
    agree(many(made, "path", target, beta) - many(made, "total", target, beta), torch.zeros(1))


@pytest.mark.parametrize("formula", FORMULAS)
def test_total_is_the_derivative_of_the_value(formula: str) -> None:
    made, target = ensemble(formula), LogDensity(skewed, 2)
    noise = made.draw(8, seeded())
    _, slope = evaluate(made, "total", noise, target, beta=0.7)
    generator, step = seeded(1), 1e-6
    direction = torch.randn(made.flat.shape, generator=generator, dtype=DTYPE)

    def value(shift: float) -> float:
        with torch.no_grad():
            made.flat.add_(shift * direction)
            objective = ReverseKL(target, 8, "total")
            loss = objective(made, noise, torch.tensor([0.7], dtype=DTYPE)).loss.mean()
            made.flat.sub_(shift * direction)
        return float(loss)

    numeric = (value(step) - value(-step)) / (2 * step)
    assert float((slope * direction).sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


@each_gradient
@pytest.mark.parametrize("formula", ["scale-loc", "planar*2-radial"])
def test_restarts_do_not_touch_each_other(gradient: str, formula: str) -> None:
    target, together = LogDensity(skewed, 2), ensemble(formula, size=3)
    noise = together.draw(8, seeded())
    value, slope = evaluate(together, gradient, noise, target, beta=0.4)
    for r in range(3):
        alone = Ensemble([together.guide(r)])
        value_r, slope_r = evaluate(alone, gradient, noise[r : r + 1], target, beta=0.4)
        torch.testing.assert_close(value.loss[r], value_r.loss[0])
        torch.testing.assert_close(value.elbo[r], value_r.elbo[0])
        torch.testing.assert_close(slope[r], slope_r[0])


def test_each_restart_has_its_own_beta() -> None:
    target, made = LogDensity(skewed, 2), ensemble("scale-loc", size=2)
    noise = made.draw(8, seeded())
    beta = torch.tensor([0.1, 0.9], dtype=DTYPE)
    value = ReverseKL(target, 8)(made, noise, beta)
    for r in range(2):
        alone = evaluate(made, "path", noise, target, beta=float(beta[r]))[0]
        torch.testing.assert_close(value.loss[r], alone.loss[r])
        torch.testing.assert_close(value.elbo[r], alone.elbo[r])


@each_gradient
def test_elbo_carries_no_gradient(gradient: str) -> None:
    made = ensemble("planar")
    value, _ = evaluate(made, gradient, made.draw(4, seeded()), LogDensity(skewed, 2))
    assert value.loss.requires_grad and not value.elbo.requires_grad
    torch.testing.assert_close(value.elbo, -value.loss.detach())
