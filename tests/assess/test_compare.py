"""Comparisons find differences that are there, with the errors they state, and no others."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from nfvi.assess.compare import Comparison, compare
from nfvi.assess.compare_sides import moments, side_of
from nfvi.assess.compare_text import with_error
from nfvi.assess.sliced_wasserstein import sliced_wasserstein
from nfvi.guides.guide import Guide
from nfvi.inference.nfvi import NFVI
from nfvi.mcmc.samplers import nuts
from nfvi.targets import LogDensity, Target
from nfvi.utils import hdi

MEAN = (1.0, -2.0)
SD = (0.5, 3.0)


def gaussian(exact: bool = True, dim: int = 2) -> LogDensity:
    mean, sd = (torch.tensor((x * dim)[:dim]) for x in (MEAN, SD))

    def sampler(n, generator, dtype, device) -> Tensor:
        noise = torch.randn(n, dim, generator=generator, dtype=dtype, device=device)
        return mean.to(noise) + sd.to(noise) * noise

    return LogDensity(
        lambda z: -0.5 * (((z - mean.to(z)) / sd.to(z)) ** 2).sum(-1),
        dim,
        name="gaussian",
        sampler=sampler if exact else None,
    )


class NormalFit:
    """A stand-in for a fit: independent normal draws, at a price."""

    formula = "scale-loc"
    wall_time = 2.0
    ess = 500.0

    def __init__(self, target: Target | None, shift: float = 0.0, scale: float = 1.0) -> None:
        self.target = target
        self.shift = shift  # of the mean, in sds
        self.scale = scale

    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(seed or 0)
        noise = torch.randn(n, 2, generator=generator)
        return torch.tensor(MEAN) + torch.tensor(SD) * (self.shift + self.scale * noise)


class Model(Target):
    """Sites a (vector), b > 0 and a constant, of a standard normal."""

    dim = 3
    name = "model"
    named = True

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z**2).sum(-1)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"a": z[:, :2], "b": z[:, 2].exp(), "one": torch.ones_like(z[:, 0])}


class GuideFit:
    """A stand-in for a fit of a model: the guide has the draws on unconstrained space."""

    formula = "scale-loc"

    def __init__(self) -> None:
        self.target = Model()
        generator = torch.Generator().manual_seed(0)
        self.guide = Guide("scale-loc", 3, jitter=0.0, generator=generator)

    def sample(self, n: int, *, seed: int | None = None) -> dict[str, Tensor]:
        raise AssertionError("the sites cannot be taken back to unconstrained space")


@pytest.fixture(scope="module")
def run():
    return nuts(gaussian(), draws=250, warmup=150, chains=2, seed=0)


# Sliced Wasserstein


def test_distance_of_the_same_draws_is_zero():
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(x, x) == 0
    assert sliced_wasserstein(x, x[torch.randperm(100)]) < 1e-12


@pytest.mark.parametrize("dim", [1, 2, 7, 128])
def test_distance_of_a_shift_in_closed_form(dim):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, dim, generator=generator, dtype=torch.float64)
    shift = torch.randn(dim, generator=generator, dtype=torch.float64)
    expected = float(shift.norm()) / math.sqrt(dim)
    assert sliced_wasserstein(x, x + shift) == pytest.approx(expected, rel=1e-9)


def test_distance_of_a_shift_in_many_dimensions():
    """With L directions, fewer than d: the mean of (θᵀδ)² is ‖δ‖²/d, its relative sd below √(2/L).

    Four of these sds at L = 128 are 50 % of the square: false alarm 6e-5 at a fresh seed.
    """
    x = torch.randn(20, 1000, generator=torch.Generator().manual_seed(0))
    found = sliced_wasserstein(x, x + 1, generator=torch.Generator().manual_seed(1))
    assert found**2 == pytest.approx(1.0, rel=4 * math.sqrt(2 / 128))


def test_distance_is_symmetric_and_leaves_the_global_state():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = 2 * torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    a, b = (
        sliced_wasserstein(*pair, generator=torch.Generator().manual_seed(2))
        for pair in ((x, y), (y, x))
    )
    assert a == b > 0
    assert torch.equal(state, torch.get_rng_state())


def test_distance_of_a_scaled_normal():
    """W₂(N(0, 1), N(0, s²)) = |s − 1| along every direction.

    At s = 3 and n = 20 000 the sample quantiles give the distance to within a few per cent.
    """
    x, y = torch.randn(2, 20_000, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert sliced_wasserstein(x, 3 * y) == pytest.approx(2.0, rel=0.03)


def test_distance_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(6, 2\)"):
        sliced_wasserstein(torch.zeros(5, 2), torch.zeros(6, 2))


# The table


def test_monte_carlo_errors_are_those_of_repeated_draws():
    """200 repetitions estimate an sd to 5 %; four of these are 20 %."""
    fit = NormalFit(gaussian())
    found = []
    for seed in range(200):
        side = side_of(fit, 400, seed)
        found.append(moments(side, side.draws[:, 1].double()))
    means = torch.tensor([m.mean for m in found])
    log_sds = torch.tensor([m.sd for m in found]).log()
    assert float(means.std()) == pytest.approx(found[0].mean_se, rel=0.2)
    assert float(log_sds.std()) == pytest.approx(found[0].log_sd_se, rel=0.2)


def test_the_sd_of_two_narrow_modes_has_the_error_of_their_shares():
    """Its kurtosis is 1, so that only the square of the mean's error moves the sd: 1/(2n) · χ²₁.

    Four of the errors are passed by χ²₁ > 5.7 twice over, 2 % of the runs.
    """
    side, beyond = side_of(NormalFit(gaussian()), 1_000, 0), 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, (1_000,), generator=generator) * 2.0 - 1
        found = moments(side, 100 * signs.double())
        assert found.log_sd_se >= 0.707 / 1_000
        beyond += abs(math.log(found.sd / 100)) > 4 * found.log_sd_se
    assert beyond <= 10


def test_equal_sides_agree(run):
    """Eight numbers within four standard errors: false alarm 5e-4 at a fresh seed."""
    result = compare(NormalFit(gaussian()), run, seed=0)
    assert [row.name for row in result.table] == ["z[0]", "z[1]"]
    assert result.against_exact is not None
    for row in (*result.table, *result.against_exact[0]):
        assert abs(row.mean_difference) < 4 * row.mean_difference_se
        assert abs(row.sd_ratio - 1) < 4 * row.sd_ratio_se
    assert "scale-loc and NUTS: no mean or sd differs" in str(result)


def test_a_shift_and_a_scale_are_measured(run):
    """Within five standard errors, against their known sizes."""
    result = compare(NormalFit(gaussian(), shift=0.5, scale=2.0), run, seed=0)
    for row in result.table:
        assert abs(row.mean_difference - 0.5) < 5 * row.mean_difference_se
        assert abs(row.sd_ratio - 2) < 5 * row.sd_ratio_se
        assert row.mean_difference_se < 0.2
    # SW₂ of N(μ + sσ, (2σ)²) and N(μ, σ²): √(s² + 1) for every coordinate in sds of the target
    assert result.distances.to_exact is not None
    assert result.distances.to_exact[0] == pytest.approx(math.sqrt(1.25), rel=0.1)
    assert "2 of 2 scalars differ" in str(result)


def test_the_table_holds_the_sides_own_numbers(run):
    result = compare(NormalFit(gaussian()), run, draws=1000, seed=0)
    assert result.left.draws.shape == (1000, 2)
    assert result.right.draws.shape == (500, 2)
    row = result.table[1]
    z = result.left.draws[:, 1].double()
    assert row.left.mean == pytest.approx(float(z.mean()))
    assert (row.left.hdi_low, row.left.hdi_high) == hdi(z.numpy())
    assert row.right.hdi_high == pytest.approx(run.table[1].hdi_high)
    assert row.mean_difference == pytest.approx((row.left.mean - row.right.mean) / row.right.sd)
    bulk = float(run.ess_bulk["z"][1]) / run.wall_time
    assert row.ess_per_second == (250.0, pytest.approx(bulk))


def test_distances_have_their_floors(run):
    result = compare(NormalFit(gaussian()), run, seed=0)
    d = result.distances
    assert d.draws == 500
    assert d.to_exact is not None
    assert d.exact_floor is not None
    # two samples of n normals are 1/√n apart, times a number of order one
    for found, n in ((d.exact_floor, 500), (d.to_exact[0], 500), (d.halves[0], 250)):
        assert 0.3 / math.sqrt(n) < found < 4 / math.sqrt(n)
    far = compare(NormalFit(gaussian(), shift=1.0), run, seed=0).distances
    assert far.between > 3 * max(far.halves)


def test_without_exact_draws(run):
    plain = nuts(gaussian(exact=False), draws=20, warmup=30, chains=2, seed=0)
    result = compare(NormalFit(gaussian(exact=False)), plain, seed=0)
    assert result.exact is None
    assert result.against_exact is None
    assert result.distances.to_exact is None
    assert "exact" not in str(result)
    # either side may know the sampler
    assert compare(NormalFit(gaussian(exact=False)), run, seed=0).exact is not None


def test_the_seed_repeats_it(run):
    def text(seed: int | None) -> str:
        return str(compare(NormalFit(gaussian()), run, seed=seed))

    state = torch.get_rng_state()
    assert text(1) == text(1) != text(2)
    fresh = compare(NormalFit(gaussian()), run)
    assert str(fresh) == text(fresh.seed)
    assert torch.equal(state, torch.get_rng_state())


def test_two_runs_and_two_fits(run):
    result = compare(run, run, seed=0)
    assert (result.left.label, result.right.label) == ("NUTS (1)", "NUTS (2)")
    assert result.distances.between == 0
    assert all(row.mean_difference == 0 and row.sd_ratio == 1 for row in result.table)
    short = nuts(gaussian(), draws=10, warmup=30, chains=1, seed=0)
    assert compare(run, short, seed=0).distances.draws == 10
    fits = compare(NormalFit(gaussian()), NormalFit(gaussian(), shift=0.1), seed=0)
    assert len(fits.left.draws) == len(fits.right.draws) == 4000
    assert not torch.equal(fits.left.draws[0], fits.right.draws[0])


def test_sites_of_a_model_are_compared_on_their_own_scale():
    run = nuts(Model(), draws=100, warmup=100, chains=2, seed=0)
    result = compare(GuideFit(), run, draws=200, seed=0)
    assert [row.name for row in result.table] == ["a[0]", "a[1]", "b"]  # "one" is constant
    assert result.left.draws.shape == (200, 3)
    torch.testing.assert_close(result.left.sites["b"], result.left.draws[:, 2].exp())
    # the median of a lognormal, to 5 standard errors √(π/2n)
    median = float(result.left.sites["b"].median())
    assert abs(math.log(median)) < 5 * math.sqrt(math.pi / 400)
    assert 0 < result.table[2].left.hdi_low < median < result.table[2].left.hdi_high
    assert math.isnan(result.table[0].ess_per_second[0])


def test_a_real_fit_against_a_run(run):
    fit = NFVI("scale-loc", seed=0).fit(gaussian(), steps=20, progress=False)
    result = compare(fit, run, draws=100, seed=0)
    assert result.left.label == "scale-loc"
    assert result.left.draws.shape == (100, 2)
    assert result.table[0].ess_per_second[0] == pytest.approx(fit.ess / fit.wall_time)
    assert str(compare(fit, run, draws=100, seed=0)) == str(result)
    # Only what is a fit has a verdict.
    assert (result.left.verdict, result.right.verdict) == (fit.verdict.word, "")
    left, right = " ".join(str(result).split("\n\n")[1].splitlines()).split(" NUTS: ")
    assert left.endswith(f"; verdict: {fit.verdict.word}") and "verdict" not in right


def test_chains_that_disagree_are_no_reference():
    def two_modes(z: Tensor) -> Tensor:
        return torch.logaddexp(-0.5 * (z[..., 0] - 10) ** 2, -0.5 * (z[..., 0] + 10) ** 2)

    run = nuts(two_modes, dim=1, init=[[-10.0], [10.0]], chains=2, draws=50, warmup=50, seed=0)
    text = str(compare(run, run, seed=0))
    assert "chains of NUTS (1) disagree" in text
    assert "it is no reference" in text


def test_the_text_is_aligned(run):
    text = str(compare(NormalFit(gaussian()), run, seed=0))
    lines = text.splitlines()
    top = next(i for i, line in enumerate(lines) if "gap, ratio" in line)
    assert [line[:17].split() for line in lines[top + 1 : top + 7]] == [
        ["z[0]", "scale-loc"],
        ["NUTS"],
        ["exact"],
        ["z[1]", "scale-loc"],
        ["NUTS"],
        ["exact"],
    ]
    # the columns of means end at one place
    end = lines[top].index("mean") + 4
    assert all(line[end - 1].isdigit() for line in lines[top + 1 : top + 7])
    assert all(line[end] == " " for line in lines[top + 1 : top + 7])
    assert max(map(len, lines)) <= 88
    row = compare(NormalFit(gaussian()), run, seed=0).table[0]
    assert f"gap {with_error(row.mean_difference, row.mean_difference_se)}" in lines[top + 1]
    assert f"ratio {with_error(row.sd_ratio, row.sd_ratio_se)}" in lines[top + 2]
    assert "gap: mean of scale-loc less that of NUTS, in sds of the latter; ratio: of their" in text
    assert "±" in text
    assert "halves of NUTS" in text


def test_plot_goes_to_plots(run, monkeypatch):
    plots = ModuleType("nfvi.plots")
    plots.comparison = lambda comparison: ("drawn", comparison)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nfvi.plots", plots)
    result = compare(run, run, seed=0)
    assert isinstance(result, Comparison)
    assert result.plot() == ("drawn", result)


def test_what_cannot_be_compared_is_refused(run):
    fit = NormalFit(gaussian())
    with pytest.raises(ValueError, match=r"2 dimensions and .* 3"):
        compare(fit, nuts(Model(), draws=10, warmup=0, chains=1, seed=0))
    with pytest.raises(ValueError, match="differ in their sites"):
        compare(nuts(gaussian(dim=3), draws=10, warmup=0, chains=1, seed=0), GuideFit())
    with pytest.raises(ValueError, match=r"without a target.*Fit\.load"):
        compare(NormalFit(None), run)
    with pytest.raises(TypeError, match="compare takes fits and MCMC runs; got str"):
        compare("planar*8", run)
    with pytest.raises(ValueError, match="NUTS has 4 draws; 8 are needed"):
        compare(fit, nuts(gaussian(), draws=4, warmup=0, chains=1, seed=0))
    for draws in (0, 7, 100.0, True):
        with pytest.raises(ValueError, match="draws must be an integer of at least 8"):
            compare(fit, run, draws=draws)
    with pytest.raises(ValueError, match="seed must be an integer"):
        compare(fit, run, seed=-1)
