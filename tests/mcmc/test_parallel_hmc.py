"""Many chains as one batch: groups with step sizes of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi import LogDensity
from nfvi.mcmc import ParallelHMC


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_widths(z: Tensor) -> Tensor:
    """N(0, 1) in the plane where the last coordinate is 0, and N(0, 0.01²) where it is 1."""
    sd = torch.where(z[..., -1] > 0.5, 0.01, 1.0)
    return -0.5 * (z[..., :-1] / sd.unsqueeze(-1)).square().sum(-1)


def test_each_group_finds_its_own_step() -> None:
    groups = torch.arange(1_000) % 2
    sd = torch.where(groups == 1, 0.01, 1.0).double()
    start = sd.unsqueeze(1) * torch.randn(1_000, 2, generator=seeded(0), dtype=torch.float64)
    z = torch.cat([start, groups.unsqueeze(1).double()], 1)
    scale = torch.tensor([1.0, 1.0, 0.0]).double()
    hmc = ParallelHMC(LogDensity(two_widths, 3), z, seeded(1), scale=scale, groups=groups)
    for _ in hmc.run(80):
        pass
    assert isinstance(hmc.step_size, Tensor)
    ratio = float(hmc.step_size[0] / hmc.step_size[1])
    assert 70 < ratio < 140
    assert 0.6 < hmc.accept < 0.95
    # A coordinate of scale 0 stays where it is, and the others keep their law.
    end = hmc.points.z
    assert torch.equal(end[:, -1], groups.double())
    for k in (0, 1):
        part = end[groups == k, :2] / sd[groups == k].unsqueeze(1)
        # 1 000 values: their sd is known to 2.2 %, five times of which is allowed.
        assert abs(float(part.std()) - 1) < 0.11
        assert not torch.equal(end[groups == k, :2], start[groups == k])


def test_a_group_without_chains_keeps_its_step() -> None:
    groups = torch.full((50,), 1)
    z = torch.cat([torch.randn(50, 2, generator=seeded(0)), torch.zeros(50, 1)], 1).double()
    scale = torch.tensor([1.0, 1.0, 0.0]).double()
    hmc = ParallelHMC(LogDensity(two_widths, 3), z, seeded(1), scale=scale, groups=groups)
    for _ in hmc.run(5):
        pass
    assert isinstance(hmc.step_size, Tensor)
    assert float(hmc.step_size[0]) == 0.5
    assert bool(hmc.step_size.isfinite().all())
