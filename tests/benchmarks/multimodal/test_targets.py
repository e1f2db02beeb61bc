"""What benchmarks/multimodal knows of its targets: by quadrature, closed forms and exact draws."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from scipy import integrate, special
from torch import Tensor

from benchmarks.multimodal.catalogue import SMALL
from benchmarks.multimodal.families import gaussian_mixture
from benchmarks.multimodal.literature import LITERATURE, OBSERVED, lgcp, many_well, sonar
from benchmarks.multimodal.needles import NEEDLES, Needle, hits
from benchmarks.multimodal.problem import Moments, Problem
from nfvi.errors import TargetError
from nfvi.search.wide import wide_draws

SAMPLED = [*SMALL, "gmm40", "many_well32"]


@cache
def problem(name: str) -> Problem:
    return {**SMALL, **LITERATURE}[name]()


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sums(made: Problem, *axes: Tensor) -> tuple[float, Tensor, Tensor]:
    """log Z, mean and sd (d) by trapezoids on a grid."""
    z = torch.cartesian_prod(*axes).reshape(-1, made.dim)
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    p = torch.cat([made.log_prob(piece).exp() for piece in z.split(100_000)]) * cell
    mean = p @ z / p.sum()
    return float(p.sum().log()), mean, (p @ (z - mean).square() / p.sum()).sqrt()


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("sep30_d1", [(-25, 25, 2_001)]),
        ("sep30_uneq_d1", [(-25, 25, 2_001)]),
        ("wide_narrow_d1", [(-9, 9, 9_001)]),
        ("spike_d2_sd0.1", [(-9, 9, 601)] * 2),
        ("wide_narrow_far_d2", [(-9, 9, 601)] * 2),
        ("minor_d2", [(-9, 12, 401)] * 2),
        ("grid9_uneq", [(-16, 16, 601)] * 2),
        ("cross", [(-45, 45, 2_401)] * 2),
        ("modes8_rand_d2", [(-40, 40, 801)] * 2),
        ("ring_d2_s.5", [(-10, 10, 401)] * 2),
        ("tworings_d2", [(-7.5, 7.5, 751)] * 2),
        ("banana.03", [(-90, 90, 901), (-15, 240, 1_276)]),
        ("sinridge3", [(-9, 9, 1_801), (-3, 3, 301)]),
        ("box_d2", [(-2, 2, 801)] * 2),
        ("gmm40", [(-55, 55, 441)] * 2),
    ],
)
def test_a_grid_gives_the_same_log_z_mean_and_sd(
    name: str, spans: list[tuple[float, float, int]]
) -> None:
    """Trapezoids of what is smooth and 0 at the edges are right to far more than 1e-4."""
    made = problem(name)
    axes = [torch.linspace(*span, dtype=torch.float64) for span in spans]
    log_z, mean, sd = sums(made, *axes)
    assert made.log_z is not None and made.moments is not None
    assert log_z == pytest.approx(made.log_z, abs=1e-4)
    torch.testing.assert_close(mean, made.moments.mean, atol=1e-4 * float(sd.max()), rtol=1e-4)
    torch.testing.assert_close(sd, made.moments.sd, atol=0, rtol=2e-4)


def test_closed_forms_of_independent_coordinates() -> None:
    """Logarithms of gamma variables, a box with Gaussian edges, and a spike in a slab."""
    for name, shape in (("gumbel_d5", 1.0), ("loggamma.1_d5", 0.1)):
        made = problem(name)
        assert made.log_z == pytest.approx(5 * math.lgamma(shape), abs=1e-5)
        assert made.moments is not None
        assert float(made.moments.mean[0]) == pytest.approx(special.digamma(shape), rel=1e-5)
        sd = math.sqrt(special.polygamma(1, shape))
        assert float(made.moments.sd[0]) == pytest.approx(sd, rel=1e-5)
    assert problem("box_d10").log_z == pytest.approx(
        10 * math.log(2 + math.sqrt(math.pi / 500)), abs=1e-5
    )
    slab = problem("spikeslab_indep_d10")
    assert slab.log_z == pytest.approx(5 * math.log(math.tau), abs=1e-5)
    assert slab.moments is not None and slab.modes is not None
    assert float(slab.moments.sd[0]) == pytest.approx(math.sqrt(0.5 * (1 + 0.02**2)), rel=1e-5)
    torch.testing.assert_close(slab.modes.masses, torch.full((10, 2), 0.5).double())


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("shell_d3", 3.0, 7.0), ("shell_d10_R10_s.5", 5.0, 15.0), ("shell_d10_R5_s.1", 4.0, 6.0)],
)
def test_shells_by_an_integral_along_a_ray(name: str, low: float, high: float) -> None:
    made = problem(name)
    d = made.dim

    def at(r: float, power: int) -> float:
        z = torch.zeros(1, d, dtype=torch.float64)
        z[0, -1] = r
        return float(made.log_prob(z).exp()) * r ** (d - 1 + power)

    mass, second = (integrate.quad(at, low, high, (power,))[0] for power in (0, 2))
    surface = 2 * math.pi ** (d / 2) / math.gamma(d / 2)
    assert made.log_z == pytest.approx(math.log(mass * surface), abs=1e-5)
    assert made.moments is not None
    assert float(made.moments.sd[0]) == pytest.approx(math.sqrt(second / mass / d), rel=1e-5)


def test_many_wells_have_the_log_z_of_one_well_as_often() -> None:
    def well(x: float) -> float:
        return math.exp(-(x**4) + 6 * x**2 + 0.5 * x)

    one = integrate.quad(well, -4, 4, points=[-1.7, 1.7])[0]
    made = many_well(32)
    assert made.log_z == pytest.approx(16 * (math.log(one) + 0.5 * math.log(math.tau)), abs=1e-5)
    assert made.log_z == pytest.approx(164.6957, abs=1e-4)
    left = integrate.quad(well, -4, 0)[0]
    assert made.modes is not None
    assert float(made.modes.masses[3, 0]) == pytest.approx(left / one, rel=1e-4)


@pytest.mark.parametrize("name", SAMPLED)
def test_exact_draws_have_the_moments_and_go_with_the_density(name: str) -> None:
    """Means, second moments, and Stein's E[∂ log p] = 0 and E[z ∂ log p] = −1, by 20 000 draws.

    Each within six standard errors; with 4 × 450 coordinates a false alarm in 280 000 seeds, or
    somewhat more where tails are heavy. The edge of a box bends the gradient, and is smooth enough.
    """
    made = problem(name)
    n = 20_000
    assert made.sample is not None and made.moments is not None
    z = made.sample(n, generator()).requires_grad_()
    (score,) = torch.autograd.grad(made.log_prob(z).sum(), z)
    z = z.detach()
    known = made.moments.sd.isfinite()
    mean, sd = made.moments.mean, made.moments.sd
    white = ((z - mean) / sd)[:, known]
    for values, expected in (
        (white, 0.0),
        (white.square(), 1.0),
        (score[:, known], 0.0),
        ((z * score)[:, known], -1.0),
    ):
        error = values.std(0) / n**0.5
        assert bool(((values.mean(0) - expected).abs() <= 6 * error).all())


@pytest.mark.parametrize("name", [name for name in SAMPLED if problem(name).modes is not None])
def test_exact_draws_find_all_modes(name: str) -> None:
    """The least mode has 1 / 120 of the mass: of 20 000 draws it gets a tenth of that for sure."""
    made = problem(name)
    assert made.sample is not None and made.modes is not None
    masses = made.modes.masses
    torch.testing.assert_close(masses.sum(1), torch.ones_like(masses[:, 0]))
    z = made.sample(20_000, generator())
    assert made.modes.found(z, torch.full((20_000,), 1 / 20_000).double()) == pytest.approx(1)


def test_modes_that_draws_miss_are_missed_by_their_mass() -> None:
    made = gaussian_mixture(2, [0.5, 0.3, 0.2], [-9.0, 0.0, 9.0], [1.0, 1.0, 1.0])
    assert made.modes is not None
    z = torch.tensor([[-9.0, -9.0]] * 90 + [[0.0, 0.0]] * 9 + [[9.0, 9.0]]).double()
    equal = torch.full((100,), 0.01).double()
    # 9 % is over a tenth of 30 %, and 1 % is under a tenth of 20 %.
    assert made.modes.found(z, equal) == pytest.approx(0.8)
    last = torch.cat([torch.zeros(99), torch.ones(1)]).double()
    assert made.modes.found(z, last) == pytest.approx(0.2)


def test_a_well_that_is_lost_in_one_coordinate_is_missed_by_its_mass() -> None:
    made = problem("doublewell_d5")
    assert made.sample is not None and made.modes is not None
    z = made.sample(5_000, generator())
    z[:, 2] = z[:, 2].abs()
    found = made.modes.found(z, torch.full((5_000,), 1 / 5_000).double())
    assert found == pytest.approx(float(made.modes.masses[2, 1])) and 0.8 < found < 0.95


def test_errors_of_moments_by_hand_and_unknown_coordinates_left_out() -> None:
    nan = math.nan
    moments = Moments(torch.tensor([0.0, nan]).double(), torch.tensor([2.0, nan]).double())
    z = torch.tensor([[1.0, 5.0], [3.0, 7.0]]).double()
    half = torch.tensor([0.5, 0.5]).double()
    mean, sd = moments.errors(z, half)
    assert (mean, sd) == pytest.approx((1.0, 0.5))
    mean, sd = moments.errors(z, torch.tensor([1.0, 0.0]).double())
    assert (mean, sd) == pytest.approx((0.5, 1.0))


def test_the_target_of_a_fit_knows_no_answer() -> None:
    target = problem("grid25").named("grid25").target()
    assert target.log_normalizer is None and target.name == "grid25"
    with pytest.raises(TargetError, match="no exact sampler"):
        target.sample(2)


def test_needles_are_those_of_the_catalogue() -> None:
    for needle in NEEDLES:
        made = problem(needle.target)
        assert made.moments is not None and made.modes is not None
        mean = float(made.moments.mean.norm())
        assert mean == pytest.approx(needle.share * needle.distance)
        second = needle.share * (needle.dim * needle.sd**2 + needle.distance**2)
        second += (1 - needle.share) * needle.dim
        assert float(made.moments.sd.square().sum()) == pytest.approx(second - mean**2)


def test_hits_of_a_needle_are_those_of_wide_draws() -> None:
    """In d = 3 by counting: about 2 000 of 600 000 draws, within five sds of a Poisson count."""
    needle = Needle("needle", 3, 4.0, 0.3, 0.5)
    n = 600_000
    x = wide_draws(torch.zeros(3).double(), torch.eye(3).double(), None, n, generator())
    off = x - x.new_tensor([4.0, 0.0, 0.0])
    height = -3 * math.log(0.3)
    there = height - 0.5 * (off / 0.3).square().sum(1) > -0.5 * x.square().sum(1)
    expected = hits(needle, n)
    assert abs(int(there.sum()) - expected) < 5 * expected**0.5 + 0.02 * expected


def test_the_evidence_of_brownian_motion() -> None:
    """Given both scales all else is Gaussian; a sum over a grid of them does the rest."""
    times = torch.cat([torch.arange(1, 11), torch.arange(21, 31)]).double()
    y = torch.tensor(OBSERVED).double()
    width = 0.2
    grid = torch.arange(-8, 5, width).double()
    step, noise = (scale.flatten() for scale in torch.meshgrid(grid, grid, indexing="ij"))
    shared = torch.minimum(times[:, None], times)
    covariance = (2 * step).exp()[:, None, None] * shared
    covariance = covariance + (2 * noise).exp()[:, None, None] * torch.eye(20).double()
    given = torch.distributions.MultivariateNormal(torch.zeros(20).double(), covariance)
    prior = torch.distributions.Normal(torch.tensor(0.0).double(), 2.0)
    joint = given.log_prob(y) + prior.log_prob(step) + prior.log_prob(noise)
    found = float(joint.logsumexp(0)) + 2 * math.log(width)
    assert problem("brownian").log_z == pytest.approx(found, abs=1e-4)


def test_files_of_the_literature(tmp_path: Path) -> None:
    """Small files of the same form; values by hand."""
    folder = tmp_path
    (folder / "sonar.csv").write_text("V1,Class\n0.0,R\n2.0,M\n", encoding="utf-8")
    made = sonar(folder)
    # Standardised, the column is −1 and 1.
    z = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    likelihood = -math.log1p(math.exp(-1.5)) - math.log1p(math.exp(-0.5))
    assert made.dim == 2
    assert float(made.log_prob(z)) == pytest.approx(-0.5 * 1.25 - math.log(math.tau) + likelihood)
    (folder / "finpines.csv").write_text("-4.9,-7.9\n4.9,1.9\n4.9,1.8\n", encoding="utf-8")
    trees = lgcp(folder, side=2)
    zero = torch.zeros(1, 4, dtype=torch.float64)
    mean = math.log(3) - 1.91 / 2
    expected = -2 * math.log(math.tau) + 3 * mean - math.exp(mean)
    assert float(trees.log_prob(zero)) == pytest.approx(expected)
    # The field at the first cell is √1.91 z₁, which one tree of three lies in.
    one = zero.clone()
    one[0, 0] = 1e-5
    slope = float(trees.log_prob(one) - trees.log_prob(zero)) / 1e-5
    reach = 2 / 33
    row = [1.0, math.exp(-1 / reach), math.exp(-1 / reach), math.exp(-math.sqrt(2) / reach)]
    pull = sum(c * (y - 0.25 * math.exp(mean)) for c, y in zip(row, [1, 0, 0, 2], strict=True))
    assert slope == pytest.approx(math.sqrt(1.91) * pull, rel=1e-3)
