"""The Pyro models of the zoo: sites, data, broadcasting, and evidence where it is known exactly."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

import models
from models.eight_schools import EFFECTS, LOG_EVIDENCE, STANDARD_ERRORS
from models.hierarchical_correlation import simulate_cafes
from models.linear_regression import diabetes
from models.logistic_regression import breast_cancer
from nfvi.errors import TargetError

SITES = {
    models.eight_schools: {"mu": 1, "tau": 1, "theta": 8},
    models.eight_schools_noncentered: {"mu": 1, "tau": 1, "eta": 8},
    models.logistic_regression: {"intercept": 1, "weights": 30},
    models.linear_regression: {"precision": 1, "intercept": 1, "weights": 10},
    models.hierarchical_correlation: {
        "alpha": 1,
        "beta": 1,
        "sigma": 1,
        "scale": 2,
        "correlation": 1,
        "effects": 40,
    },
}
IN_PLATE = {"theta", "eta", "weights", "effects"}
each_model = pytest.mark.parametrize("model", SITES, ids=lambda model: model.__name__)


def prior_draws(model: Callable[[], None], n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Latent values, each (n, *batch, *event), from the model run n times."""
    traces = [poutine.trace(model).get_trace() for _ in range(n)]
    return {
        site: torch.stack([trace.nodes[site]["value"] for trace in traces]).to(dtype)
        for site in SITES[model]
    }


def log_joint(model: Callable[[], None], values: dict[str, Tensor]) -> Tensor:
    """log p(y, values) at n points, one run of the model at a time: (n,)."""
    n = len(next(iter(values.values())))
    points = [{site: value[i] for site, value in values.items()} for i in range(n)]
    runs = [poutine.trace(poutine.condition(model, data=point)).get_trace() for point in points]
    return torch.stack([run.log_prob_sum() for run in runs])


def log_joint_batch(model: Callable[[], None], values: dict[str, Tensor]) -> Tensor:
    """The same in one run, with a plate to the left of the model's own."""
    n = len(next(iter(values.values())))
    shaped = {k: v if k in IN_PLATE else v.unsqueeze(1) for k, v in values.items()}

    def batched() -> None:
        with pyro.plate("draws", n, dim=-2):
            model()

    trace = poutine.trace(poutine.condition(batched, data=shaped)).get_trace()
    trace.compute_log_prob()
    return torch.stack([trace.nodes[site]["log_prob"].sum(-1) for site in [*values, "y"]]).sum(0)


@each_model
def test_models_run_without_arguments_and_have_their_sites(model: Callable[[], None]) -> None:
    trace = poutine.trace(model).get_trace()
    sites = {name: trace.nodes[name] for name in trace.stochastic_nodes}
    sizes = {
        name: biject_to(site["fn"].support).inv(site["value"]).numel()
        for name, site in sites.items()
        if not poutine.util.site_is_subsample(site)
    }
    assert sizes == SITES[model]
    assert "y" in trace.observation_nodes
    assert math.isfinite(trace.log_prob_sum().item())


def test_models_have_the_documented_dimensions() -> None:
    assert [sum(sites.values()) for sites in SITES.values()] == [10, 10, 31, 12, 46]


@each_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_models_broadcast_over_an_outer_plate(
    model: Callable[[], None], dtype: torch.dtype
) -> None:
    values = prior_draws(model, 4, dtype)
    batch = log_joint_batch(model, values)
    assert batch.dtype == dtype
    torch.testing.assert_close(batch, log_joint(model, values))


def test_models_take_data_as_arguments() -> None:
    x, y = torch.randn(7, 3), torch.ones(7)
    for model, args, sites in [
        (models.eight_schools, (y, y), {"theta": (7,)}),
        (models.eight_schools_noncentered, (y, y), {"eta": (7,)}),
        (models.logistic_regression, (x, y), {"weights": (3,)}),
        (models.linear_regression, (x, y), {"weights": (3,)}),
        (models.hierarchical_correlation, (torch.arange(7), y, y), {"effects": (7, 2)}),
    ]:
        trace = poutine.trace(model).get_trace(*args)
        assert {k: tuple(trace.nodes[k]["value"].shape) for k in sites} == sites
        assert torch.equal(trace.nodes["y"]["value"], y)


def test_part_of_the_data_is_refused() -> None:
    with pytest.raises(TargetError, match="both x and y"):
        models.logistic_regression(torch.zeros(3, 2))
    with pytest.raises(TargetError, match="both x and y"):
        models.linear_regression(y=torch.zeros(3))
    with pytest.raises(TargetError, match="all of group, x and y"):
        models.hierarchical_correlation(y=torch.zeros(3))


def test_eight_schools_has_rubins_numbers() -> None:
    assert EFFECTS.tolist() == [28, 8, -3, 7, -1, 1, 18, 12]
    assert STANDARD_ERRORS.tolist() == [15, 10, 16, 11, 9, 11, 10, 18]


def test_the_two_forms_of_eight_schools_differ_by_the_jacobian() -> None:
    values = prior_draws(models.eight_schools_noncentered, 5, torch.float64)
    mu, tau, eta = values["mu"], values["tau"], values["eta"]
    theta = mu.unsqueeze(-1) + tau.unsqueeze(-1) * eta
    centred = log_joint_batch(models.eight_schools, {"mu": mu, "tau": tau, "theta": theta})
    noncentred = log_joint_batch(models.eight_schools_noncentered, values)
    torch.testing.assert_close(noncentred, centred + 8 * tau.log())


def test_evidence_of_eight_schools_is_the_noted_one() -> None:
    """Given (μ, τ), θ is normal; that leaves the plane of μ and log τ to a trapezoidal rule."""
    axes = torch.arange(-40, 40, 0.5).double(), torch.arange(-20, 10, 0.1).double()
    mu, log_tau = torch.cartesian_prod(*axes).T
    tau = log_tau.exp()
    precision = STANDARD_ERRORS**-2 + tau.unsqueeze(-1) ** -2
    theta = (EFFECTS / STANDARD_ERRORS**2 + (mu / tau**2).unsqueeze(-1)) / precision
    joint = log_joint_batch(models.eight_schools, {"mu": mu, "tau": tau, "theta": theta})
    conditional = dist.Normal(theta, precision.rsqrt()).log_prob(theta).sum(-1)
    evidence = (joint - conditional + log_tau).logsumexp(0).item() + math.log(0.5 * 0.1)
    assert evidence == pytest.approx(LOG_EVIDENCE, abs=1e-5)


def test_linear_regression_posterior_and_evidence_are_exact() -> None:
    """p(y, θ) / p(θ | y) is the evidence at every θ."""
    posterior = models.linear_regression_posterior()
    values = posterior.sample(20, generator=torch.Generator().manual_seed(8))
    beta = torch.cat([values["intercept"].unsqueeze(-1), values["weights"]], dim=-1)
    gamma = dist.Gamma(*torch.tensor([posterior.shape, posterior.rate]).double())
    inner = values["precision"].reshape(-1, 1, 1) * posterior.inner_precision
    normal = dist.MultivariateNormal(posterior.mean, precision_matrix=inner)
    log_posterior = gamma.log_prob(values["precision"]) + normal.log_prob(beta)
    evidence = log_joint_batch(models.linear_regression, values) - log_posterior
    expected = torch.full_like(evidence, posterior.log_evidence)
    # The model's own prior constants are float32, which costs some 1e-7 of their log-density.
    torch.testing.assert_close(evidence, expected, atol=2e-6, rtol=0)


def test_linear_regression_posterior_draws_have_its_moments() -> None:
    """Within five standard errors: over 135 statistics, a false alarm once in 13 000 seeds."""
    n = 100_000
    posterior = models.linear_regression_posterior()
    values = posterior.sample(n, generator=torch.Generator().manual_seed(9))
    precision = values["precision"]
    beta = torch.cat([values["intercept"].unsqueeze(-1), values["weights"]], dim=-1)
    offset = (beta - posterior.mean) * precision.sqrt().unsqueeze(-1)
    squares = offset.unsqueeze(-1) * offset.unsqueeze(-2)
    mean = posterior.shape / posterior.rate
    for found, expected in [
        (precision, torch.tensor(mean)),
        ((precision - mean).square(), torch.tensor(mean / posterior.rate)),
        (offset, torch.zeros(11)),
        (squares, torch.linalg.inv(posterior.inner_precision)),
    ]:
        error = found.std(0) / math.sqrt(n)
        assert bool(((found.mean(0) - expected).abs() < 5 * error).all())


def test_data_are_standardised_and_complete() -> None:
    for (x, y), shape in [(breast_cancer(), (569, 30)), (diabetes(), (442, 10))]:
        assert tuple(x.shape) == shape
        assert tuple(y.shape) == shape[:1]
        assert x.dtype == y.dtype == torch.float64
        torch.testing.assert_close(x.square().mean(0), torch.ones_like(x[0]))
        assert x.mean(0).abs().max().item() < 1e-12
    assert breast_cancer()[1].sum().item() == 357  # benign


def test_simulated_cafes_come_from_their_seed_alone() -> None:
    group, x, y = simulate_cafes(4, 6, seed=1)
    assert group.unique(return_counts=True)[1].tolist() == [6] * 4
    assert x.mean().item() == 0.5
    assert torch.equal(y, simulate_cafes.__wrapped__(4, 6, seed=1)[2])
    assert not torch.equal(y, simulate_cafes(4, 6, seed=2)[2])


@pytest.mark.parametrize("loader", [breast_cancer, diabetes], ids=["breast_cancer", "diabetes"])
def test_missing_scikit_learn_is_named(
    loader: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        loader.__wrapped__()
