"""How many steps, at which rate, and from which draws: default fits under several settings.

    python -m benchmarks.schedules                          # everything; hours on 2 cores
    python -m benchmarks.schedules --only pot1 --seeds 2    # some of it
    python -m benchmarks.schedules --table                  # the tables again, and no fit

Each fit is ``NFVI(formula, seed=s).fit(target, ...)`` with the settings of its column, and all else
at its default. What it ends at is log Z − ELBO, the exact KL but for Monte-Carlo error, from 50 000
draws. The file of rows is whole after every fit, and what is there is not run again: stop the
command when you like, and give it again to go on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import models
from benchmarks.environment import describe_environment
from benchmarks.posteriors.importance_reference import importance_reference
from benchmarks.posteriors.page import markdown_table
from benchmarks.posteriors.store import Row, Store
from benchmarks.progress import say, with_bar
from models.eight_schools import LOG_EVIDENCE
from models.potentials import mass_left
from nfvi import NFVI, Fit, NaturalGradient, PyroTarget
from nfvi.fit import elbo_of, evaluate

__all__ = ["CASES", "SETTINGS", "Case", "Job", "Settings", "jobs_of", "main", "tables"]

ROWS = Path(__file__).parent / "results/schedules.json"
DRAWS = 50_000
# Half of the mass of pot1 lies in each mode; a restart that fell into one has nearly none beside.
LOST = 0.1


@dataclass(frozen=True)
class Case:
    """A formula on a target.

    Attributes:
        name: of the target.
        formula: of the guide.
        target: makes what is fitted.
        log_z: log ∫ p where the target does not say it.
        network: whether the formula has a network, which wants a lower rate.
    """

    name: str
    formula: str
    target: Callable[[], Any]
    log_z: Callable[[], float] | None = None
    network: bool = False

    def __str__(self) -> str:
        return f"{self.formula} on {self.name}"


@cache
def _logistic_log_z() -> float:
    return importance_reference(PyroTarget(models.logistic_regression)).log_evidence


def _schools() -> Any:
    return models.eight_schools_noncentered


CASES = (
    Case("pot1", "planar*8", lambda: models.pot1),
    Case("pot1", "radial*8", lambda: models.pot1),
    Case("pot1", "monotone*2", lambda: models.pot1),
    Case("pot2", "bnaf", lambda: models.pot2),
    Case("pot3", "planar*8", lambda: models.pot3),
    Case("pot4", "planar*10", lambda: models.pot4),
    Case("eight schools", "scale-loc", _schools, lambda: LOG_EVIDENCE),
    Case("eight schools", "realnvp*4", _schools, lambda: LOG_EVIDENCE, network=True),
    Case("logistic regression", "tril", lambda: models.logistic_regression, _logistic_log_z),
    Case("Gaussian, d = 20", "scale-hh*10-loc", lambda: models.make_gaussian(20, seed=0)),
    Case("funnel, d = 10", "iaf*2", lambda: models.funnel, network=True),
    Case("banana", "nsf*2", lambda: models.banana, network=True),
    Case("banana", "sylvester*4", lambda: models.banana),
)


@dataclass(frozen=True)
class Settings:
    """A column of the tables: arguments of ``NFVI.fit``.

    Attributes:
        steps: optimiser steps, or ``"auto"``.
        lr: the learning rate without a network in the formula, and with one.
        draws: ``"iid"`` or ``"qmc"``.
        hold: fraction of the steps at the full rate.
        prune: whether restarts that fall behind are given up.
    """

    steps: Any
    lr: tuple[float, float] = (0.02, 0.005)
    draws: str = "iid"
    hold: float | None = 0.0
    prune: bool = False

    def arguments(self, case: Case) -> dict[str, Any]:
        """What ``NFVI.fit`` is given."""
        lr = self.lr[case.network]
        values = {"steps": self.steps, "lr": lr, "draws": self.draws, "prune": self.prune}
        return values if self.hold is None else {**values, "hold": self.hold}


class Natural:
    """A column of natural gradients, with all else at the defaults that go with them."""

    def arguments(self, case: Case) -> dict[str, Any]:
        """What ``NFVI.fit`` is given."""
        return {"optimizer": NaturalGradient}


RAISED, DOUBLE = (0.05, 0.0125), (0.04, 0.01)
SETTINGS: dict[str, Settings | Natural | None] = {
    "5 000, 0.02, iid": Settings(5_000),
    "2 500, 0.02, iid": Settings(2_500),
    "2 500, 0.02, qmc": Settings(2_500, draws="qmc"),
    "2 500, 0.04, iid": Settings(2_500, DOUBLE),
    "2 500, 0.04, qmc": Settings(2_500, DOUBLE, "qmc"),
    "2 500, 0.05, qmc": Settings(2_500, RAISED, "qmc"),
    "2 000, 0.05, iid": Settings(2_000, RAISED),
    "2 000, 0.05, qmc": Settings(2_000, RAISED, "qmc"),
    "2 000, 0.05, qmc, pruned": Settings(2_000, RAISED, "qmc", prune=True),
    "1 500, 0.05, qmc": Settings(1_500, RAISED, "qmc"),
    "2 500, 0.02, held, qmc": Settings(2_500, draws="qmc", hold=0.7),
    "2 500, 0.03, held, qmc": Settings(2_500, (0.03, 0.0075), "qmc", hold=0.7),
    "auto, 0.05, qmc": Settings("auto", RAISED, "qmc", hold=None),
    "auto, 0.02, iid": Settings("auto", hold=None),
    "the defaults": None,
    "natural gradients": Natural(),
}
"""By a name of steps, learning rate without a network (with one it is a quarter) and draws."""


@dataclass(frozen=True)
class Job:
    """One fit."""

    case: Case
    settings: str
    seed: int

    def key(self) -> Row:
        """What tells its row apart in the file."""
        return {
            "method": self.case.formula,
            "target": self.case.name,
            "seed": self.seed,
            "settings": self.settings,
        }

    def measure(self) -> Row:
        """Its row."""
        chosen = SETTINGS[self.settings]
        arguments = {} if chosen is None else chosen.arguments(self.case)
        cpu = time.process_time()
        fit = NFVI(self.case.formula, seed=self.seed).fit(
            self.case.target(), progress=False, **arguments
        )
        cpu = time.process_time() - cpu
        return {
            **self.key(),
            "status": "ok",
            **quality(self.case, fit),
            "steps": len(fit.history),
            "evaluation": fit.settings["evaluation"],
            "cpu_time": cpu,
            "wall_time": fit.wall_time,
            "environment": describe_environment(),
        }


def quality(case: Case, fit: Fit) -> Row:
    """log Z − ELBO with its standard error, and on pot1 the mass of the left mode."""
    if fit.target is None:
        raise ValueError("a fit read from a file has no target")
    generator = torch.Generator().manual_seed(12_345)
    found = evaluate(fit.guide, fit.target, DRAWS, generator, keep=0)
    elbo, se = elbo_of(found.log_p, found.log_q)
    log_z = fit.target.log_normalizer if case.log_z is None else case.log_z()
    if log_z is None:
        raise ValueError(f"{case} needs log_z=")
    left = float(mass_left(fit.sample(DRAWS))) if case.name == "pot1" else None
    return {"kl": log_z - elbo, "kl_se": se, "mass_left": left}


def jobs_of(only: Sequence[str], settings: Sequence[str], seeds: int) -> Iterator[Job]:
    """All fits that are asked for, those of a seed together.

    Args:
        only: texts, one of which the name of a case holds.
        settings: names in ``SETTINGS``.
        seeds: fits of each, with seeds 1, 2, …
    """
    cases = [case for case in CASES if any(text in str(case) for text in only)]
    for seed in range(1, seeds + 1):
        for case in cases:
            for name in settings:
                yield Job(case, name, seed)


def tables(rows: Sequence[Row]) -> str:
    """Quality and costs of each case under each settings, in Markdown."""
    names = [name for name in SETTINGS if any(row["settings"] == name for row in rows)]
    header = ["formula and target", *names]
    found = {str(case): _of(rows, case) for case in CASES}
    kinds = {
        "log Z − ELBO, nats: median (worst)": _gap,
        "CPU seconds: median": lambda some: f"{statistics.median(_values(some, 'cpu_time')):.1f}",
        "Fits": lambda some: str(len(some)),
    }
    parts = []
    for title, cell in kinds.items():
        cells = [
            [name, *(cell(some) if (some := _with(rows, one)) else "–" for one in names)]
            for name, rows in found.items()
            if rows
        ]
        parts.append(f"**{title}**\n\n" + markdown_table(header, cells))
    return "\n".join(parts)


def _of(rows: Sequence[Row], case: Case) -> list[Row]:
    return [row for row in rows if (row["method"], row["target"]) == (case.formula, case.name)]


def _with(rows: Sequence[Row], settings: str) -> list[Row]:
    return [row for row in rows if row["settings"] == settings]


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows]


def _gap(rows: Sequence[Row]) -> str:
    gaps = _values(rows, "kl")
    text = f"{statistics.median(gaps):.4f}"
    text += f" ({max(gaps):.4f})" if len(gaps) > 1 else ""
    lost = sum(not LOST < row["mass_left"] < 1 - LOST for row in rows if row["mass_left"])
    return f"{text}, {lost} lost a mode" if lost else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit what is asked for and not there yet, and print the tables."""
    options = _options(arguments)
    store = Store(options.out, resume=True)
    if not options.table:
        torch.set_num_threads(1)
        asked = jobs_of(options.only, options.settings, options.seeds)
        jobs = [job for job in asked if job.key() not in store]
        for job in with_bar(jobs, "schedules", name=lambda job: f"{job.case}, {job.settings}"):
            row = job.measure()
            store.add(row)
            say(
                f"{job.case}, {job.settings}, seed {job.seed}: {row['kl']:.4f} ±"
                f" {row['kl_se']:.4f}, {row['steps']} steps, {row['cpu_time']:.1f} CPU s"
            )
    print(tables(store.rows))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.schedules",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", default=[""], metavar="TEXT", help="names that hold a text (all)")
    add("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS, metavar="NAME")
    add("--seeds", type=int, default=5, help="fits of each, with seeds 1, 2, … (5)")
    add("--table", action="store_true", help="the tables from the rows there are, and no fit")
    add("--out", default=ROWS, help="JSON file of the rows (benchmarks/results/schedules.json)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
