"""Outliers and spikes: what they do to a fit, and what is said of them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from nfvi import NFVI, Checkpoint, DensityFit
from nfvi.density import Standardization, read_data, split_data
from nfvi.utils import read_file, write_file

TRUE = -math.log(2 * math.pi * math.e)
"""Mean log density of two standard normals, −2.838."""
OUTLIER = "ignore:1 cell lies more than 30 robust sds"


def rows(n: int = 3_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def wild(row: int = 7, off: float = 1e6) -> np.ndarray:
    x = rows()
    x[row, 0] = off
    return x


def units_of(x: np.ndarray, **options) -> Standardization:
    return Standardization.of(read_data(x), wanted=True, **options)


@pytest.mark.filterwarnings(OUTLIER)
@pytest.mark.parametrize("part", ["train", "held_out"])
@pytest.mark.parametrize("formula", ["scale-loc", "maf(hidden=[16])*2"])
def test_one_wild_row_does_not_spoil_the_others(formula, part):
    split = split_data(read_data(rows()), 0.1, seed=1)
    row = getattr(split, part).number(7)
    fit = NFVI(formula, seed=1).fit_data(wild(row), epochs=40, progress=False)
    assert f"row {row} of x" in " ".join(fit.settings["notes"])
    # The mean of 4 000 fresh rows has a standard error of 1 / √4000 = 0.016. What a fit of some 50
    # parameters to 2 700 rows loses is about 50 / 5 400 = 0.01, and the row takes 0.01 more.
    assert fit.score(rows(4_000, seed=5)) == pytest.approx(TRUE, abs=3 * 0.016 + 0.02)


def test_a_wild_row_that_is_held_out_is_seen_too():
    x, held_out = rows(300), wild(off=-400.0)
    with pytest.warns(UserWarning, match=r"row 7 of validation, column 0, 3\d\d robust"):
        fit = NFVI("loc", seed=0).fit_data(x, validation=held_out, epochs=1)
    assert fit.standardization.bend[0].tolist() == [5.0, math.inf]


def test_the_row_is_named_by_its_number_in_what_was_given():
    x, weights = wild(2_990, off=-52.0), np.ones(3_000)
    weights[:50] = 0
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x, columns=["a", "b"])
    with pytest.warns(UserWarning, match=r"1 cell lies.*row 2990 of x, column 'a', 5\d robust sds"):
        fit = NFVI("loc", seed=0).fit_data(table, weights=weights, epochs=1)
    text = " ".join(str(fit).split())
    assert "row 2990 of x, column 'a'" in text and "Leave the row out if it is a mistake." in text


def test_of_many_rows_the_farthest_are_named():
    x = rows()
    x[[5, 50, 500, 1_000], 1] = [100.0, -300.0, 200.0, 400.0]
    with pytest.warns(UserWarning, match=r"4 cells lie.*row 1000.*row 50 .*row 500 .*sds; …\."):
        NFVI("loc", seed=0).fit_data(x, epochs=1)


def test_without_standardisation_the_row_is_named_and_nothing_is_done():
    with pytest.warns(UserWarning, match="standardize=False leaves them as they are"):
        fit = NFVI("loc", seed=0).fit_data(wild(), standardize=False, epochs=1)
    assert fit.standardization.bend is None


def test_plain_rows_are_scaled_by_mean_and_sd_as_ever():
    x = rows() * [1.0, 30.0] + 4
    units = units_of(x)
    assert units.bend is None and set(units.tensors()) == {
        "mean", "sd", "context_mean", "context_sd",
    }  # fmt: skip
    np.testing.assert_allclose(units.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(units.sd, x.std(0), rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert NFVI("loc", seed=0).fit_data(x, epochs=1).settings["notes"] == []


@pytest.mark.parametrize("off", [1e6, -200.0])
def test_what_the_guide_sees_has_mean_0_and_sd_1(off):
    x = wild(off=off)
    z = units_of(x).of_points(torch.from_numpy(x), torch.float64)
    torch.testing.assert_close(z.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2).double(), rtol=0, atol=1e-12)


def test_the_compression_is_undone_exactly():
    """Points come back, and log|det| is that of autograd."""
    units = units_of(wild())
    x = torch.tensor([[0.3, 0.1], [4.9, 7.0], [-6.0, -50.0], [1e6, 3.0], [-3e8, 0.0]]).double()
    z = units.of_points(x, torch.float64)
    torch.testing.assert_close(units.to_data(z), x, rtol=1e-9, atol=1e-12)
    assert float(z[3, 0]) < 20 and float(z[2, 1]) < -40  # the plain column stays as it is
    for point in x:
        slope = torch.autograd.functional.jacobian(
            lambda p: units.of_points(p, torch.float64), point
        )
        value = -units.log_scale - units.log_bend(point)
        torch.testing.assert_close(slope.logdet(), value, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings(OUTLIER)
def test_a_density_with_a_compressed_column_integrates_to_one():
    x = np.r_[rows()[:300, 0], 60.0]
    fit = NFVI("scale-loc", seed=0, dtype=torch.float64).fit_data(x, epochs=50)
    grid = np.linspace(-3e4, 3e4, 4_000_001)
    assert np.exp(fit.score_samples(grid)).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
    draws = fit.sample(1_000, seed=0)
    assert torch.equal(fit.log_prob(draws).isfinite(), torch.ones(1_000, dtype=torch.bool))


@pytest.mark.filterwarnings(OUTLIER)
def test_a_context_far_out_leaves_the_others_their_scale():
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, 2_000)
    y = 2 * c + 0.5 * rng.normal(size=2_000)
    c[11] = 1e6
    with pytest.warns(UserWarning, match="row 11 of context, column 0"):
        fit = NFVI("scale-loc", seed=0).fit_data(y, context=c, epochs=30)
    units = fit.standardization
    assert units.bend is None and units.context_bend[0].tolist() == [5.0]
    fresh = rng.uniform(-1, 1, 2_000)
    score = fit.score(2 * fresh + 0.5 * rng.normal(size=2_000), fresh)
    # 1 / √4000 of the mean, and some dozens of parameters for 1 800 rows.
    assert score == pytest.approx(-math.log(0.5) + TRUE / 2, abs=3 * 0.016 + 0.03)


@pytest.mark.filterwarnings(OUTLIER)
def test_files_hold_the_compression_and_files_from_before_it_load(tmp_path):
    fit = NFVI("scale-loc", seed=1).fit_data(wild(), epochs=2)
    fit.save(tmp_path / "new")
    again = DensityFit.load(tmp_path / "new")
    assert np.array_equal(again.score_samples(wild()), fit.score_samples(wild()))
    assert str(again) == str(fit) and "row 7 of x" in " ".join(str(again).split())

    plain = NFVI("scale-loc", seed=1).fit_data(rows(), epochs=2)
    plain.save(tmp_path / "plain")
    tensors, values = read_file(tmp_path / "plain", "density")
    for name in ("notes", "robust"):
        del values["settings"][name]
    write_file(tmp_path / "old", "density", tensors, values)
    old = DensityFit.load(tmp_path / "old")
    assert np.array_equal(old.score_samples(rows()), plain.score_samples(rows()))
    assert str(old) == str(plain)


@pytest.mark.filterwarnings(OUTLIER)
def test_a_checkpoint_goes_on_in_its_own_units(tmp_path):
    def stop(state):
        if state.step == 20:
            raise OSError("power cut")

    file = tmp_path / "fit.ckpt"
    nfvi = NFVI("scale-loc", seed=3)
    with pytest.raises(OSError, match="power cut"):
        nfvi.fit_data(wild(), epochs=4, callbacks=[Checkpoint(file, every=10), stop])
    whole, resumed = nfvi.fit_data(wild(), epochs=4), NFVI.resume(file).fit_data(wild())
    assert torch.equal(whole.history.loss, resumed.history.loss)
    assert whole.quality == resumed.quality
    tensors, values = read_file(file, "checkpoint", None)
    del values["robust"], values["notes"]
    write_file(tmp_path / "old", "checkpoint", tensors, values)
    old = NFVI.resume(tmp_path / "old").fit_data(wild())
    assert old.standardization.bend is None
    assert float(old.standardization.sd[0]) > 1e4


def test_columns_that_repeat_values_are_named():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    x[:, 0], x[:, 2] = rng.integers(0, 2, 400), rng.poisson(3, 400)
    x[:40, 3] = -1.0
    said = (
        r"share a value in column 0, where \d+ % of the rows are [01] \(2 distinct values\); column"
        r" 2, .* are [23] .*column 3, where (9|10|11)(\.\d)? % of the rows are -1 .*noise as wide"
    )
    with pytest.warns(UserWarning, match=said):
        fit = NFVI("loc", seed=0).fit_data(x, epochs=1)
    assert "Many rows share a value in column 0" in " ".join(str(fit).split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # As the context it is welcome, and so are numbers that were only rounded.
        NFVI("loc", seed=0).fit_data(x[:, 1].round(3), context=x[:, 0], epochs=1)
