"""NFVI: arguments, seeds, dtypes, and fits with known answers."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from models import make_gaussian, pot1
from nfvi import NFVI, Fit, FormulaError, LogDensity, TargetError
from nfvi.flows import Flow

FIVE = 5.0


def normal(z: Tensor) -> Tensor:
    return -0.5 * (z * z).sum(-1)


class Untouched(LogDensity):
    """A target that fails the test when its log-density is evaluated for a step."""

    def log_prob(self, z: Tensor) -> Tensor:
        pytest.fail("the target was evaluated before the arguments were checked")


def fit(formula: str = "planar*2-scale-loc", **options: Any) -> Fit:
    own = ("base", "jitter", "seed", "dtype", "device")
    face = {"seed": 0} | {k: options.pop(k) for k in own if k in options}
    settings = {"dim": 2, "steps": 20, "n_mc": 8, "restarts": 2, "progress": False, **options}
    return NFVI(formula, **face).fit(settings.pop("target", normal), **settings)


class TestArguments:
    """Each wrong argument is one clear error, before any work."""

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"steps": 0}, ValueError, "steps must be an integer of at least 1, got 0"),
            ({"steps": 2.0}, ValueError, "steps must be an integer"),
            ({"steps": True}, ValueError, "steps must be an integer"),
            ({"n_mc": 1}, ValueError, "n_mc must be an integer of at least 2, got 1"),
            ({"restarts": 0}, ValueError, "restarts must be an integer of at least 1, got 0"),
            ({"anneal": 1.1}, ValueError, r"anneal must be fractions .* from 0 to 1, .* got 1\.1"),
            ({"anneal": -0.1}, ValueError, "anneal must be fractions"),
            ({"anneal": math.nan}, ValueError, "anneal must be fractions"),
            ({"anneal": "yes"}, ValueError, "anneal must be fractions .* got 'yes'"),
            ({"anneal": [0.1, "x"]}, ValueError, "anneal must be fractions .* got 'x'"),
            ({"anneal": [0.1]}, ValueError, "anneal has 1 fractions for restarts=2"),
            ({"anneal": [0.1] * 3}, ValueError, "anneal has 3 fractions for restarts=2"),
            ({"gradient": "foo"}, ValueError, 'gradient must be "path" or "total", got \'foo\''),
            ({"gradient": 1}, ValueError, "gradient must be"),
            ({"lr": -1}, ValueError, "lr must be a positive number, got -1"),
            ({"lr": 0}, ValueError, "lr must be a positive number, got 0"),
            ({"lr": math.inf}, ValueError, "lr must be a positive number"),
            ({"lr": "fast"}, ValueError, "lr must be a positive number"),
            ({"callbacks": print}, TypeError, "callbacks= must be a list of callbacks"),
            ({"callbacks": [3]}, TypeError, "callbacks= must hold functions"),
            ({"callbacks": [dict]}, TypeError, "callbacks= must hold functions"),
            ({"optimizer": "adam"}, TypeError, "optimizer='adam'"),
            ({"optimizer": torch.optim.LBFGS}, ValueError, "pass restarts=1"),
            ({"dim": 3}, TargetError, "dim=3 was given, but .* has dim=2"),
        ],
    )
    def test_of_fit(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message) as caught:
            fit(**{"target": Untouched(normal, 2), **options})
        assert caught.value.__cause__ is None and caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seed": -1}, "seed must be an integer from 0 to"),
            ({"seed": 2**63}, "seed must be an integer from 0 to"),
            ({"seed": 0.5}, "seed must be an integer"),
            ({"dtype": int}, "dtype must be a floating-point torch dtype"),
            ({"dtype": "float64"}, "dtype must be a floating-point torch dtype"),
            ({"dtype": torch.int32}, r"dtype must .* got torch\.int32"),
            ({"jitter": -1}, "jitter must be a number of at least 0, got -1"),
            ({"jitter": math.nan}, "jitter must be a number"),
            ({"jitter": "big"}, "jitter must be a number"),
            ({"device": "nowhere"}, "device='nowhere' cannot be used here"),
            ({"device": 1.5}, r"device=1\.5 cannot be used here"),
        ],
    )
    def test_of_nfvi(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            NFVI("scale-loc", **options)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_a_device_that_this_machine_lacks(self) -> None:
        with pytest.raises(ValueError, match="device='cuda' cannot be used here"):
            NFVI(device="cuda")

    @pytest.mark.parametrize("options", [{"formula": "planer"}, {"base": "cauchy"}])
    def test_formula_and_base(self, options: dict[str, str]) -> None:
        with pytest.raises(FormulaError, match=r"\^"):
            NFVI(**options)

    @pytest.mark.parametrize("dim", [0, -1, 2.0, "2", True])
    def test_wrong_dim(self, dim: Any) -> None:
        with pytest.raises(TargetError, match="dim= must be an integer of at least 1"):
            fit(dim=dim)

    def test_missing_dim(self) -> None:
        with pytest.raises(TargetError, match="dim="):
            fit(dim=None)

    def test_dim_for_a_target_that_knows_it(self) -> None:
        assert fit(target=LogDensity(normal, 2), dim=2).dim == 2

    def test_arguments_for_a_log_density(self) -> None:
        with pytest.raises(TargetError):
            NFVI("loc").fit(normal, torch.zeros(3), dim=2)
        with pytest.raises(TargetError, match="takes no model arguments"):
            NFVI("loc").fit(LogDensity(normal, 2), torch.zeros(3))

    def test_a_flow_that_needs_more_dimensions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from nfvi.flows.affine import Loc

        assert issubclass(Loc, Flow)
        monkeypatch.setattr(Loc, "min_dim", 3)
        with pytest.raises(FormulaError):
            fit("loc")

    def test_what_runs(self) -> None:
        for options in ({"anneal": True}, {"anneal": [0.5, False]}, {"callbacks": ()}, {"lr": 1}):
            assert fit(steps=2, **options).steps == 2


def parameters(found: Fit) -> Tensor:
    return found._trainer.ensemble.flat.detach().clone()


class TestSeed:
    @pytest.mark.parametrize("gradient", ["path", "total"])
    @pytest.mark.parametrize("restarts", [1, 3])
    def test_one_seed_is_one_fit_bit_for_bit(self, gradient: str, restarts: int) -> None:
        a, b = (fit(gradient=gradient, restarts=restarts, seed=7) for _ in range(2))
        assert torch.equal(parameters(a), parameters(b))
        for name in ("loss", "elbo", "elbo_se", "grad_norm", "beta", "lr"):
            assert torch.equal(getattr(a.history, name), getattr(b.history, name))
        assert a.restarts == b.restarts and a.diagnostics == b.diagnostics
        assert torch.equal(a.sample(5), b.sample(5))
        assert torch.equal(a.importance_resample(5), b.importance_resample(5))

    def test_what_was_drawn_before_does_not_matter(self) -> None:
        a = fit(seed=7)
        torch.randn(17)
        assert torch.equal(parameters(a), parameters(fit(seed=7)))

    def test_other_seeds_are_other_fits(self) -> None:
        assert not torch.isclose(parameters(fit(seed=7)), parameters(fit(seed=8))).any()

    def test_restarts_start_apart(self) -> None:
        start = parameters(fit(steps=1, restarts=4, seed=0, jitter=0.3))
        assert len(start.unique(dim=0)) == 4

    def test_without_a_seed_each_fit_is_new_and_can_be_repeated(self) -> None:
        a, b = fit(seed=None), fit(seed=None)
        assert a.seed != b.seed
        assert torch.equal(parameters(a), parameters(fit(seed=a.seed)))

    def test_one_object_fits_twice_alike(self) -> None:
        nfvi = NFVI("planar", seed=3)
        a, b = (nfvi.fit(normal, dim=2, steps=3, n_mc=4, restarts=1) for _ in range(2))
        assert torch.equal(parameters(a), parameters(b))

    @pytest.mark.parametrize("seed", [0, 2**63 - 1])
    def test_the_ends_of_the_range(self, seed: int) -> None:
        found = fit(seed=seed, steps=2)
        assert math.isfinite(found.elbo) and found.sample(2).shape == (2, 2)


class TestStartingGuide:
    """The guide that a fit starts from."""

    def test_it_is_that_of_the_first_restart(self) -> None:
        start = NFVI("planar*2", base="laplace", jitter=0.5, seed=5, dtype=torch.float64)
        target = LogDensity(normal, 2)
        still = torch.optim.SGD
        fit = start.fit(target, steps=1, n_mc=8, restarts=1, optimizer=still, lr=1e-300)
        guide = start.starting_guide(target)
        assert str(guide.base) == "laplace" and guide.dtype == torch.float64
        x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert torch.equal(fit.log_prob(x), guide.log_prob(x))

    def test_its_seed_is_for_those_without_one(self) -> None:
        first, second, own = (
            NFVI("planar", seed=seed).starting_guide(dim=2, seed=other).state_dict()
            for seed, other in ((None, 3), (3, 4), (4, 3))
        )
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not all(torch.equal(first[name], own[name]) for name in first)

    def test_it_takes_the_dtype_of_the_target(self) -> None:
        target = LogDensity(normal, 2)
        target.dtype = torch.float64
        assert NFVI("loc").starting_guide(target).dtype == torch.float64
        single = NFVI("loc", dtype=torch.float32).starting_guide(target)
        assert single.dtype == torch.float32

    def test_it_needs_a_formula_and_one_dimension(self) -> None:
        with pytest.raises(ValueError, match="has no formula before it is fitted"):
            NFVI("auto").starting_guide()
        with pytest.raises(ValueError, match="needs target= or dim="):
            NFVI("loc").starting_guide()
        with pytest.raises(ValueError, match="the target has d = 2 and dim= has d = 3"):
            NFVI("loc").starting_guide(LogDensity(normal, 2), dim=3)


class TestGlobalState:
    """Random state, default dtype and validation stay as they were."""

    def test_random_state(self) -> None:
        before = torch.get_rng_state()
        found = fit(seed=None)
        found.sample(3)
        found.importance_resample(3)
        str(found)
        found.summary(10)
        found.refine(2)
        assert torch.equal(torch.get_rng_state(), before)

    def test_random_state_of_a_model(self) -> None:
        before = torch.get_rng_state()
        found = NFVI("loc", seed=1).fit(coin, torch.ones(3), steps=2, n_mc=4, restarts=1)
        found.sample(3)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("on", [True, False])
    def test_validation(self, on: bool) -> None:
        kept = torch.distributions.Distribution._validate_args
        torch.distributions.Distribution.set_default_validate_args(on)
        try:
            fit(steps=2)
            assert torch.distributions.Distribution._validate_args is on
        finally:
            torch.distributions.Distribution.set_default_validate_args(kept)

    def test_gradient_mode(self) -> None:
        with torch.no_grad():
            found = fit()
            assert not torch.is_grad_enabled()
        assert torch.equal(parameters(found), parameters(fit()))


def coin(flips: Tensor) -> None:
    p = pyro.sample("p", dist.Beta(torch.tensor(1.0), torch.tensor(1.0)))
    with pyro.plate("flips", len(flips)):
        pyro.sample("flip", dist.Bernoulli(p), obs=flips)


DTYPES = [torch.float32, torch.float64]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


class TestDtypeAndDevice:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("formula", ["planar*2-radial", "scale-hh*2-loc"])
    @pytest.mark.parametrize("gradient", ["path", "total"])
    def test_they_act_everywhere(
        self, formula: str, dtype: torch.dtype, device: str, gradient: str
    ) -> None:
        found = fit(formula, dtype=dtype, device=device, gradient=gradient)
        draws = found.sample(5)
        assert draws.dtype == dtype and draws.device.type == device
        assert found.log_prob(draws).dtype == dtype
        assert found.importance_resample(5).dtype == dtype
        assert parameters(found).dtype == dtype == found.guide.dtype
        assert math.isfinite(found.elbo) and found.history.elbo.dtype == dtype
        assert found.history.elbo.device.type == "cpu"
        found.refine(3)
        assert found.sample(2).dtype == dtype and found.sample(2).device.type == device

    def test_float64_is_computed_in_float64(self) -> None:
        # The same noise and start in both: the difference is float32's rounding.
        one, two = fit("scale-loc", dtype=torch.float64), fit("scale-loc", dtype=torch.float64)
        assert torch.equal(parameters(one), parameters(two))
        q = one.guide.log_prob(torch.zeros(2, dtype=torch.float64))
        rho, loc = one.guide.flows[0].rho, one.guide.flows[1].loc
        exact = torch.distributions.Normal(loc, torch.nn.functional.softplus(rho))
        expected = exact.log_prob(torch.zeros(2, dtype=torch.float64)).sum()
        assert abs(q - expected) < 1e-13

    def test_the_default_dtype_is_torch_s(self) -> None:
        assert fit().guide.dtype == torch.get_default_dtype() == torch.float32

    @pytest.mark.cuda
    def test_the_start_is_that_of_the_cpu(self) -> None:
        rate = {"optimizer": torch.optim.SGD, "lr": 1e-30, "steps": 1}
        there, here = fit(device="cuda", **rate), fit(**rate)
        torch.testing.assert_close(parameters(there).cpu(), parameters(here))


class TestDefaults:
    def test_they_are_those_of_the_docs(self) -> None:
        steps = []

        def stop(state: Any) -> Any:
            from nfvi import Stop

            steps.append(state.steps)
            return Stop("seen")

        found = NFVI("scale-loc", seed=0).fit(normal, dim=2, callbacks=[stop], progress=False)
        assert steps == [2_500]
        assert found.gradient_evaluations == 8 * 256
        assert [r.tempered for r in found.restarts] == [True, False, True, True] * 2
        assert found.history.beta[0].tolist() == pytest.approx([0.01, 1.0, 0.01, 0.01] * 2)
        assert (found.settings["draws"], found.settings["held"]) == ("qmc", 1_500)
        found = NFVI("scale-loc", seed=0).fit(normal, dim=11, callbacks=[stop], progress=False)
        assert (found.gradient_evaluations, len(found.restarts)) == (4 * 64, 4)
        found = NFVI("realnvp-loc", seed=0).fit(normal, dim=2, callbacks=[stop], progress=False)
        assert (found.settings["held"], found.settings["lengths"][0]) == (0, 3_000)
        assert steps == [2_500, 2_500, 5_000]

    @pytest.mark.parametrize(
        ("base", "arguments", "draws"),
        [
            ("normal", {}, "qmc"),
            ("laplace", {}, "qmc"),
            ("studentt(df=5)", {}, "qmc"),
            ("studentt(df=0.5)", {}, "iid"),
            ("normal", {"draws": "iid"}, "iid"),
            ("normal", {"n_mc": "auto"}, "iid"),
            ("normal", {"anneal": "adaptive"}, "iid"),
        ],
    )
    def test_draws(self, base: str, arguments: dict[str, Any], draws: str) -> None:
        found = NFVI("scale-loc", base=base, seed=0).fit(
            normal, dim=2, steps=5, progress=False, **arguments
        )
        assert found.settings["draws"] == draws

    def test_draws_of_many_dimensions(self) -> None:
        for dim, draws in ((1_000, "qmc"), (1_001, "iid")):
            found = NFVI("scale-loc", seed=0).fit(normal, dim=dim, steps=2, progress=False)
            assert found.settings["draws"] == draws

    @pytest.mark.parametrize(("hold", "held"), [(None, 12), (0, 0), (0.5, 10), (0.9, 18)])
    def test_hold(self, hold: float | None, held: int) -> None:
        """Of 20 steps: the rate is at its top from the second on, to the step after those held."""
        found = fit(hold=hold, lr=0.1)
        assert found.settings["held"] == held
        lr = found.history.lr
        assert int((lr == lr.max()).sum()) == max(held, 1) and float(lr[-1]) < 0.06

    @pytest.mark.parametrize("hold", [-0.1, 1, True, "long"])
    def test_a_hold_that_is_no_fraction(self, hold: Any) -> None:
        with pytest.raises(
            ValueError, match="hold must be a fraction of the steps from 0 to below"
        ):
            fit(hold=hold)

    def test_hold_without_a_number_of_steps(self) -> None:
        with pytest.raises(
            ValueError, match=r'hold=0.5 is for a number of steps; with steps="auto"'
        ):
            fit(hold=0.5, steps="auto")

    @pytest.mark.parametrize(
        ("anneal", "tempered", "steps"),
        [
            (False, [False, False], [0, 0]),
            (True, [True, True], [8, 8]),
            (0.5, [True, True], [10, 10]),
            (0, [False, False], [0, 0]),
            ([0.1, 0.9], [True, True], [2, 18]),
            ((0, 1), [False, True], [0, 20]),
            (None, [True, False], [8, 0]),
        ],
    )
    def test_anneal(self, anneal: Any, tempered: list[bool], steps: list[int]) -> None:
        found = fit(anneal=anneal)
        assert [r.tempered for r in found.restarts] == tempered
        assert (found.history.beta < 1).sum(0).tolist() == steps

    def test_the_best_restart_is_the_guide(self) -> None:
        found = fit(restarts=3, steps=5, jitter=0.5)
        best = max(found.restarts, key=lambda r: r.elbo)
        assert best.best and sum(r.best for r in found.restarts) == 1
        named = found.guide.state_dict()
        row = found._trainer.ensemble.guide(best.index).state_dict()
        assert all(torch.equal(named[k], row[k]) for k in named)
        # 4 000 draws here, 10 000 others there.
        assert abs(found.elbo - best.elbo) < FIVE * math.hypot(best.elbo_se, found.elbo_se)

    def test_one_point_functions_and_targets_of_points(self) -> None:
        assert fit(target=lambda z: -0.5 * (z @ z)).dim == 2

    def test_a_target_evaluated_by_a_loop_has_one_restart(self) -> None:
        def stubborn(z: Tensor) -> Tensor:
            return -0.5 * (z @ z) if float(z.detach()[0]) < 100 else -(z @ z)

        with pytest.warns(UserWarning, match="one point at a time"):
            found = fit(target=stubborn, restarts=None, steps=2)
        assert len(found.restarts) == 1

    def test_repr(self) -> None:
        assert repr(NFVI("Planar * 8", base="laplace")) == "NFVI('planar*8', base='laplace')"


class TestKnownAnswers:
    def test_scale_loc_on_a_gaussian_with_known_moments(self) -> None:
        mean, sd = torch.tensor([3.0, -1.0, 0.0]), torch.tensor([0.1, 1.0, 10.0])
        found = NFVI("scale-loc", seed=0).fit(
            lambda z: -0.5 * ((z - mean) / sd).square().sum(-1), dim=3, steps=2_000, restarts=2
        )
        sigma = torch.nn.functional.softplus(found.guide.flows[0].rho)
        assert ((found.guide.flows[1].loc - mean) / sd).abs().max() < 0.01
        assert (sigma / sd - 1).abs().max() < 0.01
        draws = found.sample(200_000, seed=0)
        assert ((draws.mean(0) - mean) / sd).abs().max() < 0.01 + FIVE / math.sqrt(200_000)

    def test_householder_reaches_a_correlated_gaussian(self) -> None:
        target = make_gaussian(5, condition=100.0)
        found = NFVI("scale-hh*5-loc", seed=0).fit(target, steps=600, restarts=2)
        assert target.log_normalizer - found.elbo < 0.01
        assert found.log_evidence == pytest.approx(target.log_normalizer, abs=0.01)

    def test_a_model_comes_back_by_site_and_constrained(self) -> None:
        flips = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        found = NFVI("scale-loc", seed=0).fit(coin, flips, steps=500, restarts=2)
        draws = found.importance_resample(20_000, seed=0)
        assert set(draws) == {"p"} and draws["p"].shape == (20_000,)
        assert bool(((draws["p"] > 0) & (draws["p"] < 1)).all())
        # Beta(1 + 6, 1 + 2): mean 7/10, variance 0.7 · 0.3 / 11.
        sd = math.sqrt(0.21 / 11)
        assert draws["p"].mean().item() == pytest.approx(0.7, abs=FIVE * sd / math.sqrt(10_000))
        assert draws["p"].std().item() == pytest.approx(sd, rel=0.03)
        # ∫ p⁶ (1 − p)² dp = B(7, 3).
        exact = math.lgamma(7) + math.lgamma(3) - math.lgamma(10)
        assert abs(found.log_evidence - exact) < FIVE * found.log_evidence_se + 1e-4

    def test_tempering_finds_a_far_mode_that_none_finds(self) -> None:
        def two(z: Tensor) -> Tensor:
            """Unit normals at −6 and 2, of one mass: the guide starts beside the second."""
            far, near = -0.5 * (z[:, 0] + 6) ** 2, -0.5 * (z[:, 0] - 2) ** 2
            return torch.logaddexp(far, near) - 0.5 * z[:, 1] ** 2

        def found(anneal: bool | float) -> int:
            """How many of 8 restarts put more than a fifth of their mass on the far mode."""
            made = NFVI("planar*8", seed=1).fit(
                two, dim=2, anneal=anneal, steps=300, n_mc=64, restarts=8, progress=False
            )
            guides = [made._trainer.ensemble.guide(r) for r in range(8)]
            shares = [(g.sample(2_000)[:, 0] < -2).float().mean().item() for g in guides]
            return sum(share > 0.2 for share in shares)

        assert found(0.5) >= 6
        assert found(False) <= 2


@pytest.mark.parametrize(
    ("formula", "gradient"), [("planar*2", "path"), ("loc-nsf", "total"), ("spline-loc", "total")]
)
def test_the_default_gradient_is_the_path_but_for_splines(formula, gradient):
    fit = NFVI(formula, seed=0).fit(pot1, steps=1, restarts=1)
    assert fit.settings["gradient"] == gradient
    chosen = NFVI(formula, seed=0).fit(pot1, steps=1, restarts=1, gradient="path")
    assert chosen.settings["gradient"] == "path"


@pytest.mark.parametrize(
    ("formula", "lr"), [("scale-loc", 0.02), ("monotone", 0.02), ("scale-realnvp-loc", 0.005)]
)
def test_the_default_learning_rate_suits_the_flows(formula, lr):
    fit = NFVI(formula, seed=0).fit(pot1, steps=1, restarts=1)
    assert fit.settings["lr"] == lr
    other = NFVI(formula, seed=0).fit(pot1, steps=1, restarts=1, optimizer=torch.optim.AdamW)
    assert other.settings["lr"] is None


@pytest.mark.parametrize(("formula", "restarts"), [("planar*2", 8), ("monotone*3", 2)])
def test_large_guides_get_two_restarts_one_of_them_tempered(formula, restarts):
    fit = NFVI(formula, seed=0).fit(pot1, steps=2, n_mc=8)
    assert len(fit.restarts) == restarts
    assert {r.tempered for r in fit.restarts} == {True, False}
