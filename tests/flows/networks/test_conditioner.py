"""The conditioner networks: who sees whom, features, starts, and the unrolled form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from nfvi.flows.affine import Loc
from nfvi.flows.call import Call
from nfvi.flows.networks import Conditioner, MaskedConditioner, Walk
from nfvi.flows.networks.activations import ACTIVATIONS

FOURIER = Call("fourier", (), (3,))


def owner(dim: int, context_dim: int = 0, jitter: float = 0.5) -> Loc:
    """A layer for a conditioner to belong to."""
    generator = torch.Generator().manual_seed(0)
    return Loc(
        dim, context_dim=context_dim, jitter=jitter, generator=generator, dtype=torch.float64
    )


def points(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_the_derivative_of_an_activation_is_its_derivative(name):
    activation, a = ACTIVATIONS[name], points(200).requires_grad_()
    (expected,) = torch.autograd.grad(activation.function(a).sum(), a)
    got = activation.derivative(a, activation.function(a))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_without_jitter_the_output_is_zero_everywhere():
    net = Conditioner(owner(3, 2, jitter=0.0), 3, 5, hidden=[8, 8], features=FOURIER)
    assert torch.equal(net(points(4, 3), points(4, 2)), torch.zeros(4, 5, dtype=torch.float64))


def test_start_at_shifts_the_output():
    net = Conditioner(owner(3, jitter=0.0), 3, 2, hidden=[8])
    net.start_at(torch.tensor([1.0, -2.0]))
    assert torch.equal(net(points(3)), torch.tensor([1.0, -2.0], dtype=torch.float64))


def test_fourier_features_are_waves_of_learned_frequencies():
    """One input and no hidden layer: the output is a sum of x, sin ωx and cos ωx."""
    net = Conditioner(owner(1), 1, 1, hidden=[], features=FOURIER)
    x = points(50, 1)
    wave = x * net.frequencies
    weight = net.linears[0].weight[0]
    expected = torch.cat([x, wave.sin(), wave.cos()], -1) @ weight + net.linears[0].bias
    torch.testing.assert_close(net(x)[:, 0], expected)
    assert net.frequencies.requires_grad and (net.frequencies > 0).all()
    assert 0.5 <= net.frequencies.max() / 1.5 <= 2


@pytest.mark.parametrize("features", ["none", FOURIER])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("hidden", [[], [2], [7, 5], [40]])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_outputs_see_the_coordinates_before_their_own(features, backwards, hidden, context_dim):
    net = MaskedConditioner(
        owner(4, context_dim), 3, backwards=backwards, hidden=hidden, features=features
    )
    context = points(context_dim, 1, seed=2) if context_dim else None
    slope = jacobian(lambda x: net(x, context), points(4, 1))[:, :, 0, :, 0].abs().sum(1)
    rank = torch.arange(4).flip(0) if backwards else torch.arange(4)
    before = rank[None, :] < rank[:, None]
    assert (slope[~before] == 0).all()
    # With enough units every coordinate before is seen; two units cannot tell three degrees.
    if hidden != [2]:
        assert (slope[before] > 0).all()
    if context_dim:
        by_context = jacobian(lambda c: net(points(4, 1), c), context)[:, :, 0].abs().sum((1, 3))
        # A unit that sees no coordinate has to carry the context to the first output.
        assert (by_context > 0).all() or hidden == [2]


@pytest.mark.parametrize("features", ["none", FOURIER])
@pytest.mark.parametrize("hidden", [[], [6], [7, 5]])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_unrolled_network_is_the_network(features, hidden, context_dim, backwards):
    net = MaskedConditioner(
        owner(3, context_dim), 2, backwards=backwards, hidden=hidden, features=features
    )
    x = points(3, 4)
    context = points(context_dim, 4, seed=2) if context_dim else None
    walk, expected = Walk(net, x, context), net(x, context)
    for i in reversed(range(3)) if backwards else range(3):
        torch.testing.assert_close(walk.parameters_of(i), expected[i])
        walk.add(i, x[i])


@pytest.mark.parametrize("features", ["none", FOURIER])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [[], [6], [7, 5]])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dim", [3, 6])  # few coordinates, and more
def test_pulling_back_is_the_jacobian_of_the_network(features, activation, hidden, backwards, dim):
    net = MaskedConditioner(
        owner(dim, 1),
        2,
        backwards=backwards,
        hidden=hidden,
        activation=activation,
        features=features,
    )
    x, context, weight = points(dim, 4), points(1, 4, seed=2), points(dim, 2, 4, seed=3)
    summed = points(dim, 2, 4, seed=4)
    x[0, 0] = 2e4  # further out than a network looks
    theta, slopes = net.taped(x, context)
    assert torch.equal(theta, net(x, context))
    got = net.pull_back(x, slopes, weight, summed)
    assert got.shape == (dim, 4, dim)
    behind_the_first = slice(0, dim - 1) if backwards else slice(1, dim)
    for n in range(4):
        full = jacobian(lambda p, n=n: net(p, context[:, [n]])[..., 0], x[:, [n]])[..., 0]
        rows = torch.einsum("ip,ipj->ij", weight[..., n], full)[behind_the_first]
        torch.testing.assert_close(got[:-1, n], rows, rtol=1e-10, atol=1e-12)
        last = torch.einsum("ip,ipj->j", summed[..., n], full)
        torch.testing.assert_close(got[-1, n], last, rtol=1e-10, atol=1e-12)


def test_draws_do_not_meet_in_a_masked_network():
    net = MaskedConditioner(owner(3, 1), 2, backwards=False, hidden=[6], features=FOURIER)
    x, context = points(3, 4), points(1, 4, seed=2)
    for n in range(4):
        alone = net(x[:, [n]], context[:, [n]])
        torch.testing.assert_close(alone[..., 0], net(x, context)[..., n])


def test_inputs_beyond_reach_count_as_lying_there():
    net = Conditioner(owner(2), 2, 1, hidden=[4])
    far = torch.tensor([[1e9, -1e9]], dtype=torch.float64)
    assert torch.equal(net(far), net(far.clamp(-1e4, 1e4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": [0]}, r"hidden=\[0\]: the sizes of hidden layers"),
        ({"hidden": [8, 2.5]}, r"hidden=\[8, 2.5\]"),
        ({"hidden": [True]}, r"hidden=\[True\]"),
        ({"hidden": [8], "activation": "gelu"}, "activation=gelu: it must be one of tanh, silu"),
        ({"hidden": [8], "features": "fourier"}, "features=fourier: it must be none or fourier"),
        ({"hidden": [8], "features": Call("fourier", (), (0,))}, r"features=fourier\(0\)"),
        ({"hidden": [8], "features": Call("waves", (), (3,))}, r"features=waves\(3\)"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Conditioner(owner(2), 2, 3, **options)
