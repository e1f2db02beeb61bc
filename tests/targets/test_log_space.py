"""Priors computed from unconstrained numbers: torch's own in the middle, exact far out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import mpmath
import pyro
import pyro.distributions as dist
import pytest
import torch
from mpmath import mp
from torch import Tensor, tensor
from torch.distributions import biject_to, transforms

from nfvi.targets import PyroTarget
from nfvi.targets.bijections import bijection
from nfvi.targets.log_space import log_space_density

F64 = torch.float64


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


def t(*values: float) -> Tensor:
    return tensor(values[0] if len(values) == 1 else values, dtype=F64)


FAMILY: dict[str, Callable[[], dist.Distribution]] = {
    "Gamma": lambda: dist.Gamma(t(0.1, 2.0), t(2.0)),
    "Chi2": lambda: dist.Chi2(t(1.0)),
    "InverseGamma": lambda: dist.InverseGamma(t(1.3), t(2.0)),
    "Weibull": lambda: dist.Weibull(t(1.5), t(0.7)),
    "FisherSnedecor": lambda: dist.FisherSnedecor(t(1.0), t(3.0)),
    "Pareto": lambda: dist.Pareto(t(1.5), t(2.0)),
    "LogNormal": lambda: dist.LogNormal(t(0.3), t(2.0)),
    "Beta": lambda: dist.Beta(t(1.2), t(0.3)),
    "AffineBeta": lambda: dist.AffineBeta(t(1.2), t(0.4), t(2.0), t(3.0)),
    "Kumaraswamy": lambda: dist.Kumaraswamy(t(0.4), t(1.3)),
    "RelaxedBernoulli": lambda: dist.RelaxedBernoulli(t(0.6), t(0.3)),
    "Uniform": lambda: dist.Uniform(t(-1.0), t(3.0)),
    "Dirichlet": lambda: dist.Dirichlet(t(0.2, 1.0, 3.0, 2.0)),
    "batch of Dirichlets": lambda: dist.Dirichlet(t(0.2, 1.0, 3.0).expand(2, 3)),
    "LogisticNormal": lambda: dist.LogisticNormal(t(0.0, 1.0), t(1.0, 2.0)),
    "RelaxedOneHot": lambda: dist.RelaxedOneHotCategorical(t(0.7), t(0.2, 0.3, 0.5)),
    "LKJCholesky": lambda: dist.LKJCholesky(4, t(0.5)),
    "batch of LKJCholesky": lambda: dist.LKJCholesky(3, t(0.5, 2.0)),
    "LKJ": lambda: dist.LKJ(4, t(0.5)),
    "event": lambda: dist.Beta(t(0.3, 0.7, 2.0), t(1.0)).to_event(1),
    "expanded": lambda: dist.Gamma(t(0.3), t(1.0)).expand([3]).to_event(1),
    "wrapped": lambda: dist.ExpandedDistribution(dist.Gamma(t(2.0), t(1.0)), torch.Size((3,))),
    "exp of a vector": lambda: dist.TransformedDistribution(
        dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), [transforms.ExpTransform()]
    ),
    "exp of a line": lambda: dist.TransformedDistribution(
        dist.Normal(t(0.0, 1.0), 1.0).to_event(1),
        [transforms.AffineTransform(1.0, 2.0), transforms.ExpTransform()],
    ),
    "ordered": lambda: dist.TransformedDistribution(
        dist.Normal(t(0.0, 1.0), 1.0).to_event(1), [dist.transforms.OrderedTransform()]
    ),
}


def spread(fn: dist.Distribution, n: int) -> Tensor:
    shape = bijection(fn.support).inverse_shape(torch.Size((n, *fn.shape())))
    return 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILY)
def test_it_is_the_density_in_the_middle(name: str) -> None:
    fn = FAMILY[name]()
    z = spread(fn, 7)
    x = bijection(fn.support)(z)
    density = log_space_density(fn)
    assert density is not None
    # Torch takes the LKJ's logs off the Cholesky factor of a product: 1e-12 there, 1e-15 elsewhere.
    torch.testing.assert_close(density(z), fn.log_prob(x), rtol=1e-12, atol=5e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_maps_are_those_of_torch_in_the_middle(name: str) -> None:
    fn = FAMILY[name]()
    z = 0.7 * spread(fn, 7)
    ours, theirs = bijection(fn.support), biject_to(fn.support)
    x = ours(z)
    torch.testing.assert_close(x, theirs(z), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.inv(x), z, rtol=1e-9, atol=1e-9)
    ladj = theirs.log_abs_det_jacobian(z, theirs(z))
    # A row of it may be summed over the event or not yet.
    mine = ours.log_abs_det_jacobian(z, x).reshape(7, -1).sum(1)
    torch.testing.assert_close(mine, ladj.reshape(7, -1).sum(1), rtol=1e-9, atol=1e-9)


def log_beta(a: float, b: float) -> mpmath.mpf:
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(mp.mpf(a) + b)


def sigmoids(z: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    """log x and log(1 − x) of x = sigmoid(z)."""
    return -mp.log1p(mp.exp(-z)), -mp.log1p(mp.exp(z))


def gamma(z: mpmath.mpf) -> mpmath.mpf:
    a, rate = mp.mpf(1) / 64, mp.mpf(1) / 64
    return a * mp.log(rate) + a * z - rate * mp.exp(z) - mp.loggamma(a)


def inverse_gamma(z: mpmath.mpf) -> mpmath.mpf:
    return gamma(-z)


def weibull(z: mpmath.mpf) -> mpmath.mpf:
    k, scale = mp.mpf(1) / 64, mp.mpf(2)
    power = k * (z - mp.log(scale))
    return mp.log(k) + power - mp.exp(power)


def fisher_snedecor(z: mpmath.mpf) -> mpmath.mpf:
    a, b = mp.mpf(1) / 64, mp.mpf(1) / 32
    powers = a * mp.log(a / b) + a * z - (a + b) * mp.log1p(a / b * mp.exp(z))
    return powers - log_beta(a, b)


def pareto(z: mpmath.mpf) -> mpmath.mpf:
    a, scale = mp.mpf(1) / 64, mp.mpf(2)
    return mp.log(a) + a * mp.log(scale) - (a + 1) * mp.log(scale + mp.exp(z)) + z


def log_normal(z: mpmath.mpf) -> mpmath.mpf:
    return -((z - 3) ** 2) / (2 * 256**2) - mp.log(256) - mp.log(2 * mp.pi) / 2


def beta(z: mpmath.mpf) -> mpmath.mpf:
    (log_x, log_rest), a, b = sigmoids(z), mp.mpf(1) / 16, mp.mpf(1) / 32
    return a * log_x + b * log_rest - log_beta(a, b)


def kumaraswamy(z: mpmath.mpf) -> mpmath.mpf:
    (log_x, log_rest), a, b = sigmoids(z), mp.mpf(1) / 16, mp.mpf(1) / 32
    power = mp.log(-mp.expm1(a * log_x))
    return mp.log(a * b) + a * log_x + (b - 1) * power + log_rest


def relaxed_bernoulli(z: mpmath.mpf) -> mpmath.mpf:
    temperature, logits = mp.mpf(1) / 64, mp.mpf(1) / 4
    d = logits - temperature * z
    return mp.log(temperature) + d - 2 * mp.log1p(mp.exp(d))


def uniform(z: mpmath.mpf) -> mpmath.mpf:
    return sum(sigmoids(z))


def two_correlated(z: mpmath.mpf) -> mpmath.mpf:
    """The correlation is tanh(z): sech²ᵝ / B(1/2, β)."""
    b = mp.mpf(1) / 32
    return -2 * b * mp.log(mp.cosh(z)) - log_beta(mp.mpf(1) / 2, b)


TAILS: dict[str, tuple[Callable[[], dist.Distribution], Callable[[mpmath.mpf], mpmath.mpf]]] = {
    "Gamma": (lambda: dist.Gamma(1 / 64, 1 / 64), gamma),
    "InverseGamma": (lambda: dist.InverseGamma(1 / 64, 1 / 64), inverse_gamma),
    "Weibull": (lambda: dist.Weibull(2.0, 1 / 64), weibull),
    "FisherSnedecor": (lambda: dist.FisherSnedecor(1 / 32, 1 / 16), fisher_snedecor),
    "Pareto": (lambda: dist.Pareto(2.0, 1 / 64), pareto),
    "LogNormal": (lambda: dist.LogNormal(3.0, 256.0), log_normal),
    "Beta": (lambda: dist.Beta(1 / 16, 1 / 32), beta),
    "Dirichlet": (lambda: dist.Dirichlet(tensor([1 / 16, 1 / 32])), beta),
    "Kumaraswamy": (lambda: dist.Kumaraswamy(1 / 16, 1 / 32), kumaraswamy),
    "RelaxedBernoulli": (
        lambda: dist.RelaxedBernoulli(tensor(1 / 64), logits=tensor(0.25)),
        relaxed_bernoulli,
    ),
    "Uniform": (lambda: dist.Uniform(100.0, 101.0), uniform),
    "LKJCholesky": (lambda: dist.LKJCholesky(2, 1 / 32), two_correlated),
    "LKJ": (lambda: dist.LKJ(2, 1 / 32), two_correlated),
}


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("name", TAILS)
def test_value_and_gradient_are_exact_in_both_tails(name: str, dtype: torch.dtype) -> None:
    """Parameters are powers of two, so that both dtypes have the very same ones."""
    torch.set_default_dtype(dtype)
    make, exact = TAILS[name]
    target = PyroTarget(lambda: pyro.sample("x", make()), name=name)
    z = tensor([-300.0, -60.0, -20.0, -1.0, 0.0, 2.0, 20.0, 60.0, 300.0], dtype=dtype)
    leaf = z[:, None].clone().requires_grad_()
    values = target.log_prob(leaf)
    with mp.workdps(400):
        expected = [exact(mp.mpf(x)) for x in z.tolist()]
        slopes = [float(mp.diff(exact, mp.mpf(x))) for x in z.tolist()]
    # Torch's lgamma and the sums have a few roundings, of terms as large as z.
    eps = 16 * torch.finfo(dtype).eps
    reachable = [abs(e) < 1e6 for e in expected]  # where exp(−exp(z)) has any bearing
    for got, e, ok in zip(values.tolist(), expected, reachable, strict=True):
        if ok:
            assert abs(got - float(e)) <= eps * (10 + abs(float(e)) + 300)
        else:
            assert got < -1e5
    (gradient,) = torch.autograd.grad(values[tensor(reachable)].sum(), leaf)
    for got, e, ok in zip(gradient[:, 0].tolist(), slopes, reachable, strict=True):
        if ok:
            assert abs(got - e) <= 16 * eps * (1 + abs(e))


def integral(log_density: Tensor, z: Tensor) -> float:
    return float(torch.trapezoid(log_density.exp(), z))


GRID = torch.arange(-8000.0, 8000.0, 0.05, dtype=F64)


def one_success(a: float, b: float) -> None:
    x = pyro.sample("x", dist.Beta(a, b))
    pyro.sample("y", dist.Bernoulli(x), obs=tensor(1.0))


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (0.02, 0.1)])
def test_beta_with_its_mass_at_the_edges(a: float, b: float) -> None:
    """Given one success it is Beta(a + 1, b), and the evidence is a / (a + b)."""
    target = PyroTarget(one_success, a, b)
    log_p, x = target.log_prob(GRID[:, None]), target.constrain(GRID[:, None])["x"]
    evidence = integral(log_p, GRID)
    # At most 1e-6 of the mass is beyond the grid: exp(−0.02 · 8000) and less.
    assert math.log(evidence) == pytest.approx(math.log(a / (a + b)), abs=1e-5)
    mean = integral(log_p + x.log(), GRID) / evidence
    variance = integral(log_p + 2 * x.log(), GRID) / evidence - mean**2
    exact = torch.distributions.Beta(a + 1, b)
    assert mean == pytest.approx(exact.mean.item(), abs=1e-5)
    assert variance**0.5 == pytest.approx(exact.stddev.item(), abs=1e-5)


def no_count(fn: dist.Distribution) -> None:
    pyro.sample("y", dist.Poisson(pyro.sample("x", fn)), obs=tensor(0.0))


@pytest.mark.parametrize("a", [0.01, 0.03])
def test_gamma_whose_draws_underflow(a: float) -> None:
    """Without an event the evidence is (b / (b + 1))ᵃ."""
    target = PyroTarget(no_count, dist.Gamma(a, 0.01))
    leaf = GRID[:, None].clone().requires_grad_()
    log_p = target.log_prob(leaf)
    evidence = math.log(integral(log_p.detach(), GRID))
    assert evidence == pytest.approx(a * math.log(0.01 / 1.01), abs=1e-5)
    low = GRID < -710  # where exp(z) is 0
    (gradient,) = torch.autograd.grad(log_p[low].sum(), leaf)
    torch.testing.assert_close(gradient[low], torch.full_like(gradient[low], a))


@pytest.mark.parametrize("name", ["InverseGamma", "Weibull", "Kumaraswamy", "LKJ", "LogNormal"])
def test_the_prior_alone_integrates_to_one(name: str) -> None:
    make, _ = TAILS[name]
    target = PyroTarget(lambda: pyro.sample("x", make()), name=name)
    assert integral(target.log_prob(GRID[:, None]), GRID) == pytest.approx(1.0, abs=1e-5)


def test_dirichlet_does_not_depend_on_the_order_of_its_categories() -> None:
    a = t(0.05, 0.3, 0.8)
    order = [2, 0, 1]

    def model(a: Tensor, order: list[int]) -> None:
        shares = pyro.sample("x", dist.Dirichlet(a))
        pyro.sample("y", dist.Multinomial(2, shares), obs=t(2.0, 0.0, 0.0)[order])

    here, there = PyroTarget(model, a, [0, 1, 2]), PyroTarget(model, a[order], order)
    logs = t(-400.0, -0.5, -30.0)
    logs = logs - logs.logsumexp(0)
    densities = []
    for target, shares in ((here, logs), (there, logs[order])):
        x = shares.exp()[None]
        z = target.unconstrain({"x": x})
        torch.testing.assert_close(target.constrain(z)["x"], x, rtol=1e-10, atol=0.0)
        ladj = target.sites["x"].constrain(z)[1]
        densities.append(target.log_prob(z) - ladj)
    torch.testing.assert_close(*densities)


def test_a_scale_leaves_the_jacobian_alone() -> None:
    def model() -> None:
        with pyro.poutine.scale(scale=0.5):
            pyro.sample("x", dist.Gamma(2.0, 3.0))

    z = t(-1.0, 0.5)[:, None]
    expected = 0.5 * dist.Gamma(2.0, 3.0).log_prob(z.exp()) + z
    torch.testing.assert_close(PyroTarget(model).log_prob(z), expected[:, 0])


class Steeper(dist.Gamma):
    """A distribution of its own that happens to be derived from a known one."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - value


def test_a_subclass_with_another_density_keeps_it() -> None:
    assert log_space_density(Steeper(2.0, 1.0)) is None
    target = PyroTarget(lambda: pyro.sample("x", Steeper(2.0, 1.0)), name="steeper")
    expected = dist.Gamma(2.0, 1.0).log_prob(tensor(1.0)) - 1.0
    torch.testing.assert_close(target.log_prob(torch.zeros(1, 1))[0], expected)


def test_what_has_no_log_space_is_left_to_its_own_density() -> None:
    for fn in (dist.Normal(0.0, 1.0), dist.HalfNormal(1.0), dist.Normal(0.0, 1.0).to_event(0)):
        assert log_space_density(fn) is None


@pytest.mark.parametrize(
    ("fn", "inside", "outside"),
    [
        (lambda: dist.Beta(0.5, 0.5), [-300.0, 0.0, 35.0], [-800.0, 40.0]),
        (lambda: dist.Gamma(0.5, 0.5), [-700.0, 0.0, 700.0], [-800.0, 800.0]),
        (lambda: dist.HalfNormal(1.0), [-700.0, 0.0], [-800.0]),
        (lambda: dist.Uniform(100.0, 101.0), [-20.0, 0.0, 20.0], [-40.0, 40.0]),
        (lambda: dist.Pareto(1.0, 1.0), [-30.0, 0.0, 300.0], [-40.0, 800.0]),
        (lambda: dist.Dirichlet(torch.ones(2)), [-300.0, 0.0, 300.0], [-800.0, 800.0]),
        (lambda: dist.LKJCholesky(2, 1.0), [-100.0, 0.0, 100.0], [-500.0, 500.0]),
        (lambda: dist.LKJ(2, 1.0), [-10.0, 0.0, 10.0], [-40.0, 40.0]),
        (lambda: dist.Normal(0.0, 1.0), [-1e9, 0.0, 1e9], []),
    ],
    ids=lambda value: type(value()).__name__ if callable(value) else "",
)
def test_draws_on_an_edge(
    fn: Callable[[], dist.Distribution], inside: list[float], outside: list[float]
) -> None:
    def model() -> None:
        pyro.sample("location", dist.Normal(0.0, 1.0))
        pyro.sample("x", fn())

    target = PyroTarget(model)
    z = tensor([[0.0, x] for x in inside + outside], dtype=F64)
    assert target.on_edge(z).tolist() == [False] * len(inside) + [True] * len(outside)
    assert target.log_prob(z[: len(inside)]).isfinite().all()


def test_edges_of_float32_are_nearer() -> None:
    target = PyroTarget(lambda: pyro.sample("x", dist.Beta(tensor(0.5), tensor(0.5))), name="beta")
    z = torch.full((1, 1), 30.0)
    assert target.on_edge(z).tolist() == [False]
    torch.set_default_dtype(torch.float32)
    target = PyroTarget(lambda: pyro.sample("x", dist.Beta(tensor(0.5), tensor(0.5))), name="beta")
    assert target.on_edge(z.float()).tolist() == [True]
