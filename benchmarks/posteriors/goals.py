"""What the fits are asked to reach, and whether the rows of benchmarks.posteriors reach it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from statistics import median
from typing import NamedTuple

from benchmarks.posteriors.accuracy import ENOUGH
from benchmarks.posteriors.cases import CENTRED, NAMES, NONCENTRED
from benchmarks.posteriors.gradients import path_holds, settings_of
from benchmarks.posteriors.store import Row
from benchmarks.posteriors.text import bias, number, seconds
from models.posteriordb import POSTERIORS
from nfvi.fit import KHAT_LIMIT

__all__ = ["Goal", "clean", "evaluations_ratio", "goals", "has_nan", "wrong"]

SEEDS = 10
WRONG = 0.05
GAPS = {
    CENTRED: 0.02,
    NONCENTRED: 0.003,
    "funnel": 0.02,
    "logistic_regression": 0.03,
    "pot1": 0.008,
    "pot2": 0.002,
    "pot3": 0.005,
    "pot4": 0.02,
}


class Goal(NamedTuple):
    """One line of the table.

    Attributes:
        what: is measured.
        demand: how good it has to be.
        found: how good it is.
        reached: ``None`` where too little was measured to say.
    """

    what: str
    demand: str
    found: str
    reached: bool | None


def clean(row: Row) -> bool:
    """Whether a fit gives itself a clean bill: k-hat below 0.7, and ``verify`` passes."""
    return row["status"] == "ok" and row["khat"] < KHAT_LIMIT and row["verify_passed"]


def wrong(row: Row) -> bool:
    """Whether it does, and a b², of raw or of weighted draws, is above 0.05 all the same."""
    return clean(row) and max(row["b2_raw_worst"], row["b2_psis_worst"]) > WRONG


def has_nan(row: Row) -> bool:
    """Whether a result is NaN, or some draws had no finite density."""
    names = ("b2_raw_worst", "b2_psis_worst", "khat", "elbo", "log_evidence")
    return row["status"] == "ok" and any(math.isnan(row[name]) for name in names)


def evaluations_ratio(fit: Row, nuts: Row) -> float:
    """Batches of a fit to b² < 0.01, over the sequential gradients of NUTS to the same.

    Where NUTS does not get there, its whole run counts, which is the least that it would take.
    Infinite where the fit does not get there.
    """
    if fit["status"] != "ok" or fit["to_accuracy"] is None:
        return math.inf
    return float(fit["to_accuracy"] / (nuts["to_accuracy"] or nuts["sequential_evaluations"]))


def goals(rows: Iterable[Row], formula: str = "auto") -> list[Goal]:
    """Every goal, in the order of the table.

    Args:
        rows: of all methods.
        formula: whose fits are judged.
    """
    every = list(rows)
    fits = [row for row in every if row["method"] == "fit" and row["settings"] == formula]
    nuts = {row["target"]: row for row in every if row["method"] == "nuts"}
    nuts = {name: row for name, row in nuts.items() if row["status"] == "ok"}
    return [
        *_accuracy([row for row in fits if row["target"] in POSTERIORS]),
        *_khat(fits),
        *_failures(fits),
        *_search(fits),
        *(_gap(fits, name, limit) for name, limit in GAPS.items()),
        *_mixture([row for row in fits if row["target"] == "mixture_10d"]),
        _evaluations(fits, nuts),
        _gradients([row for row in every if row["method"] == "gradients"]),
        _wall_times(formula, fits, every),
    ]


def _share(
    what: str, rows: list[Row], holds: Callable[[Row], bool], least: float, names: Collection[str]
) -> Goal:
    """A share of all fits; a crash does not hold."""
    good = sum(row["status"] == "ok" and holds(row) for row in rows)
    measured = {row["target"] for row in rows}
    whole = measured >= set(names)
    found = f"{good} of {len(rows)}" if rows else "–"
    if rows and not whole:
        found += f", from {len(measured)} of {len(names)} models"
    reached = good >= least * len(rows) if rows and whole else None
    return Goal(what, f"≥ {least:.0%}", found, reached)


def _accuracy(rows: list[Row]) -> list[Goal]:
    made = []
    for name, limit in (("raw", 0.0025), ("psis", 0.001)):
        label = {"raw": "raw", "psis": "after PSIS"}[name]
        key = f"b2_{name}_worst"
        what = f"posteriordb: worst b² < {limit:g} {label}"
        made.append(_share(what, rows, lambda r, k=key, most=limit: r[k] < most, 0.9, POSTERIORS))
    for name, label in (("raw", "raw"), ("psis", "after PSIS")):
        key = f"b2_{name}_worst"
        worst = max((r[key] for r in rows if r["status"] == "ok"), key=_nan_last, default=None)
        none_above = all(r["status"] == "ok" and r[key] <= ENOUGH for r in rows)
        whole = {r["target"] for r in rows} >= set(POSTERIORS)
        reached = none_above if whole or not none_above else None
        made.append(Goal(f"posteriordb: largest b² {label}", "≤ 0.01", bias(worst), reached))
    return made


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _khat(rows: list[Row]) -> list[Goal]:
    limits = ((0.5, 0.7), (KHAT_LIMIT, 0.9))
    made = [
        _share(f"k-hat < {limit}", rows, lambda row, most=limit: row["khat"] < most, least, NAMES)
        for limit, least in limits
    ]
    rest = [row for row in rows if row["status"] == "ok" and not row["khat"] < KHAT_LIMIT]
    says = sum(row["warns"] for row in rest)
    agrees = sum(not row["verify_passed"] for row in rest)
    found = f"{says} and {agrees} of {len(rest)}"
    reached = False if min(says, agrees) < len(rest) else (True if _whole(rows) else None)
    what = "k-hat ≥ 0.7: the text warns, and `verify` does not pass"
    return [*made, Goal(what, "all", found if rows else "–", reached)]


def _failures(rows: list[Row]) -> list[Goal]:
    counts = {
        "crashes": sum(row["status"] != "ok" for row in rows),
        "NaN results": sum(map(has_nan, rows)),
        "wrong with a clean bill": sum(map(wrong, rows)),
    }
    enough = all(_fits_of(rows, name) >= SEEDS for name in NAMES)
    made = []
    for what, bad in counts.items():
        reached = False if bad else (True if enough else None)
        made.append(Goal(f"10 seeds × all models: {what}", "0", f"{bad} of {len(rows)}", reached))
    return made


def _search(rows: list[Row]) -> list[Goal]:
    """What the search for missed mass says of these, which miss none, and what it costs."""
    known = [row for row in rows if row["status"] == "ok" and row.get("search_clean") is not None]
    false = sum(not row["search_clean"] for row in known)
    enough = all(_fits_of(known, name) >= SEEDS for name in NAMES)
    alarms = Goal(
        "10 seeds × all models: false alarms of the search for missed mass",
        "0",
        f"{false} of {len(known)}" if known else "–",
        False if false else (True if enough else None),
    )
    there = [row for row in known if row["target"] in POSTERIORS]
    share = [row["search_cpu_time"] / row["cpu_time"] for row in there]
    whole = {row["target"] for row in there} >= set(POSTERIORS)
    cost = Goal(
        "posteriordb: share of the CPU time that the search takes, median",
        "≤ 15%",
        f"{median(share):.0%}" if share else "–",
        median(share) <= 0.15 if whole else None,
    )
    return [alarms, cost]


def _whole(rows: list[Row]) -> bool:
    return {row["target"] for row in rows} >= set(NAMES)


def _fits_of(rows: list[Row], target: str) -> int:
    return sum(row["target"] == target for row in rows)


def _gap(rows: list[Row], target: str, limit: float) -> Goal:
    """log Z − ELBO, of the worst seed."""
    of_target = [row for row in rows if row["target"] == target]
    what, demand = f"{target}: log Z − ELBO, nats", f"≤ {limit:g}"
    if not of_target or any(row["status"] != "ok" for row in of_target):
        return Goal(what, demand, "a crash" if of_target else "–", False if of_target else None)
    worst = max(of_target, key=lambda row: _nan_last(row["gap"]))
    found = f"{number(worst['gap'], 4)} ± {number(worst['gap_se'], 4)}"
    if len(of_target) > 1:
        middle = number(median(row["gap"] for row in of_target), 4)
        found += f", the worst of {len(of_target)} seeds; median {middle}"
    return Goal(what, demand, found, worst["gap"] <= limit)


def _mixture(rows: list[Row]) -> list[Goal]:
    good = sum(row["status"] == "ok" and row["modes"] == row["modes_all"] for row in rows)
    bad = len(rows) - good
    modes = None if bad <= 1 and len(rows) < SEEDS else good >= 0.9 * len(rows)
    errors = [abs(row["log_evidence"] - row["log_z"]) for row in rows if row["status"] == "ok"]
    worst = max(errors, key=_nan_last, default=None)
    evidence = None if worst is None else len(errors) == len(rows) and worst <= 0.05
    found = f"{good} of {len(rows)}" if rows else "–"
    return [
        Goal("mixture_10d: all modes found", "≥ 9 of 10 seeds", found, modes),
        Goal("mixture_10d: error of the log evidence", "≤ 0.05", number(worst, 4), evidence),
    ]


def _evaluations(rows: list[Row], nuts: dict[str, Row]) -> Goal:
    both = [row for row in rows if row["target"] in nuts]
    what = "batches to b² < 0.01: at most a tenth of the sequential gradients of NUTS"
    return _share(what, both, lambda r: evaluations_ratio(r, nuts[r["target"]]) <= 0.1, 0.8, NAMES)


def _gradients(rows: list[Row]) -> Goal:
    """Of one comparison, not of several formulas together."""
    counted = settings_of(rows)[:1]
    some = [row for row in rows if row["settings"] in counted]
    what = "path gradient: ELBO better by 0.1 nats, or both within 0.02 of log Z"
    return _share(what, some, path_holds, 0.8, NAMES)


def _wall_times(formula: str, fits: list[Row], rows: list[Row]) -> Goal:
    found = [
        f"{label} {seconds(middle)}"
        for label, some in (
            (formula, fits),
            ("Pyro", [row for row in rows if row["method"] == "nuts"]),
            ("NumPyro", [row for row in rows if row["method"] == "numpyro"]),
        )
        if (middle := _median_time(some)) is not None
    ]
    what = "posteriordb: median wall time, s"
    return Goal(what, "reported", "; ".join(found) or "–", True if len(found) == 3 else None)


def _median_time(rows: list[Row]) -> float | None:
    times = [r["wall_time"] for r in rows if r["status"] == "ok" and r["target"] in POSTERIORS]
    return median(times) if times else None
