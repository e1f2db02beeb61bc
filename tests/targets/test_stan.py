"""Stan models: a real one that httpstan builds and keeps, and a stand-in for one of BridgeStan."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import types
from importlib.machinery import EXTENSION_SUFFIXES

import numpy as np
import pytest
import torch
import torch.distributions as td

from nfvi import NFVI, StanTarget, TargetError
from nfvi.targets import stan_builds, stan_files, stan_held, stan_httpstan
from nfvi.targets.stan_httpstan import HttpstanModel

NORMALS = """
data {
  int<lower=0> N;
  vector[N] y;
}
parameters {
  real mu;
  real<lower=0> sigma;
  simplex[3] share;
  matrix[2, 3] w;
}
transformed parameters {
  vector[2] ends = [mu - sigma, mu + sigma]';
}
model {
  // "~" leaves constants out by PyStan's own functions
  target += normal_lpdf(mu | 0, 5) + exponential_lpdf(sigma | 1);
  target += dirichlet_lpdf(share | [1, 2, 3]') + normal_lpdf(to_vector(w) | 0, 1);
  y ~ normal(mu, sigma);
}
generated quantities {
  real y_new = normal_rng(mu, sigma);
}
"""
Y = np.array([1.0, 2.5, 0.3, 1.7])


class Bridge:
    """What StanTarget uses of a bridgestan.StanModel: N(1, diag(4, 1)), the second as exp."""

    lib_path, data = "model.so", "{}"

    def __init__(self, info: str = "STAN_THREADS=true") -> None:
        self.info, self.asked = info, []

    def name(self) -> str:
        return "bridge_model"

    def model_info(self) -> str:
        return self.info

    def param_unc_num(self) -> int:
        return 2

    def param_names(self, include_tp: bool) -> list[str]:
        assert include_tp
        return ["a", "b.1.1", "b.2.1", "b.1.2", "b.2.2", "c.real", "c.imag", "t:1.1", "t:1.2"]

    def log_density(self, point, *, propto, jacobian) -> float:
        return self.log_density_gradient(point, propto=propto, jacobian=jacobian)[0]

    def log_density_gradient(self, point, *, propto, jacobian):
        assert (propto, jacobian) == (False, True)
        assert point.dtype == np.float64
        if point[0] > 50:
            raise RuntimeError("scale is nan")
        self.asked.append(point)
        sd = np.array([2.0, 1.0])
        value = -0.5 * (((point - 1) / sd) ** 2).sum() - np.log(sd).sum() - np.log(2 * np.pi)
        return value, -(point - 1) / sd**2

    def param_constrain(self, point, *, include_tp):
        return np.array([point[0], 11.0, 21.0, 12.0, 22.0, 0.1, 0.2, 0.3, np.exp(point[1])])


def exact(z: torch.Tensor) -> torch.Tensor:
    return td.Normal(torch.ones(2).to(z), torch.tensor([2.0, 1.0]).to(z)).log_prob(z).sum(1)


class TestBridge:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("info", ["STAN_THREADS=true", "STAN_THREADS=false"])
    def test_density_and_gradient(self, dtype, info, monkeypatch):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        target = StanTarget(Bridge(info))
        z = torch.randn(40, 2, dtype=dtype, requires_grad=True)
        value = target.log_prob(z)
        assert value.dtype == dtype
        torch.testing.assert_close(value, exact(z))
        (gradient,) = torch.autograd.grad(value.sum(), z)
        torch.testing.assert_close(gradient, torch.autograd.grad(exact(z).sum(), z)[0])
        with torch.no_grad():
            torch.testing.assert_close(target.log_prob(z), exact(z))
        assert target.log_prob(z[:0]).shape == (0,)

    def test_sites(self):
        """Scalars by their indices: the last index is the slowest."""
        target = StanTarget(Bridge(), name="mine")
        assert (target.name, target.dim, target.dtype) == ("mine", 2, torch.float64)
        assert target.batching == "batch"
        found = target.constrain(torch.tensor([[1.0, 0.0], [2.0, 1.0]]))
        assert {key: tuple(x.shape) for key, x in found.items()} == {
            "a": (2,),
            "b": (2, 2, 2),
            "c.real": (2,),
            "c.imag": (2,),
            "t:1": (2, 2),
        }
        assert found["b"][0].tolist() == [[11.0, 12.0], [21.0, 22.0]]
        torch.testing.assert_close(found["t:1"][:, 1], torch.tensor([1.0, np.e]))

    def test_a_point_that_the_model_rejects(self):
        target = StanTarget(Bridge())
        z = torch.tensor([[60.0, 0.0], [1.0, 1.0]], requires_grad=True)
        value = target.log_prob(z)
        assert value[0] == -torch.inf
        assert torch.isfinite(value[1])
        assert torch.autograd.grad(value[1], z)[0][0].tolist() == [0.0, 0.0]

    def test_a_fit(self):
        fit = NFVI("scale-loc", seed=0).fit(
            StanTarget(Bridge()), steps=200, restarts=1, lr=0.05, progress=False
        )
        assert abs(fit.log_evidence) < 0.02
        assert fit.sample(10)["b"].shape == (10, 2, 2)

    def test_it_is_opened_again_in_another_process(self, monkeypatch):
        opened = []
        module = types.ModuleType("bridgestan")
        module.StanModel = lambda *a, **k: opened.append((a, k)) or Bridge()
        monkeypatch.setitem(sys.modules, "bridgestan", module)
        target = StanTarget(Bridge())
        z = torch.randn(3, 2)
        torch.testing.assert_close(pickle.loads(pickle.dumps(target)).log_prob(z), exact(z))
        assert opened == [(("model.so", "{}"), {"capture_stan_prints": False})]

    def test_a_compiled_model_and_its_data(self, monkeypatch, tmp_path):
        opened = []
        module = types.ModuleType("bridgestan")
        module.StanModel = lambda *a, **k: opened.append((a, k)) or Bridge()
        monkeypatch.setitem(sys.modules, "bridgestan", module)
        path, data = tmp_path / "bridge_model.so", tmp_path / "data.json"
        path.write_bytes(b"")
        data.write_text('{"N": 2}')
        StanTarget(path, {"y": torch.ones(2), "N": np.int64(2), "x": [True, False]})
        StanTarget(str(path), data)
        assert [json.loads(a[1]) for a, _ in opened] == [
            {"y": [1.0, 1.0], "N": 2, "x": [1, 0]},
            {"N": 2},
        ]


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (3, None, "takes the path of a .stan file"),
        ("no such.stan", None, "there is no file 'no such.stan'"),
        (NORMALS, None, "write the program to a file"),
        (Bridge(), {"y": 1}, "has its data already"),
        (__file__, [1, 2], "data= is a dict"),
        (__file__, {"y": ["a"]}, "data['y'] must be numbers"),
        (__file__, {"y": [[1], [1, 2]]}, "data['y'] is ragged"),
    ],
)
def test_what_cannot_be_opened(model, data, message):
    with pytest.raises(TargetError) as caught:
        StanTarget(model, data)
    assert message in str(caught.value)


def test_without_the_extra(monkeypatch, tmp_path):
    path = tmp_path / "model.stan"
    path.write_text(NORMALS)
    monkeypatch.setattr(stan_files, "_is_installed", lambda package: False)
    with pytest.raises(ImportError, match=r"BridgeStan or PyStan.*nfvi\[stan\]"):
        StanTarget(path, {"N": 4, "y": Y})


def test_a_model_without_density():
    class Rejecting(Bridge):
        def log_density(self, point, **options):
            raise RuntimeError("sigma is -1,\n  but must be positive")

    with pytest.raises(TargetError, match=r"point tried\. Stan says: sigma is -1, but"):
        StanTarget(Rejecting()).check()


def test_an_improper_model():
    class Flat(Bridge):
        def log_density_gradient(self, point, **options):
            return -(point[0] ** 2), np.array([-2 * point[0], 0.0])

    with pytest.raises(TargetError, match=r"unconstrained parameters 1 \(counted from 0, of 2\)"):
        StanTarget(Flat()).check()


class TestBuilding:
    """By a stand-in for httpstan, which builds at once."""

    @pytest.fixture
    def httpstan(self, monkeypatch, tmp_path):
        self.kept, self.built = {}, []
        self.file = tmp_path / f"module{EXTENSION_SUFFIXES[0]}"

        async def build(program, options):
            assert options[-2:] == ["-include", str(stan_builds.FUNCTIONS)]
            assert stan_builds.FUNCTIONS.is_file()
            self.built.append(program)
            self.file.write_bytes(b"... nfvi_densities ...")
            return "said by the compiler"

        def module_of(key):
            if not self.file.exists():
                raise KeyError(key)
            return "module"

        def compile(program, name):
            if "wrong" in program:
                raise subprocess.TimeoutExpired("stanc", 1)
            return "C++", f"said of {name}"

        models = types.SimpleNamespace(
            calculate_model_name=lambda program: "models/abc",
            import_services_extension_module=module_of,
            build_services_extension_module=build,
        )
        cache = types.SimpleNamespace(
            model_directory=lambda key: str(tmp_path),
            dump_stanc_warnings=lambda text, key: self.kept.update({("stanc", key): text}),
            dump_services_extension_module_compiler_output=lambda text, key: self.kept.update(
                {("compiler", key): text}
            ),
        )
        package = types.SimpleNamespace(
            models=models, cache=cache, compile=types.SimpleNamespace(compile=compile)
        )
        monkeypatch.setattr(stan_builds, "_httpstan", lambda: package)

    def test_all_is_kept_that_pystan_reads_of_a_built_model(self, httpstan):
        assert stan_builds.built("program", "name") == "module"
        assert self.kept == {
            ("stanc", "models/abc"): "said of model_abc",
            ("compiler", "models/abc"): "said by the compiler",
        }
        stan_builds.built("program", "name")
        assert self.built == ["program"]

    def test_what_pystan_built_alone_is_built_again_for_a_file(self, httpstan):
        self.file.write_bytes(b"by PyStan")
        assert stan_builds.built("program", "name") == "module"
        assert not stan_builds.is_built_with_functions("program")
        assert not self.built
        for _ in range(2):
            path = stan_builds.built_library("program", "name")
            # PyStan's may be loaded, and a name that is loaded is not opened again.
            assert path != str(self.file)
            assert self.file.samefile(path)
        assert self.built == ["program"]
        assert stan_builds.is_built_with_functions("program")

    def test_a_compiler_that_runs_out_of_time(self, httpstan):
        with pytest.raises(TargetError, match=r"could not compile 'name': .*timed out"):
            stan_builds.built("wrong", "name")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")
class TestHttpstan:
    """Built in a minute or two, and kept by httpstan for the next run."""

    @pytest.fixture
    def target(self, tmp_path) -> StanTarget:
        pytest.importorskip("httpstan")
        path = tmp_path / "normals.stan"
        path.write_text(NORMALS)
        return StanTarget(path, {"N": 4, "y": Y})

    def test_density_gradient_and_sites(self, target):
        assert (target.name, target.dim, target.batching) == ("normals", 10, "batch")
        assert target.sites == {"mu": (), "sigma": (), "share": (3,), "w": (2, 3), "ends": (2,)}
        z = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
        values = {key: x.detach() for key, x in target.constrain(z).items()}
        mu, sigma = z[:, 0], z[:, 1].exp()
        torch.testing.assert_close(values["sigma"], sigma.detach())
        torch.testing.assert_close(
            values["ends"], torch.stack([mu - sigma, mu + sigma], 1).detach()
        )
        torch.testing.assert_close(values["w"], z[:, 4:].detach().reshape(5, 3, 2).mT)
        y = torch.from_numpy(Y)
        priors = td.Normal(0.0, 5.0).log_prob(mu) + td.Exponential(1.0).log_prob(sigma) + z[:, 1]
        normals = td.Normal(0.0, 1.0).log_prob(z[:, 4:]).sum(1)
        data = td.Normal(mu[:, None], sigma[:, None]).log_prob(y).sum(1)
        concentration = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        simplex = td.Dirichlet(concentration).log_prob(values["share"])
        # What is left is the Jacobian of Stan's own map to the simplex.
        jacobian = target.log_prob(z) - (priors + normals + data + simplex)
        alone = torch.autograd.grad(jacobian.sum(), z)[0]
        torch.testing.assert_close(alone[:, [0, 1, *range(4, 10)]], torch.zeros(5, 8).double())
        assert torch.autograd.gradcheck(target.log_prob, z[:2])

    def test_pystan_finds_the_model_whole(self, target):
        """Its server reads what the compilers said of a model that is built already."""
        from httpstan import cache, models

        key = models.calculate_model_name(target._model._program)
        assert isinstance(cache.load_stanc_warnings(key), str)
        assert isinstance(cache.load_services_extension_module_compiler_output(key), str)

    def test_copies(self, target):
        z = torch.randn(3, 10, dtype=torch.float64)
        for other in (copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
            assert torch.equal(other.log_prob(z), target.log_prob(z))

    def test_threads_and_points_that_the_model_rejects(self, target, monkeypatch):
        """Each thread has a tape of its own; a scale of 0 is rejected, and those behind it not."""
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(stan_held, "AT_ONCE", 5)
        z = torch.randn(64, 10, dtype=torch.float64, requires_grad=True)
        bad = torch.zeros(64, 10, dtype=torch.float64)
        bad[7, 1] = -1e3
        value = target.log_prob(z + bad)
        assert value[7] == -torch.inf
        kept = torch.arange(64) != 7
        (gradient,) = torch.autograd.grad(value[kept].sum(), z)
        alone = torch.stack([target.log_prob(x[None])[0] for x in z])
        assert torch.equal(value[kept], alone[kept])
        assert torch.equal(gradient[kept], torch.autograd.grad(alone[kept].sum(), z)[0][kept])
        assert not gradient[7].any()

    def test_pystans_own_functions_lack_the_constants_of_tilde(self, target):
        """They are what a model of ``stan.build`` has that nfvi did not build."""
        held = target._model
        other = HttpstanModel(held._program, held._data, "normals")
        assert (other.dim, other.names) == (held.dim, held.names)
        assert (other.lacks_constants, held.lacks_constants) == (True, False)
        constants = -2 * np.log(2 * np.pi)  # of four normals
        for point in np.random.default_rng(0).normal(size=(3, 10)):
            (value,), (gradient,) = held.with_gradients(point[None])
            assert held.density(point) == pytest.approx(value, rel=1e-12)
            assert held.densities(point[None]) == pytest.approx([value], rel=1e-12)
            assert other.density(point) + constants == pytest.approx(value, rel=1e-12)
            np.testing.assert_allclose(gradient, other.with_gradient(point)[1], rtol=1e-10)
            np.testing.assert_allclose(held.constrained(point), other.constrained(point))

    def test_the_word_on_constants(self, tmp_path, target, monkeypatch):
        path, module = tmp_path / "tilde.stan", stan_builds.built(NORMALS, "normals")
        monkeypatch.setattr(stan_files, "HeldModel", HttpstanModel)
        monkeypatch.setattr(stan_httpstan, "built", lambda program, name: module)
        path.write_text(NORMALS)
        with pytest.warns(UserWarning, match="leaves out the constants of statements with ~"):
            assert len(StanTarget(path, {"N": 4, "y": Y}).evidence_caveats) == 1
        path.write_text(NORMALS.replace("y ~ normal(", "target += normal_lpdf(y | "))
        assert not StanTarget(path, {"N": 4, "y": Y}).evidence_caveats
        assert not target.evidence_caveats

    def test_wrong_data_and_a_wrong_program(self, tmp_path, target):
        path = tmp_path / "normals.stan"
        with pytest.raises(TargetError, match=r"refused the data of 'normals': .*variable name=y"):
            StanTarget(path, {"N": 3, "y": Y})
        path.write_text("parameters { real x }")
        with pytest.raises(TargetError, match=r"could not compile 'normals': .*Syntax error"):
            StanTarget(path)
