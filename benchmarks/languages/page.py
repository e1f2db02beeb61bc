"""The page that the rows become."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.languages.data import MODELS
from benchmarks.languages.posteriordb_page import stan_part
from benchmarks.posteriors.store import Row

__all__ = ["page", "spread"]

TITLES = {
    "schools": "Eight schools, d = 10",
    "counties": "Houses in twenty counties, d = 24",
    "logistic": "Logistic regression of 400 rows, d = 5",
    "garch": "GARCH(1, 1) of 200 times, d = 4",
}
NAMES = {"pyro": "Pyro", "numpyro": "NumPyro", "pymc": "PyMC", "stan": "Stan"}
HEAD = """# One posterior, four libraries

The log evidence of a model does not depend on the library that it is written in. These tables check
it: four models, each written in Pyro, NumPyro, PyMC and Stan, each fitted by `NFVI("auto")` with
default settings.

- **log evidence** is ± one standard error.
- **means** is the largest difference of a mean from that library's own NUTS, in posterior standard
  deviations.
- **NUTS, ±** is the largest standard error of a mean of NUTS, likewise, by its effective sample
  size. The fit is compared by 50 000 draws, which adds 0.005.
- **sds** is the largest relative difference of a standard deviation.
- **fit** is CPU and wall time of the fit. Compilation by the other library counts. NUTS ran four
  chains one after another. Where the CPU time is far below the wall time, the machine was busy. A
  second of CPU then does less than on a quiet machine: compare rows of one day.

GARCH is a loop over 200 times: a loop of Python in Pyro, `scan` in NumPyro and PyMC, a loop of C++
in Stan. Pyro's NUTS takes a gradient of one point at a time, of which that loop needs 45 ms; it ran
on the same density written without a loop.

Run it with `python -m benchmarks.languages`.
"""


def page(rows: Sequence[Row], posteriordb: Sequence[Row] = (), known: Sequence[Row] = ()) -> str:
    """Markdown of all tables.

    Args:
        rows: of this benchmark.
        posteriordb: of ``benchmarks.languages.posteriordb``.
        known: of ``benchmarks.posteriors``.
    """
    parts = [HEAD]
    for name in MODELS:
        found = [row for row in rows if row["target"] == name]
        if found:
            ratios = _ratios(found) if name == "garch" else ""
            parts.append(f"## {TITLES[name]}\n\n{_table(found)}\n{_same(found)}{ratios}\n")
    parts.append(stan_part(posteriordb, known))
    environments = list(dict.fromkeys(row["environment"] for row in (*rows, *posteriordb)))
    parts.append("## Taken with\n\n" + "\n".join(f"- {each}." for each in environments) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| library | log evidence | verdict | k-hat | means, sd | sds"
        " | fit, CPU s | fit, s | NUTS, ± | NUTS, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {NAMES[row['method']]} | {_signed(row['log_evidence'])} ± {row['log_evidence_se']:.4f}"
        f" | {row['verdict']} | {row['khat']:.2f} | {row['mean_error']:.3f}"
        f" | {row['sd_error']:.1%} | {row['cpu_time']:.0f} | {row['wall_time']:.0f}"
        f" | {_known(row.get('nuts_error'))} | {row['nuts_time']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _known(error: float | None) -> str:
    return "–" if error is None else f"{error:.3f}"


def spread(rows: Sequence[Row]) -> float:
    """The largest distance of two log evidences, in standard errors of their difference."""
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i]]
    return max(
        (
            abs(a["log_evidence"] - b["log_evidence"])
            / float(a["log_evidence_se"] ** 2 + b["log_evidence_se"] ** 2) ** 0.5
            for a, b in pairs
        ),
        default=0.0,
    )


def _ratios(rows: Sequence[Row]) -> str:
    """How many times as much CPU time a fit took through Pyro as through each other library."""
    seconds = {row["method"]: row["cpu_time"] for row in rows}
    pyro = seconds.pop("pyro", None)
    if pyro is None or not seconds:
        return ""
    each = [f"{pyro / other:.1f} times that of {NAMES[name]}" for name, other in seconds.items()]
    return f" The CPU time through Pyro is {', '.join(each)}; the flow's own is in all of them."


def _signed(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _same(rows: Sequence[Row]) -> str:
    if len(rows) == 1:
        return "One library alone has been run."
    return f"The two log evidences farthest apart differ by {spread(rows):.1f} standard errors."
