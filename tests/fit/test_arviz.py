"""A fit in ArviZ: all groups, its functions without a warning, and cross-validation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from models import pot1
from models.eight_schools import EFFECTS, STANDARD_ERRORS
from nfvi import NFVI, Fit, MCMCRun, PyroTarget
from nfvi.errors import FitError, TargetError
from nfvi.fit.approximation import Approximation
from nfvi.fit.diagnostics import WeightedDraws
from nfvi.utils import psislw


@pytest.fixture(scope="module")
def az() -> Any:
    pytest.importorskip("matplotlib")
    import matplotlib

    matplotlib.use("Agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz")


def schools(y: Tensor, sigma: Tensor) -> None:
    """Eight schools with a known spread between them: a Gaussian posterior."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + 3 * eta)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def fitted(formula: str, **options: Any) -> Fit:
    target = PyroTarget(schools, EFFECTS.float(), STANDARD_ERRORS.float())
    return NFVI(formula, seed=1).fit(target, restarts=1, **options)


@pytest.fixture(scope="module")
def fit() -> Fit:
    """The exact posterior, from Laplace's approximation."""
    fit = fitted("tril-loc", steps=2, init="laplace", lr=1e-6)
    fit.search(draws=2_000)  # a short one, in place of the verdict's own
    return fit


@pytest.fixture(scope="module")
def data(fit: Fit) -> Any:
    return fit.to_arviz(2000, seed=0, predictions=True)


class TestGroups:
    def test_names_of_dimensions(self, data: Any) -> None:
        assert data["posterior"]["theta"].dims == ("chain", "draw", "schools")
        assert data["log_likelihood"]["y"].dims == ("chain", "draw", "schools")
        assert data["observed_data"]["y"].dims == ("schools",)
        assert data["constant_data"]["sigma"].shape == (8,)

    def test_weights_are_those_of_the_draws(self, fit: Fit, data: Any) -> None:
        draws = fit.weighted_draws(2000, seed=0)
        found = data["sample_stats"]["importance_weights"].values[0]
        np.testing.assert_allclose(found, draws.log_weights.exp(), rtol=1e-6)
        assert found.sum() == pytest.approx(1.0)

    def test_likelihood_of_the_very_draws(self, data: Any) -> None:
        posterior = data["posterior"]
        theta, sigma = posterior["theta"].values, data["constant_data"]["sigma"].values
        y = data["observed_data"]["y"].values
        expected = torch.distributions.Normal(torch.as_tensor(theta), torch.as_tensor(sigma))
        np.testing.assert_allclose(
            data["log_likelihood"]["y"].values, expected.log_prob(torch.as_tensor(y)), rtol=1e-4
        )

    def test_predictions_scatter_about_their_own_draws(self, data: Any) -> None:
        sigma = data["constant_data"]["sigma"].values
        for draws, made in (("posterior", "posterior_predictive"), ("prior", "prior_predictive")):
            noise = (data[made]["y"].values - data[draws]["theta"].values) / sigma
            # Five standard errors of 16 000 draws.
            assert noise.mean() == pytest.approx(0.0, abs=5 / 16_000**0.5)
            assert noise.std() == pytest.approx(1.0, abs=5 / 32_000**0.5)
        mu = data["prior"]["mu"].values
        assert mu.std() == pytest.approx(5.0, abs=5 * 5 / 4_000**0.5)
        assert not np.allclose(data["posterior"]["mu"].values, mu)

    def test_labels(self, fit: Fit) -> None:
        data = fit.to_arviz(
            5, seed=0, dims={"theta": ["place"]}, coords={"place": list("ABCDEFGH")}
        )
        assert data["posterior"]["theta"]["place"].values.tolist() == list("ABCDEFGH")
        assert data["posterior"]["eta"].dims[-1] == "schools"

    def test_groups_on_demand_are_left_out(self, fit: Fit) -> None:
        data = fit.to_arviz(5, seed=0, log_likelihood=False)
        for group in ("log_likelihood", "posterior_predictive", "prior", "prior_predictive"):
            with pytest.raises(KeyError):
                data[group]

    def test_a_site_may_be_called_as_a_statistic(self) -> None:
        def model(y: Tensor) -> None:
            with pyro.plate("rows", len(y)):
                lp = pyro.sample("lp", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(lp, 1.0), obs=y)

        target = PyroTarget(model, torch.zeros(3))
        data = NFVI("scale-loc", seed=1).fit(target, steps=5, restarts=1).to_arviz(4, seed=0)
        assert data["posterior"]["lp"].shape == (1, 4, 3)
        assert data["sample_stats"]["lp"].shape == (1, 4)

    def test_a_function_has_no_observations(self) -> None:
        fit = NFVI("scale-loc", seed=1).fit(pot1, steps=5, restarts=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fit is not to be trusted
            data = fit.to_arviz(5)
            with pytest.raises(KeyError):
                data["log_likelihood"]
            with pytest.raises(TargetError, match=r"observations cannot be told apart"):
                fit.loo(100)
            with pytest.raises(TargetError, match="no prior"):
                fit.to_arviz(5, predictions=True)


# ArviZ 0.23 calls functions of Matplotlib and pandas in ways that newer ones deprecate.
@pytest.mark.filterwarnings(
    "ignore:Passing a dict or None as alias_mapping", "ignore:The inplace keyword"
)
class TestArvizWorksOnIt:
    def test_summary(self, data: Any, az: Any) -> None:
        table = az.summary(data, var_names=["mu", "theta"], kind="stats")
        assert list(table.index) == ["mu", *(f"theta[{j}]" for j in range(8))]

    def test_loo(self, data: Any, az: Any) -> None:
        found = az.loo(data)
        elpd = found.elpd_loo if _old(az) else found.elpd
        assert float(elpd) == pytest.approx(exact_elpd(), abs=0.1)

    def test_plots(self, data: Any, az: Any) -> None:
        import matplotlib.pyplot as plt

        az.plot_pair(data, var_names=["mu", "eta"], coords={"schools": [0, 1]})
        if _old(az):
            az.plot_ppc(data, num_pp_samples=20)
            az.plot_ppc(data, group="prior", num_pp_samples=20)
        else:
            az.plot_ppc_dist(data)
        plt.close("all")

    def test_compare(self, data: Any, az: Any) -> None:
        table = az.compare({"one": data, "other": data})
        assert sorted(table.index) == ["one", "other"]


def radon(county: Tensor, floor: Tensor, y: Tensor) -> None:
    """Counties that share a mean, and an effect of the floor."""
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.LogNormal(-0.5, 0.3))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.LogNormal(-0.5, 0.3))
    with pyro.plate("counties", 6):
        level = pyro.sample("level", dist.Normal(mean, spread))
    with pyro.plate("houses", len(y)):
        pyro.sample("y", dist.Normal(level[county] + effect * floor, noise), obs=y)


def logistic(x: Tensor, y: Tensor) -> None:
    with pyro.plate("columns", 2):
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def houses() -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    county, floor = torch.arange(60) % 6, torch.arange(60) % 5 == 0
    noise = torch.randn(60, generator=stream)
    return county, floor.float(), 0.2 * county - 0.7 * floor + 0.6 * noise


def outcomes() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=stream)
    return x, (torch.rand(60, generator=stream) < (x[:, 0] - x[:, 1]).sigmoid()).float()


def as_run(fit: Fit) -> MCMCRun:
    """Draws of a fit that is good, as if chains had made them."""
    draws = torch.stack([fit.guide.sample(250) for _ in range(4)])
    return MCMCRun(
        target=fit.target, kernel="NUTS", draws=draws, starts=draws[:, 0],
        diverging=torch.zeros(4, 250, dtype=torch.bool),
        draw_gradients=torch.ones(4, 250, dtype=torch.int64), accept=torch.ones(4),
        step_size=torch.ones(4), warmup=10, seed=1, gradient_evaluations=1000, wall_time=1.0,
        warmup_time=0.5, sampling_time=0.5, max_gradients=1023,
    )  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:Passing a dict or None as alias_mapping", "ignore:The inplace keyword"
)
@pytest.mark.parametrize("name", ["schools", "radon", "logistic"])
def test_arviz_works_on_fits_and_on_chains(name: str, fit: Fit, az: Any) -> None:
    """Cross-validation and predictive checks, without a warning."""
    import matplotlib.pyplot as plt

    if name != "schools":
        model, data = (radon, houses()) if name == "radon" else (logistic, outcomes())
        fit = NFVI("tril-loc", seed=1).fit(
            PyroTarget(model, *data), init="gaussian", steps=2, lr=1e-6, restarts=1, progress=False
        )
        fit.search(draws=500)
    run = as_run(fit)
    found = []
    for tree in (fit.to_arviz(1000, seed=0, predictions=True), run.to_arviz(predictions=True)):
        loo = az.loo(tree)
        found.append(float(loo.elpd_loo if _old(az) else loo.elpd))
        if _old(az):
            az.plot_ppc(tree, num_pp_samples=10)
        elif name == "logistic":
            az.plot_ppc_pava(tree)  # what ArviZ asks for where data are 0 and 1
        else:
            az.plot_ppc_dist(tree)
        plt.close("all")
        assert set(tree["constant_data"]) == set(fit.target.constant_data)
    assert tree["log_likelihood"]["y"].shape == (4, 250, len(fit.target.observed_data["y"]))
    assert tree["posterior_predictive"]["y"].dims == tree["log_likelihood"]["y"].dims
    # Both have 1 000 draws, and the error of either is below a tenth.
    assert found[0] == pytest.approx(found[1], abs=0.5)
    assert "log_likelihood" not in _groups(run.to_arviz(log_likelihood=False))


def _groups(tree: Any) -> set[str]:
    return (
        set(tree.groups())
        if hasattr(tree, "groups") and callable(tree.groups)
        else {name.strip("/") for name in tree.groups}
    )


def exact_elpd() -> float:
    """Σ log p(y_j | the others): y is Gaussian with covariance diag(σ²) + 9 I + 25."""
    covariance = (STANDARD_ERRORS.square() + 9).diag() + 25
    precision = covariance.inverse()
    # Rasmussen and Williams, Gaussian processes for machine learning, 2006, (5.10) to (5.12).
    variance = 1 / precision.diagonal()
    mean = EFFECTS - (precision @ EFFECTS) * variance
    return float(dist.Normal(mean, variance.sqrt()).log_prob(EFFECTS).sum())


def _old(az: Any) -> bool:
    return bool(az.__version__.startswith("0"))


class TestLoo:
    def test_it_is_psis_of_both_ratios(self, fit: Fit, data: Any) -> None:
        found = fit.loo(2000, seed=0)
        assert found.approx_posterior
        likelihood = data["log_likelihood"]["y"].values[0].astype(float)
        draws = fit.weighted_draws(2000, seed=0)
        ratio = (draws.log_p - draws.log_q).double().numpy()
        expected = []
        for terms in likelihood.T:
            smoothed, _ = psislw(ratio - terms)
            expected.append(np.log(np.exp(smoothed + terms).sum()))
        np.testing.assert_allclose(found.elpd_i.values, expected, rtol=1e-3)
        assert found.elpd_i.dims == ("schools",)

    def test_it_is_that_of_the_exact_posterior(self, fit: Fit) -> None:
        assert fit.loo(seed=0).elpd == pytest.approx(exact_elpd(), abs=0.1)

    def test_it_corrects_a_guide_that_is_off(self, az: Any) -> None:
        off = fitted("scale-loc", steps=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of k-hat, which is what is to be told
            assert off.loo(20_000, seed=0).elpd == pytest.approx(exact_elpd(), abs=0.1)

    def test_a_masked_observation_is_none(self) -> None:
        def model(y: Tensor) -> None:
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("n", 9), pyro.poutine.mask(mask=torch.arange(9) % 3 > 0):
                pyro.sample("y", dist.Normal(a, 1.0), obs=y)

        target = PyroTarget(model, torch.zeros(9))
        fit = NFVI("scale-loc", seed=1).fit(target, steps=2, restarts=1, init="laplace", lr=1e-6)
        assert fit.loo(1000, seed=0).n_data_points == 6

    def test_wrong_names_are_told_the_sites(self, fit: Fit) -> None:
        with pytest.raises(ValueError, match="var_name= must be one of the observed sites 'y'"):
            fit.loo(100, var_name="x")

    def test_a_draw_without_density_is_an_error(
        self, fit: Fit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(self: Approximation, n: int, *, seed: int | None = None) -> WeightedDraws:
            z = torch.zeros(n, 9)
            values = torch.zeros(n)
            return WeightedDraws(
                z, values.index_fill(0, torch.tensor([0]), -torch.inf), values, values, 0.1
            )

        monkeypatch.setattr(Approximation, "weighted_draws", broken)
        with pytest.raises(FitError, match="no finite log-density"):
            fit.loo(100)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"predictions": "yes"}, "predictions must be True or False, got 'yes'"),
        ({"log_likelihood": 1}, "log_likelihood must be True or False, got 1"),
        ({"dims": 3}, "dims= takes a dict, got 3"),
        ({"dims": {"no": ["a"]}}, "dims= names 'no'; the sites are mu, eta, theta, y"),
        ({"dims": {"eta": "school"}}, r"a list of 1 names for 'eta', whose shape is \(8,\)"),
        ({"dims": {"mu": ["a"]}}, r"a list of 0 names for 'mu', whose shape is \(\)"),
        ({"coords": {"no": "ab"}}, "coords= names the dimension 'no'; there are schools"),
        ({"coords": {"schools": "ab"}}, "coords= has 2 labels for 'schools', which is 8 long"),
    ],
)
def test_labels_that_do_not_fit(options: dict[str, Any], text: str) -> None:
    target = PyroTarget(schools, EFFECTS, STANDARD_ERRORS)
    fit = NFVI("scale-loc", seed=1).fit(target, steps=2, restarts=1)
    with pytest.raises(ValueError, match=text):
        fit.to_arviz(5, **options)
