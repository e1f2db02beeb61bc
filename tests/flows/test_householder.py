"""Householder flows: the compact form of a run, orthogonality, cost linear in the dimension."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor

from nfvi.flows.householder import Householder


def reflections(dim: int, count: int, dtype: torch.dtype = torch.float64) -> list[Householder]:
    generator = torch.Generator().manual_seed(0)
    return [Householder(dim, generator=generator, dtype=dtype) for _ in range(count)]


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def one_by_one(flows: list[Householder], z: Tensor) -> Tensor:
    """Tomczak and Welling, equation 9: z − 2 v (vᵀz) / ‖v‖², layer after layer."""
    for flow in flows:
        z = z - 2 * (z @ flow.v)[:, None] * flow.v / (flow.v @ flow.v)
    return z


def matrix(flows: list[Householder]) -> Tensor:
    """The orthogonal matrix whose rows are the images of the unit vectors."""
    return Householder.forward_run(flows, torch.eye(flows[0].dim, dtype=flows[0].v.dtype))[0]


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50])
@pytest.mark.parametrize("dim", [1, 2, 20])
def test_the_compact_form_is_reflection_after_reflection(dim, count):
    flows, z = reflections(dim, count), normal(30, dim)
    # Each reflection rounds off eps · ‖z‖ and passes what it got on unchanged in size.
    bound = 32 * torch.finfo(z.dtype).eps * count * z.norm(dim=-1).max()
    x, ladj = Householder.forward_run(flows, z)
    assert (x - one_by_one(flows, z)).abs().max() <= bound
    assert (ladj == 0).all()
    x = x.detach()
    z, ladj = Householder.inverse_run(flows, x)
    assert (z - one_by_one(flows[::-1], x)).abs().max() <= bound
    assert (ladj == 0).all()
    inputs, weights, z = [flow.v for flow in flows], normal(30, dim), z.detach()
    got = torch.autograd.grad((Householder.forward_run(flows, z)[0] * weights).sum(), inputs)
    expected = torch.autograd.grad((one_by_one(flows, z) * weights).sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [1, 2, 19, 20, 100])
def test_a_run_is_orthogonal_with_determinant_plus_or_minus_one(count, dtype):
    q = matrix(reflections(20, count, dtype))
    bound = 8 * torch.finfo(dtype).eps * count
    assert (q @ q.mT - torch.eye(20, dtype=dtype)).abs().max() <= bound
    assert abs(torch.linalg.det(q.double()).item() - (-1) ** count) <= 20 * bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equal_normals_cancel_in_pairs(dtype):
    """The case in which VᵀV is singular: the triangle that is solved is not."""
    flows = reflections(20, 100, dtype)
    for flow in flows:
        flow.load_state_dict(flows[0].state_dict())
    eye = torch.eye(20, dtype=dtype)
    assert (matrix(flows) - eye).abs().max() <= 8 * torch.finfo(dtype).eps * 100


def test_only_the_direction_of_v_matters():
    flows, z = reflections(6, 3), normal(10, 6)
    expected = Householder.forward_run(flows, z)[0]
    with torch.no_grad():
        for flow, size in zip(flows, [1e-12, -1.0, 1e12], strict=True):
            flow.v.mul_(size)
    torch.testing.assert_close(Householder.forward_run(flows, z)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_v_of_zero_is_the_identity(dtype):
    first, still, last = reflections(6, 3, dtype)
    with torch.no_grad():
        still.v.zero_()
    z = normal(10, 6, dtype=dtype)
    x, _ = Householder.forward_run([first, still, last], z)
    torch.testing.assert_close(x, Householder.forward_run([first, last], z)[0])
    for grad in torch.autograd.grad(x.sum(), [first.v, still.v, last.v]):
        assert grad.isfinite().all()


def test_one_step_in_a_hundred_thousand_dimensions_stays_within_a_gigabyte():
    """d × d floats would be 40 GB; ten vectors, ten points and their gradients are 16 MB.

    The peak is the process's own, with torch itself in it, hence a process for it. On Linux it
    is read where it counts from the start of the program: ``ru_maxrss`` there is at least that
    of the process which started it, and this one is large by now.
    """
    program = """
        import re
        import resource
        import sys
        from pathlib import Path

        import torch

        from nfvi.flows.householder import Householder

        generator = torch.Generator().manual_seed(0)
        flows = [Householder(100_000, generator=generator) for _ in range(10)]
        z = torch.randn(10, 100_000, generator=generator)
        x, _ = Householder.forward_run(flows, z)
        back, _ = Householder.inverse_run(flows, x)
        (x.square().mean() + back.square().mean()).backward()
        assert (back - z).abs().max() < 1e-4
        assert all(flow.v.grad.isfinite().all() for flow in flows)
        status = Path("/proc/self/status")
        if status.exists():
            print(1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]))
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(peak * (1 if sys.platform == "darwin" else 1024))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**30


def test_the_start():
    """Unit vectors in almost independent directions, and all alike without jitter."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.stack([Householder(20, generator=generator).v for _ in range(50)])
    alike = torch.stack([Householder(20, jitter=0.0).v for _ in range(2)])
    torch.testing.assert_close(spread.norm(dim=-1), torch.ones(50))
    assert torch.equal(alike[0], alike[1])
    # The mean of n independent unit vectors has a squared length of 1/n on average, and exceeds
    # four times that for fewer than one seed in 10⁶ (χ² of 20 degrees of freedom); it would be 1
    # if all were alike.
    assert spread.mean(0).square().sum() < 4 / 50
