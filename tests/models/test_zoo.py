"""The log-densities of the model zoo, and the zoo as a package."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import models
from nfvi.errors import TargetError
from nfvi.targets import LogDensity

TARGETS = {
    target.name: target
    for target in (
        models.pot1,
        models.pot2,
        models.pot3,
        models.pot4,
        models.funnel,
        models.funnel_2d,
        models.banana,
        models.make_banana(5),
        models.gaussian,
        models.gaussian_20d,
        models.mixture,
        models.mixture_10d,
    )
}
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def draw(target: LogDensity, n: int = 20, dtype: torch.dtype = torch.float64) -> Tensor:
    return target.sample(n, generator=torch.Generator().manual_seed(1), dtype=dtype)


def two_kernels(a: float, b: float) -> float:
    return math.log(math.exp(-0.5 * a**2) + math.exp(-0.5 * b**2))


@pytest.mark.parametrize(
    ("target", "point", "potential"),
    [
        # By hand from the notebook's formulas, at points where the waves are round numbers.
        (models.pot1, [2.0, 0.0], -two_kernels(0, 4 / 0.6)),
        (models.pot1, [-3.0, 4.0], 0.5 * (3 / 0.4) ** 2 - two_kernels(5 / 0.6, 1 / 0.6)),
        (models.pot2, [1.0, 1.4], 0.5 + 0.1),
        (models.pot2, [-3.0, 0.2], 0.5 * (0.8 / 0.4) ** 2 + 0.3),
        (models.pot3, [1.0, 1.0], 0.1 - two_kernels(0, 3 / 0.35)),
        (models.pot3, [1.0, -1.0], 0.1 - two_kernels(2 / 0.35, 1 / 0.35)),
        (models.pot4, [1.0, 1.0], 0.1 - two_kernels(0, 1.5 / 0.35)),
        (models.pot4, [101.0, -1.5], 10.1 - two_kernels(2.5 / 0.4, 0.5 / 0.35)),
    ],
)
def test_potentials_are_those_of_the_notebook(
    target: LogDensity, point: list[float], potential: float
) -> None:
    z = torch.tensor([point], dtype=torch.float64)
    assert target.log_prob(z).item() == pytest.approx(-potential, abs=1e-11)


def test_log_normalizers_of_the_potentials_are_the_published_ones() -> None:
    found = [target.log_normalizer for target in list(TARGETS.values())[:4]]
    assert found == pytest.approx([1.877502, 2.998380, 3.557996, 3.626989], abs=6e-7)


def test_funnel_is_the_product_of_its_conditionals() -> None:
    z = draw(models.funnel)
    v, x = z[:, 0], z[:, 1:]
    given_v = dist.Normal(0.0, torch.exp(0.5 * v).unsqueeze(-1)).log_prob(x).sum(-1)
    expected = dist.Normal(0.0, 3.0).log_prob(v) + given_v
    torch.testing.assert_close(models.funnel.log_prob(z), expected)


def test_banana_is_the_twisted_kernel() -> None:
    z = torch.tensor([[10.0, 1.0], [20.0, -8.0], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([-0.5 * (1 + 1), -0.5 * (4 + 1), -0.5 * 9], dtype=torch.float64)
    torch.testing.assert_close(models.banana.log_prob(z), expected)
    rest = torch.full((3, 3), 2.0, dtype=torch.float64)
    five = models.make_banana(5).log_prob(torch.cat([z, rest], dim=-1))
    torch.testing.assert_close(five, expected - 6)


def test_gaussian_has_the_condition_number_and_density_asked_for() -> None:
    target = models.make_gaussian(6, condition=50.0, seed=4)
    z = draw(target)
    exact = dist.MultivariateNormal(target.mean, target.covariance).log_prob(z)
    torch.testing.assert_close(target.log_prob(z) - target.log_normalizer, exact)
    assert torch.linalg.cond(target.covariance).item() == pytest.approx(50.0)
    assert target.log_normalizer == pytest.approx(3 * math.log(2 * math.pi))
    assert torch.equal(target.mean, models.make_gaussian(6, condition=50.0, seed=4).mean)
    assert not torch.equal(target.mean, models.make_gaussian(6, condition=50.0, seed=5).mean)
    assert models.make_gaussian(1, condition=9.0).covariance.item() == pytest.approx(1.0)


def test_ready_targets_of_high_dimension_are_the_documented_ones() -> None:
    spectrum = torch.linalg.eigvalsh(models.gaussian_20d.covariance)
    assert spectrum[0].item() == pytest.approx(0.01)
    assert spectrum[-1].item() == pytest.approx(100)
    mixture = models.mixture_10d
    assert mixture.means.shape == (8, 10)
    assert mixture.means.norm(dim=-1).max().item() == pytest.approx(8)
    assert (mixture.weights.min().item(), mixture.weights.max().item()) == (0.05, 0.25)
    spectra = torch.linalg.eigvalsh(mixture.covariances)
    assert (spectra[:, 0].min().item(), spectra[:, -1].max().item()) == pytest.approx((0.4, 1.6))
    # Between two means, in standard deviations along the line, those of both components averaged.
    apart = mixture.means.unsqueeze(0) - mixture.means.unsqueeze(1)
    distance = apart.norm(dim=-1)
    line = torch.nn.functional.normalize(apart, dim=-1)
    variance = torch.einsum("kli,kij,klj->kl", line, mixture.covariances, line)
    sds = distance / (0.5 * (variance + variance.T)).sqrt()
    assert sds[distance > 0].min().item() == pytest.approx(8.8, abs=0.05)


@pytest.mark.parametrize("target", [models.mixture, models.mixture_10d], ids=["2d", "10d"])
def test_mixture_is_the_sum_of_its_components(target: models.GaussianMixture) -> None:
    z = draw(target)
    components = dist.MultivariateNormal(target.means, target.covariances)
    log_parts = components.log_prob(z.unsqueeze(1)) + target.weights.log()
    torch.testing.assert_close(target.log_prob(z), log_parts.logsumexp(-1))


@each_target
def test_log_prob_keeps_dtype_and_float32_agrees_with_float64(target: LogDensity) -> None:
    """At |z0| = 100 float32 rounds the phase of the wave by 1e-5, and the slope is below 100."""
    z = draw(target, 500, torch.float32)
    single, double = target.log_prob(z), target.log_prob(z.double())
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=1e-5)


@each_target
def test_batch_equals_single_points(target: LogDensity) -> None:
    z = draw(target)
    single = torch.cat([target.log_prob(point.unsqueeze(0)) for point in z])
    torch.testing.assert_close(target.log_prob(z), single, rtol=1e-12, atol=1e-12)


@each_target
def test_far_points_have_finite_values_and_right_gradients_in_float32(target: LogDensity) -> None:
    directions = torch.randn(50, target.dim, generator=torch.Generator().manual_seed(6))
    directions = torch.cat([directions, torch.eye(target.dim), -torch.eye(target.dim)])
    far = 50 * directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    single, double = far.clone().requires_grad_(), far.double().requires_grad_()
    values = target.log_prob(single)
    (gradient,) = torch.autograd.grad(values.sum(), single)
    (exact,) = torch.autograd.grad(target.log_prob(double).sum(), double)
    assert values.isfinite().all()
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-2)


@each_target
def test_draws_follow_generator_dtype_and_number(target: LogDensity) -> None:
    for dtype in (torch.float32, torch.float64):
        assert draw(target, 50, dtype).dtype == dtype
        assert torch.equal(draw(target, 50, dtype), draw(target, 50, dtype))
    assert target.sample(0).shape == (0, target.dim)
    assert target.sample(1).dtype == torch.get_default_dtype()


@pytest.mark.cuda
@each_target
def test_targets_follow_the_device(target: LogDensity) -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    z = target.sample(100, generator=generator, dtype=torch.float64, device="cuda")
    torch.testing.assert_close(target.log_prob(z).cpu(), target.log_prob(z.cpu()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.make_funnel(1), "dim="),
        (lambda: models.make_funnel(scale=0.0), "scale="),
        (lambda: models.make_banana(1), "dim="),
        (lambda: models.make_banana(scale=-1.0), "scale="),
        (lambda: models.make_banana(curvature=math.nan), "curvature="),
        (lambda: models.make_gaussian(0), "dim="),
        (lambda: models.make_gaussian(condition=0.5), "condition="),
        (lambda: models.Gaussian(torch.zeros(3), torch.eye(2)), "covariance="),
        (lambda: models.Gaussian(torch.zeros(2), -torch.eye(2)), "positive definite"),
        (lambda: models.Gaussian(torch.zeros(2), torch.ones(2, 2).tril()), "symmetric"),
        (lambda: models.GaussianMixture(torch.ones(2), torch.zeros(2, 3), torch.eye(3)), "means="),
        (
            lambda: models.GaussianMixture(
                torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.ones(2, 1, 1)
            ),
            "weights=",
        ),
        (
            lambda: models.GaussianMixture(torch.ones(1), torch.zeros(1, 1), -torch.ones(1, 1, 1)),
            "positive definite",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        make()


def test_import_is_light_and_leaves_state_alone() -> None:
    code = """
import sys, torch
state, dtype = torch.get_rng_state(), torch.get_default_dtype()
import models
assert torch.equal(state, torch.get_rng_state()) and torch.get_default_dtype() == dtype
assert not {"sklearn", "matplotlib", "arviz"} & set(sys.modules)
"""
    root = Path(models.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    "path", sorted(Path(models.__file__).parent.glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_each_file_stands_alone(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"alone_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert all(hasattr(module, name) for name in module.__all__)


def test_everything_exported_exists() -> None:
    assert sorted(models.__all__) == models.__all__
    assert all(hasattr(models, name) for name in models.__all__)
