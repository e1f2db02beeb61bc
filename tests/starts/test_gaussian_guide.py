"""A Gaussian as a guide: the same density as torch's, and as exact."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from nfvi.starts.gaussian_guide import gaussian_guide

DTYPE = torch.float64


def numbers(dim: int, spread: float = 1.0):
    generator = torch.Generator().manual_seed(dim)
    loc = 3 * torch.randn(dim, generator=generator, dtype=DTYPE)
    tril = torch.randn(dim, dim, generator=generator, dtype=DTYPE).tril()
    sds = torch.exp(spread * torch.randn(dim, generator=generator, dtype=DTYPE))
    return loc, tril.tril(-1) + sds.diag_embed()


@pytest.mark.parametrize("dim", [1, 2, 7])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_full_rank(dim, spread):
    loc, tril = numbers(dim, spread)
    guide = gaussian_guide(loc, tril, DTYPE)
    assert str(guide.formula) == "tril"
    exact = MultivariateNormal(loc, scale_tril=tril)
    x = exact.sample((100,))
    torch.testing.assert_close(guide.log_prob(x), exact.log_prob(x), rtol=1e-7, atol=1e-7)
    z = guide.base_sample(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(guide.transform(z)[0], loc + z @ tril.T)


@pytest.mark.parametrize("dim", [1, 5])
def test_diagonal(dim):
    loc, tril = numbers(dim, 3.0)
    guide = gaussian_guide(loc, tril.diagonal(), DTYPE)
    assert str(guide.formula) == "scale-loc"
    exact = Independent(Normal(loc, tril.diagonal()), 1)
    x = exact.sample((100,))
    torch.testing.assert_close(guide.log_prob(x), exact.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sd", [1e-12, 1e-4, 1.0, 1e3, 1e12])
def test_any_scale(sd):
    """softplus of its inverse, which neither overflows nor loses what is small."""
    sds = torch.tensor([sd], dtype=DTYPE)
    z = torch.ones(1, 1, dtype=DTYPE)
    for tril in (sds, sds.diag_embed()):
        moved, ladj = gaussian_guide(torch.zeros(1, dtype=DTYPE), tril, DTYPE).transform(z)
        torch.testing.assert_close(moved[0], sds, rtol=1e-9, atol=0)
        torch.testing.assert_close(ladj, sds.log(), rtol=1e-9, atol=1e-9)


def test_dtype():
    guide = gaussian_guide(*numbers(3), torch.float32)
    assert {p.dtype for p in guide.parameters()} == {torch.float32} == {guide.sample(2).dtype}


@pytest.mark.parametrize("tril", [torch.ones(3), torch.eye(3)])
def test_the_global_generator_is_left_alone(tril):
    before = torch.get_rng_state()
    gaussian_guide(torch.zeros(3), tril, torch.float64)
    assert torch.equal(torch.get_rng_state(), before)
