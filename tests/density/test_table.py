"""Draws of a fit to a table have its columns and dtypes, and columns are known by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nfvi import NFVI, DensityFit, FitError, plots
from nfvi.density.table import Table, places_of
from nfvi.utils.files import read_file, write_file

N = 400
RNG = np.random.default_rng(0)
COLUMNS = {
    "float32": RNG.normal(size=N).astype(np.float32),
    "float16": RNG.normal(size=N).astype(np.float16),
    "int8": RNG.integers(-128, 127, N, dtype=np.int8, endpoint=True),
    "uint8": RNG.integers(0, 255, N, dtype=np.uint8, endpoint=True),
    "int64": RNG.integers(-(2**63), 2**63 - 1, N),
    "uint64": RNG.integers(0, 2**64 - 1, N, dtype=np.uint64),
    "bool": RNG.random(N) > 0.5,
    "Int64": pd.array(RNG.integers(0, 900, N), dtype="Int64"),
    "Float32": pd.array(RNG.normal(size=N), dtype="Float32"),
    "boolean": pd.array(RNG.random(N) > 0.5, dtype="boolean"),
    "category": pd.Categorical(RNG.integers(0, 30, N), categories=range(29, -1, -1), ordered=True),
    "Sparse[float64, nan]": pd.arrays.SparseArray(RNG.normal(size=N)),
}
TABLE = pd.DataFrame(COLUMNS)
WHOLE = ["int8", "uint8", "int64", "uint64", "Int64"]


def quick(x: object, formula: str = "scale-loc", **how: object) -> DensityFit:
    return NFVI(formula, seed=0).fit_data(x, epochs=2, **how)


@pytest.fixture(scope="module")
def fit() -> DensityFit:
    with pytest.warns(UserWarning, match="many rows share a value"):
        return quick(TABLE)


@pytest.fixture(scope="module")
def loaded(fit: DensityFit, tmp_path_factory: pytest.TempPathFactory) -> DensityFit:
    path = tmp_path_factory.mktemp("fits") / "fit.safetensors"
    fit.save(path)
    return DensityFit.load(path)


def test_draws_have_the_columns_and_the_dtypes_of_the_data(fit, loaded):
    for each in (fit, loaded):
        draws = each.sample(300, seed=1)
        assert list(draws.columns) == list(TABLE.columns) and len(draws) == 300
        assert draws.dtypes.equals(TABLE.dtypes)
        pd.testing.assert_frame_equal(draws, fit.sample(300, seed=1))


def test_they_are_the_continuous_draws_rounded(fit):
    """Whole numbers to the nearest, within the range of their dtype; truth values at a half."""
    draws, exact = fit.sample(2_000, seed=2), fit.to_dataframe(2_000, seed=2)
    for name in ("float32", "float16", "Float32", "Sparse[float64, nan]"):
        np.testing.assert_allclose(draws[name].to_numpy(float), exact[name], rtol=1e-3, atol=1e-4)
    for name in WHOLE:
        limits = np.iinfo(TABLE[name].dtype.name.lower())
        inside = exact[name].between(limits.min, limits.max)
        assert (inside.mean() > 0.9) and (inside.all() == (name == "Int64"))
        found = draws[name].to_numpy(np.float64)
        np.testing.assert_array_equal(found[inside], np.rint(exact[name][inside]))
        most = found[exact[name] > limits.max]
        np.testing.assert_allclose(most, float(limits.max), rtol=2e-16)  # the float below 2**63
        np.testing.assert_array_equal(found[exact[name] < limits.min], float(limits.min))
    for name in ("bool", "boolean"):
        np.testing.assert_array_equal(draws[name].to_numpy(bool), exact[name] >= 0.5)
    np.testing.assert_array_equal(
        draws["category"].to_numpy(float), np.rint(exact["category"]).clip(0, 29)
    )


def test_draws_can_be_scored_by_name_in_any_order(fit):
    draws = fit.sample(50, seed=3)
    scores = fit.log_prob(draws)
    assert isinstance(scores, torch.Tensor) and scores.shape == (50,)
    assert scores.dtype == torch.float64
    turned = draws[draws.columns[::-1]]
    assert torch.equal(fit.log_prob(turned), scores)
    assert torch.equal(fit.rows(turned), fit.rows(draws))
    np.testing.assert_allclose(fit.score_samples(turned), scores)
    assert fit.score(turned) == pytest.approx(float(scores.mean()))
    np.testing.assert_allclose(fit.log_prob(fit.rows(draws)), scores)


@pytest.mark.parametrize(
    ("turned", "said"),
    [
        ({"a": "z"}, r"x lacks 'a' and has also 'z': the columns of the data were 'a', 'b'; pass"),
        (["a"], r"x lacks 'b': the columns"),
        (["a", "b", "c"], r"x has also 'c': the columns"),
        (["b", "a", "a"], r"x has the columns 'b', 'a', 'a', some of them twice"),
    ],
)
def test_a_wrong_column_is_one_clear_error(turned, said):
    table = pd.DataFrame(RNG.normal(size=(50, 3)), columns=["a", "b", "c"])
    fit = quick(table[["a", "b"]])
    wrong = table[["a", "b"]].rename(columns=turned) if isinstance(turned, dict) else table[turned]
    for use in (fit.log_prob, fit.score, fit.score_samples, fit.rows):
        with pytest.raises(ValueError, match=said):
            use(wrong)
    with pytest.raises(ValueError, match=said.replace("x ", "validation ", 1)):
        quick(table[["a", "b"]], validation=wrong)


def test_held_out_rows_are_told_apart_by_name():
    table = pd.DataFrame(RNG.normal(size=(90, 2)) * [1.0, 100.0], columns=["a", "b"])
    kept, held = table[:60], table[60:]
    found = [quick(kept, validation=v).quality.held_out for v in (held, held[["b", "a"]])]
    assert found[0] == found[1]


def test_arrays_and_tensors_stay_tensors(fit):
    x = RNG.normal(size=(60, 2))
    assert quick(x).sample(3).dtype == torch.float64
    assert quick(torch.from_numpy(x).float()).sample(3).dtype == torch.float32
    plain = TABLE.to_numpy(np.float64)
    assert fit.log_prob(torch.from_numpy(plain)).shape == (N,)


@pytest.mark.parametrize(
    "columns",
    [
        pd.RangeIndex(2),
        pd.Index([3, "b"]),
        pd.Index(["u", "v"], name="of"),
        pd.MultiIndex.from_tuples([("u", 1), ("u", 2)], names=["of", None]),
    ],
)
def test_names_that_are_no_text_come_back_as_they_were(columns, tmp_path):
    table = pd.DataFrame(RNG.normal(size=(50, 2)), columns=columns)
    fit = quick(table)
    fit.save(tmp_path / "fit")
    for each in (fit, DensityFit.load(tmp_path / "fit")):
        draws = each.sample(4)
        assert draws.columns.equals(columns) and draws.columns.names == columns.names
        assert each.log_prob(draws).shape == (4,)


def test_draws_at_several_contexts_are_one_long_table():
    c = RNG.normal(size=300)
    table = pd.DataFrame({"a": c + RNG.normal(size=300), "n": RNG.integers(0, 1_000, 300)})
    fit = quick(table, "maf(hidden=[8])", context=c)
    assert list(fit.sample(3, 0.5).index) == [0, 1, 2]
    draws = fit.sample(3, [-1.0, 1.0], seed=1)
    assert draws.index.names == ["draw", "context"] and len(draws) == 6
    assert draws.dtypes.equals(table.dtypes)
    tensor = fit._draws(3, [-1.0, 1.0], 1)
    np.testing.assert_allclose(draws.loc[(2, 1), "a"], float(tensor[2, 1, 0]))
    at_each = draws.index.get_level_values("context").map({0: -1.0, 1: 1.0})
    assert fit.log_prob(draws, at_each.to_numpy()).shape == (6,)


def test_pictures_and_summaries_take_such_fits(fit):
    plots.rows(fit, TABLE)
    plots.density(quick(TABLE[["float32", "Int64"]]))
    assert list(fit.summary(50).index) == list(TABLE.columns)
    assert set(fit.to_arviz(5).posterior.data_vars) == set(TABLE.columns)


def test_other_tables_have_dtypes_of_numpy():
    """Of Arrow the names alone are known; of the like of Polars, the dtypes that NumPy has."""

    class Frame:
        columns = ("a", "b", "c")
        dtypes = ("Float32", "Int64", "Decimal")

        def __array__(self, dtype=None, copy=None):
            return np.random.default_rng(0).normal(size=(50, 3)) * 1e3

    draws = quick(Frame()).sample(3)
    assert [str(kind) for kind in draws.dtypes] == ["float32", "int64", "float64"]
    arrow = pytest.importorskip("pyarrow").table({"u": RNG.normal(size=50)})
    assert list(quick(arrow).sample(2).columns) == ["u"]


def test_any_objects_come_back_as_floats():
    table = pd.DataFrame({"a": RNG.normal(size=50).astype(object)})
    assert quick(table).sample(2)["a"].dtype == np.float64


class TestFiles:
    def test_of_an_earlier_version(self, fit, tmp_path):
        """It has the dtypes, though no categories, and no names that are not text."""
        fit.save(tmp_path / "fit")
        tensors, values = read_file(tmp_path / "fit", "density", None)
        settings = values["settings"]
        settings["dtypes"] = settings.pop("table")["dtypes"]
        write_file(tmp_path / "old", "density", tensors, values)
        draws = DensityFit.load(tmp_path / "old").sample(3)
        kinds = TABLE.dtypes.astype(str).replace("category", "float64")
        assert draws.dtypes.astype(str).equals(kinds)

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            ({"dtypes": ["float64"]}, "settings.table.dtypes must have 12 values"),
            ({"labels": 3}, "settings.table.labels is 3"),
            ({"categories": [7] * 12}, "settings.table.categories"),
        ],
    )
    def test_that_are_damaged(self, fit, tmp_path, broken, said):
        fit.save(tmp_path / "fit")
        tensors, values = read_file(tmp_path / "fit", "density", None)
        values["settings"]["table"] |= broken
        write_file(tmp_path / "bad", "density", tensors, values)
        with pytest.raises(FitError, match=said):
            DensityFit.load(tmp_path / "bad")

    def test_with_a_dtype_that_pandas_lacks_here(self, fit):
        table = Table(("a",), ("of_another_library",))
        with pytest.raises(ValueError, match="dtype 'of_another_library', which pandas cannot"):
            table.frame(torch.ones(2, 1))


def test_a_settings_dict_gives_the_table_again(fit):
    table = Table.of(TABLE)
    assert Table.of_settings({"columns": table.columns, "table": table.as_settings()}) == table
    assert Table.of(TABLE.to_numpy()) is None and places_of(TABLE, None) is None


@pytest.mark.parametrize("end", ["csv", "npy"])
def test_of_the_command_line(end, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from nfvi.cli.app import app

    monkeypatch.chdir(tmp_path)
    rows = np.stack([RNG.normal(size=80), RNG.integers(-500, 500, 80)], 1)
    if end == "csv":
        pd.DataFrame({"u": rows[:, 0], "n": rows[:, 1].astype(int)}).to_csv("t.csv", index=False)
    else:
        np.save("t.npy", rows)
    done = CliRunner().invoke(
        app, ["fit-data", f"t.{end}", "loc", "--epochs", "2", "--out", "o", "--seed", "3"]
    )
    assert done.exit_code == 0, done.output
    written, fit = pd.read_csv("o/draws.csv"), DensityFit.load(Path("o/fit.safetensors"))
    if end == "csv":
        assert list(map(str, written.dtypes)) == ["float64", "int64"]
        pd.testing.assert_frame_equal(written, fit.sample(1_000, seed=3))
    else:
        assert list(written.columns) == ["x[0]", "x[1]"]
        assert isinstance(fit.sample(2), torch.Tensor)
