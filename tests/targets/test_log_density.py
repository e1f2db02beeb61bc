"""A log-density from a function: how it is called, what is checked, what is refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from nfvi.errors import TargetError
from nfvi.targets import LogDensity, as_target, log_density

F32, F64 = torch.float32, torch.float64
DTYPES = [F32, F64]


def normal(z):
    """A function of a batch, log N(z; 0, I) up to a constant."""
    return -0.5 * (z**2).sum(-1)


def whole_sum(z):
    """A function of one point, which for a batch returns one number."""
    return -0.5 * (z**2).sum()


def unpacks(z):
    """A function of one point in two dimensions."""
    x, y = z
    return -(x**2) - (y - x) ** 2


def indexes(z):
    """A function of one point, which of a batch of two would take the rows for coordinates."""
    return -(z[0] ** 2) - (z[1] - z[0]) ** 2


def branches(z):
    """A function of one point that vmap cannot map."""
    return -z.square().sum() if z[0] > 0 else -2 * z.square().sum()


def points(n: int, d: int, dtype: torch.dtype = F64, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=F64, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 3, 20])
@pytest.mark.parametrize(("fn", "batching"), [(normal, "batch"), (whole_sum, "vmap")])
def test_batch_and_single_point_functions_agree(fn, batching, d, dtype):
    target = LogDensity(fn, d)
    z = points(5, d, dtype)
    log_prob = target.log_prob(z)
    assert (log_prob.dtype, log_prob.shape) == (dtype, (5,))
    assert target.batching == batching
    torch.testing.assert_close(log_prob, torch.stack([fn(row) for row in z]))
    torch.testing.assert_close(target(z), log_prob)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("fn", [unpacks, indexes])
def test_rows_are_never_taken_for_coordinates(fn, n):
    """With d = 2, a batch of two unpacks as a point does; the values must still be the points'."""
    z = points(n, 2)
    target = LogDensity(fn, 2)
    torch.testing.assert_close(target.log_prob(z), torch.stack([fn(row) for row in z]))
    assert target.batching == "vmap"


def test_function_that_mixes_a_batch_is_run_point_by_point():
    """A mean over the batch is one over the point's own coordinates when points come alone."""

    def mixes(z):
        return -((z - z.mean()) ** 2).sum(-1) - z.sum(-1) ** 2

    z = points(4, 3)
    log_prob = LogDensity(mixes, 3).log_prob(z)
    torch.testing.assert_close(log_prob, torch.stack([mixes(row) for row in z]))
    with pytest.raises(TargetError, match="Points of a batch must not influence one another"):
        LogDensity(mixes, 3, batched=True).log_prob(z)


def test_loop_where_vmap_cannot_warns_once():
    target = LogDensity(branches, 2)
    z = points(6, 2)
    with pytest.warns(UserWarning, match="'branches' is evaluated one point at a time") as caught:
        log_prob = target.log_prob(z)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    target.log_prob(z.float())  # another dtype is checked, without a second warning
    torch.testing.assert_close(log_prob, torch.stack([branches(row) for row in z]))
    assert target.batching == "loop"


@pytest.mark.parametrize("fn", [normal, whole_sum])
def test_gradient(fn):
    target = LogDensity(fn, 3)
    z = points(4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(z).sum(), z)
    torch.testing.assert_close(gradient, -z.detach())


def test_potential():
    target = LogDensity.from_potential(whole_sum, dim=3, log_normalizer=1.5)
    z = points(4, 3)
    torch.testing.assert_close(target.log_prob(z), -normal(z))
    assert (target.log_normalizer, target.name) == (1.5, "whole_sum")


def test_decorator_and_metadata():
    @log_density(dim=2, log_normalizer=math.log(2 * math.pi))
    def bell(z):
        return -0.5 * (z**2).sum(-1)

    assert isinstance(bell, LogDensity)
    assert (bell.dim, bell.name, bell.named, bell.has_sampler) == (2, "bell", False, False)
    assert LogDensity(lambda z: normal(z), 2).name == "log-density"
    assert LogDensity(normal, 2, name="mine").name == "mine"
    z = points(3, 2)
    assert bell.constrain(z) == {"z": z}
    with pytest.raises(TargetError, match="no exact sampler"):
        bell.sample(3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sampler_gets_generator_dtype_and_device(dtype):
    def sampler(n, generator, dtype, device):
        return torch.randn(n, 2, generator=generator, dtype=dtype, device=device)

    target = LogDensity(normal, 2, sampler=sampler)
    draws = [
        target.sample(4, generator=torch.Generator().manual_seed(1), dtype=dtype) for _ in range(2)
    ]
    assert target.has_sampler
    assert draws[0].dtype == dtype
    assert torch.equal(*draws)
    assert target.sample(4).dtype == torch.get_default_dtype()
    with pytest.raises(TargetError, match=r"returned shape \(4, 2\) in place of \(4, 3\)"):
        LogDensity(normal, 3, sampler=sampler).sample(4)


REFUSED = {
    "a column": (lambda z: normal(z)[:, None], r"returned shape \(2, 1\) .*\.squeeze\(-1\)"),
    "a column for one": (lambda z: normal(z)[None], r"returned shape \(1,\).*squeeze"),
    "no reduction": (lambda z: -(z**2), r"returned shape \(2, 3\) in place of \(2,\)"),
    "a float": (lambda z: float(normal(z).sum()), "returned a float, not a torch tensor"),
    "numpy": (lambda z: normal(z).detach().numpy(), "returned a numpy.ndarray, not a torch"),
    "nothing": (lambda z: None, "returned a NoneType.*Return a tensor computed from z"),
    "integers": (lambda z: z.sum(-1).long(), "returned torch.int64; a log-density is a real"),
    "detached": (lambda z: normal(z.detach()), "no gradient with respect to z"),
    "constant": (lambda z: torch.zeros(z.shape[:-1], dtype=z.dtype), "no gradient"),
    "rebuilt": (lambda z: normal(torch.as_tensor(z.tolist()).to(z)), "no gradient"),
    "nan": (lambda z: z.log().sum(-1), "is nan at z = .*finite, or -inf outside the support"),
    "plus infinity": (lambda z: normal(z) + math.inf, "is inf at z = "),
    "nowhere": (
        lambda z: normal(z) - math.inf,
        "-inf at every point tried.*name them.*shift, scale",
    ),
    "bad gradient": (lambda z: (z - z).sqrt().sum(-1), r"gradient of .* is \(nan, nan, nan\)"),
    "narrower": (lambda z: normal(z.float()), "given z in torch.float64 and returned .*float32"),
    "other dtype": (lambda z: z @ torch.ones(3), "raised RuntimeError.*give constants that dtype"),
    "wrong dimension": (lambda z: z @ torch.ones(4, dtype=F64), r"dim=3.*shape \(2, 3\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_advice(case):
    fn, message = REFUSED[case]
    with pytest.raises(TargetError, match=f"(?s){message}"):
        LogDensity(fn, 3, name="it").log_prob(points(4, 3))


def test_exception_of_the_function_is_the_cause():
    def broken(z):
        return z.sum(-1) / {}["nothing"]

    with pytest.raises(TargetError, match="raised KeyError: 'nothing'") as caught:
        LogDensity(broken, 2).log_prob(points(4, 2))
    assert isinstance(caught.value.__cause__, KeyError)
    assert "nfvi chose these values, the first of them z = (" in str(caught.value)

    def interrupted(z):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LogDensity(interrupted, 2).log_prob(points(4, 2))


def test_exception_after_the_check_is_the_functions_own():
    def only_small(z):
        if len(z) > 10:
            raise OverflowError("too many")
        return normal(z)

    target = LogDensity(only_small, 2)
    target.log_prob(points(4, 2))
    with pytest.raises(OverflowError, match="too many"):
        target.log_prob(points(11, 2))


def test_support_smaller_than_space():
    def half(z):
        return torch.where(z[..., 0] > 0, normal(z), -math.inf)

    log_prob = LogDensity(half, 2).log_prob(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    torch.testing.assert_close(log_prob, torch.tensor([-0.5, -math.inf]))


def test_wider_values_are_cast_to_the_dtype_of_z():
    target = LogDensity(lambda z: normal(z * torch.ones(2, dtype=F64)), 2)
    assert target.log_prob(points(4, 2, F32)).dtype == F32
    assert target.log_prob(points(4, 2, F64)).dtype == F64


def test_noisy_density_is_taken_as_it_is():
    """That of a minibatch: no two calls agree, so that batch and single points cannot be held."""
    data = torch.linspace(-1, 1, 50, dtype=F64)

    def minibatch(z):
        some = data[torch.randperm(50)[:5]]
        return -10.0 * (z[..., :1] - some).square().sum(-1)

    target = LogDensity(minibatch, 1)
    before = torch.get_rng_state()
    target.check(F64)
    assert torch.equal(before, torch.get_rng_state())
    assert target.batching == "batch"
    assert target.log_prob(points(4, 1)).shape == (4,)


def test_check_runs_once_for_each_dtype_and_leaves_the_random_state_alone():
    calls = []

    def counted(z):
        calls.append(z.dtype)
        return normal(z)

    target = LogDensity(counted, 2)
    before = torch.get_rng_state()
    with torch.no_grad():
        target.log_prob(points(4, 2, F32))
    first = len(calls)
    for _ in range(5):
        target.log_prob(points(4, 2, F32))
    assert len(calls) == first + 5
    target.log_prob(points(4, 2, F64))
    assert calls[-1] == F64
    assert len(calls) > first + 6
    assert torch.equal(before, torch.get_rng_state())


def test_check_before_first_use_works_in_inference_mode():
    with torch.inference_mode():
        assert LogDensity(normal, 2).log_prob(points(4, 2)).shape == (4,)
    target = LogDensity(whole_sum, 2)
    target.check(F32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target.log_prob(points(4, 2, F32))


def test_wrong_arguments():
    for dim in (0, -1, 2.0, True, None):
        with pytest.raises(TargetError, match="dim= must be an integer of at least 1"):
            LogDensity(normal, dim)
    with pytest.raises(TargetError, match="a log-density is a function of z; got int"):
        LogDensity(3, 2)
    for shape in ((2,), (4, 3), (1, 4, 2)):
        with pytest.raises(TargetError, match=r"takes z of shape \(n, 2\)"):
            LogDensity(normal, 2).log_prob(torch.zeros(shape))


def test_as_target():
    target = as_target(normal, dim=2)
    assert isinstance(target, LogDensity)
    assert as_target(target) is as_target(target, dim=2) is target
    with pytest.raises(TargetError, match="dim=3 was given, but 'normal' has dim=2"):
        as_target(target, dim=3)


def test_numpy_integer_as_dimension():
    assert LogDensity(normal, np.int64(2)).log_prob(points(3, 2)).shape == (3,)


@pytest.mark.cuda
@pytest.mark.parametrize("fn", [normal, whole_sum])
def test_on_a_gpu(fn):
    target = LogDensity(fn, 3)
    z = points(4, 3)
    before = torch.cuda.get_rng_state()
    log_prob = target.log_prob(z.cuda())
    assert log_prob.is_cuda
    assert torch.equal(before, torch.cuda.get_rng_state())
    torch.testing.assert_close(log_prob.cpu(), target.log_prob(z))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_support_of_half_the_space_will_do(sign, dim):
    target = LogDensity(
        lambda z: torch.where(sign * z[..., 0] > 0, -0.5 * z.square().sum(-1), -torch.inf), dim
    )
    target.check()
    assert target.log_prob(sign * torch.ones(1, dim)).isfinite()


def adds_in_place(z):
    z += 1
    return normal(z)


def clamps(z):
    """Changes nothing near the origin."""
    return normal(z.clamp_(-50, 50))


def through_numpy(z):
    """Torch does not see that z is written to."""
    z.detach().numpy()[..., 0] = 0
    return normal(z)


@pytest.mark.parametrize("batched", [None, True, False])
@pytest.mark.parametrize("fn", [adds_in_place, clamps, through_numpy])
def test_a_function_that_writes_into_z_is_refused(fn, batched):
    with pytest.raises(TargetError, match=r"it wrote into z.*z = z\.clone\(\)"):
        LogDensity(fn, 2, batched=batched).check()


def test_later_calls_must_stay_as_they_were():
    now = normal
    target = LogDensity(lambda z: now(z), 2)
    z = points(5, 2, F32)
    target.log_prob(z)
    for fn, message in [
        (
            lambda z: normal(z).double(),
            "returned torch.float64 .*torch.float32 when it was checked",
        ),
        (lambda z: normal(z)[:, None], r"returned shape \(5, 1\) for z of shape \(5, 2\)"),
        (lambda z: normal(z)[:-1], r"returned shape \(4,\)"),
        (lambda z: 0.0, r"returned 0\.0"),
        (adds_in_place, "wrote into z"),
    ]:
        now = fn
        with pytest.raises(TargetError, match=message):
            target.log_prob(z.clone())
    now = normal
    assert torch.equal(target.log_prob(z), normal(z))


def first_alone(z):
    return -0.5 * z[..., 0] ** 2


def steps_of(z):
    return first_alone(z) - 0.5 * z[..., 2:].square().sum(-1) + 0.0 * z[..., 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("fn", "dim", "columns"),
    [
        (first_alone, 2, r"z\[:, 1\],"),
        (first_alone, 3, r"z\[:, 1\], z\[:, 2\],"),
        (steps_of, 4, r"z\[:, 1\],"),
        (lambda z: 0.0 * z.sum(-1), 2, r"z\[:, 0\], z\[:, 1\],"),
        (lambda z: -0.5 * (z[..., 0] - z[..., 2]) ** 2 - z[..., 2] ** 2, 3, r"z\[:, 1\],"),
        (lambda z: 1e6 - z[..., 0] ** 2 - torch.sin(z[..., 1]) ** 2 * 0, 2, r"z\[:, 1\],"),
    ],
)
def test_a_density_that_is_flat_along_a_coordinate_is_improper(fn, dim, columns, dtype):
    with pytest.raises(TargetError, match=rf"is improper: it does not depend on {columns}"):
        LogDensity(fn, dim).check(dtype)


def in_a_box(z):
    """Even within 3 of the origin along the second coordinate."""
    inside = (z[..., 1].abs() < 3) & (z[..., 1].abs() < 1e3)
    return torch.where(inside, first_alone(z) + 0 * z[..., 1], -math.inf)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "fn",
    [
        in_a_box,
        lambda z: first_alone(z) - (z[..., 1].abs() - 20).relu(),
        lambda z: first_alone(z) - (z[..., 1].abs() - 900).relu() ** 2,
        lambda z: first_alone(z) - 1e-20 * z[..., 1] ** 2,
        lambda z: first_alone(z) - (z[..., 1] ** 2 - 4).relu() ** 3 * (z[..., 0] > 0),
        lambda z: -((z[..., 0] * z[..., 1]) ** 2) - z[..., 0] ** 2 - z[..., 1] ** 4,
    ],
    ids=["box", "walls", "far walls", "wide", "half", "cross"],
)
def test_a_density_that_is_flat_near_the_origin_alone_will_do(fn, dtype):
    assert LogDensity(fn, 2).log_prob(points(4, 2, dtype)).shape == (4,)


def test_an_error_of_the_function_is_told_once_with_its_line():
    def broken(z):
        raise RuntimeError("boom")

    with pytest.raises(TargetError) as caught:
        LogDensity(broken, 2).check()
    assert str(caught.value).count("boom") == 1
    line = broken.__code__.co_firstlineno + 1
    assert f"(test_log_density.py, line {line})" in str(caught.value)


def test_a_function_of_one_argument_without_a_dimension():
    with pytest.raises(TargetError, match=r"'normal' takes an argument.*dim=2, or name its param"):
        as_target(normal)
