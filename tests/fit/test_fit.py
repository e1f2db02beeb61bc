"""Fit: draws, weights, export, the file, refining, and what print says."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from nfvi import NFVI, Fit, FitError, FitWarning, LogDensity, PyroTarget, TargetError
from nfvi.utils import plus_minus
from tests.damage import edited

FIVE = 5.0
MEAN = torch.tensor([1.0, -2.0])
SD = torch.tensor([0.5, 2.0])


def log_p(z: Tensor) -> Tensor:
    return -0.5 * ((z - MEAN.to(z)) / SD.to(z)).square().sum(-1)


LOG_Z = math.log(2 * math.pi)
"""That of ``log_p``: 2π times 0.5 · 2."""


def model(data: Tensor) -> None:
    """Normal data with a positive scale."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(torch.tensor(5.0)))
    with pyro.plate("data", len(data)):
        pyro.sample("y", dist.Normal(mean, scale).to_event(1), obs=data)


DATA = torch.tensor([[0.1, 2.0], [1.2, 1.0], [-0.7, 3.1], [0.3, 1.7]])


def quick(target: Any = log_p, *args: Any, **options: Any) -> Fit:
    settings = {"steps": 30, "n_mc": 16, "restarts": 2, "progress": False, **options}
    dim = {} if args or isinstance(target, PyroTarget | LogDensity) else {"dim": 2}
    return NFVI("scale-loc", seed=4).fit(target, *args, **dim, **settings)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a fit to ``log_p``; each test loads its own."""
    path = tmp_path_factory.mktemp("fits") / "fit.safetensors"
    quick(steps=400, n_mc=64).save(path)
    return path


@pytest.fixture
def fit(fitted: Path) -> Fit:
    return Fit.load(fitted, target=LogDensity(log_p, 2))


@pytest.fixture(scope="module")
def of_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fits") / "model.safetensors"
    quick(model, DATA).save(path)
    return path


def widened(fit: Fit, factor: float) -> Fit:
    """The fit with the sds of its guide multiplied: a guide that is wrong in a known way."""
    with torch.no_grad():
        sigma = torch.nn.functional.softplus(fit.guide.flows[0].rho) * factor
        fit.guide.flows[0].rho.copy_(sigma.expm1().log())
    fit._diagnostics = None
    return fit


class TestSample:
    @pytest.mark.parametrize("n", [1, 7, 1000])
    def test_a_log_density_gives_a_tensor(self, fit: Fit, n: int) -> None:
        draws = fit.sample(n)
        assert draws.shape == (n, 2) and not draws.requires_grad

    def test_a_model_gives_its_sites(self, of_model: Path) -> None:
        fit = Fit.load(of_model, target=PyroTarget(model, DATA))
        draws = fit.sample(7)
        assert {name: tuple(x.shape) for name, x in draws.items()} == {
            "mean": (7, 2),
            "scale": (7,),
        }
        assert bool((draws["scale"] > 0).all())

    def test_seed(self, fit: Fit) -> None:
        a, b = fit.sample(5, seed=1), fit.sample(5, seed=1)
        assert torch.equal(a, b)
        assert not torch.equal(a, fit.sample(5, seed=2))

    def test_without_a_seed_the_stream_goes_on(self, fitted: Path) -> None:
        one, other = Fit.load(fitted), Fit.load(fitted)
        first, second = one.sample(5), one.sample(5)
        assert not torch.equal(first, second)
        other.sample(3, seed=9)  # does not move the stream
        assert torch.equal(other.sample(5), first) and torch.equal(other.sample(5), second)

    @pytest.mark.parametrize("n", [0, -1, 2.0, "3", True])
    def test_wrong_n(self, fit: Fit, n: Any) -> None:
        for method in (fit.sample, fit.importance_resample, fit.weighted_draws):
            with pytest.raises(ValueError, match="n must be an integer of at least 1"):
                method(n)


class TestLogProb:
    def test_closed_form(self, fit: Fit) -> None:
        mean = fit.guide.flows[1].loc
        sd = torch.nn.functional.softplus(fit.guide.flows[0].rho)
        z = torch.randn(3, 4, 2)
        expected = torch.distributions.Normal(mean, sd).log_prob(z).sum(-1)
        torch.testing.assert_close(fit.log_prob(z), expected)
        assert fit.log_prob(torch.zeros(2)).shape == ()

    def test_gradient_in_z_and_none_in_the_guide(self, fit: Fit) -> None:
        z = torch.zeros(3, 2, requires_grad=True)
        fit.log_prob(z).sum().backward()
        assert z.grad is not None and bool((z.grad != 0).all())
        assert not any(p.requires_grad for p in fit.guide.parameters())

    @pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
    def test_wrong_shape(self, fit: Fit, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"z must be a tensor \(\*, 2\)"):
            fit.log_prob(torch.zeros(shape))


class TestImportance:
    def test_resampling_moves_the_moments_to_the_target_s(self, fit: Fit) -> None:
        wide = widened(fit, 1.6)
        plain, mended = wide.sample(20_000, seed=0), wide.importance_resample(20_000, seed=0)
        assert (plain.std(0) / SD).tolist() == pytest.approx([1.6, 1.6], rel=0.1)
        # 200 000 draws of which a share of (2 − 1/s²)/s² · … > 0.3 counts; resampling adds 1/n.
        error = math.sqrt(1 / 20_000 + 1 / (0.3 * 200_000))
        assert ((mended.mean(0) - MEAN) / SD).abs().max() < FIVE * error
        assert (mended.std(0) / SD).tolist() == pytest.approx([1, 1], abs=FIVE * error)

    def test_evidence(self, fit: Fit) -> None:
        wide = widened(fit, 1.3)
        assert abs(wide.log_evidence - LOG_Z) < FIVE * wide.log_evidence_se
        assert wide.elbo < LOG_Z - 0.05
        assert wide.khat < 0.7

    def test_a_model_s_sites(self, of_model: Path) -> None:
        fit = Fit.load(of_model, target=PyroTarget(model, DATA))
        assert fit.importance_resample(6)["mean"].shape == (6, 2)

    def test_weights(self, fit: Fit) -> None:
        draws = fit.weighted_draws(500, seed=3)
        torch.testing.assert_close(draws.log_p, log_p(draws.z))
        torch.testing.assert_close(draws.log_q, fit.log_prob(draws.z))
        assert float(draws.log_weights.logsumexp(0)) == pytest.approx(0, abs=1e-9)

    def test_seed(self, fit: Fit) -> None:
        a, b = (fit.importance_resample(5, seed=1) for _ in range(2))
        assert torch.equal(a, b)

    def test_no_draw_counts(self, fitted: Path) -> None:
        fit = Fit.load(fitted, target=LogDensity(log_p, 2))
        fit.target.log_prob = lambda z: torch.full_like(z[:, 0], torch.nan)
        with pytest.raises(FitError, match="no draw of the guide"):
            fit.importance_resample(5)


class TestArviz:
    @pytest.fixture
    def az(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import arviz
        return arviz

    def test_draws_statistics_and_attributes(self, of_model: Path) -> None:
        fit = Fit.load(of_model, target=PyroTarget(model, DATA))
        data = fit.to_arviz(50, seed=0)
        assert data["posterior"]["mean"].shape == (1, 50, 2)
        assert data["posterior"]["scale"].shape == (1, 50)
        draws = fit.weighted_draws(50, seed=0)
        np.testing.assert_array_equal(data["sample_stats"]["lp"][0], draws.log_p)
        np.testing.assert_array_equal(data["sample_stats"]["log_q"][0], draws.log_q)
        attrs = data["posterior"].attrs
        for name in ("elbo", "elbo_se", "khat", "ess", "log_evidence", "log_evidence_se"):
            assert attrs[name] == getattr(fit, name)
        assert (attrs["formula"], attrs["base"], attrs["seed"]) == ("scale-loc", "normal", 4)
        assert attrs["steps"] == 30
        assert attrs["verdict"] == fit.verdict.word
        kept = {name: value for name, value in attrs.items() if name in fit.diagnostics.as_dict()}
        assert kept == json.loads(json.dumps(kept)) == fit.diagnostics.as_dict()
        assert json.dumps(dict(attrs))

    # ArviZ 0.23 calls functions of pandas in ways that newer ones deprecate.
    @pytest.mark.filterwarnings("ignore:The inplace keyword")
    def test_arviz_works_on_it(self, fit: Fit, az: Any) -> None:
        import matplotlib.pyplot as plt

        data = fit.to_arviz(500)
        table = az.summary(data, kind="stats")
        assert list(table.index) == ["z[0]", "z[1]"]
        assert table["mean"].tolist() == pytest.approx(MEAN.tolist(), abs=0.5)
        # Of the same draws, but for what ArviZ rounds to.
        theirs = az.summary(fit.to_arviz(10_000, seed=0), round_to=8)
        ours = fit.summary(10_000)
        if set(ours) <= set(theirs):  # ArviZ 0.x, after whose columns ours are called
            same = ["mean", "sd", "hdi_3%", "hdi_97%"]
            np.testing.assert_allclose(ours[same], theirs[same], rtol=1e-4, atol=1e-6)
            # It estimates the ESS of independent draws, to some 5 % here.
            errors = ["mcse_mean", "mcse_sd"]
            np.testing.assert_allclose(ours[errors], theirs[errors], rtol=0.1)
        az.plot_trace(data)
        # 0.x: density and trace of z; 1.x: a trace of each of its coordinates.
        panels = plt.gcf().axes
        assert len(panels) == 2 and all(panel.get_title().startswith("z") for panel in panels)
        assert sum(len(panel.lines) for panel in panels) >= 2
        plt.close("all")

    def test_it_can_be_stored(self, fit: Fit, tmp_path: Path) -> None:
        fit.to_arviz(10).to_netcdf(tmp_path / "draws.nc")
        assert (tmp_path / "draws.nc").stat().st_size > 0

    def test_what_the_target_knows_goes_with_it(self) -> None:
        class Labelled(LogDensity):
            named = True
            dims = MappingProxyType({"z": ["axis"]})
            coords = MappingProxyType({"axis": ("east", "north")})
            observed_data = MappingProxyType({"y": DATA})
            constant_data = MappingProxyType({"weight": np.ones(3)})

        target = Labelled(lambda z: -0.5 * z.square().sum(-1), 2)
        fit = NFVI("scale-loc", seed=1).fit(target, steps=5, restarts=1)
        data = fit.to_arviz(10)
        assert data["posterior"]["z"].dims == ("chain", "draw", "axis")
        assert data["posterior"]["axis"].values.tolist() == ["east", "north"]
        np.testing.assert_array_equal(data["observed_data"]["y"], DATA)
        np.testing.assert_array_equal(data["constant_data"]["weight"], np.ones(3))

    def test_one_draw(self, fit: Fit) -> None:
        assert fit.to_arviz(1)["posterior"]["z"].shape == (1, 1, 2)


class TestFile:
    @pytest.mark.parametrize("formula", ["scale-loc", "planar*2-radial-hh*2", "(planar-loc)*2"])
    @pytest.mark.parametrize("base", ["normal", "studentt(df=4)"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_round_trip(self, formula: str, base: str, dtype: torch.dtype, tmp_path: Path) -> None:
        nfvi = NFVI(formula, base=base, dtype=dtype, seed=2)
        made = nfvi.fit(log_p, dim=2, steps=5, n_mc=8, restarts=3, progress=False)
        made.save(tmp_path / "f")
        read = Fit.load(tmp_path / "f")
        assert (read.formula, str(read.guide.base)) == (made.formula, str(made.guide.base))
        assert read.guide.dtype == dtype
        for name, value in made.guide.state_dict().items():
            assert torch.equal(read.guide.state_dict()[name], value)
        for name in ("loss", "elbo", "elbo_se", "grad_norm", "beta", "lr"):
            assert torch.equal(getattr(read.history, name), getattr(made.history, name))
        assert read.diagnostics == made.diagnostics
        assert read.restarts == made.restarts
        for name in ("seed", "steps", "stopped", "wall_time", "gradient_evaluations", "dim"):
            assert getattr(read, name) == getattr(made, name)
        z = torch.randn(4, 2, dtype=dtype)
        assert torch.equal(read.log_prob(z), made.log_prob(z))
        assert torch.equal(read.sample(5, seed=0), made.sample(5, seed=0))

    def test_saving_what_was_loaded(self, fitted: Path, tmp_path: Path) -> None:
        Fit.load(fitted).save(tmp_path / "again")
        a, b = Fit.load(fitted), Fit.load(tmp_path / "again")
        assert a.diagnostics == b.diagnostics and a.restarts == b.restarts
        assert torch.equal(a.history.elbo, b.history.elbo)

    def test_a_bare_function_will_do_as_target(self, fitted: Path) -> None:
        assert Fit.load(fitted, target=log_p).importance_resample(3).shape == (3, 2)

    def test_without_the_target(self, fitted: Path) -> None:
        fit = Fit.load(fitted)
        assert fit.sample(3).shape == (3, 2)
        assert math.isfinite(fit.elbo) and "ELBO" in str(fit) and "no target" in repr(fit)
        for act in (lambda: fit.refine(1), lambda: fit.importance_resample(2), fit.to_arviz):
            with pytest.raises(FitError, match=r"loaded without its target 'log_p'.*target=\.\.\."):
                act()

    def test_without_the_target_a_summary_still_works(self, fitted: Path) -> None:
        assert "z[1]" in Fit.load(fitted).summary(100).index

    def test_without_its_model(self, of_model: Path) -> None:
        fit = Fit.load(of_model)
        for act in (lambda: fit.sample(3), fit.summary):
            with pytest.raises(FitError, match=r"pass it as Fit\.load\(path, target=\.\.\.\)"):
                act()
        assert fit.guide.sample(3).shape == (3, 3)

    def test_with_another_target(self, fitted: Path, of_model: Path) -> None:
        with pytest.raises(TargetError, match=r"dim=2, and target .* has dim=3"):
            Fit.load(fitted, target=LogDensity(lambda z: -(z**2).sum(-1), 3))
        with pytest.raises(TargetError, match=r"dim=3, and target .* has dim=2"):
            Fit.load(of_model, target=LogDensity(log_p, 2))
        with pytest.raises(TargetError):
            Fit.load(fitted, target="log_p")

    def test_a_checkpoint_is_no_fit(self, fitted: Path, tmp_path: Path) -> None:
        with pytest.raises(FitError, match=r"holds a fit, not a checkpoint"):
            NFVI.resume(fitted)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("formula", "maf*5"),
            ("formula", "planar*2"),
            ("base", "cauchy"),
            ("dim", 3),
            ("dim", "two"),
            ("dtype", "save"),
            ("dtype", "nothing"),
        ],
    )
    def test_settings_that_do_not_fit(
        self, fitted: Path, tmp_path: Path, name: str, value: Any
    ) -> None:
        def change(header: dict[str, Any]) -> None:
            header["settings"][name] = value

        with pytest.raises(FitError, match="is not a complete fit"):
            Fit.load(self.altered(fitted, tmp_path, change))

    @pytest.mark.parametrize("name", ["settings", "restarts", "diagnostics", "stopped"])
    def test_parts_that_are_missing(self, fitted: Path, tmp_path: Path, name: str) -> None:
        def change(header: dict[str, Any]) -> None:
            del header[name]

        with pytest.raises(FitError, match="is not a complete fit"):
            Fit.load(self.altered(fitted, tmp_path, change))

    def altered(self, path: Path, folder: Path, change: Any) -> Path:
        return edited(path, folder / "altered", change)

    def test_cut_short(self, fitted: Path, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(fitted.read_bytes()[:-9])
        with pytest.raises(FitError, match="cut short"):
            Fit.load(tmp_path / "f")

    @pytest.mark.cuda
    def test_devices(self, fitted: Path, tmp_path: Path) -> None:
        there = Fit.load(fitted, target=log_p, map_location="cuda")
        assert there.sample(3).device.type == "cuda" and there.guide.device.type == "cuda"
        there.refine(5)
        there.save(tmp_path / "f")
        assert Fit.load(tmp_path / "f").sample(3).device.type == "cpu"


class TestRefine:
    def test_in_place(self) -> None:
        fit = quick()
        before = fit.elbo
        assert fit.refine(200) is fit
        assert fit.steps == 230 == len(fit.history)
        assert fit.elbo > before + 0.5
        assert fit.gradient_evaluations == 230 * 16 * 2

    def test_wall_time_adds_up(self) -> None:
        fit = quick()
        before = fit.wall_time
        assert fit.refine(5).wall_time > before > 0

    def test_a_loaded_one(self, fit: Fit) -> None:
        count, evaluations = fit.steps, fit.gradient_evaluations
        before = fit.history.elbo[:, next(r.index for r in fit.restarts if r.best)]
        fit.refine(20)
        assert fit.steps == count + 20
        # The file's fit had two restarts of 64 draws; what continues is the best.
        assert fit.gradient_evaluations == evaluations + 20 * 64
        assert len(fit.restarts) == 1 and fit.restarts[0].best
        assert torch.equal(fit.history.elbo[:count, 0], before)
        assert fit.elbo == pytest.approx(LOG_Z, abs=0.02)

    def test_a_loaded_one_can_be_saved_and_refined_again(self, fit: Fit, tmp_path: Path) -> None:
        fit.refine(3).save(tmp_path / "f")
        again = Fit.load(tmp_path / "f", target=log_p)
        assert again.refine(2).steps == 405

    def test_a_loaded_one_is_reproducible(self, fitted: Path) -> None:
        a, b = (Fit.load(fitted, target=log_p).refine(5) for _ in range(2))
        assert torch.equal(a.sample(3, seed=0), b.sample(3, seed=0))
        assert a.history.elbo[-1] == b.history.elbo[-1]

    def test_another_optimiser_s_learning_rate_is_not_adam_s(self, tmp_path: Path) -> None:
        made = quick(optimizer=torch.optim.LBFGS, lr=1.0, restarts=1, anneal=False)
        assert made.elbo == pytest.approx(LOG_Z, abs=0.05)
        made.save(tmp_path / "f")
        fit = Fit.load(tmp_path / "f", target=log_p).refine(100)
        assert fit.history.lr[30:].max().item() < 0.02
        assert fit.elbo == pytest.approx(LOG_Z, abs=0.05)

    def test_the_optimiser_s_own_learning_rate_is_kept(self, tmp_path: Path) -> None:
        quick(lr=0.5).save(tmp_path / "f")
        fit = Fit.load(tmp_path / "f", target=log_p).refine(100)
        assert fit.history.lr[30:].max().item() == pytest.approx(0.5 * 0.3, rel=0.05)

    @pytest.mark.parametrize("steps", [0, -1, 1.5])
    def test_wrong_steps(self, fit: Fit, steps: Any) -> None:
        with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
            fit.refine(steps)

    def test_draws_between_do_not_matter(self) -> None:
        a, b = quick(), quick()
        a.sample(100)
        a.importance_resample(5)
        assert math.isfinite(a.elbo)
        assert torch.equal(a.refine(5).history.elbo, b.refine(5).history.elbo)


class TestPrint:
    def test_header(self, fit: Fit) -> None:
        assert str(fit).startswith("NFVI 'scale-loc' on log_p, d = 2, base normal, seed 4\n")
        text = re.sub(r"\s+", " ", str(fit))  # wrapped lines are read as one
        assert "400 steps of 64 draws, 51,200 gradients of the target in 400 batches" in text
        assert "all steps done" in text and "(tempered" in text
        assert repr(fit) == "<Fit 'scale-loc' of log_p, dim=2, steps=400>"

    def test_the_numbers_are_those_of_the_fit(self, fit: Fit) -> None:
        fit.target.log_normalizer = LOG_Z
        assert f"{plus_minus(fit.elbo, fit.elbo_se)} " in str(fit)
        assert f"{plus_minus(LOG_Z - fit.elbo, fit.elbo_se)} " in str(fit)
        assert f"{fit.diagnostics.efficiency:.1%}" in str(fit)

    @pytest.mark.parametrize(("gain", "asked"), [(0.0, False), (0.5, True)])
    def test_more_steps_only_while_the_elbo_rises(self, fit: Fit, gain: float, asked: bool) -> None:
        state = fit.history.state_dict()
        state["rows"][:, 1] = torch.linspace(0, 5 * gain, fit.steps).repeat(2, 1).T
        state["rows"][:, 2] = 0.01
        fit.history.load_state_dict(state)
        fit._diagnostics = replace(fit.diagnostics, khat=0.4, ess=3_000.0)
        text = re.sub(r"\s+", " ", str(fit))
        assert ("The ELBO still rises: more steps, fit.refine(200)" in text) is asked

    def test_without_target_and_diagnostics(self, fit: Fit) -> None:
        fit.target, fit._diagnostics = None, None
        assert str(fit).endswith("  no diagnostics: load it with target= to compute them")


def two(z: Tensor) -> Tensor:
    """The density of the fits here, and as much mass at (1, 30)."""
    return torch.logaddexp(log_p(z), log_p(z - torch.tensor([0.0, 32.0]).to(z)))


SEARCH = {"draws": 20_000, "starts": 32}


class TestSearch:
    def test_clean(self, fit: Fit) -> None:
        found = fit.search(**SEARCH)
        assert fit.missed is found and found.clean
        assert (found.draws, found.starts) == (20_000, 32)
        assert found.guide_log_evidence == fit.log_evidence
        assert "No mass was found that the guide misses" in str(fit)

    def test_found(self, fitted: Path) -> None:
        """Half of the mass; that share is known to √(½ · ½ / n) at least from n of its draws."""
        fit = Fit.load(fitted, target=LogDensity(two, 2, name="log_p"))
        found = fit.search(**SEARCH)
        assert abs(found.share - 0.5) < FIVE * found.share_se + 0.01
        assert abs(found.log_evidence - LOG_Z - math.log(2)) < 0.05
        assert fit.verdict.word == "not to be trusted"
        text = " ".join(str(fit).split())
        assert "The search found mass that it misses: 50% of all." in text
        assert 'Try NFVI("auto"), which takes what a search finds into a mixture.' in text

    def test_it_is_made_when_it_is_asked_for_once(self, fit: Fit) -> None:
        fit.search(**SEARCH)
        calls = []
        fit.target.log_prob = calls.append
        assert fit.missed is fit.missed and fit.verdict == fit.verdict
        assert not calls

    def test_a_seed_gives_the_same(self, fit: Fit) -> None:
        a, b, c = (fit.search(**SEARCH, seed=seed) for seed in (1, 1, 2))
        assert a.as_dict() == b.as_dict()
        assert a.gradient_evaluations != c.gradient_evaluations

    def test_draws_of_the_fit_do_not_change_it(self, fit: Fit) -> None:
        a = fit.search(**SEARCH)
        first = fit.sample(3)
        b = fit.search(**SEARCH)
        assert a.as_dict() == b.as_dict() and not torch.equal(fit.sample(3), first)

    @pytest.mark.parametrize("options", [{"draws": 0}, {"starts": 1.5}, {"draws": "many"}])
    def test_wrong_options(self, fit: Fit, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
            fit.search(**options)

    def test_without_a_target(self, fitted: Path) -> None:
        with pytest.raises(FitError, match=r"loaded without its target 'log_p'"):
            Fit.load(fitted).search()


class TestVerdict:
    def test_words(self, fit: Fit) -> None:
        """KL(q ‖ p) of a normal that is s times too wide in 2 dimensions: s² − 1 − 2 log s."""
        assert fit.verdict.word == "good"
        assert widened(fit, 1.2).verdict.word == "usable"
        wide = re.sub(r"\s+", " ", str(fit))
        assert "KL(q ‖ p) is 0.07" in wide and 1.2**2 - 1 - 2 * math.log(1.2) < 0.08
        assert widened(fit, 0.3).verdict.word == "not to be trusted"

    def test_draws_without_a_density(self, fit: Fit) -> None:
        """278 of 10 000."""
        fit._diagnostics = replace(fit.diagnostics, not_finite=278)
        assert fit.verdict.word == "not to be trusted"
        assert "278 of 10,000 draws have no finite density" in " ".join(str(fit).split())

    def test_a_failed_verification_counts(self, fit: Fit) -> None:
        assert fit.verdict.word == "good"
        with torch.no_grad():  # both means, by 0.3 sd: a KL of 0.09 that is hidden here
            fit.guide.flows[1].loc.add_(0.3 * SD)
        assert not fit.verify(chains=2_000).passed
        assert fit.verdict.word == "usable" and "verify() proves it wrong" in str(fit)

    def test_values_on_an_edge_of_the_floats(self, fitted: Path) -> None:
        """A quarter of the draws, above both means, as far as the target can tell."""
        target = LogDensity(log_p, 2)
        target.on_edge = lambda z: (z > MEAN).all(-1)
        fit = Fit.load(fitted, target=target)
        assert fit.diagnostics.at_edge == 0  # kept from when it was saved
        fit._diagnostics = None
        assert fit.diagnostics.at_edge == pytest.approx(0.25, abs=0.03)
        assert fit.verdict.word == "not to be trusted"
        assert "of the draws sit on the edge of what floats can hold" in str(fit.verdict)

    def test_it_is_in_the_header_of_a_file(self, fit: Fit, tmp_path: Path) -> None:
        fit.save(tmp_path / "f")
        with safe_open(tmp_path / "f", framework="pt") as file:
            assert json.loads(file.metadata()["nfvi"])["verdict"] == "good"

    def test_a_file_keeps_all_that_it_rests_on(self, fitted: Path, tmp_path: Path) -> None:
        """With a target or without: the search, verify(), and log Z as the target knew it."""
        target = LogDensity(two, 2, name="log_p", log_normalizer=LOG_Z + math.log(2))
        fit = Fit.load(fitted, target=target)
        fit.search(**SEARCH)
        fit._verified = False
        fit.save(tmp_path / "f")
        for again in (Fit.load(tmp_path / "f"), Fit.load(tmp_path / "f", target=target)):
            assert again.verdict == fit.verdict and len(fit.verdict.reasons) == 2
            assert again.findings().verified is False
            assert again.missed is not None and str(again.missed) == str(fit.missed)
            assert str(again).splitlines()[1:] == str(fit).splitlines()[1:]

    def test_a_file_of_an_earlier_version(self, fitted: Path, tmp_path: Path) -> None:
        def change(header: dict[str, Any]) -> None:
            for name in ("missed", "verified", "log_normalizer", "verdict"):
                del header[name]
            del header["diagnostics"]["at_edge"], header["diagnostics"]["widest"]

        fit = Fit.load(TestFile().altered(fitted, tmp_path, change))
        assert fit.missed is None and fit.verdict.word == "good"
        assert "No search was made for mass that the guide misses" in str(fit)

    def test_refine_forgets_it(self, fit: Fit) -> None:
        before = fit.search(**SEARCH)
        fit._verified = False
        fit.refine(3)
        assert fit.findings(search=False).missed is None
        assert fit.findings(search=False).verified is None
        assert fit.missed is not before

    def test_findings_without_a_search(self, fitted: Path) -> None:
        fit = Fit.load(fitted, target=LogDensity(two, 2))
        fit._missed = None
        assert fit.findings(search=False).missed is None and fit._missed is None
        assert fit.findings().misses_mass


USES = {
    "summary": lambda fit: fit.summary(100),
    "importance_resample": lambda fit: fit.importance_resample(5, seed=1),
    "expectation": lambda fit: fit.expectation(lambda z: z, seed=1),
    "to_arviz": lambda fit: fit.to_arviz(20),
}


class TestWarning:
    """What is taken from a fit that is not to be trusted."""

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    def test_once_for_each_fit(self, fit: Fit, use: Any) -> None:
        narrow = widened(fit, 0.2)
        said = r"the fit of 'scale-loc' to log_p is not to be trusted\. k-hat is \d"
        with pytest.warns(FitWarning, match=said) as caught:
            use(narrow)
        assert [Path(one.filename) for one in caught] == [Path(__file__)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(narrow)
        narrow.refine(2)
        assert not narrow._warned

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    def test_none_of_a_fit_that_is_usable(self, fit: Fit, use: Any) -> None:
        assert fit.verdict.word != "not to be trusted"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(fit)

    def test_it_can_be_turned_off(self, fit: Fit) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", FitWarning)
            widened(fit, 0.2).summary(100)

    def test_weighted_draws_cost_nothing_more_for_it(self, fit: Fit) -> None:
        narrow = widened(fit, 0.2)
        narrow._missed = None
        with pytest.warns(FitWarning):
            narrow.expectation(lambda z: z, 20_000)
        assert narrow._diagnostics is narrow._missed is None

    def test_a_few_draws_say_nothing_of_the_fit(self, fit: Fit) -> None:
        narrow = widened(fit, 0.2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            narrow.expectation(lambda z: z, 20)


class TestWrongInput:
    def test_seed_of_draws(self) -> None:
        made = quick()
        for seed in (-1, "a", 1.5):
            with pytest.raises(ValueError, match="seed must be an integer from 0"):
                made.sample(3, seed=seed)

    def test_log_prob_of_a_list(self) -> None:
        with pytest.raises(ValueError, match=r"z must be a tensor \(\*, 2\) .* got list"):
            quick().log_prob([0.0, 0.0])

    def test_a_target_that_cannot_be_used_is_refused_when_loading(self, fitted: Path) -> None:
        # The fit is of a log-density, and the model takes its data where z would be.
        with pytest.raises(TargetError):
            Fit.load(fitted, target=model)


class TestSummary:
    def test_of_a_fit(self, fit: Fit) -> None:
        table = fit.summary()
        names = ["mean", "sd", "hdi_3%", "hdi_97%", "mcse_mean", "mcse_sd"]
        assert list(table.columns) == names
        assert list(table.index) == ["z[0]", "z[1]"]
        assert table.attrs == {"verdict": fit.verdict.word}
        assert table.loc["z[1]", ["mean", "sd"]].tolist() == pytest.approx([-2.0, 2.0], abs=0.2)
        lines = str(table).splitlines()
        assert len(lines) == 5 and lines[-1] == f"Verdict: {fit.verdict.word}."
        table.attrs = {"source": "mine"}
        assert "Verdict" not in str(table) + table._repr_html_()
        assert len(lines[1].split()) == 7 and len(str(table.loc[:, :"sd"]).splitlines()[1]) < 30

    def test_weighted_it_is_that_of_the_target(self, fit: Fit) -> None:
        """N(mean, sd²) seen through a guide that is 1.3 times as wide, to five standard errors."""
        wide = widened(fit, 1.3)
        exact, bare = wide.summary(20_000, weighted=True), wide.summary(20_000)
        for k, (mean, sd) in enumerate(zip(MEAN.tolist(), SD.tolist(), strict=True)):
            row = exact.iloc[k]
            assert abs(row["mean"] - mean) < 5 * row["mcse_mean"]
            assert abs(row["sd"] - sd) < 5 * row["mcse_sd"]
            ends = [mean - 1.881 * sd, mean + 1.881 * sd]
            assert row[["hdi_3%", "hdi_97%"]].tolist() == pytest.approx(ends, abs=0.15 * sd)
            assert bare.iloc[k]["sd"] > 1.15 * sd
        assert exact.attrs == bare.attrs
        with pytest.raises(ValueError, match="weighted must be True or False, got 1"):
            fit.summary(weighted=1)

    def test_of_a_model(self, of_model: Path) -> None:
        table = Fit.load(of_model, target=PyroTarget(model, DATA)).summary(100)
        assert list(table.index) == ["mean[0]", "mean[1]", "scale"]


def test_a_model_written_for_a_file_needs_its_arguments(of_model: Path) -> None:
    with pytest.raises(TargetError):
        Fit.load(of_model, target=model)
