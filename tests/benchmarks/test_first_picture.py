"""The wait for a first picture: a row for each script, and no row without a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import first_picture

LEAVES = "from pathlib import Path; Path(f'{Path(__file__).stem}.png').touch()"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of examples/first/."""
    monkeypatch.setattr(first_picture, "SCRIPTS", tmp_path)
    return tmp_path


def test_every_script_has_its_extras() -> None:
    scripts = {path.stem for path in first_picture.SCRIPTS.glob("*.py")}
    assert scripts == set(first_picture.EXTRAS)


def test_a_row_has_the_seconds_of_a_script(scripts: Path) -> None:
    (scripts / "table.py").write_text(f"import time; time.sleep(1); {LEAVES}")
    row = first_picture.measure("table", here=True)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["`table.py`", "`nfvi[plots,sklearn]`", ""]
    clock, cpu = (int(cell.removesuffix(" s")) for cell in cells[3:])
    assert clock >= 1 and 0 <= cpu <= clock


@pytest.mark.parametrize(
    ("code", "said"), [("1 / 0", "ZeroDivisionError"), ("", "left no picture")]
)
def test_a_script_that_fails_has_no_row(scripts: Path, code: str, said: str) -> None:
    (scripts / "table.py").write_text(code)
    with pytest.raises(SystemExit, match=said):
        first_picture.measure("table", here=True)


def test_an_environment_is_made_and_installed_into(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The Python is that of the environment, and pip gets this checkout with the extras."""
    made, ran = [], []

    def timed(command: list[object], folder: Path) -> tuple[float, float]:
        ran.append(command)
        return 2.0, 1.0

    monkeypatch.setattr(first_picture.venv, "create", lambda path, with_pip: made.append(path))
    monkeypatch.setattr(first_picture, "timed", timed)
    python, seconds = first_picture.installed("plots", tmp_path)
    assert made == [tmp_path / "venv"] and python.is_relative_to(made[0]) and seconds == 2.0
    assert ran[0][0] == python != Path(sys.executable)
    assert ran[0][-1] == f"{first_picture.ROOT}[plots]"
