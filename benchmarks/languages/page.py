"""The page that the rows become."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.languages.data import MODELS
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
  deviations. NUTS itself is known to about 0.01 to 0.02 of them.
- **sds** is the largest relative difference of a standard deviation.
- **fit** is CPU and wall time of the fit. Compilation by the other library counts. NUTS ran four
  chains one after another. Where the CPU time is far below the wall time, the machine was busy.

GARCH is a loop over 200 times: a loop of Python in Pyro, `scan` in NumPyro and PyMC, a loop of C++
in Stan.

Run it with `python -m benchmarks.languages`.
"""


def page(rows: Sequence[Row]) -> str:
    """Markdown of all tables."""
    parts = [HEAD]
    for name in MODELS:
        found = [row for row in rows if row["target"] == name]
        if found:
            parts.append(f"## {TITLES[name]}\n\n{_table(found)}\n{_same(found)}\n")
    environments = list(dict.fromkeys(row["environment"] for row in rows))
    parts.append("## Taken with\n\n" + "\n".join(f"- {each}." for each in environments) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| library | log evidence | verdict | k-hat | means, sd | sds"
        " | fit, CPU s | fit, s | NUTS, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {NAMES[row['method']]} | {_signed(row['log_evidence'])} ± {row['log_evidence_se']:.4f}"
        f" | {row['verdict']} | {row['khat']:.2f} | {row['mean_error']:.3f}"
        f" | {row['sd_error']:.1%} | {row['cpu_time']:.0f} | {row['wall_time']:.0f}"
        f" | {row['nuts_time']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


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


def _signed(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _same(rows: Sequence[Row]) -> str:
    if len(rows) == 1:
        return "One library alone has been run."
    return f"The two log evidences farthest apart differ by {spread(rows):.1f} standard errors."
