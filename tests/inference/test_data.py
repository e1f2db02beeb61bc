"""NFVI.fit_data: maximum likelihood on rows of data, and what it says of data it cannot use."""

from __future__ import annotations

import math
import os
import signal
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from nfvi import (
    NFVI,
    CheckElboConvergence,
    Checkpoint,
    DensityFit,
    Fit,
    FitError,
    FormulaError,
    GradientTracker,
    ProgressBar,
    Stop,
    TensorBoard,
    Tracker,
)
from nfvi.density.likelihood import MaximumLikelihood, Rows

DOUBLE = torch.float64


def rows(n: int = 300, d: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ np.triu(np.ones((d, d))) * [1.0, 5.0, 0.1][:d] + 3.0


def exact(x: np.ndarray, weights: np.ndarray | None = None, **options: object) -> DensityFit:
    """A fit that comes to the maximum: all rows in each step, and a line search."""
    arguments = {"validation": 0, "batch_size": len(x), "epochs": 60} | options
    nfvi = NFVI("scale-loc", seed=0, dtype=DOUBLE)
    return nfvi.fit_data(x, weights=weights, optimizer=newton, **arguments)


def newton(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, lr=0.5, tolerance_grad=1e-12, tolerance_change=1e-14)


def closed_form(x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Log-densities of the Gaussian with independent columns and the highest likelihood."""
    mean = np.average(x, axis=0, weights=weights)
    variance = np.average((x - mean) ** 2, axis=0, weights=weights)
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * math.pi * variance)).sum(1)


# --- what is fitted ---


@pytest.mark.parametrize("standardize", [True, False])
def test_a_gaussian_has_its_closed_form(standardize):
    x = rows()
    fit = exact(x, standardize=standardize)
    np.testing.assert_allclose(fit.score_samples(x), closed_form(x), atol=1e-6)
    assert fit.score(x) == pytest.approx(closed_form(x).mean(), abs=1e-7)
    assert (fit.standardization.mean == 0).all().item() is not standardize


def test_weights_are_numbers_of_rows():
    x = rows(50)
    counts = np.random.default_rng(1).integers(0, 4, 50).astype(float)
    repeated = np.repeat(x, counts.astype(int), axis=0)
    weighted, plain = exact(x, counts), exact(repeated)
    np.testing.assert_allclose(weighted.score_samples(x), closed_form(x, counts), atol=1e-6)
    np.testing.assert_allclose(weighted.score_samples(x), plain.score_samples(x), atol=1e-6)
    assert weighted.quality.train.mean == pytest.approx(plain.quality.train.mean, abs=1e-8)
    assert weighted.quality.train.gaussian == pytest.approx(plain.quality.train.gaussian)
    assert weighted.quality.train.rows == (counts > 0).sum()


def test_mini_batches_come_to_the_same_maximum():
    x = rows(2_000)
    fit = NFVI("scale-loc", seed=0).fit_data(x, batch_size=100, epochs=40, validation=0, lr=0.02)
    # What is left of the noise of the gradient after the decay of the learning rate.
    assert fit.score(x) == pytest.approx(closed_form(x).mean(), abs=1e-3)


def test_a_context_moves_the_density():
    """y = 2 c₀ − c₁ + 0.5 ε: mean and sd come from the context."""
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, (2_000, 2))
    mean = 2 * c[:, 0] - c[:, 1]
    y = mean + 0.5 * rng.normal(size=2_000)
    fit = NFVI("scale-loc", seed=0).fit_data(y, context=c, epochs=60)
    grid = rng.uniform(-1, 1, (200, 2))
    draws = fit.sample(2_000, grid, seed=1)[..., 0].numpy()
    assert draws.shape == (2_000, 200)
    # √(p / rows) sd for the p parameters that count, some dozens, and sd / √2000 of the draws.
    error = draws.mean(0) - (2 * grid[:, 0] - grid[:, 1])
    assert np.sqrt((error**2).mean()) < 0.5 * math.sqrt(72 / 1_800)
    assert draws.std(0).mean() == pytest.approx(0.5, abs=0.03)
    # The yardstick is the regression itself here.
    assert fit.quality.held_out.mean == pytest.approx(fit.quality.held_out.gaussian, abs=0.05)


def test_every_row_is_seen_once_an_epoch():
    data = Rows(torch.arange(10.0).unsqueeze(1))
    objective = MaximumLikelihood(data, 4, seed=3, log_scale=0.0)
    seen = torch.cat([objective.draw(None, step, None).x for step in range(5)]).flatten()
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    again = MaximumLikelihood(data, 4, seed=3, log_scale=0.0)
    assert torch.equal(again.draw(None, 4, None).x.flatten(), seen[16:])
    other = MaximumLikelihood(data, 4, seed=4, log_scale=0.0)
    assert not torch.equal(other.draw(None, 0, None).x.flatten(), seen[:4])


def test_the_history_is_of_log_likelihoods():
    x = rows()
    fit = NFVI("loc", seed=0).fit_data(x, batch_size=50, epochs=2)
    history = fit.history
    assert history.log_likelihood.shape == history.log_likelihood_se.shape == (fit.steps, 1)
    torch.testing.assert_close(history.loss, -history.log_likelihood)
    # In the units of the data: where x/sd is nearly standard normal, of Σ log sd less.
    expected = -math.log(2 * math.pi * math.e) - np.log(x.std(0)).sum()
    assert float(history.log_likelihood.mean()) == pytest.approx(expected, abs=0.3)
    with pytest.raises(AttributeError, match="no column 'elbo'; it has loss, log_likelihood"):
        history.elbo  # noqa: B018
    one = NFVI("loc", seed=0).fit_data(x[:4], batch_size=1, epochs=1, validation=0).history
    assert one.log_likelihood_se.isnan().all()


def test_one_seed_is_one_fit():
    x = rows()
    a, b, c = (NFVI("maf(hidden=[8])", seed=s).fit_data(x, epochs=3) for s in (1, 1, 2))
    assert np.array_equal(a.score_samples(x), b.score_samples(x))
    assert not np.array_equal(a.score_samples(x), c.score_samples(x))
    assert torch.equal(a.sample(5, seed=2), b.sample(5, seed=2))
    fresh = NFVI("loc").fit_data(x, epochs=1)
    assert np.array_equal(
        NFVI("loc", seed=fresh.seed).fit_data(x, epochs=1).score_samples(x), fresh.score_samples(x)
    )


# --- what data may be ---


class TestForms:
    x = rows(60)

    def fit(self, x, **options):
        return NFVI("scale-loc", seed=0).fit_data(x, **{"epochs": 2, **options})

    def test_arrays_tensors_tables_and_lists_are_one(self):
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame(self.x, columns=["a", "b"])
        plain = self.fit(self.x).score_samples(self.x)
        for same in (table, self.x.tolist(), np.asfortranarray(self.x)):
            assert np.array_equal(self.fit(same).score_samples(self.x), plain)
        double = torch.from_numpy(self.x)
        assert self.fit(double).guide.dtype == DOUBLE
        assert self.fit(double.float()).guide.dtype == torch.float32
        assert self.fit(self.x).guide.dtype == torch.get_default_dtype()
        assert self.fit(table).columns == ("a", "b")

    def test_one_column(self):
        a = self.fit(self.x[:, 0])
        b = self.fit(self.x[:, :1])
        assert a.dim == b.dim == 1
        assert np.array_equal(a.score_samples(self.x[:, 0]), b.score_samples(self.x[:, :1]))

    def test_loaders_are_read_in_order_and_give_the_batch_size(self):
        x, c = torch.from_numpy(self.x), torch.from_numpy(self.x[:, :1])
        plain = self.fit(x, batch_size=7)
        for loader in (
            DataLoader(TensorDataset(x), batch_size=7),
            DataLoader(TensorDataset(x), batch_size=7, shuffle=True),
            DataLoader(x, batch_size=7),
        ):
            found = self.fit(loader)
            assert found.settings["batch_size"] == 7
            assert torch.equal(found.score_samples(x), plain.score_samples(x))
        both = DataLoader(TensorDataset(x, c), batch_size=7)
        assert self.fit(both).context_dim == 1
        with pytest.raises(ValueError, match="context= beside a DataLoader whose batches hold"):
            self.fit(both, context=c)
        with pytest.raises(TypeError, match="batches of a DataLoader must be"):
            self.fit(DataLoader(TensorDataset(x, c, c), batch_size=7))

    def test_held_out_data_may_be_given(self):
        other = rows(40, seed=5)
        fit = self.fit(self.x, validation=other)
        assert fit.quality.train.rows == 60 and fit.quality.held_out.rows == 40
        assert fit.quality.held_out.mean == pytest.approx(fit.score(other), abs=1e-6)
        c = self.x[:, :1]
        assert self.fit(self.x, context=c, validation=(other, other[:, 0])).context_dim == 1
        for wrong, message in [
            (other[:, :1], "validation has 1 columns, and x has 2"),
            ((other, other), "the contexts of x have 0 columns, and those of validation 2"),
            (other * np.nan, "validation has 40 of 40 rows with NaN"),
        ]:
            with pytest.raises(ValueError, match=message):
                self.fit(self.x, validation=wrong)

    @pytest.mark.parametrize(("validation", "count"), [(0.25, 15), (0, 0), (None, 0), (0.999, 58)])
    def test_fractions(self, validation, count):
        x = self.x[:58] if count == 58 else self.x
        if count == 58:
            with pytest.raises(ValueError, match="0 rows of x to train on"):
                self.fit(x, validation=validation)
            return
        fit = self.fit(x, validation=validation)
        held_out = fit.quality.held_out
        assert (0 if held_out is None else held_out.rows) == count
        assert (fit.validation is None) is (count == 0)

    def test_far_from_zero_float32_has_digits_left(self):
        x = 1e9 + rows(500)
        fit = NFVI("scale-loc", seed=0).fit_data(x, epochs=200, validation=0, lr=0.02)
        assert fit.score(x) == pytest.approx(closed_form(x).mean(), abs=1e-2)
        draws = fit.sample(2_000, seed=0)
        assert draws.dtype == DOUBLE
        np.testing.assert_allclose(draws.mean(0), x.mean(0), atol=0.2 * x.std(0).max())


# --- what is refused ---

NAN = rows(20)
NAN[[3, 5, 6, 7, 9, 12], 1] = np.nan
CONSTANT = rows(20, 3)
CONSTANT[:, 1] = 0.1


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (NAN, {}, ValueError, r"6 of 20 rows with NaN or inf, the first ones 3, 5, 6, 7, 9, …"),
        (CONSTANT, {}, ValueError, "column 1 of x does not vary"),
        (np.ones((20, 2)), {}, ValueError, "columns 0, 1 of x do not vary"),
        (CONSTANT, {"standardize": False}, ValueError, "column 1 of x does not vary"),
        (rows(20) * 1j, {}, TypeError, "must hold real numbers.*complex"),
        (torch.ones(3, 2, dtype=torch.complex64), {}, TypeError, "must hold real numbers"),
        ([["a", "b"]], {}, TypeError, "must hold real numbers"),
        ("circles", {}, TypeError, "must hold real numbers"),
        (None, {}, TypeError, "must hold real numbers"),
        (np.ones((2, 2, 2)), {}, ValueError, r"got the shape \(2, 2, 2\)"),
        (3.0, {}, ValueError, r"got the shape \(\)"),
        (np.ones((0, 2)), {}, ValueError, r"x is empty: its shape is \(0, 2\)"),
        (np.ones((3, 0)), {}, ValueError, r"x is empty: its shape is \(3, 0\)"),
        (rows(1), {}, ValueError, "only 1 row of x to train on"),
        (rows(), {"weights": np.ones(5)}, ValueError, r"each of the 300 rows.*\(5,\)"),
        (rows(5), {"weights": [1, 1, -1, 1, 1]}, ValueError, "weights must be finite numbers"),
        (rows(5), {"weights": [1, 1, np.nan, 1, 1]}, ValueError, "weights must be finite numbers"),
        (rows(5), {"weights": np.zeros(5)}, ValueError, "all weights are zero"),
        (rows(5), {"weights": ["a"] * 5}, TypeError, "weights must hold real numbers"),
        (rows(), {"context": np.ones(5)}, ValueError, "context has 5 rows, and x has 300"),
        (rows(5), {"context": [0, 1, np.inf, 1, 0]}, ValueError, "context has 1 of 5 rows"),
        (rows(), {"validation": 1.0}, ValueError, "validation must be a fraction"),
        (rows(), {"validation": -0.1}, ValueError, "validation must be a fraction"),
        (rows(), {"validation": True}, ValueError, "validation must be a fraction"),
        (rows(), {"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1"),
        (rows(), {"batch_size": 2.5}, ValueError, "batch_size must be an integer of at least 1"),
        (rows(), {"epochs": 0}, ValueError, "epochs must be an integer of at least 1"),
        (rows(), {"patience": 0}, ValueError, "patience must be an integer of at least 1"),
        (rows(), {"lr": 0.0}, ValueError, "lr must be a positive number"),
        (rows(), {"standardize": "yes"}, ValueError, "standardize must be True or False"),
        (rows(), {"callbacks": [3]}, TypeError, "callbacks= must hold functions"),
        (rows(), {"optimizer": "adam"}, TypeError, "optimizer='adam'"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(x, options, error, message):
    steps: list[int] = []
    options.setdefault("callbacks", [lambda state: steps.append(state.step)])
    with pytest.raises(error, match=message):
        NFVI("scale-loc").fit_data(x, **options)
    assert not steps


def test_tables_are_told_their_columns():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"width": [1.0, 2.0, 3.0, 4.0], "sort": [1.0, 1.0, 1.0, 1.0]})
    with pytest.raises(ValueError, match="column 'sort' of x does not vary"):
        NFVI("loc").fit_data(table)
    table["sort"] = ["a", "b", "c", "d"]
    with pytest.raises(TypeError, match="must hold real numbers"):
        NFVI("loc").fit_data(table)


def test_warnings_are_stated():
    with pytest.warns(UserWarning, match="4 rows to train on are fewer than the 5 columns"):
        NFVI("loc").fit_data(np.random.default_rng(0).normal(size=(4, 5)), epochs=1)
    x = rows(50, 3)
    x[:, 2] = 2 * x[:, 0] - x[:, 1]
    with pytest.warns(UserWarning, match=r"3 columns depend on each other linearly \(rank 2\)"):
        fit = NFVI("loc").fit_data(x, epochs=1)
    assert math.isnan(fit.quality.train.gaussian) and "singular" in str(fit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NFVI("loc").fit_data(rows(1000, 3) * [1, 1e-9, 1e9], epochs=1)


def test_flows_that_cannot_are_refused():
    with pytest.raises(FormulaError, match="context"):
        NFVI("hh").fit_data(rows(), context=np.arange(300))


# --- stopping, callbacks, going on ---


def overfit(**options: object) -> DensityFit:
    """Few rows and a flow that learns them by heart."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    arguments = {"epochs": 400, "validation": 0.25, "lr": 0.02, "patience": 20, **options}
    return NFVI("maf(hidden=[32])*2", seed=1).fit_data(x, **arguments)


def test_early_stopping_keeps_the_best_state():
    fit = overfit()
    looks = fit.validation
    assert fit.stopped == "the held-out rows gained nothing in 20 looks"
    assert fit.steps < 400 and looks.best == len(looks.steps) - 21
    assert float(looks.log_likelihood.max()) == float(looks.log_likelihood[looks.best])
    # The likelihood reported is that of the state that was kept, in the units of the data.
    assert fit.quality.held_out.mean == pytest.approx(float(looks.log_likelihood.max()), abs=1e-5)
    assert fit.quality.held_out.mean > float(looks.log_likelihood[-1]) + 0.05
    assert "overfits" in str(fit) or fit.quality.train.mean < fit.quality.held_out.mean + 0.5


def test_without_held_out_rows_nothing_stops_it():
    fit = overfit(validation=0, epochs=60)
    assert fit.steps == 60 and fit.validation is None and fit.stopped == "steps"
    assert "No rows were held out" in str(fit)


def test_looks_are_at_epochs_and_at_the_end():
    fit = NFVI("loc", seed=0).fit_data(rows(100), batch_size=9, epochs=5)
    assert fit.steps == 50 and fit.validation.steps.tolist() == [10, 20, 30, 40, 50]
    fit = NFVI("loc", seed=0).fit_data(rows(100), epochs=900, patience=10**6)
    assert len(fit.validation.steps) == 180


def test_callbacks_are_those_of_a_fit_to_a_target(tmp_path, capsys):
    tracker = Tracker(every=2, ll=lambda state: state.log_likelihood, loss=lambda state: state.loss)
    gradients = GradientTracker(every=5, groups=4)
    callbacks = [
        tracker,
        gradients,
        ProgressBar(every=10),
        CheckElboConvergence(every=5, window=20, tolerance=10.0),
    ]
    fit = NFVI("scale-loc", seed=0).fit_data(rows(), epochs=100, batch_size=32, callbacks=callbacks)
    assert fit.stopped.startswith("log-likelihood converged at step 40")
    torch.testing.assert_close(tracker["ll"], fit.history.log_likelihood[1::2])
    assert gradients.flow_snr.shape == (8, 1, 2)
    assert "log_likelihood=" in capsys.readouterr().err
    assert NFVI("loc").fit_data(rows(), callbacks=[lambda s: Stop("enough")]).stopped == "enough"


def test_tensorboard_has_the_right_word(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    NFVI("loc").fit_data(rows(), epochs=20, callbacks=[TensorBoard(tmp_path, every=5)])
    tags = events.EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    assert set(tags) == {
        "lr",
        *(f"{n}/restart_0" for n in ("log_likelihood", "loss", "grad_norm")),
    }


def test_all_steps_bad_is_an_error():
    def breaks(parameters):
        class Broken(torch.optim.SGD):
            def step(self, closure=None):
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(1e30)

        return Broken(parameters, lr=1.0)

    with pytest.raises(FitError, match="columns that depend on each other"):
        NFVI("loc", seed=0).fit_data(rows(), optimizer=breaks, epochs=300)


def same(a: DensityFit, b: DensityFit) -> None:
    for name, value in a.guide.state_dict().items():
        assert torch.equal(value, b.guide.state_dict()[name]), name
    assert torch.equal(a.history.loss, b.history.loss) and a.stopped == b.stopped
    assert torch.equal(a.validation.log_likelihood, b.validation.log_likelihood)
    assert torch.equal(a.validation.steps, b.validation.steps)
    assert a.validation.best == b.validation.best
    assert a.quality == b.quality and a.settings == b.settings


def press_at(step):
    def callback(state):
        if state.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def fail_at(step):
    def callback(state):
        if state.step == step:
            raise OSError("power cut")

    return callback


OPTIONS = {"epochs": 6, "batch_size": 32}
"""51 steps of 270 rows."""


@pytest.mark.process_wide
def test_ctrl_c_keeps_what_was_fitted_and_refine_makes_up_the_rest():
    x, nfvi = rows(), NFVI("maf(hidden=[8])", seed=3)
    half = nfvi.fit_data(x, callbacks=[press_at(17)], **{**OPTIONS, "batch_size": 27, "epochs": 4})
    assert half.stopped == "interrupted" and half.steps == 17
    assert "refine() continues" in str(half)
    half.sample(5)
    half.refine(3)  # to step 47: the 23 that were left, and 7 of a new cycle
    assert half.steps == 47 and half.stopped == "steps"
    whole = nfvi.fit_data(x, batch_size=27, epochs=4)
    assert torch.equal(half.history.loss[:40], whole.history.loss)


def test_refine_never_loses_the_best():
    fit = overfit()
    best, steps = fit.quality.held_out.mean, fit.steps
    fit.refine(30)
    assert fit.steps == steps + 30 or "gained nothing" in fit.stopped
    assert fit.quality.held_out.mean >= best


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("held_out", [False, True])
def test_resumes_bit_for_bit(context, held_out, tmp_path):
    file, x = tmp_path / "fit.ckpt", rows()
    c = np.arange(300.0) / 100 if context else None
    options = {"context": c, "weights": np.linspace(0.5, 1.5, 300)}
    if held_out:
        options["validation"] = (rows(30, seed=4), c[:30]) if context else rows(30, seed=4)
    run = {**options, "epochs": 6, "batch_size": 32, "patience": 50}
    nfvi = NFVI("maf(hidden=[8])*2", seed=5)
    with pytest.raises(OSError, match="power cut"):
        nfvi.fit_data(x, callbacks=[Checkpoint(file, every=10), fail_at(37)], **run)
    tracker = Tracker(step=lambda s: s.step)
    with pytest.raises(ValueError, match=r"\[Validation\]"):
        NFVI.resume(file).fit_data(x, callbacks=[tracker], **options)
    same(nfvi.fit_data(x, **run), NFVI.resume(file).fit_data(x, **options))


def test_early_stopping_resumes_bit_for_bit(tmp_path):
    file = tmp_path / "fit.ckpt"
    with pytest.raises(OSError, match="power cut"):
        overfit(callbacks=[Checkpoint(file, every=7), fail_at(30)])
    x = np.random.default_rng(0).normal(size=(40, 2))
    same(overfit(), NFVI.resume(file).fit_data(x, validation=0.25))


def test_a_checkpoint_is_of_one_kind_and_one_set_of_data(tmp_path):
    file, x = tmp_path / "fit.ckpt", rows()
    NFVI("loc", seed=0).fit_data(x, **OPTIONS, callbacks=[Checkpoint(file)])
    other = tmp_path / "other.ckpt"
    target = lambda z: -(z**2).sum(-1)  # noqa: E731
    NFVI("loc", seed=0).fit(target, dim=2, steps=5, n_mc=4, callbacks=[Checkpoint(other)])
    with pytest.raises(ValueError, match=r"go on with NFVI\.resume\(path\)\.fit_data"):
        NFVI.resume(file).fit(target, dim=2)
    with pytest.raises(ValueError, match=r"go on with NFVI\.resume\(path\)\.fit\(target\)"):
        NFVI.resume(other).fit_data(x)
    for wrong, options, message in [
        (x + 1, {}, "not the data of the checkpoint, 270 rows to train on and 30 held out"),
        (x, {"weights": np.ones(300)}, "not the data of the checkpoint"),
        (x, {"epochs": 3}, "epochs= is fixed by the checkpoint"),
        (x, {"validation": 0.2}, "validation= is fixed by the checkpoint"),
        (x, {"standardize": False}, "standardize= is fixed by the checkpoint"),
        (x, {"optimizer": torch.optim.SGD}, "written with optimizer=Adam"),
    ]:
        with pytest.raises(ValueError, match=message):
            NFVI.resume(file).fit_data(wrong, **options)
    with pytest.raises(FitError, match=r"read it with NFVI\.resume"):
        DensityFit.load(file)
    with pytest.raises(FitError, match=r"read it with NFVI\.resume"):
        Fit.load(file)


@pytest.mark.cuda
def test_on_cuda():
    x = torch.from_numpy(rows())
    fit = NFVI("maf(hidden=[8])*2", seed=0, device="cuda").fit_data(x.cuda(), epochs=20)
    scores = fit.score_samples(x.cuda())
    assert scores.device.type == fit.sample(3).device.type == "cuda"
    np.testing.assert_allclose(fit.score_samples(x.numpy()), scores.cpu(), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_columns_near_the_ends_of_the_range_are_standardised_too(scale):
    """Squares of such numbers are beyond float64: the fit is that of the plain columns."""
    rows = np.random.default_rng(0).normal(size=(100, 2))
    plain, scaled = (
        NFVI("scale-loc", seed=0).fit_data(x, epochs=3, progress=False)
        for x in (rows, rows * scale)
    )
    expected = plain.score_samples(rows) - 2 * np.log(scale)
    # The start of both is one, and their standardised rows differ by rounding.
    np.testing.assert_allclose(scaled.score_samples(rows * scale), expected, rtol=1e-4, atol=1e-4)
