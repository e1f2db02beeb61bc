"""What coupling flows share: halves that take turns, what sets the move, context, options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from nfvi.flows.call import Call
from nfvi.flows.coupling import Coupling
from nfvi.flows.nsf import NeuralSpline
from nfvi.flows.realnvp import RealNVP
from nfvi.formula.formula import Formula

F64 = torch.float64
each_family = pytest.mark.parametrize("cls", [NeuralSpline, RealNVP])
each_dim = pytest.mark.parametrize("dim", [2, 3, 4, 7])
each_index = pytest.mark.parametrize("index", [0, 1, 2, 3])


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def make(cls: type[Coupling], dim: int, **options: object) -> Coupling:
    generator = torch.Generator().manual_seed(0)
    common = {"jitter": 0.5, "generator": generator, "dtype": F64, "hidden": [16, 8]}
    return cls(dim, **common | options)


def halves(dim: int, index: int) -> tuple[list[int], list[int]]:
    """Which coordinates are kept, and which are moved."""
    first, second = list(range(dim // 2)), list(range(dim // 2, dim))
    return (first, second) if index % 2 == 0 else (second, first)


@each_family
@each_dim
@each_index
def test_one_half_is_kept_and_sets_the_move_of_the_other(cls, dim, index):
    flow, z = make(cls, dim, index=index), normal(dim)
    kept, moved = halves(dim, index)
    assert torch.equal(flow(z)[0][kept], z[kept])
    assert torch.equal(flow.inverse(z)[0][kept], z[kept])
    slopes = jacobian(lambda z: flow(z)[0], z)
    assert torch.equal(slopes[kept][:, moved], torch.zeros(len(kept), len(moved), dtype=F64))
    assert (slopes[moved][:, kept] != 0).all()
    # Among the moved ones each depends on itself alone.
    block = slopes[moved][:, moved]
    assert torch.equal(block, block.diag().diag()) and (block.diag() > 0).all()


@each_family
@each_dim
def test_two_layers_move_everything(cls, dim):
    flows, z = [make(cls, dim, index=i) for i in range(2)], normal(9, dim)
    x, _ = cls.forward_run(flows, z)
    assert (x != z).all()


def test_layers_take_turns_in_a_formula():
    """Each family counts its own layers, whatever stands between them."""
    flows = Formula.parse("(realnvp-loc-nsf)*2").build(4)
    assert [flow.index for flow in flows if isinstance(flow, RealNVP)] == [0, 1]
    assert [flow.index for flow in flows if isinstance(flow, NeuralSpline)] == [0, 1]


@each_family
@each_index
def test_a_context_is_one_more_input_of_the_network(cls, index):
    """Conditional on c in R^3 it is the map of R^6 whose kept half is (z_A, c)."""
    dim, c = (3, 1) if index % 2 == 0 else (4, 1)
    kept, moved = halves(dim, index)
    flow = make(cls, dim, index=index, context_dim=c)
    wide = make(cls, dim + c, index=index)
    assert [len(half) for half in halves(dim + c, index)] == [len(kept) + c, len(moved)]
    wide.load_state_dict(flow.state_dict())
    z, context = normal(8, dim), normal(8, c, seed=2)
    parts = [torch.cat([z[:, kept], context], -1), z[:, moved]]
    joint = torch.cat(parts if index % 2 == 0 else parts[::-1], -1)
    for function, other in ((flow.forward, wide.forward), (flow.inverse, wide.inverse)):
        x, ladj = function(z, context=context)
        expected, expected_ladj = other(joint)
        places = halves(dim + c, index)
        torch.testing.assert_close(x[:, moved], expected[:, places[1]])
        torch.testing.assert_close(x[:, kept], z[:, kept])
        torch.testing.assert_close(ladj, expected_ladj)
    assert not torch.allclose(flow(z, context.roll(1, 0))[0], flow(z, context)[0])


@each_family
def test_one_dimension_is_refused_with_advice(cls):
    with pytest.raises(ValueError, match=r"at least 2; in one dimension use spline, maf or sinh"):
        make(cls, 1)


@each_family
@pytest.mark.parametrize(
    "option",
    [
        {"hidden": [7]},
        {"activation": "relu"},
        {"activation": "silu"},
        {"activation": "sin"},
        {"features": Call("fourier", args=(2,))},
    ],
    ids=str,
)
def test_options_of_the_network_act(cls, option):
    z = normal(5, 4)
    before, after = make(cls, 4)(z)[0], make(cls, 4, **option)
    assert not torch.allclose(after(z)[0], before)
    torch.testing.assert_close(after.inverse(after(z)[0])[0], z, rtol=1e-9, atol=1e-9)


@each_family
@pytest.mark.parametrize(
    "option", [{"hidden": [0]}, {"activation": "gelu"}, {"features": "waves"}], ids=str
)
def test_wrong_options_of_the_network_are_refused(cls, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        make(cls, 4, **option)


@each_family
def test_far_out_the_network_sees_the_rim_alone(cls):
    """A kept coordinate of 10⁸ moves the others as one of 10⁴ does: nothing leaves the range."""
    flow = make(cls, 2, activation="relu")
    near, far = torch.tensor([[1e4, 0.3], [1e8, 0.3]], dtype=F64)
    assert torch.equal(flow(near)[0][1:], flow(far)[0][1:])
