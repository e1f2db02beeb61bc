"""Fit: draws, weights, export, the file, refining, and what print says."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nfvi import NFVI, Fit, FitError, LogDensity, PyroTarget, TargetError
from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.text import _other_base, describe, summarize
from nfvi.guides.guide import Guide

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

    def test_arviz_works_on_it(self, fit: Fit, az: Any) -> None:
        import matplotlib.pyplot as plt

        data = fit.to_arviz(500)
        table = az.summary(data, kind="stats")
        assert list(table.index) == ["z[0]", "z[1]"]
        assert table["mean"].tolist() == pytest.approx(MEAN.tolist(), abs=0.5)
        az.plot_trace(data)
        # 0.x: density and trace of z; 1.x: a trace of each of its coordinates.
        panels = plt.gcf().axes
        assert len(panels) == 2 and all(panel.get_title().startswith("z") for panel in panels)
        assert sum(len(panel.lines) for panel in panels) >= 2
        plt.close("all")

    def test_it_can_be_stored(self, fit: Fit, tmp_path: Path) -> None:
        fit.to_arviz(10).to_netcdf(tmp_path / "draws.nc")
        assert (tmp_path / "draws.nc").stat().st_size > 0

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
        assert "z[1]" in Fit.load(fitted).summary(100)

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
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["nfvi"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(header)
        save_file(tensors, folder / "altered", metadata={"nfvi": json.dumps(header)})
        return folder / "altered"

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
        # The file's fit had two restarts of 64 draws; what goes on is the best.
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
    """What ``print(fit)`` says, for made-up numbers."""

    def text(self, fit: Fit, **numbers: Any) -> str:
        given = Diagnostics(
            elbo=1.8, elbo_se=0.003, khat=0.4, ess=9_000.0, draws=10_000,
            log_evidence=1.85, log_evidence_se=0.002,
        )  # fmt: skip
        fit._diagnostics = replace(given, **numbers)
        text = describe(fit)
        assert max(map(len, text.splitlines())) < 100, text
        # Wrapped lines are read as one.
        return re.sub(r"\s+", " ", text)

    def test_caveat_whatever_the_numbers(self, fit: Fit) -> None:
        for khat in (-math.inf, 0.1, 0.6, 0.9, 2.0, math.inf):
            for ess in (1.0, 500.0, 3_000.0, 9_999.0):
                text = self.text(fit, khat=khat, ess=ess)
                assert "can see a mode that the guide misses" in text
                assert "nan" not in text and " inf" not in text

    def test_khat_over_the_limit_asks_for_more(self, fit: Fit) -> None:
        text = self.text(fit, khat=0.9, ess=100.0)
        assert "not reliable" in text and "Not to be trusted yet" in text
        assert "richer formula" in text and "studentt(df=5)" in text
        assert "importance_resample" not in text

    @pytest.mark.parametrize(("gain", "asked"), [(0.0, False), (0.005, False), (0.5, True)])
    @pytest.mark.parametrize("efficiency", [0.01, 0.3])
    def test_more_steps_only_while_the_elbo_rises(
        self, fit: Fit, gain: float, asked: bool, efficiency: float
    ) -> None:
        rising = torch.linspace(0, 5 * gain, fit.steps).repeat(2, 1).T
        state = fit.history.state_dict()
        state["rows"][:, 1], state["rows"][:, 2] = rising, 0.01
        fit.history.load_state_dict(state)
        text = self.text(fit, ess=10_000 * efficiency)
        assert ("The ELBO still rises: more steps, fit.refine(200)" in text) is asked

    def test_khat_high_although_most_draws_agree_is_about_tails(self, fit: Fit) -> None:
        text = self.text(fit, khat=0.9, ess=9_500.0)
        assert "tails of the guide are lighter" in text
        assert "Not to be trusted yet" in text and "may be good all the same" in text

    def test_good(self, fit: Fit) -> None:
        text = self.text(fit)
        assert "close to the target wherever its draws fall" in text
        assert "90.0%" in text and "10,000 draws are worth 9,000" in text

    def test_rough(self, fit: Fit) -> None:
        assert "importance_resample(n) is better than fit.sample(n)" in self.text(fit, ess=3_000.0)
        assert "Few draws count" in self.text(fit, ess=300.0)

    def test_the_target_itself(self, fit: Fit) -> None:
        text = self.text(fit, khat=-math.inf, ess=10_000.0, elbo_se=0.0, log_evidence_se=0.0)
        assert "k-hat none the largest weights are equal" in text
        assert "100.0%" in text

    def test_digits_follow_the_error(self, fit: Fit) -> None:
        assert "1.8000 ± 0.0030" in self.text(fit)
        assert "1.80 ± 0.12" in self.text(fit, elbo_se=0.1234)
        assert "-123457 ± 12" in self.text(fit, elbo=-123456.789, elbo_se=12.3)
        assert "ELBO 1.8000 log Z" in self.text(fit, elbo_se=1e-12)
        fit.target.log_normalizer = 1.8 - 1e-6
        assert "KL(q ‖ p) 0.0000 log Z" in self.text(fit, elbo_se=1e-7)

    def test_kl_known(self, fit: Fit) -> None:
        fit.target.log_normalizer = LOG_Z
        assert "KL(q ‖ p) 0.0379 ± 0.0030 log Z − ELBO; log Z = 1.8379 is known" in self.text(fit)

    def test_kl_estimated_only_where_the_weights_are_good(self, fit: Fit) -> None:
        assert "KL(q ‖ p) 0.0500 ± 0.0030 log evidence − ELBO" in self.text(fit)
        assert "KL(q ‖ p) 0" not in self.text(fit, khat=0.9)

    def test_no_mass(self, fit: Fit) -> None:
        text = self.text(fit, elbo=-math.inf, elbo_se=math.nan)
        assert "some draws fall where the target is 0" in text

    def test_not_finite(self, fit: Fit) -> None:
        assert "1,234 of 10,000 draws had no finite density" in self.text(fit, not_finite=1_234)
        assert "no finite density" not in self.text(fit)

    def restarts(self, fit: Fit, *elbos: float) -> str:
        first = fit.restarts[0]
        best = max((e for e in elbos if not math.isnan(e)), default=math.nan)
        fit.restarts = tuple(
            replace(first, index=i, elbo=e, elbo_se=0.01, best=e == best, dropped=math.isnan(e))
            for i, e in enumerate(elbos)
        )
        return self.text(fit)

    def test_restarts_that_agree_need_no_word(self, fit: Fit) -> None:
        text = self.restarts(fit, 1.80, 1.85, 1.70)
        assert "as when a mode is lost" not in text and "1.850 (tempered, kept)" in text

    def test_one_that_came_alone_asks_to_temper_for_longer(self, fit: Fit) -> None:
        text = self.restarts(fit, 1.1, 1.85, 1.15)
        assert "Only the kept one of 3 restarts came so far, the next ended 0.70 nats lower" in text
        assert "anneal=0.8" in text and "more restarts" in text

    def test_some_that_agree_are_counted(self, fit: Fit) -> None:
        text = self.restarts(fit, 1.1, 1.85, 1.80)
        assert "2 of 3 restarts agree to 0.3 nats" in text and "anneal=" not in text

    def test_dropped_ones_are_named_and_not_compared(self, fit: Fit) -> None:
        text = self.restarts(fit, math.nan, 1.85, 1.80)
        assert "- (tempered, dropped)" in text and "as when a mode is lost" not in text

    def test_many_restarts_and_a_long_formula_stay_narrow(self, fit: Fit) -> None:
        assert "1.850" in self.restarts(fit, *[1.85 - 0.001 * i for i in range(32)])

    def test_numbers_of_any_size_stay_narrow(self, fit: Fit) -> None:
        self.text(
            fit, elbo=-1234567.891, elbo_se=123.4, log_evidence=-1234500.0, log_evidence_se=1e4,
            khat=3.2, ess=1.0,
        )  # fmt: skip

    def test_header(self, fit: Fit) -> None:
        text = self.text(fit)
        assert text.startswith("NFVI 'scale-loc' on log-density, d = 2, base normal, seed 4") or (
            text.startswith("NFVI 'scale-loc' on log_p, d = 2, base normal, seed 4")
        )
        assert "400 steps of 64 draws, 51,200 gradients of the target" in text
        assert "all steps done" in text

    def test_print_is_describe(self, fit: Fit) -> None:
        assert str(fit) == describe(fit)
        assert repr(fit) == "<Fit 'scale-loc' of log_p, dim=2, steps=400>"


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
    def test_numbers(self) -> None:
        x = torch.linspace(0, 1, 101, dtype=torch.float64)
        table = summarize({"a": x, "m": torch.stack([x, 2 * x, 3 * x, 4 * x], 1).reshape(-1, 2, 2)})
        lines = [line.split() for line in table.splitlines()]
        assert lines[0] == ["mean", "sd", "5%", "50%", "95%"]
        assert [line[0] for line in lines[1:]] == ["a", "m[0,0]", "m[0,1]", "m[1,0]", "m[1,1]"]
        assert [float(v) for v in lines[1][1:]] == pytest.approx([0.5, 0.2930, 0.05, 0.5, 0.95])
        assert [float(v) for v in lines[5][1:]] == pytest.approx(
            [2.0, 1.172, 0.2, 2.0, 3.8], rel=1e-3
        )

    def test_of_a_fit(self, fit: Fit) -> None:
        table = fit.summary()
        assert table == fit.summary() and table.count("\n") == 2
        row = [float(v) for v in table.splitlines()[2].split()[1:3]]
        assert row == pytest.approx([-2.0, 2.0], abs=0.2)

    def test_of_a_model(self, of_model: Path) -> None:
        table = Fit.load(of_model, target=PyroTarget(model, DATA)).summary(100)
        assert [line.split()[0] for line in table.splitlines()[1:]] == [
            "mean[0]",
            "mean[1]",
            "scale",
        ]


def test_a_model_written_for_a_file_needs_its_arguments(of_model: Path) -> None:
    with pytest.raises(TargetError):
        Fit.load(of_model, target=model)


@pytest.mark.parametrize(
    ("base", "climbed", "words"),
    [
        ("normal", False, 'heavier tails (base="studentt(df=5)" or "laplace")'),
        ("laplace", False, "another base (normal, laplace, studentt)"),
        ("normal", True, 'heavier tails, as in NFVI(str(fit.formula), base="studentt(df=5)")'),
        ("laplace", True, 'another seed, or heavier tails, as in NFVI(str(fit.formula), base="stu'),
        ("studentt(df=20)", True, 'base="studentt(df=5)")'),
        ("studentt(df=5)", True, 'base="studentt(df=3)")'),
    ],
)
def test_the_base_that_is_advised_is_not_the_one_that_is_there(base, climbed, words):
    """After "auto", which takes no base, as a call with the formula that it found."""
    fit = SimpleNamespace(guide=Guide("loc", 2, base=base), path=[] if climbed else None)
    assert words in _other_base(fit) and f'"{base}"' not in _other_base(fit)
