"""DensityFit: densities, draws and thresholds in the units of the data, files, and its words."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from nfvi import NFVI, DensityFit, Fit, FitError
from nfvi.utils.files import read_file, write_file

D = 3


def rows(n: int = 400, d: int = D, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(size=(n, d))) @ np.triu(np.ones((d, d))) * 10.0 ** np.arange(d) + 3.0


@pytest.fixture(scope="module")
def fit() -> DensityFit:
    return NFVI("maf(hidden=[8])*2-scale-loc", seed=1).fit_data(rows(), epochs=30)


@pytest.fixture(scope="module")
def conditional() -> DensityFit:
    x = rows()
    return NFVI("maf(hidden=[8])", seed=1).fit_data(x[:, :2], context=x[:, 2], epochs=10)


def test_the_density_integrates_to_one():
    x = 40 + 3 * np.random.default_rng(0).gamma(2.0, size=500)
    for formula in ("scale-loc", "planar*3", "maf(hidden=[8])*2"):
        fit = NFVI(formula, seed=0, dtype=torch.float64).fit_data(x, epochs=100)
        grid = np.linspace(-200, 300, 200_001)
        mass = np.exp(fit.score_samples(grid)).sum() * (grid[1] - grid[0])
        assert mass == pytest.approx(1.0, abs=1e-4)


def test_draws_and_densities_belong_together(fit):
    """E_q[p / q] = 1 for draws of q and any density p inside its support: the draws scored."""
    draws = fit.sample(20_000, seed=0)
    assert draws.shape == (20_000, D) and draws.dtype == torch.float64
    # log q of draws has the entropy as its mean: compare with a fresh sample of the same.
    first, second = fit.log_prob(draws), fit.log_prob(fit.sample(20_000, seed=1))
    error = math.hypot(first.std() / len(first) ** 0.5, second.std() / len(second) ** 0.5)
    assert abs(float(first.mean() - second.mean())) < 5 * error
    # A Gaussian narrower than q at its centre, by importance sampling.
    inner = draws[(draws - draws.median(0).values).abs().argsort(0)[: len(draws) // 4].unique()]
    p = torch.distributions.MultivariateNormal(inner.mean(0), inner.T.cov() / 9)
    ratio = (p.log_prob(draws) - fit.log_prob(draws)).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std() / len(ratio) ** 0.5) + 0.02


def test_the_standardisation_is_undone_exactly(fit):
    """log q(x) = log q_guide((x − mean) / sd) − Σ log sd."""
    x = torch.from_numpy(rows(50, seed=2))
    units = fit.standardization
    z = ((x - units.mean) / units.sd).float()
    expected = fit.guide.log_prob(z).double() - units.sd.log().sum()
    torch.testing.assert_close(fit.log_prob(x), expected, rtol=0, atol=1e-12)
    noise = fit.guide.sample(5, generator=torch.Generator().manual_seed(3)).double()
    assert torch.equal(fit.sample(5, seed=3), noise * units.sd + units.mean)
    assert fit.standardization.log_scale == pytest.approx(float(units.sd.log().sum()))


def test_forms_of_points(fit):
    x = rows(20, seed=3)
    scores = fit.score_samples(x)
    assert isinstance(scores, np.ndarray) and scores.shape == (20,) and scores.dtype == np.float64
    tensor = fit.score_samples(torch.from_numpy(x))
    assert tensor.dtype == torch.float64 and np.array_equal(tensor, scores)
    assert fit.score_samples(torch.from_numpy(x).float()).dtype == torch.float32
    assert fit.score_samples(x.astype(np.float32)).dtype == np.float32
    assert np.array_equal(fit.score_samples(x.tolist()), scores)
    assert fit.score(x) == pytest.approx(scores.mean(), rel=1e-12)
    deep = torch.from_numpy(x).reshape(4, 5, D)
    np.testing.assert_allclose(fit.log_prob(deep).flatten(), scores, rtol=1e-5)


def test_rows_are_tensors_of_the_width_of_the_data(fit):
    x = rows(5)
    assert fit.rows(x).dtype == torch.float64 and np.array_equal(fit.rows(x), x)
    alone = NFVI("loc", seed=1).fit_data(x[:, 0], epochs=1)
    assert np.array_equal(alone.rows(x[:, 0]), x[:, :1])


def test_pieces_make_no_difference(fit, monkeypatch):
    x = rows(50, seed=3)
    whole = fit.score_samples(x)
    monkeypatch.setattr("nfvi.density.density.CHUNK", 7)
    np.testing.assert_allclose(fit.score_samples(x), whole, rtol=1e-5)


def test_log_prob_has_gradients(fit):
    x = torch.from_numpy(rows(5, seed=4)).requires_grad_()
    (slope,) = torch.autograd.grad(fit.log_prob(x).sum(), x)
    assert slope.dtype == torch.float64 and slope.isfinite().all() and (slope != 0).all()
    assert not any(p.requires_grad for p in fit.guide.parameters())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (rows()[:, :2], ValueError, r"x has 2 columns, and the data of this fit had 3: \(n, 3\)"),
        (rows()[0], ValueError, r"needs \(n, 3\): one row is x.reshape\(1, -1\)"),
        (rows() * np.nan, ValueError, "400 of 400 rows with NaN or inf"),
        ([["a", "b", "c"]], TypeError, "must hold real numbers"),
        (np.ones((2, 3, 3)), ValueError, r"got the shape \(2, 3, 3\)"),
        (np.ones((0, 3)), ValueError, "x is empty"),
    ],
)
def test_points_that_cannot_be_scored(fit, x, error, message):
    for score in (fit.score_samples, fit.score, fit.rows):
        with pytest.raises(error, match=message):
            score(x)


def test_log_prob_takes_tensors_of_the_right_width(fit):
    with pytest.raises(TypeError, match="a tensor or a table, got ndarray; score_samples takes"):
        fit.log_prob(rows())
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\), and this fit needs \(\*, 3\)"):
        fit.log_prob(torch.ones(4, 2))
    with pytest.raises(ValueError, match="n must be an integer"):
        fit.sample(0)
    with pytest.raises(ValueError, match="seed must be an integer"):
        fit.sample(1, seed=-1)


def test_tables_are_told_apart_by_their_columns():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(rows(100, 2), columns=["a", "b"])
    fit = NFVI("scale-loc", seed=0).fit_data(table, epochs=2)
    assert np.array_equal(fit.score_samples(table), fit.score_samples(table.to_numpy()))
    assert fit.summary(100).index[0] == "a"
    assert set(fit.to_arviz(10).posterior.data_vars) == {"a", "b"}


def test_draws_as_a_table_keep_names_and_float_types(tmp_path):
    pandas = pytest.importorskip("pandas")
    kinds = {"a": "float32", "b c": "float64", "n": "int64"}
    table = pandas.DataFrame(10 * rows(100, 3), columns=list(kinds)).astype(kinds)
    fit = NFVI("scale-loc", seed=0).fit_data(table, epochs=2)
    fit.save(tmp_path / "fit.safetensors")
    for each in (fit, type(fit).load(tmp_path / "fit.safetensors")):
        draws = each.to_dataframe(7, seed=1)
        assert dict(draws.dtypes.astype(str)) == {"a": "float32", "b c": "float64", "n": "float64"}
        np.testing.assert_allclose(draws.round({"n": 0}), fit.sample(7, seed=1), rtol=1e-6)
    plain = NFVI("scale-loc", seed=0).fit_data(table.to_numpy(), epochs=2)
    assert list(plain.to_dataframe(2).columns) == ["x[0]", "x[1]", "x[2]"]


# --- contexts ---


def test_shapes_of_contexts(conditional):
    x = rows(6, seed=5)
    c = x[:, 2]
    scores = conditional.score_samples(x[:, :2], c)
    assert np.array_equal(conditional.score_samples(x[:, :2], c[:, None]), scores)
    one = conditional.score_samples(x[:, :2], c[0])
    assert one[0] == pytest.approx(scores[0], rel=1e-5) and one[1] != pytest.approx(scores[1])
    assert np.array_equal(conditional.score_samples(x[:, :2], [c[0]]), one)
    points = torch.from_numpy(x[:, :2])
    np.testing.assert_allclose(conditional.log_prob(points, torch.from_numpy(c)), scores)
    assert conditional.sample(4, c[0]).shape == conditional.sample(4, [c[0]]).shape == (4, 2)
    assert conditional.sample(4, c).shape == conditional.sample(4, c[:, None]).shape == (4, 6, 2)
    assert conditional.to_arviz(7, c[0]).posterior["x"].shape == (1, 7, 2)
    assert conditional.to_dataframe(7, c[0]).shape == (7, 2)
    with pytest.raises(ValueError, match="context must be one"):
        conditional.to_dataframe(7, c)
    assert len(conditional.summary(50, c[0])) == 2


def test_contexts_that_cannot_be_used(conditional, fit):
    x = rows(6, seed=5)
    for context, error, message in [
        (None, ValueError, "this fit needs context= with 1 column"),
        (np.ones(5), ValueError, r"context has \(5,\) rows for points of shape \(6,\)"),
        (np.ones((6, 2)), ValueError, r"context has shape \(6, 2\), and this fit needs \(n, 1\)"),
        (np.full(6, np.nan), ValueError, "context has NaN or inf"),
        (["a"] * 6, TypeError, "context must hold real numbers"),
    ]:
        with pytest.raises(error, match=message):
            conditional.score_samples(x[:, :2], context)
    with pytest.raises(ValueError, match="needs context="):
        conditional.sample(3)
    with pytest.raises(ValueError, match="without a context: leave context= out"):
        fit.score_samples(x, x[:, 0])


# --- thresholds ---


@pytest.mark.parametrize("validation", [0, 0.5])
def test_thresholds_are_quantiles_of_the_reference_rows(validation):
    x = rows(400)
    fit = NFVI("scale-loc", seed=0).fit_data(x, validation=validation, epochs=10)
    threshold = fit.anomaly_threshold(0.1)
    below = (fit.score_samples(x) < threshold).sum()
    if validation == 0:
        assert below == 40
    # The held-out half alone: what it says of the other half is off by binomial noise.
    reference = np.sort(fit._scored.scores)
    assert len(reference) == (200 if validation else 400)
    assert (reference < threshold).mean() == pytest.approx(0.1, abs=1 / len(reference))
    assert abs(below - 40) < 5 * math.sqrt(400 * 0.09) + 1


def test_thresholds_with_weights():
    x, weights = rows(200), np.repeat([1.0, 3.0], 100)
    fit = NFVI("scale-loc", seed=0).fit_data(x, validation=0, epochs=10, weights=weights)
    below = fit.score_samples(x) < fit.anomaly_threshold(0.2)
    assert weights[below].sum() / weights.sum() == pytest.approx(0.2, abs=3 / weights.sum() + 1e-9)


def test_thresholds_that_cannot_be(fit):
    for quantile in (0, 1, -0.1, "low"):
        with pytest.raises(ValueError, match="quantile must lie between 0 and 1"):
            fit.anomaly_threshold(quantile)
    with pytest.warns(UserWarning, match=r"0.001 of 40 held-out rows is less than one row"):
        fit.anomaly_threshold(0.001)


# --- files ---


@pytest.mark.parametrize("which", ["fit", "conditional"])
def test_files_and_pickles_keep_everything(which, request, tmp_path):
    fit = request.getfixturevalue(which)
    fit.save(tmp_path / "fit.safetensors")
    for again in (DensityFit.load(tmp_path / "fit.safetensors"), pickle.loads(pickle.dumps(fit))):
        x = rows(30, seed=6)
        given = (x,) if which == "fit" else (x[:, :2], x[:, 2])
        assert np.array_equal(again.score_samples(*given), fit.score_samples(*given))
        assert torch.equal(again.sample(4, *given[1:], seed=1), fit.sample(4, *given[1:], seed=1))
        assert str(again) == str(fit) and again.quality == fit.quality
        assert again.anomaly_threshold(0.1) == fit.anomaly_threshold(0.1)
        assert torch.equal(again.history.log_likelihood, fit.history.log_likelihood)
        assert torch.equal(again.validation.log_likelihood, fit.validation.log_likelihood)
        assert again.validation.best_step == fit.validation.best_step
        with pytest.raises(FitError, match="has no data"):
            again.refine(1)


def test_files_without_looks_and_with_weights(tmp_path):
    x = rows(100)
    weights = np.linspace(0, 1, 100)
    fit = NFVI("loc", seed=0).fit_data(x, validation=0, epochs=2, weights=weights)
    fit.save(tmp_path / "fit")
    again = DensityFit.load(tmp_path / "fit")
    assert again.validation is None and again.quality == fit.quality
    assert again.anomaly_threshold(0.3) == fit.anomaly_threshold(0.3)


def test_files_of_another_kind(fit, tmp_path):
    fit.save(tmp_path / "density")
    with pytest.raises(
        FitError, match=r"holds a density, not a fit; read it with DensityFit\.load"
    ):
        Fit.load(tmp_path / "density")
    with pytest.raises(FitError, match=r"read it with DensityFit\.load"):
        NFVI.resume(tmp_path / "density")
    target = NFVI("loc", seed=0).fit(lambda z: -(z**2).sum(-1), dim=2, steps=2, n_mc=4)
    target.save(tmp_path / "fit")
    with pytest.raises(FitError, match=r"holds a fit, not a density; read it with Fit\.load"):
        DensityFit.load(tmp_path / "fit")
    tensors, values = read_file(tmp_path / "density", "density")
    del tensors["scores"]
    write_file(tmp_path / "half", "density", tensors, {k: values[k] for k in ("settings", "best")})
    with pytest.raises(FitError, match="is not a complete density"):
        DensityFit.load(tmp_path / "half")


# --- words ---


def test_what_it_says(fit):
    text = str(fit)
    assert all(len(line) <= 88 for line in text.splitlines())
    for words in (
        "NFVI 'maf(hidden=[8])*2-scale-loc' on data, d = 3, base normal, seed 1",
        "360 rows",
        "40 rows",
        "Gaussian",
        "held out",
        "all steps done",
        f"after step {fit.validation.best_step}",
        "fit.score(x)",
    ):
        assert words in text, words
    assert repr(fit) == f"<DensityFit 'maf(hidden=[8])*2-scale-loc', dim=3, steps={fit.steps}>"


def test_the_yardstick_is_the_gaussian_of_highest_likelihood():
    x = rows(200)
    fit = NFVI("loc", seed=0).fit_data(x, epochs=1, validation=0.25)
    held_out = fit._running.split.held_out.x.numpy()
    train = fit._running.split.train.x.numpy()
    best = torch.distributions.MultivariateNormal(
        torch.from_numpy(train.mean(0)), torch.from_numpy(np.cov(train.T, ddof=0))
    )
    for data, found in ((train, fit.quality.train), (held_out, fit.quality.held_out)):
        expected = float(best.log_prob(torch.from_numpy(data)).mean())
        assert found.gaussian == pytest.approx(expected, rel=1e-9)
        scores = fit.score_samples(data)
        assert found.mean == pytest.approx(scores.mean(), abs=1e-5)
        assert found.se == pytest.approx(scores.std(ddof=1) / len(data) ** 0.5, rel=1e-5)
    assert "does as well or better" in str(fit)


def test_rising_and_overfitting_are_said():
    x = rows(300, 2)
    early = NFVI("scale-loc", seed=0).fit_data(
        x, epochs=60, standardize=False, lr=0.001, callbacks=[]
    )
    assert "more epochs" in str(early)
    by_heart = np.random.default_rng(0).normal(size=(40, 4))
    found = NFVI("maf(hidden=[32])*2", seed=1).fit_data(
        by_heart, validation=np.random.default_rng(1).normal(size=(400, 4)), epochs=150, lr=0.02
    )
    assert found.validation.best_step < found.steps
    assert ("it overfits" in str(found)) == (
        found.quality.train.mean - found.quality.held_out.mean
        > max(0.05, 2 * math.hypot(found.quality.train.se, found.quality.held_out.se))
    )


def test_arviz_has_draws_and_their_densities(fit):
    made = fit.to_arviz(50, seed=2)
    assert made.posterior["x"].shape == (1, 50, D)
    draws = torch.from_numpy(np.asarray(made.posterior["x"])[0])
    np.testing.assert_allclose(made.sample_stats["lp"][0], fit.log_prob(draws), rtol=1e-6)
    assert made.posterior.attrs["log_likelihood"] == fit.quality.train.mean
    assert fit.summary(100).index[0] == "x[0]"
