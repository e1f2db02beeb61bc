"""Many ascents side by side: they come to the modes, and count what they cost."""

from __future__ import annotations

import math

import pytest
import torch

from models import gaussian_20d, make_gaussian
from nfvi.search.ascent import ITERATIONS, Ends, ascend_all
from nfvi.targets import LogDensity, Target, graphs

DTYPE = torch.float64
Z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=DTYPE)


def climbed(target: Target, z: torch.Tensor, dtype: torch.dtype = DTYPE) -> Ends:
    return ascend_all(target, z, dtype, lambda _: False)


@pytest.mark.parametrize(
    "target", [make_gaussian(5, condition=100.0, seed=0), gaussian_20d], ids=str
)
def test_the_mode_of_a_quadratic(target):
    """Within 0.01 nats of it, from 30 starts 3 sds out; a condition of 10⁴ takes 138 batches."""
    factor = torch.linalg.cholesky(target.covariance.double())
    noise = torch.randn(30, target.dim, generator=torch.Generator().manual_seed(1), dtype=DTYPE)
    ends = climbed(target, target.mean + 3 * noise @ factor.T)
    white = torch.linalg.solve_triangular(factor, (ends.z - target.mean).T, upper=False)
    assert float(0.5 * white.square().sum(0).max()) < 0.01
    torch.testing.assert_close(ends.log_p, target.log_prob(ends.z))


def test_each_climbs_its_own_mode():
    """Unit normals at ±6: a start ends on its own side."""
    modes = torch.tensor([[-6.0, 0.0], [6.0, 0.0]], dtype=DTYPE)
    target = LogDensity(
        lambda z: (-0.5 * (z[:, None] - modes.to(z)).square().sum(-1)).logsumexp(-1), 2
    )
    starts = Z * torch.tensor([5.0, 3.0], dtype=DTYPE)
    ends = climbed(target, starts)
    right = modes[(starts[:, 0] > 0).long()]
    assert float((ends.z - right).norm(dim=1).max()) < 0.01


def test_what_it_counts_is_what_the_target_sees():
    seen = []

    def log_prob(z):
        seen.append(len(z))
        return -0.5 * (z - 3).square().sum(-1) - 0.1 * z[:, 0] ** 4

    target = LogDensity(log_prob, 2, batched=True)
    target.check(DTYPE)
    seen.clear()
    ends = climbed(target, 10 * Z)
    assert (ends.iterations, ends.gradient_evaluations) == (len(seen), sum(seen))
    # Those that have arrived cost nothing more.
    assert seen[0] == 20 and seen[-1] < 20 and len(seen) <= ITERATIONS + 1


def test_a_graph_takes_all_points_and_leads_to_the_same_ends():
    seen = []

    def log_prob(z):
        seen.append(len(z))
        return -0.5 * (z - 3).square().sum(-1) - 0.1 * z[:, 0] ** 4

    target = LogDensity(log_prob, 2, batched=True)
    plain = climbed(target, 10 * Z)
    seen.clear()
    with graphs():
        ends = climbed(target, 10 * Z)
    # Once for the graph and twice to hold it against; and all batches have all points.
    assert len(seen) < 10 < ends.iterations
    assert ends.gradient_evaluations == len(Z) * ends.iterations > plain.gradient_evaluations
    torch.testing.assert_close(ends.z, plain.z)
    torch.testing.assert_close(ends.covariance, plain.covariance)
    assert ends.iterations == plain.iterations


def test_it_ends_when_told():
    target = LogDensity(lambda z: -0.5 * z.square().sum(-1), 2)
    asked = []

    def enough(gradients):
        asked.append(gradients)
        return gradients >= 40

    ends = ascend_all(target, 100 * Z, DTYPE, enough)
    assert asked == [20, 40] and (ends.iterations, ends.gradient_evaluations) == (2, 40)


@pytest.mark.parametrize("outside", [-math.inf, math.nan])
def test_it_stays_where_the_density_is(outside):
    """A normal cut off at 5, with its mode beyond, where steps lead; starts out there rest."""
    target = LogDensity(
        lambda z: torch.where(z[:, 0] < 5, -0.5 * (z - 6).square().sum(-1), outside), 2
    )
    starts = 5 + 3 * Z
    ends = climbed(target, starts)
    inside = starts[:, 0] < 5
    assert 0 < int(inside.sum()) < len(Z)
    assert torch.equal(ends.z[~inside], starts[~inside])
    assert bool((ends.log_p[~inside] == -math.inf).all())
    assert bool((ends.z[inside, 0] < 5).all())
    # −0.5 is the most there is; at the edge each step is cut, those along it too.
    assert float(ends.log_p[inside].min()) > -2 > float(target.log_prob(starts[inside]).max()) - 2
    assert bool((ends.log_p[inside] > target.log_prob(starts[inside])).all())


def test_single_precision():
    target = make_gaussian(3, condition=10.0, seed=0)
    ends = climbed(target, torch.zeros(1, 3, dtype=DTYPE), torch.float32)
    factor = torch.linalg.cholesky(target.covariance.double())
    white = torch.linalg.solve_triangular(factor, (ends.z - target.mean).T, upper=False)
    assert float(white.norm()) < 0.05 and ends.z.dtype == DTYPE
