"""Fixed permutations: what goes where, where π comes from, and the exact way back."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from nfvi.flows.permutation import Permutation, Reverse
from nfvi.guides.guide import Guide


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(1), dtype=dtype)


@pytest.mark.parametrize("dim", [1, 2, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_permutation_moves_coordinates_and_nothing_else(dim, dtype):
    flow, z = Permutation(dim, generator=seeded(0), dtype=dtype), points(3, 5, dim, dtype=dtype)
    x, ladj = flow(z)
    assert sorted(flow.order.tolist()) == list(range(dim))
    for i, source in enumerate(flow.order.tolist()):
        assert torch.equal(x[..., i], z[..., source])
    back, back_ladj = flow.inverse(x)
    assert torch.equal(back, z)
    assert ladj.shape == (3, 5) and not ladj.any() and not back_ladj.any()


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_a_reversal_is_its_own_inverse(dim):
    flow, z = Reverse(dim), points(4, dim)
    assert flow(z)[0].tolist() == [row[::-1] for row in z.tolist()]
    assert torch.equal(flow(flow(z)[0])[0], z)
    assert torch.equal(flow.inverse(z)[0], flow(z)[0])


def test_every_permutation_without_a_fixed_point_is_as_likely():
    """Each of the nine of four coordinates: 900 draws, Pearson's χ² of 8 degrees of freedom.

    It exceeds 43 for fewer than one seed in 10⁶.
    """
    generator = seeded(0)
    seen = Counter(tuple(Permutation(4, generator=generator).order.tolist()) for _ in range(900))
    assert len(seen) == 9
    assert all(place != i for order in seen for i, place in enumerate(order))
    assert sum((count - 100) ** 2 / 100 for count in seen.values()) < 43


def test_in_one_dimension_a_permutation_is_the_identity():
    assert Permutation(1).order.tolist() == [0]


def test_a_seed_means_one_permutation_whatever_the_dtype():
    orders = [
        Permutation(50, generator=seeded(4), dtype=dtype).order
        for dtype in (torch.float32, torch.float64)
    ]
    assert torch.equal(*orders)
    assert not torch.equal(orders[0], Permutation(50, generator=seeded(5)).order)


def test_the_layers_of_a_guide_draw_permutations_of_their_own():
    guide = Guide("perm*2-reverse-loc", 30, generator=seeded(0))
    first, second, *_ = guide.flows
    assert not torch.equal(first.order, second.order)


def test_the_permutation_is_saved_and_gradients_pass_through():
    guide, fresh = (Guide("perm-scale-loc", 9, generator=seeded(s)) for s in (0, 1))
    assert "flows.0.order" in guide.state_dict()
    fresh.load_state_dict(guide.state_dict())
    x = points(4, 9, dtype=guide.dtype).requires_grad_()
    assert torch.equal(fresh.log_prob(x), guide.log_prob(x))
    z, _ = guide.flows[0].inverse(x)
    (grad,) = torch.autograd.grad((z * torch.arange(9.0)).sum(), x)
    assert torch.equal(grad[0], guide.flows[0].order.to(grad))
