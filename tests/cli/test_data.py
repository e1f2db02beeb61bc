"""``nfvi fit-data``: it does what fit_data does, and says what is wrong with a file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nfvi import NFVI, DensityFit
from nfvi.cli.app import app
from nfvi.cli.table import read_rows

FEW = ("--epochs", "3", "--seed", "4", "--no-progress")
ROWS = np.random.default_rng(0).normal(size=(60, 3)).round(3) @ np.diag([1.0, 10.0, 0.5])


def write(name: str, rows: np.ndarray, header: str = "", delimiter: str = ",") -> Path:
    lines = [delimiter.join(map(repr, row)) for row in rows.tolist()]
    Path(name).write_text("\n".join([*([header] if header else []), *lines]) + "\n")
    return Path(name)


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run the command in a folder with files of data: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    write("named.csv", ROWS, "a,b, c d")
    write("bare.csv", ROWS)
    np.save("rows.npy", ROWS)

    def run(*args):
        with pytest.raises(SystemExit) as stopped:
            app(["fit-data", *args])
        return (stopped.value.code, *capsys.readouterr())

    return run


def without_seconds(text):
    return [line for line in text.splitlines() if " steps of " not in line]


def read(text: str, columns: str | None = None, context: str | None = None):
    Path("t.csv").write_text(text)
    return read_rows(Path("t.csv"), columns, context)


def test_a_fit_is_that_of_the_api_and_writes_nothing(cli, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = cli("named.csv", "scale-loc", *FEW)
    fit = NFVI("scale-loc", seed=4).fit_data(ROWS, epochs=3)
    assert (code, err) == (0, "")
    assert without_seconds(out) == without_seconds(fit.describe(shell=True))
    assert sorted(tmp_path.rglob("*")) == before


def test_every_option_acts(cli):
    options = ("--columns", "c d,a", "--context", "b", "--validation", "0.25", "--base", "laplace",
               "--dtype", "float64", "--device", "cpu", "--batch-size", "20",
               "--lr", "0.1")  # fmt: skip
    assert cli("named.csv", "loc-scale", *FEW, *options, "--out", "o")[0] == 0
    fit = NFVI("loc-scale", base="laplace", seed=4, dtype=torch.float64).fit_data(
        ROWS[:, [2, 0]], context=ROWS[:, 1], validation=0.25, epochs=3, batch_size=20, lr=0.1
    )
    loaded = DensityFit.load("o/fit.safetensors")
    assert loaded.columns == ("c d", "a")
    assert loaded.settings["table"]["dtypes"] == ["float64", "float64"]
    assert {**loaded.settings, "columns": None, "table": None} == fit.settings
    for name, value in fit.guide.state_dict().items():
        assert torch.equal(loaded.guide.state_dict()[name], value)


@pytest.mark.parametrize("context", [False, True])
def test_out_holds_the_fit_the_scores_and_the_pictures(cli, tmp_path, context):
    named = ("--columns", "a,b", *(("--context", "2") if context else ()))
    code, out, _ = cli("named.csv", "tril", *FEW, *named, "--out", "a/b")
    folder = tmp_path / "a" / "b"
    files = {"fit.safetensors", "scores.csv", "summary.txt", "history.png", "report.html"}
    files |= set() if context else {"density.png", "draws.csv"}
    assert code == 0
    assert {path.name for path in folder.iterdir()} == files
    assert all(f"a/b/{name}" in out for name in files)
    assert all((folder / f).read_bytes()[:4] == b"\x89PNG" for f in files if f.endswith(".png"))
    fit = DensityFit.load(folder / "fit.safetensors")
    lines = (folder / "scores.csv").read_text().splitlines()
    assert lines[0] == "row,log_prob"
    scores = np.array([line.split(",") for line in lines[1:]], float)
    np.testing.assert_array_equal(scores[:, 0], np.arange(len(ROWS)))
    given = ROWS[:, 2] if context else None
    np.testing.assert_array_equal(scores[:, 1], fit.score_samples(ROWS[:, :2], given))
    assert out.startswith((folder / "summary.txt").read_text())


def test_without_matplotlib_the_rest_is_written(cli, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("nfvi.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = cli("bare.csv", "loc", *FEW, "--out", "o")
    assert code == 0
    assert "no figures" in err
    written = {path.name for path in (tmp_path / "o").iterdir()}
    assert written == {"fit.safetensors", "scores.csv", "summary.txt", "draws.csv"}


def test_draws_have_the_names_of_the_columns(cli, tmp_path):
    code, _, _ = cli("named.csv", "loc", *FEW, "--columns", "b,a", "--draws", "7", "--out", "o")
    lines = (tmp_path / "o" / "draws.csv").read_text().splitlines()
    assert code == 0 and lines[0] == "b,a" and len(lines) == 8
    fit = DensityFit.load(tmp_path / "o" / "fit.safetensors")
    drawn = np.array([line.split(",") for line in lines[1:]], float)
    np.testing.assert_allclose(drawn, fit.sample(7, seed=fit.settings["seed"]), rtol=1e-6)
    assert cli("named.csv", "loc", "--draws", "0")[0] == 2


@pytest.mark.process_wide
def test_ctrl_c_keeps_the_fit(cli, monkeypatch):
    original = DensityFit.from_running.__func__

    def interrupted(cls, running, callbacks, progress, start):
        def stop(state):
            if state.step == 5:
                signal.raise_signal(signal.SIGINT)

        return original(cls, running, [*callbacks, stop], progress, start)

    monkeypatch.setattr(DensityFit, "from_running", classmethod(interrupted))
    code, out, _ = cli("bare.csv", "loc", "--epochs", "500", "--seed", "1", "--out", "o")
    assert code == 130
    assert "interrupted" in out
    assert DensityFit.load("o/fit.safetensors").steps == 5


# Files


@pytest.mark.parametrize("name", ["named.csv", "bare.csv", "rows.npy"])
def test_files_of_all_kinds_hold_the_same_numbers(cli, name):
    rows, context = read_rows(Path(name), None, None)
    np.testing.assert_array_equal(np.asarray(rows), ROWS)
    assert rows.columns == (("a", "b", "c d") if name == "named.csv" else None)
    assert context is None


def test_columns_are_chosen_by_name_or_number(cli):
    for chosen in ("c d,a", "2,0", "2, a"):
        rows, _ = read_rows(Path("named.csv"), chosen, None)
        np.testing.assert_array_equal(rows.values, ROWS[:, [2, 0]])
        assert rows.columns == ("c d", "a")
    rows, context = read_rows(Path("rows.npy"), None, "1")
    np.testing.assert_array_equal(rows.values, ROWS[:, [0, 2]])
    np.testing.assert_array_equal(context.values, ROWS[:, [1]])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_other_delimiters_blank_lines_and_a_mark_at_the_start(cli, delimiter):
    text = "\ufeffa,b\n\n1, 2.5\r\n-3e2,nan\n\n".replace(",", delimiter)
    rows, _ = read(text)
    assert rows.columns == ("a", "b")
    np.testing.assert_array_equal(rows.values, [[1, 2.5], [-300, np.nan]])


def test_quotes_empty_cells_and_names_that_are_not_there(cli):
    rows, _ = read(',"x, y"\n0,\n1,"2"\n')
    assert rows.columns == ("0", "x, y")
    np.testing.assert_array_equal(rows.values, [[0, np.nan], [1, 2]])
    rows, _ = read("1,\n2,3\n")
    assert rows.columns is None


@pytest.mark.parametrize("word", ["", "NA", "N/A", "nan", "NaN", "null", "<NA>", '"NA"', "NA "])
def test_words_for_a_missing_number(cli, word):
    rows, _ = read(f"a,b\n1,{word}\n{word},4\n")
    np.testing.assert_array_equal(rows.values, [[1, np.nan], [np.nan, 4]])
    assert read(f"1,{word}\n3,4\n")[0].columns is None


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("names", ["", "a;b\n"])
def test_decimal_commas_between_other_delimiters(cli, delimiter, names):
    text = f"{names}1,5;-2\n;+,25e1\n".replace(";", delimiter)
    rows, _ = read(text)
    assert rows.columns == (("a", "b") if names else None)
    np.testing.assert_array_equal(rows.values, [[1.5, -2], [np.nan, 2.5]])


def test_a_comma_between_cells_is_no_decimal_comma(cli):
    np.testing.assert_array_equal(read("1,5\n2,5\n")[0].values, [[1, 5], [2, 5]])
    with pytest.raises(ValueError, match="line 2: 2 cells, and the first line has 1"):
        read("a\n1,5\n")


def test_decimal_commas_stand_where_columns_are_read_that_have_them(cli):
    text = "a;b\n1,5;1.5\n2,5;2.5\n"
    np.testing.assert_array_equal(read(text, "a")[0].values, [[1.5], [2.5]])
    np.testing.assert_array_equal(read(text, "b")[0].values, [[1.5], [2.5]])
    with pytest.raises(ValueError, match=r"line 2, column 'b': '1\.5' is no number"):
        read(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_text_is_utf_8_or_else_latin_1(cli, encoding):
    Path("t.csv").write_text("größe,b\n1,2\n", encoding=encoding)
    assert read_rows(Path("t.csv"), None, None)[0].columns == ("größe", "b")


def zipped(data: bytes, names: tuple[str, ...] = ("t.csv",)) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return file.getvalue()


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "ZIP": zipped}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_is_unpacked(cli, ending):
    path = Path(f"named.csv.{ending}")
    path.write_bytes(PACKERS[ending](Path("named.csv").read_bytes()))
    rows, _ = read_rows(path, None, None)
    np.testing.assert_array_equal(rows.values, ROWS)
    assert rows.columns == ("a", "b", "c d")


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_that_is_damaged_is_refused(cli, ending):
    whole = PACKERS[ending](Path("named.csv").read_bytes())
    for damaged in (whole[: len(whole) // 2], b"1,2\n3,4\n"):
        Path(f"t.{ending}").write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"'t\.{ending}' cannot be unpacked"):
            read_rows(Path(f"t.{ending}"), None, None)


def test_a_zip_holds_one_file(cli):
    Path("t.zip").write_bytes(zipped(b"1,2\n", ("a.csv", "b.csv")))
    with pytest.raises(ValueError, match=r"unpacked \(it holds 2 files, and one is needed\)"):
        read_rows(Path("t.zip"), None, None)
    Path("t.zip").write_bytes(zipped(b"1,2\n", ("data/", "data/a.csv")))
    np.testing.assert_array_equal(read_rows(Path("t.zip"), None, None)[0].values, [[1, 2]])


def test_lines_of_empty_cells_alone_are_left_out(cli):
    rows, _ = read(",\na,b\n , \n1,2\n,\n,\nNA,NA\n3,4\n , ")
    assert rows.columns == ("a", "b")
    np.testing.assert_array_equal(rows.values, [[1, 2], [np.nan, np.nan], [3, 4]])


def test_words_of_several_lines_and_names_that_are_missing(cli):
    rows, _ = read('a,note,b\n1,"x\n\ny",2\n3,,4\n', "a,b")
    np.testing.assert_array_equal(rows.values, [[1, 2], [3, 4]])
    rows, _ = read("\tx\ty\n0\t1\t2\n", "x,y")  # the index of a table has no name
    np.testing.assert_array_equal(rows.values, [[1, 2]])


def test_whole_numbers_of_any_size_and_numbers_without_end(cli):
    rows, _ = read(f"a,b\n{10**25},inf\n-1,-Infinity\n1e400,3\n")
    np.testing.assert_array_equal(rows.values, [[1e25, np.inf], [-1, -np.inf], [np.inf, 3]])


def test_a_column_of_words_may_be_left_out(cli):
    rows, _ = read("a,kind\n1,x\n2,y\n", "a")
    np.testing.assert_array_equal(rows.values, [[1], [2]])


def test_a_column_alone_and_a_name_that_is_a_number(cli):
    np.save("one.npy", np.arange(5))
    assert read_rows(Path("one.npy"), None, None)[0].values.shape == (5, 1)
    rows, _ = read("x,0\n1,2\n", "0")
    np.testing.assert_array_equal(rows.values, [[2]])  # the name goes first


@pytest.mark.parametrize(
    ("text", "columns", "context", "said"),
    [
        ("", None, None, "'t.csv' is empty"),
        ("a,b\n", None, None, "has a line of names and no rows"),
        ("a,b\n1,2\n3\n", None, None, "line 3: 1 cells, and the first line has 2"),
        ("a,b\n1,2\n3,x\n", None, None, "line 3, column 'b': 'x' is no number; choose columns"),
        ("a,b\n1,2\n3,4,5\n", None, None, "line 3: 3 cells, and the first line has 2"),
        ('a,b\n"1\n1",2\n3,\n4\n', None, None, "line 5: 1 cells, and the first line has 2"),
        ("a,b\n1,\n3,True\n", None, None, "line 3, column 'b': 'True' is no number"),
        ("a;b\n1,5;2\n3;x\n", None, None, "line 3, column 'b': 'x' is no number"),
        ("a;b\n1.234,5;2\n", None, None, "line 2, column 'a': '1.234,5' is no number"),
        ("a,b\n1,1_000\n", None, None, "line 2, column 'b': '1_000' is no number"),
        ("1,2\n\n3,x\n", None, None, "line 3, column 1: 'x' is no number"),
        ("a,b\n1,2\n", "c", None, "--columns: 't.csv' has no column 'c'; it has a, b"),
        ("1,2\n3,4\n", None, "2", "--context: 't.csv' has no column '2'; it has no names"),
        ("a,b\n1,2\n", "a,a", None, "--columns a,a names a column twice"),
        ("a,a\n1,2\n", "a", None, "has several columns 'a'"),
        ("a,b\n1,2\n", "a", "0", "column 'a' is named by both --columns and --context"),
        ("a,b\n1,2\n", None, "a,b", "has no column left to fit"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(cli, text, columns, context, said):
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        read(text, columns, context)
    assert said in str(caught.value)


@pytest.mark.parametrize("array", [np.array(["x"]), np.zeros((2, 2, 2)), np.array([{}]), 1j * ROWS])
def test_what_is_no_table_of_numbers_is_refused(cli, array):
    np.save("t.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"t\.npy"):
        read_rows(Path("t.npy"), None, None)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothere.csv"], "no file 'nothere.csv'"),
        (["."], "no file '.'"),
        (["bytes.csv"], "'bytes.csv' is not a text file with rows of numbers"),
        (["bytes.npy"], "'bytes.npy' is no array of numbers that NumPy saved"),
        (["none.npy"], "x is empty"),
        (["gaps.csv"], "2 of 3 rows have an empty cell: lines 2, 3. --drop-missing leaves them"),
        (["bare.csv", "mav*5"], "did you mean 'maf'?"),
        (["bare.csv", "loc", "--epochs", "0"], "epochs must be an integer of at least 1"),
        (["bare.csv", "loc", "--validation", "1"], "validation must be a fraction of the rows"),
        (["bare.csv", "loc", "--lr", "-1"], "lr must be a positive number"),
        (["bare.csv", "loc", "--dtype", "int8"], "--dtype takes float32 or float64"),
    ],
)
def test_mistakes_are_one_message_and_code_2(cli, args, said):
    Path("bytes.csv").write_bytes(b"\xff\xfe\x00\x81,1\n")
    Path("bytes.npy").write_bytes(b"nothing")
    np.save("none.npy", np.zeros(0))
    Path("gaps.csv").write_text("1,2\n3,\n,4\n")
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert err.startswith("nfvi: ")
    assert said in err
    assert "Traceback" not in err
    if args[1:] != ["mav*5"]:  # a formula is shown with a mark below it
        assert err.count("\n") == 1


def test_out_that_is_a_file_fails_before_the_fit(cli):
    Path("taken").write_text("")
    code, out, err = cli("bare.csv", "--out", "taken")
    assert (code, out) == (1, "")
    assert "taken" in err


def test_help_lists_every_option(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = cli("--help")
    assert code == 0
    for name in ("columns", "context", "validation", "base", "seed", "dtype", "device", "epochs",
                 "batch-size", "lr", "out", "no-progress"):  # fmt: skip
        assert f"--{name}" in out


def test_a_failed_run_leaves_no_empty_folder(cli, tmp_path):
    Path("gaps.csv").write_text("1,2\n3,\n,4\n")
    for args in (["gaps.csv"], ["nothere.csv"], ["bare.csv", "loc", "--epochs", "0"]):
        assert cli(*args, "--out", "a/b")[0] == 2
        assert not (tmp_path / "a").exists()


@pytest.mark.filterwarnings("always")
def test_outliers_and_spikes_are_one_line_each_on_stderr(cli):
    rows = ROWS.copy()
    rows[5, 0], rows[:30, 1] = 1e6, 7.0
    write("odd.csv", rows, "a,b,c")
    code, out, err = cli("odd.csv", "scale-loc", *FEW)
    assert code == 0
    outlier, spike = err.splitlines()
    assert outlier.startswith("nfvi: 1 cell lies") and "row 5 of x, column 'a'" in outlier
    assert spike.startswith("nfvi: many rows share a value in column 'b'")
    assert "row 5 of x, column 'a'" in " ".join(out.split())


MISSING_CELLS = "a,b\n1,2\n3,\n5,6\n,7\n"


def test_empty_cells_are_told_by_line_and_left_out_if_asked(tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text(MISSING_CELLS)
    with pytest.raises(ValueError, match=r"2 of 4 rows have an empty cell: lines 3, 5\. --drop"):
        read_rows(path, None, None, drop_missing=False)
    rows, given = read_rows(path, None, None, drop_missing=True)
    assert rows.values.tolist() == [[1, 2], [5, 6]] and given is None
    rows, given = read_rows(path, "a", "b", drop_missing=True)
    assert rows.values.tolist() == [[1], [5]] and given.values.tolist() == [[2], [6]]
    assert read_rows(path, "a", "b", drop_missing=True)[0].columns == ("a",)


@pytest.mark.parametrize(
    ("name", "kind"), [("x.parquet", "a Parquet file"), ("x.xlsx", "an Excel sheet")]
)
def test_what_is_no_text_is_called_by_its_name(tmp_path, monkeypatch, name, kind):
    """Where what pandas needs is missing, and where the file is damaged."""
    import pandas as pd

    path = tmp_path / name
    path.write_bytes(b"no such file at all")
    with pytest.raises(ValueError, match=f"is {kind}, which pandas|cannot be read as {kind}"):
        read_rows(path, None, None)
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3, None], "c": ["x", "y"]})
    reader = "read_parquet" if kind == "a Parquet file" else "read_excel"
    monkeypatch.setattr(pd, reader, lambda _: table)
    rows, _ = read_rows(path, "a,b", None, drop_missing=True)
    assert rows.values.tolist() == [[1.0, 3.0]] and rows.columns == ("a", "b")
    with pytest.raises(ValueError, match=r"column 'c': .* is no number"):
        read_rows(path, "c", None)


def test_auto_is_not_for_data(cli):
    code, _, err = cli("named.csv", "auto")
    assert code == 2 and "'auto' is for targets, not for data" in err


def test_out_that_is_a_file(cli, tmp_path):
    (tmp_path / "taken").write_text("")
    code, _, err = cli("named.csv", "maf", "--out", "taken")
    assert code == 1 and "is a file; give the path of a folder" in err


def test_decimal_commas_in_quotes_are_told_by_an_option(cli):
    Path("t.csv").write_text('a,b\n"1,5",2\n"2,5","3,25"\n')
    with pytest.raises(ValueError, match="'1,5' is no number; if it has a decimal comma"):
        read_rows(Path("t.csv"), None, None)
    rows, _ = read_rows(Path("t.csv"), None, None, decimal=",")
    np.testing.assert_array_equal(rows.values, [[1.5, 2.0], [2.5, 3.25]])
    assert "--decimal takes . or ," in cli("named.csv", "--decimal", ";")[2]
