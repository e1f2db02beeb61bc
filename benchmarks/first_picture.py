"""From ``pip install`` to the first picture: how long a newcomer waits.

    python -m benchmarks.first_picture                  # each script of examples/first/
    python -m benchmarks.first_picture table --here     # one, without an environment of its own

Each script has a fresh environment, which holds this checkout and the extras that the script needs.
pip uses its cache. CPU seconds say more where a machine does other work as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import describe_environment
from benchmarks.progress import say, with_bar

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "examples" / "first"
EXTRAS = {"likelihood": "plots", "pymc_model": "plots,pymc,jax", "table": "plots,sklearn"}


def timed(command: Sequence[str | Path], folder: Path) -> tuple[float, float]:
    """The seconds that a command takes: of the clock, and of the CPU.

    Raises:
        SystemExit: it failed; with its output.
    """
    start, before = time.perf_counter(), _cpu()
    run = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{run.args} failed:\n{run.stdout}{run.stderr}")
    return time.perf_counter() - start, _cpu() - before


def _cpu() -> float:
    """CPU seconds of all commands so far."""
    spent = os.times()
    return spent.children_user + spent.children_system


def installed(extras: str, folder: Path) -> tuple[Path, float]:
    """The Python of a fresh environment, and the seconds of its ``pip install``."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    constraints = ROOT / "constraints.txt"
    command = [python, "-m", "pip", "install", "-q", "-c", constraints, f"{ROOT}[{extras}]"]
    return python, timed(command, folder)[0]


def measure(name: str, *, here: bool) -> str:
    """A row of the table: seconds of the installation, and of the script to its picture."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        python, install = (Path(sys.executable), None) if here else installed(EXTRAS[name], folder)
        script, cpu = timed([python, SCRIPTS / f"{name}.py"], folder)
        if not (folder / f"{name}.png").exists():
            raise SystemExit(f"{name}.py left no picture")
    wait = "" if install is None else f"{install:.0f} s"
    return f"| `{name}.py` | `nfvi[{EXTRAS[name]}]` | {wait} | {script:.0f} s | {cpu:.0f} s |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EXTRAS)}; default all")
    parser.add_argument("--here", action="store_true", help="with this Python, nothing installed")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(EXTRAS):
        parser.error(f"no script is named {', '.join(sorted(unknown))}")
    print(describe_environment())
    print("\n| script | installed | `pip install` | script | its CPU |\n|---|---|---|---|---|")
    for name in with_bar(options.names or EXTRAS, "scripts"):
        say(measure(name, here=options.here))


if __name__ == "__main__":
    main()
