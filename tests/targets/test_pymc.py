"""PyMC models: PyMC's own densities and gradients, and what ArviZ and PyMC go on with.

``FAST_COMPILE`` is PyTensor's mode that compiles in no time and is slow; users do not want it.
"""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

pm = pytest.importorskip("pymc")

from pymc.blocking import DictToArrayBijection, RaveledVars  # noqa: E402

from nfvi import NFVI, Fit, PyMCTarget, TargetError, as_target, nuts  # noqa: E402
from nfvi.targets import laplace, log_prob_and_score, numbers_per_point, pymc_functions  # noqa: E402
from tests.targets.pymc_models import MODELS, eight_schools  # noqa: E402

# Of PyTensor itself, at its first compilation.
pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation")

QUICK = "FAST_COMPILE"


@pytest.fixture(scope="module")
def schools() -> PyMCTarget:
    return PyMCTarget(eight_schools(), mode=QUICK)


@pytest.fixture(scope="module")
def normal() -> Any:
    """Two free normals with data, so that the posterior is normal, and known."""
    with pm.Model() as model:
        x = pm.Normal("x", [1.0, -1.0], [1.0, 2.0])
        pm.Normal("y", x.sum(), 0.5, observed=0.3)
    return model


def points(target: PyMCTarget, n: int = 4) -> torch.Tensor:
    return target._probes(n, torch.float64, torch.device("cpu"))


def own(model: Any) -> tuple[Any, Any, Any]:
    """PyMC's log-density and gradient of a flat vector, and the vector as a dict."""
    start = model.initial_point()
    layout = DictToArrayBijection.map({v.name: start[v.name] for v in model.value_vars})

    def point(z: np.ndarray) -> Any:
        return DictToArrayBijection.rmap(RaveledVars(z, layout.point_map_info))

    logp, dlogp = model.compile_logp(mode=QUICK), model.compile_dlogp(mode=QUICK)
    return lambda z: logp(point(z)), lambda z: dlogp(point(z)), point


def assert_as_pymc_has_it(model: Any, target: PyMCTarget) -> None:
    logp, dlogp, _ = own(model)
    z = points(target)
    value, gradient = log_prob_and_score(target, z)
    assert value.dtype == gradient.dtype == torch.float64
    np.testing.assert_allclose(value, [logp(row) for row in z.numpy()], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(gradient, [dlogp(row) for row in z.numpy()], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(target.log_prob(z), value, rtol=1e-10, atol=1e-10)


def compiled_slowly(name: str) -> Any:
    """Minutes of all of the tests, in a mode that is made for tests."""
    marks = [pytest.mark.slow] if name in {"covariance", "gaussian_process", "mixture"} else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [*map(compiled_slowly, MODELS)])
def test_density_and_gradient_are_those_of_pymc(name: str) -> None:
    model = MODELS[name]()
    assert_as_pymc_has_it(model, PyMCTarget(model, mode=QUICK))


def by_jax(name: str) -> None:
    pytest.importorskip("jax")
    model = MODELS[name]()
    target = PyMCTarget(model)
    assert_as_pymc_has_it(model, target)
    assert torch.equal(target.log_prob(points(target)), target.log_prob(points(target)))


@pytest.mark.parametrize("name", ["eight_schools", "covariance"])
def test_by_jax(name: str) -> None:
    by_jax(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "censored"])
def test_each_by_jax(name: str) -> None:
    by_jax(name)


def test_an_operation_that_jax_lacks(normal) -> None:
    """By PyTensor where it is left to us, and an error where JAX was asked for."""
    pytest.importorskip("jax")
    from pytensor.graph.op import Op

    class Opaque(Op):
        def make_node(self, x: Any) -> Any:
            from pytensor.graph.basic import Apply

            return Apply(self, [x], [x.type()])

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            outputs[0][0] = np.array(inputs[0])

        def grad(self, inputs: Any, gradients: Any) -> Any:
            return gradients

        pullback = None

    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Deterministic("twice", Opaque()(2 * x))
    target = PyMCTarget(model)
    assert target.constrain(torch.ones(3, 1))["twice"].tolist() == [2.0] * 3
    with pytest.raises(TargetError, match=r"cannot be run by JAX: NotImplementedError.*mode="):
        PyMCTarget(model, mode="JAX").constrain(torch.ones(3, 1))
    with model:
        pm.Potential("more", Opaque()(x))
    with pytest.raises(TargetError, match=r"^'PyMC model' cannot be run by JAX"):
        PyMCTarget(model, mode="JAX").log_prob(torch.ones(3, 1))


def test_sites_are_what_pm_sample_shows(schools) -> None:
    *_, point = own(schools.model)
    shown = [v for v in schools.model.unobserved_value_vars if not v.name.endswith("__")]
    known = schools.model.compile_fn(shown, mode=QUICK)
    z = points(schools)
    sites = schools.constrain(z)
    assert list(sites) == ["mu", "step", "tau", "theta"]
    for i, row in enumerate(z.numpy()):
        for value, site in zip(known(point(row)), sites.values(), strict=True):
            np.testing.assert_allclose(site[i], value, rtol=1e-12)
    assert schools.constrain(z.float())["theta"].dtype == torch.float32


def test_float32_is_float64_rounded(schools) -> None:
    z = points(schools)
    assert torch.equal(schools.log_prob(z.float()), schools.log_prob(z.float().double()).float())


def test_a_constant_and_a_whole_number_among_deterministics() -> None:
    with pm.Model() as model:
        x = pm.Normal("x", shape=2)
        pm.Deterministic("fixed", pm.math.constant(np.arange(3.0)))
        pm.Deterministic("positive", x > 0)
    sites = PyMCTarget(model, mode=QUICK).constrain(torch.tensor([[1.0, -1.0]] * 5))
    assert sites["fixed"].shape == (5, 3) and sites["fixed"][4].tolist() == [0, 1, 2]
    assert sites["positive"].dtype == torch.bool
    assert sites["positive"].tolist() == [[True, False]] * 5


def test_data_are_those_of_when_it_was_made(normal) -> None:
    with pm.Model() as model:
        y = pm.Data("y_data", [1.0, 2.0])
        pm.Normal("y", pm.Normal("x"), 1.0, observed=y)
    target = PyMCTarget(model, mode=QUICK)
    with model:
        pm.set_data({"y_data": [5.0, 6.0, 7.0]})
    z = torch.zeros(1, 1, dtype=torch.float64)
    later = PyMCTarget(model, mode=QUICK)
    half_log = 0.5 * np.log(2 * np.pi)
    assert float(target.log_prob(z)) == pytest.approx(-0.5 * 5 - 3 * half_log)
    assert float(later.log_prob(z)) == pytest.approx(-0.5 * 110 - 4 * half_log)
    assert target.observed_data["y"].tolist() == [1.0, 2.0]


def test_outside_of_a_range_one_point_is_minus_infinity() -> None:
    """Not all of its batch, and without an error."""
    with pm.Model() as model:
        pm.Normal("y", 0.0, pm.Normal("sigma"), observed=[1.0, 2.0])
    target = PyMCTarget(model, mode=QUICK)
    value = target.log_prob(torch.tensor([[1.0], [-1.0], [2.0]]))
    assert value.isfinite().tolist() == [True, False, True] and value[1] == -torch.inf


class TestRefused:
    def test_discrete_variables(self) -> None:
        with pm.Model() as model:
            pm.Normal("y", pm.Bernoulli("which", 0.5), 1.0, observed=[0.1, 0.9])
        with pytest.raises(TargetError, match=r"which;.*pymc_extras.marginalize\(model, \['which"):
            as_target(model)

    def test_nothing_to_infer(self) -> None:
        with pm.Model() as model:
            pm.Normal("y", 0.0, 1.0, observed=1.0)
        with pytest.raises(TargetError, match="no free random variable"):
            as_target(model)

    def test_arguments(self, normal) -> None:
        with pytest.raises(TargetError, match="takes no model arguments"):
            as_target(normal, 3)
        with pytest.raises(TargetError, match="dim=3 was given, but 'PyMC model' has dim=2"):
            as_target(normal, dim=3)
        with pytest.raises(TargetError, match=r"takes a pm.Model; got dict"):
            PyMCTarget({})

    def test_second_derivatives(self, normal) -> None:
        z = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        value = PyMCTarget(normal, mode=QUICK).log_prob(z).sum()
        (gradient,) = torch.autograd.grad(value, z, create_graph=True)
        with pytest.raises(RuntimeError, match="does not require grad"):
            torch.autograd.grad(gradient.sum(), z)


def test_what_is_no_evidence(schools) -> None:
    assert schools.evidence_caveats == ()
    (ordered,) = PyMCTarget(MODELS["ordinal"](), mode=QUICK).evidence_caveats
    assert ordered.startswith("cuts is ordered by its transform")
    with pm.Model() as model:
        pm.Potential("more", -(pm.Normal("x") ** 2))
    (potential,) = PyMCTarget(model, mode=QUICK).evidence_caveats
    assert potential.startswith("pm.Potential more is in the density")


def test_total_size_scales_the_likelihood() -> None:
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("x"), 1.0, observed=[1.0], total_size=10)
    value = PyMCTarget(model, mode=QUICK).log_prob(torch.zeros(1, 1, dtype=torch.float64))
    assert float(value) == pytest.approx(-5 - 11 * 0.5 * np.log(2 * np.pi))


def test_a_mode_that_is_none_is_refused_at_once() -> None:
    with pm.Model() as model:
        pm.Normal("x")
    with pytest.raises(TargetError, match=r"mode= must be one of .*'NUMBA'.*; got 'nope'"):
        PyMCTarget(model, mode="nope")


def test_a_flat_variable_is_warned_of() -> None:
    with pm.Model() as model:
        pm.Flat("free", shape=2)
        pm.Normal("x")
    target = PyMCTarget(model, mode=QUICK)
    assert target.prior_draws(5, 0) is None
    assert "free has no proper prior" in target.evidence_caveats[0]
    assert "no data" in target.evidence_caveats[1]
    with pytest.warns(UserWarning, match=r"improper: .* site 'free' \(0, 1 of 2\)"):
        target.check()


def test_prior_draws_are_unconstrained(schools) -> None:
    z = schools.prior_draws(300, 3)
    assert z.shape == (300, 10) and z.dtype == torch.float64
    assert torch.equal(z, schools.prior_draws(300, 3))
    sites = schools.constrain(z)
    # A median of 300 draws of a half-Cauchy is off by 5 · (π/2) / √300 = 0.45: four of these.
    assert float(sites["tau"].median()) == pytest.approx(5.0, abs=1.8)
    assert float(sites["mu"].std()) == pytest.approx(5.0, abs=1.0)


def test_the_curvature_is_by_differences(normal) -> None:
    target = PyMCTarget(normal, mode=QUICK)
    precision = torch.tensor([[1.0, 0.0], [0.0, 0.25]]) + 4.0
    tril = laplace(target, torch.zeros(2, dtype=torch.float64), torch.float64)
    assert torch.allclose(tril @ tril.T, precision.inverse().double(), atol=1e-6)


def test_work_is_counted(schools) -> None:
    assert numbers_per_point(schools, points(schools)) == schools.work > 100


def test_one_at_a_time_where_pytensor_cannot_vectorise(monkeypatch, normal) -> None:
    z = torch.randn(5, 2, dtype=torch.float64)
    expected = log_prob_and_score(PyMCTarget(normal, mode=QUICK), z)

    def refuse(*args: Any) -> None:
        raise NotImplementedError("no such thing")

    monkeypatch.setattr("pytensor.graph.replace.vectorize_graph", refuse)
    target = PyMCTarget(normal, mode=QUICK)
    with pytest.warns(
        UserWarning, match=r"one point at a time.*NotImplementedError: no such thing"
    ):
        target.check()
    assert target.batching == "loop"
    for found, known in zip(log_prob_and_score(target, z), expected, strict=True):
        assert torch.allclose(found, known)


def test_a_batch_in_pieces_is_the_same(monkeypatch, schools) -> None:
    z = points(schools, 11)
    expected = schools.log_prob(z)
    monkeypatch.setattr(pymc_functions, "points_at_once", lambda work, **_: 3)
    assert torch.equal(PyMCTarget(schools.model, mode=QUICK).log_prob(z), expected)


def test_threads_take_turns(schools) -> None:
    batches = [points(schools, n) for n in (2, 3, 5, 7)] * 5
    expected = [schools.log_prob(z) for z in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, known in zip(pool.map(schools.log_prob, batches), expected, strict=True):
            assert torch.equal(found, known)


def test_it_can_be_sent_to_another_process(schools) -> None:
    z = points(schools)
    again = pickle.loads(pickle.dumps(schools))
    assert again.prior_draws(3, 0) is not None
    assert torch.equal(again.log_prob(z), schools.log_prob(z))


@pytest.mark.cuda
def test_points_on_a_gpu(schools) -> None:
    z = points(schools).cuda().requires_grad_()
    value = schools.log_prob(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert value.device == gradient.device == z.device
    assert torch.allclose(value.cpu(), schools.log_prob(points(schools)))


@pytest.fixture(scope="module")
def fit(schools) -> Fit:
    fit = NFVI("scale-loc", seed=1).fit(schools, steps=100, n_mc=16, restarts=1, progress=False)
    fit.search(draws=1_000, starts=4)
    return fit


@pytest.fixture(scope="module")
def sampled(schools) -> Any:
    """What PyMC itself hands to ArviZ; of the prior, as that compiles in no time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"random_seed": 1, "compile_kwargs": {"mode": QUICK}}
        return pm.sample_prior_predictive(5, model=schools.model, **options)


class TestFit:
    def test_arviz_has_what_pymc_gives(self, fit, sampled) -> None:
        data = fit.to_arviz(50, seed=0)
        for group in ("posterior", "observed_data", "constant_data"):
            made, known = data[group], sampled[group.replace("posterior", "prior")]
            assert set(made.data_vars) == set(known.data_vars)
            for name in known.data_vars:
                assert made[name].dims == known[name].dims
                assert made[name].dtype == known[name].dtype
                for dim in made[name].dims[2 if group == "posterior" else 0 :]:
                    assert made[dim].values.tolist() == known[dim].values.tolist()
        np.testing.assert_array_equal(data["observed_data"]["y"], sampled["observed_data"]["y"])
        assert data["posterior"]["theta"].sel(school="Andover").shape == (1, 50)

    def test_pymc_goes_on_from_there(self, fit, schools) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = pm.sample_posterior_predictive(
                fit.to_arviz(50, seed=0),
                model=schools.model,
                progressbar=False,
                random_seed=0,
                compile_kwargs={"mode": QUICK},
            )
        y = predicted["posterior_predictive"]["y"]
        assert y.dims == ("chain", "draw", "school") and y.shape == (1, 50, 8)
        # y given theta is within five of its errors.
        error = schools.constant_data["error"]
        theta = fit.to_arviz(50, seed=0)["posterior"]["theta"]
        assert (abs(y - theta).values < 5 * error).all()
        # PyMC 5.28 has then noted y twice.
        PyMCTarget(schools.model)

    def test_likelihood_and_predictions(self, fit, schools) -> None:
        data = fit.to_arviz(200, seed=0, predictions=True)
        error = schools.constant_data["error"]
        y = schools.observed_data["y"]
        expected = torch.distributions.Normal(
            torch.as_tensor(data["posterior"]["theta"].values), torch.as_tensor(error)
        ).log_prob(torch.as_tensor(y))
        np.testing.assert_allclose(data["log_likelihood"]["y"].values, expected, rtol=1e-6)
        for draws, made in (("posterior", "posterior_predictive"), ("prior", "prior_predictive")):
            assert data[made]["y"].dims == ("chain", "draw", "school")
            noise = (data[made]["y"].values - data[draws]["theta"].values) / error
            # Five standard errors of 1 600 draws.
            assert noise.mean() == pytest.approx(0.0, abs=5 / 1600**0.5)
            assert noise.std() == pytest.approx(1.0, abs=5 / 3200**0.5)

    def test_a_file(self, fit, schools, tmp_path) -> None:
        fit.save(tmp_path / "fit.safetensors")
        again = Fit.load(tmp_path / "fit.safetensors", target=schools.model)
        assert isinstance(again.target, PyMCTarget)
        z = fit.weighted_draws(3, seed=0).z
        again.target.mode = QUICK
        assert torch.allclose(again.target.log_prob(z), fit.target.log_prob(z))

    def test_samplers_take_it(self, normal) -> None:
        target = PyMCTarget(normal, mode=QUICK)
        run = nuts(target, draws=100, warmup=100, chains=1, seed=0)
        precision = torch.tensor([[1.0, 0.0], [0.0, 0.25]], dtype=torch.float64) + 4.0
        mean = precision.inverse() @ torch.tensor([1.0 + 1.2, -0.25 + 1.2]).double()
        sd = precision.inverse().diagonal().sqrt()
        # 100 draws are worth 20 at the least: four standard errors.
        assert ((run.draws.mean((0, 1)) - mean).abs() < 4 * sd / 20**0.5).all()
        assert run.to_arviz()["posterior"]["x"].dims == ("chain", "draw", "x_dim_0")
