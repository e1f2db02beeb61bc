"""Gaussian guides as one batch give what each gives alone."""

from __future__ import annotations

import pytest
import torch

from nfvi import Guide, MixtureGuide
from nfvi.guides.gaussian_parts import gaussian_parts
from nfvi.guides.placement import Placement


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussians(count: int, dim: int, dtype: torch.dtype = torch.float64) -> list[Guide]:
    return [Guide("tril", dim, jitter=0.5, generator=seeded(k), dtype=dtype) for k in range(count)]


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_the_density_is_that_of_each(dim: int) -> None:
    guides = gaussians(4, dim)
    together = gaussian_parts(guides)
    assert together is not None
    for shape in ((), (7,), (3, 2), (0,)):
        x = 2 * torch.randn(*shape, dim, generator=seeded(9), dtype=torch.float64)
        alone = torch.stack([guide.log_prob(x) for guide in guides])
        torch.testing.assert_close(together.log_prob(x), alone)


def test_the_map_is_that_of_each() -> None:
    guides = gaussians(3, 4)
    together = gaussian_parts(guides)
    assert together is not None
    u = torch.randn(9, 4, generator=seeded(9), dtype=torch.float64)
    which = torch.arange(9) % 3
    x, ladj = together.place(u, which)
    for k, guide in enumerate(guides):
        one, its = guide.transform(u[which == k])
        torch.testing.assert_close(x[which == k], one)
        torch.testing.assert_close(ladj[which == k], its)


def test_gradients_reach_points_and_parameters() -> None:
    guides = gaussians(3, 3)
    x = torch.randn(5, 3, generator=seeded(9), dtype=torch.float64, requires_grad=True)
    inputs = [x, *(p for guide in guides for p in guide.parameters())]
    weights = torch.rand(3, 5, generator=seeded(8), dtype=torch.float64)
    together = gaussian_parts(guides)
    assert together is not None
    found = torch.autograd.grad((weights * together.log_prob(x)).sum(), inputs)
    alone = torch.stack([guide.log_prob(x) for guide in guides])
    wanted = torch.autograd.grad((weights * alone).sum(), inputs)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mixture_gives_the_draws_that_its_parts_give(dtype: torch.dtype) -> None:
    guides = gaussians(3, 2, dtype)
    mixture = MixtureGuide(guides, [0.2, 0.3, 0.5])
    draws = mixture.sample(1_000, generator=seeded(4))
    generator = seeded(4)
    counts = mixture.counts(1_000, generator)
    alone = [
        guide.transform(guide.base_sample(count, generator=generator))[0]
        for guide, count in zip(guides, counts, strict=True)
    ]
    order = torch.randperm(1_000, generator=generator)
    torch.testing.assert_close(draws, torch.cat(alone)[order].detach())
    assert draws.dtype == dtype


def test_others_are_no_gaussians_of_this_kind() -> None:
    first, second = gaussians(2, 2)
    place = Placement(torch.zeros(2).double(), torch.eye(2).double())
    placed = Guide("tril", 2, placement=place, generator=seeded(0), dtype=torch.float64)
    heavy = Guide("tril", 2, base="studentt(df=5)", generator=seeded(0), dtype=torch.float64)
    diagonal = Guide("scale-loc", 2, generator=seeded(0), dtype=torch.float64)
    assert gaussian_parts([first]) is None
    for other in (placed, heavy, diagonal):
        assert gaussian_parts([first, second, other]) is None
        mixture = MixtureGuide([first, other], [0.5, 0.5])
        x = torch.randn(6, 2, generator=seeded(1), dtype=torch.float64)
        each = torch.stack([first.log_prob(x), other.log_prob(x)]).logsumexp(0)
        torch.testing.assert_close(mixture.log_prob(x), each - torch.tensor(2.0).double().log())
