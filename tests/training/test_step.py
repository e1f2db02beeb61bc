"""Steps that are traced: the same fits to the last bit, and a reason where they are not."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Budget, Checkpoint, DensityFit, Fit, Stop
from nfvi.flows import lookup, names
from nfvi.tracing import trace
from nfvi.training import step as step_module

STEPS = 12
# Those with parameters to fit; `reverse` and `perm` have none.
FLOWS = [name for name in names() if lookup(name).name == name]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of a few steps are traced, too."""
    monkeypatch.setattr(step_module, "LEAST_STEPS", 1)
    monkeypatch.setattr(step_module, "LEAST_COMPILED", 1)
    monkeypatch.setattr(step_module, "LOOK_AGAIN", 5)


def checkpoint_at_5(folder: Path, **options) -> Path:
    """The file that a fit would have left had it been ended in step 6."""

    def keep(state) -> None:
        if state.step == 6:
            shutil.copy(folder / "last", folder / "run")

    fit(callbacks=[keep, Checkpoint(folder / "last", every=5)], **options)
    return folder / "run"


def normal(z: Tensor) -> Tensor:
    return -0.5 * ((z - 1) ** 2).sum(-1)


def fit(formula: str = "planar*2", target=normal, dim: int | None = 2, **options) -> Fit:
    arguments = {"restarts": 2, "n_mc": 8, "steps": STEPS, "progress": False, **options}
    return NFVI(formula, seed=0).fit(target, dim=dim, **arguments)


def assert_equal(traced: Fit | DensityFit, eager: Fit | DensityFit) -> None:
    assert traced.settings["evaluation"] == "traced"
    assert eager.settings["evaluation"] == "eager: compile=False"
    for name, value in eager.history.state_dict().items():
        assert torch.equal(traced.history.state_dict()[name], value), name
    for name, value in eager.guide.state_dict().items():
        assert torch.equal(traced.guide.state_dict()[name], value), name
    if isinstance(traced, Fit) and isinstance(eager, Fit):
        assert traced.gradient_evaluations == eager.gradient_evaluations
        assert traced.batched_evaluations == eager.batched_evaluations


class TestNumbers:
    @pytest.mark.parametrize("gradient", ["path", "total"])
    @pytest.mark.parametrize("flow", FLOWS)
    def test_every_flow(self, flow: str, gradient: str) -> None:
        small = "(hidden=[5,4])" if "hidden" in lookup(flow).options else ""
        traced, eager = (
            fit(f"{flow}{small}-scale-loc", gradient=gradient, compile=c) for c in ("trace", False)
        )
        assert_equal(traced, eager)

    @pytest.mark.parametrize(
        "options",
        [
            {"restarts": 1},
            {"anneal": 0.5},
            {"draws": "qmc"},
            {"optimizer": torch.optim.SGD, "lr": 0.01},
            {"optimizer": torch.optim.LBFGS, "restarts": 1},
            {"init": "laplace"},
            {"steps": "auto", "callbacks": [lambda state: state.step == 9 and Stop("enough")]},
        ],
        ids=lambda options: "-".join(options),
    )
    def test_every_option(self, options: dict[str, object]) -> None:
        traced, eager = (fit("monotone-loc", **options, compile=c) for c in ("trace", False))
        assert_equal(traced, eager)

    @pytest.mark.parametrize("formula", ["realnvp*6", "nsf*4"])
    def test_of_the_usual_size(self, formula: str) -> None:
        """On pot1, these lost their last bit where views that change nothing were left out."""
        options = {"n_mc": 256, "steps": 3}
        traced, eager = (fit(formula, **options, compile=c) for c in ("trace", False))
        assert_equal(traced, eager)

    def test_a_pyro_model(self) -> None:
        def model(y: Tensor) -> None:
            scale = pyro.sample("scale", pyro.distributions.HalfCauchy(1.0))
            with pyro.plate("rows", len(y)):
                z = pyro.sample("z", pyro.distributions.Normal(0.0, scale))
                pyro.sample("y", pyro.distributions.StudentT(4.0, z, 1.0), obs=y)

        data = torch.tensor([1.0, -2.0, 0.5])
        traced, eager = (
            NFVI("planar*2", seed=0).fit(
                model, data, steps=STEPS, n_mc=8, progress=False, compile=c
            )
            for c in ("trace", False)
        )
        assert_equal(traced, eager)

    @pytest.mark.parametrize("library", [torch.distributions, pyro.distributions])
    def test_a_function_of_distributions(self, library) -> None:
        """Whose checks read numbers: they are off in a trace, and on again behind it."""

        def target(z: Tensor) -> Tensor:
            prior = library.Normal(0.0, 2.0).log_prob(z).sum(-1)
            return prior + library.Gamma(2.0, z[:, 0].exp()).log_prob(torch.tensor(1.5))

        traced, eager = (fit(target=target, compile=c) for c in ("trace", False))
        assert_equal(traced, eager)
        with pytest.raises(ValueError, match="scale"):
            library.Normal(0.0, -1.0)

    @pytest.mark.filterwarnings("ignore:2 cells")
    def test_data(self) -> None:
        rng = np.random.default_rng(0)
        x, context, weights = rng.normal(size=(70, 2)), rng.normal(size=70), rng.uniform(size=70)
        x[0] = 40.0  # an outlier, so that the columns are compressed
        for options in ({}, {"context": context, "weights": weights}):
            traced, eager = (
                NFVI("maf(hidden=[5])*2", seed=0).fit_data(
                    x, batch_size=16, epochs=4, progress=False, compile=c, **options
                )
                for c in ("trace", False)
            )
            assert_equal(traced, eager)

    def test_refine(self) -> None:
        traced, eager = (fit(compile=c) for c in ("trace", False))
        assert_equal(traced.refine(5), eager.refine(5))

    def test_auto(self) -> None:
        traced, eager = (
            NFVI("auto", seed=0).fit(
                lambda z: (
                    -(z[:, 0] ** 2) / 8 - (z[:, 1] - z[:, 0] ** 2) ** 2 - z[:, 2:].square().sum(1)
                ),
                dim=5,
                budget=Budget(steps=500),
                compile=c,
                progress=False,
            )
            for c in ("trace", False)
        )
        assert traced.formula == eager.formula and traced.elbo == eager.elbo
        assert torch.equal(traced.sample(10, seed=0), eager.sample(10, seed=0))


class TestResume:
    @pytest.mark.parametrize(
        ("first", "then"), [("trace", "trace"), ("trace", False), (False, "trace")]
    )
    def test_bit_for_bit(self, first, then, tmp_path) -> None:
        whole, path = fit(), checkpoint_at_5(tmp_path, compile=first)
        resumed = NFVI.resume(path).fit(normal, dim=2, compile=then, progress=False)
        assert torch.equal(resumed.history.loss, whole.history.loss)
        for name, value in whole.guide.state_dict().items():
            assert torch.equal(resumed.guide.state_dict()[name], value)

    def test_a_checkpoint_of_eager_steps_goes_on_with_them(self, tmp_path) -> None:
        path = checkpoint_at_5(tmp_path, compile=False)
        resumed = NFVI.resume(path).fit(normal, dim=2, progress=False)
        assert resumed.settings["evaluation"] == "eager: compile=False"


class TestEager:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"compile": False}, "compile=False"),
            ({"anneal": "adaptive"}, 'anneal="adaptive"'),
            ({"n_mc": "auto"}, 'n_mc="auto" changes the number of draws'),
        ],
    )
    def test_by_the_arguments(self, options, reason) -> None:
        assert fit(**options).settings["evaluation"] == f"eager: {reason}"

    def test_short_fits(self, monkeypatch) -> None:
        monkeypatch.setattr(step_module, "LEAST_STEPS", STEPS + 1)
        assert fit().settings["evaluation"] == f"eager: fewer than {STEPS + 1} steps"

    def test_a_target_in_a_loop(self) -> None:
        def one_by_one(z: Tensor) -> Tensor:
            return -0.5 * z.square().sum() if float(z.detach()[0]) < 9 else -z.square().sum()

        with pytest.warns(UserWarning, match="one point at a time"):
            found = fit(target=one_by_one)
        assert found.settings["evaluation"] == "eager: the target is evaluated draw by draw"

    def test_a_target_whose_course_depends_on_values(self) -> None:
        def branching(z: Tensor) -> Tensor:
            return normal(z) if bool(z.isfinite().all()) else normal(z.nan_to_num())

        traced, eager = (fit(target=branching, compile=c) for c in ("trace", False))
        assert traced.settings["evaluation"].startswith("eager: ")
        assert torch.equal(traced.history.loss, eager.history.loss)

    def test_a_target_that_changes_on_the_way(self) -> None:
        """Found at the next look, after which all steps are eager."""
        shift = [1.0]

        def changing(z: Tensor) -> Tensor:
            return normal(z) * shift[0]

        def change(state) -> None:
            shift[0] = 2.0 if state.step >= 6 else 1.0

        found = fit(target=changing, callbacks=[change], anneal=False)
        assert "at step 10 the target was no longer" in found.settings["evaluation"]

    def test_a_factorisation_that_fails_at_some_draws(self) -> None:
        """Those steps are eager; the others are traced."""

        def fragile(z: Tensor) -> Tensor:
            covariance = torch.eye(2) * (z[:, :1, None] + 2.0)
            factor = torch.linalg.cholesky(covariance)
            return normal(z) - factor.diagonal(dim1=1, dim2=2).log().sum(-1)

        traced, eager = (
            fit("scale-loc", fragile, n_mc=4, restarts=1, compile=c) for c in ("trace", False)
        )
        assert torch.equal(traced.history.loss.nan_to_num(), eager.history.loss.nan_to_num())
        assert eager.history.loss.isnan().any() and not eager.history.loss.isnan().all()

    def test_a_word_that_is_none(self) -> None:
        said = 'compile must be "trace", "inductor" or False, got'
        for wrong in ("jit", True, None, 0):
            with pytest.raises(ValueError, match=said):
                fit(compile=wrong)
            with pytest.raises(ValueError, match=said):
                NFVI("loc").fit_data(np.ones((4, 2)), compile=wrong)


class TestInductor:
    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_fit(self, tmp_path) -> None:
        """To rounding, and it can be gone on with; compiling takes minutes."""
        compiled, eager = (fit("loc-scale", compile=c) for c in ("inductor", False))
        assert compiled.settings["evaluation"] == "compiled"
        torch.testing.assert_close(compiled.history.loss, eager.history.loss)
        compiled.save(tmp_path / "fit.nfvi")
        assert Fit.load(tmp_path / "fit.nfvi").settings["compile"] == "inductor"

    def test_where_it_cannot_be_compiled(self, monkeypatch) -> None:
        """The trace does the steps, and says why."""

        def broken(*arguments):
            raise RuntimeError("no C++ compiler here\nlook there")

        monkeypatch.setattr(trace, "inductor", broken)
        found, eager = (fit(compile=c) for c in ("inductor", False))
        said = "traced: not compiled (RuntimeError: no C++ compiler here)"
        assert found.settings["evaluation"] == said
        assert torch.equal(found.history.loss, eager.history.loss)

    def test_a_graph_that_gives_other_numbers(self, monkeypatch) -> None:
        def wrong(recording, inputs):
            code = recording.code()
            return lambda *inputs: tuple(1.01 * value for value in code(*inputs))

        monkeypatch.setattr(trace, "inductor", wrong)
        said = "traced: not compiled (the compiled graph gives other numbers)"
        assert fit(compile="inductor").settings["evaluation"] == said

    def test_numbers_that_differ_by_rounding(self, monkeypatch) -> None:
        def rounded(recording, inputs):
            code = recording.code()
            return lambda *inputs: tuple(value * (1 + 1e-6) for value in code(*inputs))

        monkeypatch.setattr(trace, "inductor", rounded)
        assert fit(compile="inductor").settings["evaluation"] == "compiled"


class TestFiles:
    def test_the_reason_is_kept(self, tmp_path) -> None:
        for compile in ("trace", False):
            found = fit(compile=compile)
            found.save(tmp_path / "fit.nfvi")
            loaded = Fit.load(tmp_path / "fit.nfvi")
            assert loaded.settings["evaluation"] == found.settings["evaluation"]
            assert loaded.settings["compile"] == compile

    def test_a_trace_is_left_out_of_a_pickle_and_made_again(self) -> None:
        traced = fit()._trainer.traced
        again = pickle.loads(pickle.dumps(traced))
        assert again.text == traced.text == "traced"
