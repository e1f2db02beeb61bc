"""combine="mixture": restarts in different modes as one guide, through everything a Fit does."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import pytest
import torch

from models.mixture import GaussianMixture
from nfvi import (
    NFVI,
    Checkpoint,
    Fit,
    FitError,
    Guide,
    MixtureGuide,
    compare,
    nuts,
    plots,
)
from nfvi.guides.placement import Placement
from nfvi.training.setup import Plan, build_trainer
from tests.damage import edited

FIVE = 5.0
SHARES = (0.8, 0.2)
# Slanted, so that a guide of independent coordinates fits neither mode exactly.
SLANTED = torch.tensor([[1.0, 0.4], [0.4, 1.0]])


def two_modes(covariance: torch.Tensor = SLANTED) -> GaussianMixture:
    """Normals at (−6, 0) and (6, 0) that hold 0.8 and 0.2 of the mass; log Z = 0."""
    means = torch.tensor([[-6.0, 0.0], [6.0, 0.0]])
    return GaussianMixture(torch.tensor(SHARES), means, covariance.expand(2, 2, 2))


def fit_from(
    places: Sequence[float], target: Any = None, *, steps: int = 250, tril: Any = None, **plan: Any
) -> Fit:
    """A fit whose restarts start from (x, 0), one for each of these."""
    target = two_modes() if target is None else target
    scales = torch.ones(2) if tril is None else tril
    starts = iter(places)
    settings = {
        **{"formula": "scale-loc", "base": "normal", "dtype": "float32", "dim": 2},
        **{"target": target.name, "named": target.named},
    }
    made = Plan(
        **{"steps": steps, "n_mc": 64, "lengths": (0,) * len(places), "gradient": "path"},
        **{"lr": 0.03, "seed": 1, "combine": "mixture", **plan},
    )

    def guide(generator: torch.Generator) -> Guide:
        place = Placement(torch.tensor([next(starts), 0.0]), scales)
        return Guide("scale-loc", 2, placement=place, generator=generator)

    return Fit.from_trainer(
        build_trainer(guide, target, made, None, settings), [], time.perf_counter()
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit with a mixture of restarts 0 and 1 or 2; each test loads its own."""
    path = tmp_path_factory.mktemp("fits") / "mixture.safetensors"
    fit_from([-5.0, 5.0, 6.5]).save(path)
    return path


@pytest.fixture
def fit(file: Path) -> Fit:
    return Fit.load(file, target=two_modes())


def words(fit: Fit) -> str:
    return " ".join(str(fit).split())


class TestOutcome:
    def test_both_modes_are_kept_with_their_shares(self, fit: Fit) -> None:
        """Within five standard errors of a ratio of two importance-sampling estimates.

        For p with correlation r and q its best independent normal, with variances 1 − r²,
        ∫ p²/q = (1 − r²) / √(1 − 4r²).
        """
        assert isinstance(fit.guide, MixtureGuide) and len(fit.guide.guides) == 2
        variance = (1 - 0.4**2) / math.sqrt(1 - 4 * 0.4**2) - 1
        error = 0.8 * 0.2 * math.sqrt(2 * variance / 2_000)
        assert abs(float(fit.guide.weights[0]) - 0.8) < FIVE * error

    def test_log_evidence_and_elbo(self, fit: Fit) -> None:
        """log Z is 0; the ELBO lacks what independent coordinates cost, −½ log(1 − r²)."""
        assert abs(fit.log_evidence) < FIVE * fit.log_evidence_se < 0.05
        assert fit.elbo == pytest.approx(0.5 * math.log(1 - 0.4**2), abs=0.03)
        assert fit.khat < 0.7

    def test_a_single_restart_of_the_same_fit_has_lost_a_mode(self) -> None:
        alone = fit_from([-5.0, 5.0, 6.5], combine="best")
        assert isinstance(alone.guide, Guide)
        assert alone.elbo < 0.5 * math.log(1 - 0.4**2) + math.log(0.8) + 0.03
        assert all(r.weight is None for r in alone.restarts)

    def test_the_restarts_say_which_are_in_it(self, fit: Fit) -> None:
        shares = [r.weight for r in fit.restarts if r.weight is not None]
        assert len(fit.restarts) == 3 and len(shares) == 2
        assert torch.tensor(shares).tolist() == pytest.approx(fit.guide.weights.tolist(), abs=1e-6)
        assert fit.restarts[0].best and fit.restarts[0].weight == max(shares)
        assert fit.kept == [r.index for r in fit.restarts if r.weight is not None]

    def test_one_mode_gives_an_ordinary_guide(self) -> None:
        normal = two_modes().covariances[:1]
        target = GaussianMixture(torch.ones(1), torch.zeros(1, 2), normal)
        fit = fit_from([-1.0, 0.5, 2.0], target)
        assert isinstance(fit.guide, Guide)
        assert sum(r.best for r in fit.restarts) == 1
        assert all(r.weight is None for r in fit.restarts) and "mixture of" not in words(fit)

    def test_one_restart(self) -> None:
        assert isinstance(fit_from([-5.0], steps=5).guide, Guide)

    def test_a_restart_far_below_the_best_is_left_out(self) -> None:
        """A third mode with a share of e⁻¹² is more than 10 nats below the first."""
        shares, x = torch.tensor([1.0, 0.25, math.exp(-12)]), torch.zeros(3, 2)
        x[:, 0] = torch.tensor([-6.0, 6.0, 30.0])
        target = GaussianMixture(shares, x, torch.eye(2).repeat(3, 1, 1))
        fit = fit_from([-6.0, 6.0, 30.0], target, steps=60)
        assert [r.weight is not None for r in fit.restarts] == [True, True, False]

    def test_through_nfvi(self) -> None:
        """Restarts with a jitter of several units start in either mode."""
        fit = NFVI("scale-loc", seed=1, jitter=3.0).fit(
            two_modes(), steps=400, n_mc=64, restarts=6, anneal=False, combine="mixture"
        )
        assert isinstance(fit.guide, MixtureGuide) and fit.settings["combine"] == "mixture"
        assert abs(fit.log_evidence) < FIVE * fit.log_evidence_se
        right = (fit.importance_resample(2_000, seed=0)[:, 0] > 0).double().mean()
        # 0.2 ± 0.009 by 2 000 draws, and what the weights of 20 000 add.
        assert float(right) == pytest.approx(0.2, abs=FIVE * 0.012)

    def test_wrong_values(self) -> None:
        with pytest.raises(ValueError, match='combine must be "best" or "mixture", got \'all\''):
            NFVI("loc").fit(two_modes(), combine="all")
        with pytest.raises(ValueError, match=r"prune=True gives up restarts .* combine="):
            NFVI("loc").fit(two_modes(), combine="mixture", prune=True)


class TestUse:
    def test_print(self, fit: Fit) -> None:
        shares = ", ".join(f"{r.weight:.3f}" for r in fit.restarts if r.weight is not None)
        assert f"mixture of 2 restarts with weights {shares}" in words(fit)
        assert words(fit).count("kept") == 2 and "as when a mode is lost" not in words(fit)
        assert all(len(line) <= 88 for line in str(fit).splitlines())

    def test_expectation(self, fit: Fit) -> None:
        """E[z₀] = −6 · 0.8 + 6 · 0.2."""
        found = fit.expectation(lambda z: z[:, 0], seed=1)
        assert abs(float(found.mean) + 3.6) < FIVE * float(found.se) < 0.5

    def test_verify_passes(self, fit: Fit) -> None:
        """The guide has sds of 0.92 for 1.0 within a mode, but those of the whole are right."""
        check = fit.verify(chains=400, seed=0)
        by_name = {c.name: c for c in check.checks}
        assert by_name["z[0]"].passed and by_name["z[0]"].sd == pytest.approx(4.9, abs=0.2)

    def test_importance_resampling_corrects_the_slant(self, fit: Fit) -> None:
        draws = fit.importance_resample(4_000, seed=0)
        left = draws[draws[:, 0] < 0]
        correlation = float(torch.corrcoef(left.T)[0, 1])
        assert correlation == pytest.approx(0.4, abs=FIVE * (1 - 0.16) / math.sqrt(3_200 * 0.8))

    def test_arviz_and_summary(self, fit: Fit) -> None:
        data = fit.to_arviz(50, seed=0)
        assert data["posterior"]["z"].shape == (1, 50, 2)
        assert data["posterior"].attrs["formula"] == "scale-loc"
        assert fit.summary()["mean"].iloc[0] == pytest.approx(-3.6, abs=0.3)

    def test_draws_of_a_seed_are_those_that_are_weighed(self, fit: Fit) -> None:
        draws = fit.weighted_draws(100, seed=3)
        assert torch.equal(draws.z, fit.sample(100, seed=3))
        torch.testing.assert_close(draws.log_q, fit.log_prob(draws.z))

    def test_nuts_names_what_to_do_instead_and_that_works(self, fit: Fit) -> None:
        with pytest.raises(FitError, match=r"needs a single flow.*init=fit\.guide\.sample\(4\)"):
            fit.nuts()
        starts = fit.guide.sample(4, generator=torch.Generator().manual_seed(0))
        run = nuts(fit.target, chains=4, init=starts, draws=20, warmup=20, seed=0, progress=False)
        assert torch.equal(run.draws[:, :, 0].mean(1) > 0, starts[:, 0] > 0)

    def test_pictures(self, fit: Fit) -> None:
        run = compare(fit, fit, draws=200, seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            axes = plots.guide(fit, draws=100)
            assert axes.get_title() == "mixture of 2 scale-loc"
            titles = [ax.get_title() for ax in plots.fitted(fit).axes]
            assert "mixture of 2 scale-loc" in titles
            assert plots.comparison(run).axes
            labels = plots.history(fit).get_legend_handles_labels()[1]
        members = [str(r.index) for r in fit.restarts if r.weight is not None]
        assert f"restarts {', '.join(members)}, a mixture" in labels
        assert "other restarts (1)" in labels
        with pytest.raises(ValueError, match="starting needs one flow"):
            plots.starting(fit.guide)
        plt.close("all")


class TestFile:
    def test_bit_for_bit(self, file: Path, tmp_path: Path) -> None:
        made = fit_from([-5.0, 5.0, 6.5])
        read = Fit.load(file, target=two_modes())
        assert read.restarts == made.restarts and read.settings["combine"] == "mixture"
        for name, value in made.guide.state_dict().items():
            assert torch.equal(read.guide.state_dict()[name], value), name
        assert torch.equal(read.sample(9, seed=0), made.sample(9, seed=0))
        x = 5 * torch.randn(9, 2)
        assert torch.equal(read.log_prob(x), made.log_prob(x))
        assert read.diagnostics == made.diagnostics
        read.save(tmp_path / "again")
        assert Fit.load(tmp_path / "again").diagnostics == made.diagnostics

    @pytest.mark.parametrize("tril", [torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0], [0.5, 2]])])
    def test_an_ordinary_guide_with_a_placement(self, tril: torch.Tensor, tmp_path: Path) -> None:
        made = fit_from([-5.0], steps=5, tril=tril)
        made.save(tmp_path / "f")
        read = Fit.load(tmp_path / "f", target=two_modes())
        assert torch.equal(read.guide.placement.tril, tril)
        assert torch.equal(read.sample(9, seed=0), made.sample(9, seed=0))
        assert read.refine(3).steps == 8 and torch.equal(read.guide.placement.tril, tril)

    def test_a_file_of_an_earlier_version(self, tmp_path: Path) -> None:
        made = NFVI("planar*2", seed=1).fit(two_modes(), steps=5, n_mc=8, restarts=2)
        made.save(tmp_path / "new")

        def older(header: dict[str, Any]) -> None:
            del header["guide"], header["settings"]["combine"]
            for restart in header["restarts"]:
                del restart["weight"]

        edited(tmp_path / "new", tmp_path / "old", older)
        read = Fit.load(tmp_path / "old", target=two_modes())
        assert torch.equal(read.sample(9, seed=0), made.sample(9, seed=0))
        assert read.refine(2).steps == 7

    def test_a_header_of_another_mixture_is_refused(self, file: Path, tmp_path: Path) -> None:
        edited(file, tmp_path / "f", lambda header: header["guide"]["components"].pop())
        with pytest.raises(FitError, match="is not a complete fit"):
            Fit.load(tmp_path / "f")


class TestGoingOn:
    def test_a_loaded_mixture_is_refined_side_by_side(self, fit: Fit) -> None:
        evaluations, steps = fit.gradient_evaluations, fit.steps
        columns = [r.index for r in fit.restarts if r.weight is not None]
        before = fit.history.elbo[:, columns]
        fit.refine(20)
        assert len(fit.restarts) == 2 and isinstance(fit.guide, MixtureGuide)
        assert fit.gradient_evaluations == evaluations + 20 * 2 * 64
        assert torch.equal(fit.history.elbo[:steps], before)
        assert float(fit.guide.weights[0]) == pytest.approx(0.8, abs=0.03)
        assert abs(fit.log_evidence) < FIVE * fit.log_evidence_se

    def test_all_restarts_go_on_where_they_are_at_hand(self) -> None:
        fit = fit_from([-5.0, 5.0, 6.5], steps=60)
        fit.refine(60)
        assert len(fit.restarts) == 3 and fit.history.elbo.shape == (120, 3)
        assert isinstance(fit.guide, MixtureGuide) and not fit.guide.training
        assert not any(p.requires_grad for p in fit.guide.parameters())

    def test_components_of_different_kinds_are_refused(self, fit: Fit) -> None:
        other = Guide("scale-loc", 2, generator=torch.Generator().manual_seed(0))
        fit.guide = MixtureGuide([fit.guide.guides[0], other], [0.5, 0.5])
        with pytest.raises(FitError, match="differ in formula or placement"):
            fit.refine(5)

    def test_a_checkpoint_knows_it(self, tmp_path: Path) -> None:
        options = {"steps": 60, "n_mc": 16, "restarts": 4, "anneal": False, "progress": False}
        nfvi = NFVI("scale-loc", seed=1, jitter=3.0)
        whole = nfvi.fit(two_modes(), combine="mixture", **options)

        def power_cut(state: Any) -> None:
            if state.step == 45:
                raise OSError("power cut")

        kept = Checkpoint(tmp_path / "c", every=20)
        with pytest.raises(OSError, match="power cut"):
            nfvi.fit(two_modes(), combine="mixture", callbacks=[kept, power_cut], **options)
        resumed = NFVI.resume(tmp_path / "c")
        with pytest.raises(ValueError, match="combine= is fixed by the checkpoint"):
            resumed.fit(two_modes(), combine="mixture")
        ended = resumed.fit(two_modes())
        assert isinstance(whole.guide, MixtureGuide) and ended.restarts == whole.restarts
        assert torch.equal(ended.sample(9, seed=0), whole.sample(9, seed=0))


def test_a_model_with_a_sign_that_the_data_do_not_tell() -> None:
    """y = x² + noise: both signs have half of the mass each, and sites come with their names."""

    def model(y: torch.Tensor) -> None:
        x = pyro.sample("x", dist.Normal(torch.tensor(0.0), 5.0))
        pyro.sample("y", dist.Normal(x.square(), 1.0), obs=y)

    fit = NFVI("scale-loc", seed=1, jitter=2.0).fit(
        model, torch.tensor(9.0), steps=200, n_mc=32, restarts=6, anneal=False, combine="mixture"
    )
    assert isinstance(fit.guide, MixtureGuide)
    draws = fit.importance_resample(2_000, seed=0)["x"]
    # The draws of either sign are even to 1/√2000 / 2, and as much again by the weights.
    assert float((draws > 0).double().mean()) == pytest.approx(0.5, abs=FIVE * 0.016)
    assert float(draws.abs().mean()) == pytest.approx(3.0, abs=0.05)
    assert re.search(r"mixture of \d restarts with weights 0\.\d{3}, 0\.\d{3}", words(fit))
    assert abs(fit.log_evidence - evidence(9.0)) < FIVE * fit.log_evidence_se


def evidence(y: float) -> float:
    """log ∫ N(x; 0, 5²) N(y; x², 1) dx by the trapezoid rule."""
    x = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    log_joint = torch.distributions.Normal(0.0, 5.0).log_prob(x)
    log_joint = log_joint + torch.distributions.Normal(x.square(), 1.0).log_prob(torch.tensor(y))
    return float(torch.trapezoid(log_joint.exp(), x).log())
