"""The tables of benchmarks.posteriors: header and cells of each, from the rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from benchmarks.posteriors.cases import NAMES
from benchmarks.posteriors.goals import clean, evaluations_ratio, has_nan, path_holds, wrong
from benchmarks.posteriors.store import Row
from benchmarks.posteriors.text import bias, count, guide, number, seconds

__all__ = ["accuracy", "costs", "densities", "gradients", "over_seeds", "samplers"]

Table = tuple[list[str], list[list[str]]]
ByTarget = dict[str, list[Row]]


def by_target(rows: Sequence[Row], method: str, settings: str | None = None) -> ByTarget:
    """Rows of a method that ended well, in the order of the targets."""
    chosen = [
        row
        for row in rows
        if row["method"] == method and (settings is None or row["settings"] == settings)
    ]
    return {
        name: [row for row in chosen if row["target"] == name]
        for name in NAMES
        if any(row["target"] == name for row in chosen)
    }


def accuracy(rows: Sequence[Row], formula: str) -> Table:
    """How good the fits are; the median over seeds where there are several."""
    header = ["target", "d", "formula", "b² raw", "(mean)", "b² PSIS", "(mean)", "k-hat"]
    header += ["IS eff.", "log Z − ELBO", "verify"]
    table = []
    for name, some in _well(by_target(rows, "fit", formula)).items():
        cells = [name, count(some[0]["dim"]), _formulas(some)]
        for key in ("b2_raw_worst", "b2_raw_average", "b2_psis_worst", "b2_psis_average"):
            cells.append(bias(_median(some, key)))
        cells += [number(_median(some, "khat")), f"{_median(some, 'efficiency'):.0%}"]
        cells += [number(_median(some, "gap"), 4), _passed(some)]
        table.append(cells)
    return header, table


def densities(rows: Sequence[Row], formula: str) -> Table:
    """ELBO and log evidence with their errors, of the first seed."""
    header = ["target", "ELBO", "log evidence", "log Z", "steps", "target evaluations", "modes"]
    table = []
    for name, some in _well(by_target(rows, "fit", formula)).items():
        row = some[0]
        pairs = [f"{number(row[k], 4)} ± {number(row[k + '_se'], 4)}" for k in _ESTIMATES]
        modes = f"{row['modes']} of {row['modes_all']}" if "modes" in row else "–"
        counts = [count(row["steps"]), count(row["gradient_evaluations"])]
        table.append([name, *pairs, number(row["log_z"], 4), *counts, modes])
    return header, table


_ESTIMATES = ("elbo", "log_evidence")


def costs(rows: Sequence[Row], formula: str) -> Table:
    """What fits and samplers cost, one after the other and in seconds."""
    header = ["target", "batches", "to b² < 0.01", "NUTS, gradients in a chain", "to b² < 0.01"]
    header += ["ratio", "wall, s", "NUTS, s", "NumPyro, s", "compiled"]
    fits = _well(by_target(rows, "fit", formula))
    nuts, numpyro = (_well(by_target(rows, method)) for method in ("nuts", "numpyro"))
    table = []
    for name in NAMES:
        fit, chains, other = fits.get(name, []), nuts.get(name, []), numpyro.get(name, [])
        if not fit and not chains:
            continue
        ratios = [evaluations_ratio(row, chains[0]) for row in fit if chains]
        table.append(
            [
                name,
                count(_median(fit, "batched_evaluations")),
                count(_median(fit, "to_accuracy")),
                count(_median(chains, "sequential_evaluations")),
                count(_median(chains, "to_accuracy")),
                number(median(ratios), 3) if ratios else "–",
                seconds(_median(fit, "wall_time")),
                seconds(_median(chains, "wall_time")) + _star(chains),
                seconds(_median(other, "wall_time")),
                seconds(_median(other, "wall_time_compiled")),
            ]
        )
    return header, table


def _star(chains: Sequence[Row]) -> str:
    """A mark on seconds that are not those of the model."""
    return "*" if any("density" in row for row in chains) else ""


def samplers(rows: Sequence[Row]) -> Table:
    """How good the draws of Pyro's NUTS are."""
    header = ["target", "b²", "(mean)", "R-hat", "least ESS", "divergences", "trees cut", "modes"]
    table = []
    for name, some in _well(by_target(rows, "nuts")).items():
        row = some[0]
        cells = [name, bias(row["b2_worst"]), bias(row["b2_average"]), number(row["rhat"], 3)]
        cells += [count(row[k]) for k in ("ess", "divergences", "tree_limit_reached")]
        table.append([*cells, f"{row['modes']} of {row['modes_all']}" if "modes" in row else "–"])
    return header, table


def over_seeds(rows: Sequence[Row], formula: str) -> Table:
    """What went wrong in which fits, and the worst of them."""
    header = ["target", "seeds", "crashes", "NaN", "clean bill", "wrong with it"]
    header += ["largest b² raw", "PSIS", "largest k-hat", "largest gap"]
    table = []
    for name, some in by_target(rows, "fit", formula).items():
        good = [row for row in some if row["status"] == "ok"]
        tests: tuple[Callable[[Row], bool], ...] = (has_nan, clean, wrong)
        counts = [str(sum(map(test, some))) for test in tests]
        worst = [_largest(good, key) for key in ("b2_raw_worst", "b2_psis_worst", "khat", "gap")]
        cells = [name, str(len(some)), str(len(some) - len(good)), *counts]
        table.append([*cells, *map(bias, worst[:2]), number(worst[2]), number(worst[3], 4)])
    return header, table


def gradients(rows: Sequence[Row], settings: str) -> Table:
    """The same fit by the path gradient and by the total one, of one comparison."""
    header = ["target", "formula", "base", "start", "steps", "ELBO, path", "ELBO, total"]
    header += ["path better by", "log Z", "holds"]
    table = []
    for name, some in _well(by_target(rows, "gradients", settings)).items():
        for row in some:
            cells = [name, f"`{guide(row)}`", row.get("base", "normal"), row.get("start", "auto")]
            cells.append(count(row["steps"]))
            better = row["elbo_path"] - row["elbo_total"]
            values = (row["elbo_path"], row["elbo_total"], better, row["log_z"])
            cells += [number(value, 4) for value in values]
            table.append([*cells, "yes" if path_holds(row) else "no"])
    return header, table


def _well(rows: ByTarget) -> ByTarget:
    good = {name: [row for row in some if row["status"] == "ok"] for name, some in rows.items()}
    return {name: some for name, some in good.items() if some}


def _median(rows: Sequence[Row], key: str) -> Any:
    """The median; ``None`` where most rows have none."""
    values = [row.get(key) for row in rows]
    known = [value for value in values if value is not None]
    return median(known) if known and 2 * len(known) > len(values) else None


def _largest(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return max(values, key=lambda v: math.inf if math.isnan(v) else v, default=None)


def _formulas(rows: Sequence[Row]) -> str:
    """The formula most often chosen, and how many others were."""
    (first, _), *others = Counter(guide(row) for row in rows).most_common()
    return f"`{first}`" + (f" and {len(others)} more" if others else "")


def _passed(rows: Sequence[Row]) -> str:
    passed = sum(row["verify_passed"] for row in rows)
    if len(rows) > 1:
        return f"{passed} of {len(rows)}"
    if passed:
        return "passed"
    row = rows[0]
    if not row["verify_wrong"]:
        return "unsettled"
    return f"{len(row['verify_wrong'])} of {row['verify_scalars']} wrong"
