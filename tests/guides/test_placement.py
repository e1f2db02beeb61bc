"""Tests of the fixed affine map behind the flows."""

import pytest
import torch
from torch import Tensor

from nfvi.guides.guide import Guide
from nfvi.guides.placement import Placement
from nfvi.training.ensemble import Ensemble


def _placement(dim: int, diagonal: bool, seed: int = 0) -> Placement:
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randn(dim, dim, generator=generator, dtype=torch.float64).tril(-1)
    scale = torch.rand(dim, generator=generator, dtype=torch.float64) + 0.5
    loc = torch.randn(dim, generator=generator, dtype=torch.float64)
    return Placement(loc, scale if diagonal else lower + scale.diag_embed())


def _guide(placement: Placement | None, formula: str = "planar*2") -> Guide:
    generator = torch.Generator().manual_seed(1)
    return Guide(formula, 3, placement=placement, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("diagonal", [False, True])
def test_it_is_the_affine_map_with_the_jacobian_of_autograd(diagonal: bool) -> None:
    placement = _placement(3, diagonal)
    y = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    matrix = placement.tril.diag_embed() if diagonal else placement.tril
    x, ladj = placement(y)
    jacobian = torch.autograd.functional.jacobian(lambda y: placement(y)[0], y)
    torch.testing.assert_close(x, placement.loc + matrix @ y)
    torch.testing.assert_close(jacobian, matrix)
    torch.testing.assert_close(ladj, torch.linalg.slogdet(jacobian)[1])
    back, undone = placement.inverse(x)
    torch.testing.assert_close(back, y)
    torch.testing.assert_close(undone, -ladj)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("formula", ["planar*2", "scale-loc", "realnvp*2"])
def test_a_placed_guide_is_the_plain_one_seen_through_the_map(formula: str, diagonal: bool) -> None:
    placement = _placement(3, diagonal)
    plain, placed = _guide(None, formula), _guide(placement, formula)
    z = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (y, log_q), (x, placed_log_q) = plain(z), placed(z)
    torch.testing.assert_close(x, placement(y)[0])
    torch.testing.assert_close(placed_log_q, log_q - placement(y)[1])
    torch.testing.assert_close(placed.log_prob(x), placed_log_q)
    torch.testing.assert_close(placed.log_prob(x, z), placed_log_q)


def test_it_is_kept_in_the_state_dict_and_not_trained() -> None:
    guide = _guide(_placement(3, False))
    fresh = _guide(Placement.identity(3, dtype=torch.float64))
    assert not any(name.startswith("placement") for name, _ in guide.named_parameters())
    fresh.load_state_dict(guide.state_dict())
    z = torch.zeros(1, 3, dtype=torch.float64)
    torch.testing.assert_close(fresh.transform(z), guide.transform(z))


def test_the_guide_keeps_a_copy_in_its_own_dtype() -> None:
    placement = _placement(3, False)
    guide = Guide("loc", 3, placement=placement, dtype=torch.float32)
    assert guide.placement is not placement and guide.placement is not None
    assert guide.placement.tril.dtype == torch.float32
    assert placement.tril.dtype == torch.float64


def test_every_restart_has_a_place_of_its_own() -> None:
    guides = [_guide(_placement(3, False, seed)) for seed in (0, 1)]
    ensemble = Ensemble(guides)
    noise = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x, log_q = ensemble.push(noise)
    for row, guide in enumerate(guides):
        torch.testing.assert_close((x[row], log_q[row]), guide(noise[row]))
        torch.testing.assert_close(ensemble.guide(row)(noise[row]), guide(noise[row]))


@pytest.mark.parametrize(
    ("loc", "tril"),
    [
        (torch.zeros(2), torch.zeros(2, 2)),
        (torch.zeros(2), torch.tensor([1.0, -1.0])),
        (torch.zeros(2), torch.tensor([1.0, float("nan")])),
        (torch.zeros(2), torch.ones(3)),
        (torch.zeros(2, 2), torch.ones(2, 2)),
    ],
)
def test_shapes_and_the_diagonal_are_checked(loc: Tensor, tril: Tensor) -> None:
    with pytest.raises(ValueError, match=r"diagonal of tril|takes loc"):
        Placement(loc, tril)
