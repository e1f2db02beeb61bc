"""Named parameters: against Pyro models, Jacobians by autograd, and a known evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.utils._python_dispatch import TorchDispatchMode

from nfvi import (
    NFVI,
    LogDensity,
    NamedDensity,
    PyroTarget,
    Stop,
    as_target,
    compare_evidence,
    nuts,
)
from nfvi.errors import TargetError
from nfvi.targets.unchecked import unchecked

DTYPE = torch.float64
Y = torch.tensor([0.4, -1.1, 2.3], dtype=DTYPE)
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def double() -> Iterator[None]:
    """Numbers in float64 for the time of a test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    yield
    torch.set_default_dtype(before)


def points(target: NamedDensity, n: int = 7, scale: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return scale * torch.randn(n, target.dim, generator=generator, dtype=DTYPE)


def no_data(values: dict[str, Tensor]) -> Tensor:
    """A likelihood of 1, of a batch or of one point."""
    return 0 * next(iter(values.values())).sum()


PRIORS = {
    "Normal": lambda: dist.Normal(1.0, 2.0),
    "Normal, 3": lambda: dist.Normal(torch.zeros(3), 2.0),
    "Normal, event": lambda: dist.Normal(torch.zeros(2, 3), 2.0).to_event(1),
    "HalfNormal": lambda: dist.HalfNormal(5.0),
    "Gamma": lambda: dist.Gamma(torch.tensor([0.01, 3.0]), 2.0),
    "Beta": lambda: dist.Beta(0.05, 0.05),
    "Uniform": lambda: dist.Uniform(0.0, 6.28),
    "LogNormal": lambda: dist.LogNormal(0.0, 1.0),
    "VonMises": lambda: dist.VonMises(0.0, 2.0),
    "Dirichlet": lambda: dist.Dirichlet(torch.ones(3)),
    "LKJ": lambda: dist.LKJCholesky(3, 2.0),
    "MultivariateNormal": lambda: dist.MultivariateNormal(torch.zeros(2), 2 * torch.eye(2)),
    "torch": lambda: torch.distributions.StudentT(4.0),
}


@pytest.mark.parametrize("name", PRIORS)
def test_with_a_prior_it_is_the_pyro_model_of_it(name):
    """Far out in z, too, where values are rounded to an edge of their support."""

    def model():
        pyro.sample("x", PRIORS[name]() if name != "torch" else dist.StudentT(4.0))

    mine, other = NamedDensity(no_data, {"x": PRIORS[name]()}), PyroTarget(model)
    for z in (points(mine), points(mine, scale=40.0), points(mine, scale=1e3)):
        torch.testing.assert_close(mine.log_prob(z), other.log_prob(z))
        torch.testing.assert_close(mine.constrain(z)["x"], other.constrain(z)["x"])
        assert torch.equal(mine.on_edge(z), other.on_edge(z))


@pytest.mark.parametrize("name", PRIORS)
def test_no_prior_reads_a_number_of_the_device(name):
    """So that steps can be traced; the user's own distribution keeps its checks."""
    prior = PRIORS[name]()
    target = NamedDensity(no_data, {"x": prior})
    z = points(target, 5)
    expected = target.log_prob(z)  # the first call checks the function
    with NoReading():
        found = target.log_prob(z)
    assert torch.equal(found, expected)
    assert "_validate_args" not in vars(prior) or prior._validate_args
    with pytest.raises(ValueError, match="support"):
        prior.log_prob(torch.full(prior.batch_shape + prior.event_shape, torch.nan))


class NoReading(TorchDispatchMode):
    """No number of a tensor goes to Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_steps_with_priors_are_traced():
    found = NFVI("scale-loc", seed=0).fit(
        by_keyword_of_one_point,
        parameters={
            "mu": dist.Normal(torch.zeros(3), 2.0).to_event(1),
            "tau": dist.Gamma(2.0, 2.0),
        },
        steps=400,
        n_mc=8,
        restarts=1,
        progress=False,
        callbacks=[lambda state: Stop("enough") if state.step == 3 else None],
    )
    assert found.settings["evaluation"] == "traced"


def held(value) -> Iterator[Tensor]:
    """All tensors in a distribution or transform."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from held(part)
    elif isinstance(value, torch.distributions.Distribution | torch.distributions.Transform):
        yield from held([part for name, part in vars(value).items() if name != "_inv"])


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_goes_to_a_device_whole(name):
    prior = PRIORS[name]()
    there = list(held(unchecked(prior, torch.device("meta"))))
    assert there and all(x.device.type == "meta" for x in there)
    assert all(x.device.type == "cpu" for x in held(prior))


@pytest.mark.cuda
@pytest.mark.parametrize("name", PRIORS)
def test_priors_on_a_gpu(name):
    target = NamedDensity(no_data, {"x": PRIORS[name]()})
    z = points(target)
    found = target.log_prob(z.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), target.log_prob(z))
    assert target.constrain(z.cuda())["x"].is_cuda


SUPPORTS = {
    "3": (3, torch.Size([3])),
    "of NumPy": (np.int64(3), torch.Size([3])),
    "a shape": (torch.Size([2, 3]), torch.Size([2, 3])),
    "positive": ("positive", torch.Size()),
    "interval": ((-1.0, 6.28), torch.Size()),
    "above": ((2, None), torch.Size()),
    "below": ((None, -2), torch.Size()),
    "between 0 and 1": ((0, 1), torch.Size()),
    "a constraint": (constraints.greater_than(3.0), torch.Size()),
    "both": (("positive", 3), torch.Size([3])),
    "intervals": (((0, 2), (2, 2)), torch.Size([2, 2])),
    "ordered": (("ordered", 3), torch.Size([3])),
    "positive_ordered": (("positive_ordered", 3), torch.Size([3])),
    "lower_cholesky": (("lower_cholesky", (2, 2)), torch.Size([2, 2])),
    "simplex": (("simplex", 3), torch.Size([3])),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_without_one_there_is_the_jacobian_of_its_support(name):
    """By autograd, of the entries of the value that are free."""
    said, shape = SUPPORTS[name]
    target = NamedDensity(lambda x: (x**2).reshape(len(x), -1).sum(1), {"x": said}, batched=True)
    z = points(target, 1)
    value = target.constrain(z)["x"]
    assert value.shape == (1, *shape)

    def free(z: Tensor) -> Tensor:
        flat = target.constrain(z.unsqueeze(0))["x"].flatten()
        if name == "simplex":
            return flat[:-1]
        return flat[[0, 2, 3]] if name == "lower_cholesky" else flat

    jacobian = torch.autograd.functional.jacobian(free, z[0])
    expected = (value**2).sum() + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(target.log_prob(z)[0], expected)
    torch.testing.assert_close(target.unconstrain({"x": value}), z)


def by_keyword_of_a_batch(mu: Tensor, tau: Tensor) -> Tensor:
    return dist.Normal(mu, tau[:, None]).log_prob(Y).sum(-1)


def by_keyword_of_one_point(mu: Tensor, tau: Tensor) -> Tensor:
    return dist.Normal(mu, tau).log_prob(Y).sum()


def of_a_dict(values: dict[str, Tensor]) -> Tensor:
    return dist.Normal(values["mu"], values["tau"]).log_prob(Y).sum()


def open_ended(**values: Tensor) -> Tensor:
    return of_a_dict(values)


def with_an_extra(tau: Tensor, mu: Tensor, scale: float = 1.0) -> Tensor:
    return dist.Normal(mu, scale * tau).log_prob(Y).sum()


@pytest.mark.parametrize(
    "fn", [by_keyword_of_one_point, of_a_dict, open_ended, with_an_extra], ids=lambda f: f.__name__
)
def test_all_ways_to_take_the_values_are_one(fn):
    parameters = {"mu": 3, "tau": "positive"}
    target, other = NamedDensity(fn, parameters), NamedDensity(by_keyword_of_a_batch, parameters)
    z = points(target)
    torch.testing.assert_close(target.log_prob(z), other.log_prob(z))
    assert (other.batching, target.batching) == ("batch", "vmap")


def test_the_evidence_of_a_conjugate_model_is_exact():
    """y ~ N(mu, 1), mu ~ N(0, 2²): log N(y; 0, I + 4 · 11ᵀ)."""
    covariance = torch.eye(3) + 4.0
    exact = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(Y).item()

    def log_likelihood(mu):
        return dist.Normal(mu, 1.0).log_prob(Y).sum()

    priors = {"mu": dist.Normal(0.0, 2.0)}
    fit = NFVI("scale-loc", seed=0).fit(
        log_likelihood, parameters=priors, init="gaussian", steps=50, progress=False
    )
    assert fit.log_evidence == pytest.approx(exact, abs=0.01)
    assert fit.target.without_prior == () and "mu" in fit.summary().index
    run = nuts(log_likelihood, parameters=priors, draws=20, warmup=20, chains=1, seed=0)
    assert list(run.sites()) == ["mu"]


def test_draws_of_the_priors_know_their_scale():
    target = NamedDensity(no_data, {"a": dist.Normal(5.0, 0.1), "b": dist.HalfNormal(1e-3)})
    z = target.prior_draws(400, seed=0)
    assert z.shape == (400, 2) and float(z[:, 0].std()) == pytest.approx(0.1, rel=0.2)
    assert float(z[:, 1].mean()) == pytest.approx(math.log(1e-3) - 0.635, abs=0.3)
    assert torch.equal(z, target.prior_draws(400, seed=0))
    assert NamedDensity(no_data, {"a": 2}, batched=False).prior_draws(3, seed=0) is None


def test_an_evidence_without_priors_is_told_to_be_relative():
    flat = {"a": dist.Normal(0.0, 1.0).mask(False), "b": dist.Normal(0.0, 1.0)}
    target = NamedDensity(lambda a, b: -0.5 * (a - b) ** 2, flat)
    assert target.without_prior == ("a",)
    fits = {
        name: NFVI("scale-loc", seed=0).fit(target, steps=20, progress=False) for name in ("u", "v")
    }
    assert "no proper prior of a" in str(compare_evidence(fits))


WRONG = [
    ({}, "maps names to shapes, supports or priors"),
    ({"class": 1}, "'class' is a keyword of Python; call it otherwise, such as 'class_'"),
    ({"a b": 1}, "'a b' is no name in Python; names are of letters, digits and _"),
    ({3: 1}, "3 is no name in Python"),
    ({"x": "posetive"}, "parameter 'x': 'posetive' is no support; there are 'real', 'positive'"),
    ({"x": 0.5}, "parameter 'x': got 0.5; give a number of entries"),
    ({"x": True}, "parameter 'x': got True; give a number of entries"),
    ({"x": 0}, "parameter 'x': a shape is an integer of at least 1 or several; got 0"),
    ({"x": (2, 1)}, r"two numbers with low < high.*torch\.Size\(\(2, 1\)\)"),
    ({"x": (False, True)}, r"two numbers with low < high.*got \(False, True\)$"),
    ({"x": (torch.tensor(0.0), torch.tensor(1.0))}, "an interval is"),
    ({"x": "simplex"}, "needs a shape, as in"),
    ({"x": (dist.constraints.sphere, 3)}, "no smooth bijection leads from"),
    ({"x": ("positive_definite", (2, 3))}, r"no value of this support has shape \(2, 3\)"),
    ({"x": ("simplex", 1)}, r"no value of this support has shape \(1,\)"),
    ({"x": dist.Poisson(2.0)}, "Poisson is discrete"),
    ({"x": dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), probs=0.5)}, "are rounded"),
    ({"y": 1}, r"and with those of one point, y \(1,\), it raised TypeError.*test_named_density"),
    ({"x": 1, "y": 1}, "'f' takes x, and parameters= names x, y"),
]


@pytest.mark.parametrize(("parameters", "words"), WRONG)
def test_what_is_wrong_is_named(parameters, words):
    def f(x):
        return -(x**2).sum()

    with pytest.raises(TargetError, match=words):
        as_target(f, parameters=parameters).check()


def test_a_function_that_cannot_take_the_values_is_told_their_shapes():
    def f(mu, tau):
        return dist.Normal(mu, tau).log_prob(Y)

    words = (
        r"'f' cannot be used as a log-density of mu, tau\. Called with a batch of values,"
        r" mu \(5, 3\), tau \(5,\), .* Called with those of one point, mu \(3,\), tau \(\), it"
        r" returned shape \(3,\) in place of \(\)"
    )
    with pytest.raises(TargetError, match=words):
        NamedDensity(f, {"mu": 3, "tau": "positive"}).check()


def test_a_parameter_that_nothing_depends_on_is_named():
    with pytest.raises(TargetError, match=r"is improper: it does not depend on b, along which"):
        NamedDensity(lambda a, b: -(a**2), {"a": "real", "b": 2}).check()


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (LogDensity(lambda z: -(z**2).sum(-1), 2), {}, "has its own"),
        (no_data, {"dim": 3}, "dim=3 was given, but the parameters have dim=1"),
    ],
)
def test_what_does_not_go_with_parameters(target, options, words):
    with pytest.raises(TargetError, match=words):
        as_target(target, parameters={"x": "positive"}, **options)


@pytest.mark.parametrize("family", [dist.Gamma, dist.LogNormal, dist.Normal])
def test_float32_values_and_float64_priors(family):
    """The fit is then in float64, unless it is told otherwise."""
    prior = family(torch.tensor(2.0, dtype=DTYPE), torch.tensor(1.0, dtype=DTYPE))
    torch.set_default_dtype(torch.float32)
    target = NamedDensity(no_data, {"x": prior.expand([2]).to_event(1)})
    assert target.dtype == DTYPE
    assert target.log_prob(torch.zeros(2, 2, dtype=torch.float32)).dtype == torch.float32


def test_a_function_in_a_narrower_dtype_is_refused():
    with pytest.raises(TargetError, match=r"returned torch\.float32, which loses precision"):
        NamedDensity(lambda x: -(x.float() ** 2), {"x": dist.Normal(0.0, 1.0)}).check(DTYPE)
