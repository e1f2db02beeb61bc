"""Log-densities of JAX: the numbers of JAX in torch's hands, and none of its state changed."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from nfvi import NFVI, JaxLogDensity, TargetError, nuts
from nfvi.targets import jax_batches, laplace, numbers_per_point

jax = pytest.importorskip("jax")
jnp = jax.numpy

SCALE = np.array([0.5, 2.0, 4.0])


def make_normal():
    """With an array of its own, as JAX keeps the form that an array has had first."""
    scale = SCALE.copy()

    def normal(z):
        return -0.5 * jnp.sum((z / scale) ** 2)

    return normal


normal = make_normal()


def of_torch(z: Tensor) -> Tensor:
    return -0.5 * (z / torch.from_numpy(SCALE).to(z)).square().sum(-1)


@pytest.fixture(autouse=True)
def jax_is_left_alone():
    """Off here, as PyTensor turns 64 bits on for a whole process, in which PyMC's tests may run."""
    before = jax.config.jax_enable_x64
    with jax.enable_x64(False):
        yield
    assert jax.config.jax_enable_x64 == before


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit])
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_values_and_gradients(dtypes, wrap):
    """In both orders: JAX's own cache takes float64 for float32 of the same function."""
    target = JaxLogDensity(wrap(make_normal()), dim=3)
    for dtype in dtypes:
        z = torch.randn(7, 3, dtype=dtype, requires_grad=True)
        values = target.log_prob(z)
        assert values.dtype == dtype
        exact = torch.finfo(dtype).eps * 10
        torch.testing.assert_close(values, of_torch(z), rtol=exact, atol=exact)
        ours, theirs = (torch.autograd.grad(f(z).sum(), z)[0] for f in (target.log_prob, of_torch))
        torch.testing.assert_close(ours, theirs, rtol=exact, atol=exact)


@pytest.mark.parametrize("layout", ["transposed", "expanded", "offset", "empty", "no gradient"])
def test_points_in_any_layout(layout):
    z = {
        "transposed": lambda: torch.randn(3, 5).T,
        "expanded": lambda: torch.randn(1, 3).expand(5, 3),
        "offset": lambda: torch.randn(6, 3)[1:],
        "empty": lambda: torch.randn(0, 3),
        "no gradient": lambda: torch.randn(5, 3),
    }[layout]()
    torch.testing.assert_close(JaxLogDensity(normal, dim=3).log_prob(z), of_torch(z))


def test_values_are_torchs_own():
    """What is written into them, or into z, changes nothing else."""
    target = JaxLogDensity(lambda z: jnp.sum(z * jax.lax.stop_gradient(z)), dim=2)
    z = torch.ones(4, 2, requires_grad=True)
    value = target.log_prob(z)
    with torch.no_grad():
        z.mul_(5)
    value.detach().add_(1)
    assert torch.equal(torch.autograd.grad(value.sum(), z)[0], torch.ones(4, 2))
    assert torch.equal(target.log_prob(torch.ones(4, 2)), torch.full((4,), 2.0))


def test_few_sizes_are_compiled():
    traces, own = [], make_normal()

    def counted(z):
        traces.append(z.shape)
        return own(z)

    target = JaxLogDensity(counted, dim=3)
    target.log_prob(torch.zeros(2, 3, dtype=torch.float64))
    target._compiled.clear()
    traces.clear()
    for n in (1, 2, 127, 128, 129, 5000):
        z = torch.randn(n, 3, dtype=torch.float64)
        expected = -0.5 * (z / torch.from_numpy(SCALE)).square().sum(1)
        torch.testing.assert_close(target.log_prob(z), expected)
    assert len(traces) == 1  # its Python runs once, for all sizes
    (batches,) = target._compiled.values()
    assert batches._compiled._cache_size() == 5  # 1, 128, 256, 1 024 and 4 096


@pytest.mark.parametrize("most", [128, 700, 1024, 5000, 2**20])
@pytest.mark.parametrize("n", [0, 1, 63, 1024, 1025, 2048, 9236, 40_000])
def test_the_pieces_of_a_batch(n, most):
    pieces = jax_batches._pieces(n, most)
    assert sum(pieces) == n and all(0 < piece <= most for piece in pieces)
    filled = [jax_batches._rung(piece) for piece in pieces]
    assert {*filled} <= {*jax_batches.SIZES} and max(filled, default=1) <= max(most, 1024)
    assert filled[:-1] == pieces[:-1]  # but the last, they are whole


def test_large_batches_go_in_pieces(monkeypatch):
    monkeypatch.setattr(jax_batches, "AT_ONCE", 1)
    monkeypatch.setattr(jax_batches, "FEWEST", 4)
    z = torch.randn(11, 3, requires_grad=True)
    target = JaxLogDensity(normal, dim=3)
    (gradient,) = torch.autograd.grad(target.log_prob(z).sum(), z)
    torch.testing.assert_close(gradient, -z.detach() / torch.from_numpy(SCALE).float() ** 2)


def test_its_work_counts_what_is_written():
    def repeated(z):
        return jax.lax.fori_loop(0, 100, lambda i, x: x * 0.99, z).sum()

    def once(z):
        return jnp.sum(z * 0.99)

    z = torch.zeros(4, 10)
    works = [numbers_per_point(JaxLogDensity(f, dim=10), z) for f in (once, repeated)]
    assert works[0] == 11
    assert 1000 <= works[1] <= 2500


def test_laplace():
    target = JaxLogDensity(make_normal(), dim=3)
    tril = laplace(target, torch.zeros(3, dtype=torch.float64), torch.float64)
    torch.testing.assert_close(tril, torch.from_numpy(SCALE).diag_embed(), rtol=1e-6, atol=1e-9)


def test_a_fit():
    target = JaxLogDensity(normal, dim=3, log_normalizer=float(np.log(SCALE * 2.50662827).sum()))
    fit = NFVI("scale", seed=0).fit(target, steps=300, restarts=1, lr=0.1, progress=False)
    assert abs(fit.log_evidence - target.log_normalizer) < 0.01
    torch.testing.assert_close(
        fit.sample(4000, seed=1).std(0), torch.from_numpy(SCALE).float(), rtol=0.06, atol=0
    )


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_on_a_gpu(dtype):
    """Whether JAX sees the card and shares its memory, or the points go by way of the host."""
    z = torch.randn(7, 3, dtype=dtype, device="cuda", requires_grad=True)
    values = JaxLogDensity(make_normal(), dim=3).log_prob(z)
    (gradient,) = torch.autograd.grad(values.sum(), z)
    assert values.device == gradient.device == z.device
    assert values.dtype == gradient.dtype == dtype
    exact = torch.finfo(dtype).eps * 10
    torch.testing.assert_close(values, of_torch(z), rtol=exact, atol=exact)
    torch.testing.assert_close(gradient, -z / torch.from_numpy(SCALE).to(z) ** 2)


@pytest.mark.cuda
def test_a_fit_on_a_gpu():
    target = JaxLogDensity(make_normal(), dim=3)
    on = {"steps": 60, "n_mc": 16, "restarts": 1, "progress": False}
    found = NFVI("scale-loc", seed=0, device="cuda").fit(target, **on)
    assert found.settings["evaluation"].startswith("eager: ")
    assert found.guide.device.type == "cuda" and math.isfinite(found.elbo)


@pytest.mark.slow
def test_processes():
    target = JaxLogDensity(normal, dim=3)
    target.log_prob(torch.zeros(2, 3))
    options = {"draws": 10, "warmup": 10, "chains": 2, "seed": 0, "progress": False}
    alone, apart = nuts(target, **options), nuts(target, n_jobs=2, **options)
    assert torch.equal(alone.draws, apart.draws)


def test_copies():
    cloudpickle = pytest.importorskip("cloudpickle")
    held = np.array([1.0, 2.0])
    target = JaxLogDensity(lambda z: -jnp.sum((z - held) ** 2), dim=2)
    z = torch.randn(3, 2)
    before = target.log_prob(z)
    for other in (pickle.loads(cloudpickle.dumps(target)), copy.deepcopy(target)):
        assert torch.equal(other.log_prob(z), before)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda z: z, "returned shape (2,) for one point z"),
        (lambda z: -jnp.sum(z**2, axis=-1, keepdims=True), "returns a scalar"),
        (lambda z: 1, "returned int"),
        (lambda z: jnp.argmax(z), "a log-density is a real number"),
        (lambda z: -jnp.sum(z**2) if z[0] > 0 else 0.0, "jax.jit, jax.vmap and jax.grad"),
        (lambda z: -jnp.sum(z * np.ones(3)), "raised TypeError: mul got incompatible shapes"),
        (lambda z: -jnp.sum(z**2) * jnp.nan, "is nan at z ="),
        (lambda z: -(z[0] ** 2), "improper: it does not depend on z[:, 1]"),
        (lambda z: -jnp.sum(jnp.abs(z * 0) ** 0.5) - z @ z, "the gradient of"),
    ],
)
def test_what_is_no_log_density(fn, message):
    with pytest.raises(TargetError) as caught:
        JaxLogDensity(fn, dim=2, name="bad").check()
    assert message in str(caught.value)
    assert "'bad'" in str(caught.value)


def test_a_narrower_value_is_refused():
    target = JaxLogDensity(lambda z: -jnp.sum(z.astype("float32") ** 2), dim=2)
    target.log_prob(torch.zeros(2, 2))
    with pytest.raises(TargetError, match=r"float64 and returned torch\.float32"):
        target.log_prob(torch.zeros(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("dim", [0, 1.5, True])
def test_dim(dim):
    with pytest.raises(TargetError, match="dim= must be an integer of at least 1"):
        JaxLogDensity(normal, dim=dim)


def test_what_cannot_be_called():
    with pytest.raises(TargetError, match="a log-density is a function"):
        JaxLogDensity(3, dim=1)


def test_without_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"JaxLogDensity needs JAX.*nfvi\[jax\]"):
        JaxLogDensity(normal, dim=3)


def test_its_word_on_gpus_is_kept_off_the_screen(monkeypatch, caplog):
    log = logging.getLogger("jax._src.xla_bridge")
    monkeypatch.setattr(jax, "devices", lambda *a: log.warning("Falling back to cpu") or ["cpu"])
    JaxLogDensity(normal, dim=3)
    assert not caplog.records
    log.warning("another")
    assert caplog.records


def test_an_array_that_is_in_use_in_another_precision():
    held = np.array([1.0, 2.0])

    def first(z):
        return -0.5 * jnp.sum((z / held) ** 2)

    def second(z):
        return -0.5 * jnp.sum((z / held) ** 2)

    kept = JaxLogDensity(first, dim=2)
    kept.log_prob(torch.zeros(2, 2, dtype=torch.float64))
    try:  # which JAX before 0.8 can
        assert JaxLogDensity(second, dim=2).log_prob(torch.ones(1, 2)).item() == -0.625
    except TargetError as error:
        assert "hold copies of arrays (np.copy)" in str(error)


def test_threads():
    """JAX's switch is that of a thread: float32 and float64 side by side."""
    target = JaxLogDensity(make_normal(), dim=3)
    points = [torch.randn(4, 3, dtype=d) for d in (torch.float32, torch.float64) * 8]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(target.log_prob, points))
    for z, value in zip(points, found, strict=True):
        torch.testing.assert_close(value, of_torch(z))
