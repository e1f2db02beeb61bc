"""Long thin products in pieces: the same to rounding, and on the CPU not used at all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi.flows import lookup
from nfvi.flows.numerics import long_product as module
from nfvi.flows.numerics.long_product import affine_rows, in_pieces, is_long, long_product


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [6, 9, 10, 25])
@pytest.mark.parametrize("lead", [(), (4,)])
def test_pieces_add_up(n: int, lead: tuple[int, ...]) -> None:
    a, b = normal(*lead, n, 3), normal(*lead, n, 2)
    torch.testing.assert_close(in_pieces(a, b, 5), a.mT @ b, rtol=1e-13, atol=1e-13)


def test_pieces_under_vmap() -> None:
    a, b = normal(4, 12, 3), normal(4, 12, 2)
    found = torch.vmap(lambda a, b: in_pieces(a, b, 5))(a, b)
    torch.testing.assert_close(found, a.mT @ b, rtol=1e-13, atol=1e-13)


def test_it_is_exact_for_float32_to_its_rounding() -> None:
    a, b = normal(30_000, 8), normal(30_000, 8)
    error = (in_pieces(a.float(), b.float()) - a.mT @ b).abs().max()
    assert float(error) < 30_000**0.5 * 100 * torch.finfo(torch.float32).eps


def test_the_cpu_takes_the_product_as_it_is() -> None:
    a, b = normal(module.LONG, 3), normal(module.LONG, 2)
    assert not is_long(a, b)
    assert torch.equal(long_product(a, b), a.mT @ b)


def test_which_are_long() -> None:
    class Shape(Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    def on_cuda(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta").as_subclass(Shape)

    n = module.LONG
    assert is_long(on_cuda(4, n, 8), on_cuda(4, n, 2))
    assert not is_long(on_cuda(4, n - 1, 8), on_cuda(4, n - 1, 2))
    assert not is_long(on_cuda(4, n, 8), on_cuda(4, n, module.THIN + 1))
    for lead in ((), (1,), (1, 1)):
        alone = module.LONG_ALONE
        assert is_long(on_cuda(*lead, alone, 8), on_cuda(*lead, alone, 2))
        assert not is_long(on_cuda(*lead, alone - 1, 8), on_cuda(*lead, alone - 1, 2))


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are long here, too."""
    monkeypatch.setattr(module, "is_long", lambda a, b: True)
    monkeypatch.setattr(module, "_may_be_long", lambda rows: True)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("starts", [(4,), (7, 4)])
def test_affine_rows(starts: tuple[int, ...]) -> None:
    inputs = [x.requires_grad_() for x in (normal(*starts), normal(7, 3), normal(3, 4))]
    assert torch.autograd.gradcheck(lambda *x: affine_rows(*x, -0.5), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: affine_rows(*x, -0.5), inputs)
    expected = torch.addmm(*inputs, alpha=-0.5)
    assert torch.equal(affine_rows(*inputs, -0.5), expected)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("starts", [(4,), (7, 4)])
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, None), (0, None, 0)])
def test_affine_rows_under_vmap(
    starts: tuple[int, ...], in_dims: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient's product sees how many there are, by which it is chosen."""
    inputs = [
        (normal(*shape) if dim is None else normal(3, *shape)).requires_grad_()
        for shape, dim in zip((starts, (7, 3), (3, 4)), in_dims, strict=True)
    ]
    seen = []
    monkeypatch.setattr(module, "is_long", lambda a, b: seen.append(a.shape) or False)
    found = torch.vmap(affine_rows, in_dims)(*inputs)
    expected = torch.vmap(torch.addmm, in_dims)(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    weights = normal(*found.shape)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    assert seen == [(3, 7, 3)]


@pytest.mark.parametrize("batched", [False, True])
def test_planar_has_the_same_gradients(batched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        lookup("planar").cls(2, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        for k in range(3)
    ]
    z = normal(4, 23, 2) if batched else normal(23, 2)

    def loss(z: Tensor) -> Tensor:
        x, ladj = type(layers[0]).forward_run(layers, z)
        back, other = type(layers[0]).inverse_run(layers, x, z)
        return (x.square().sum(-1) + ladj + other + back.sin().sum(-1)).sum()

    def gradients() -> tuple[Tensor, ...]:
        total = torch.vmap(loss)(z).sum() if batched else loss(z)
        return torch.autograd.grad(total, [p for f in layers for p in f.parameters()])

    expected = gradients()
    monkeypatch.setattr(module, "is_long", lambda a, b: True)
    monkeypatch.setattr(module, "_may_be_long", lambda rows: True)
    for found, plain in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.cuda
def test_on_a_card() -> None:
    a, b = normal(8, 100_000, 8), normal(8, 100_000, 8)
    assert is_long(a.cuda(), b.cuda())
    found = long_product(a.cuda(), b.cuda()).cpu()
    torch.testing.assert_close(found, a.mT @ b, rtol=1e-10, atol=1e-9)
