"""The Markdown page of benchmarks.posteriors."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.posteriors.goals import Goal, goals
from benchmarks.posteriors.gradients import settings_of
from benchmarks.posteriors.store import Row
from benchmarks.posteriors.tables import accuracy, costs, densities, gradients, over_seeds, samplers

__all__ = ["markdown_table", "page"]

LABELS = {"fit": "Fits", "nuts": "Pyro's NUTS", "numpyro": "NumPyro's NUTS", "gradients": "Path"}
REACHED = {True: "reached", False: "**not reached**", None: "open"}

HEAD = """\
# Posteriors with known answers

Written by `python -m benchmarks.posteriors --posteriordb FOLDER`; nothing on this page is
typed in. Fits are `NFVI({formula!r}, seed=s).fit(target)` with nothing else set.

{environments}
"""

GOALS = """\
## Goals and results

b² = (error of a mean)² / variance, for x and for x². The mean of n independent draws has an
expected b² of 1 / n, so that 0.01 is worth a hundred draws. A fit has a clean bill if k-hat is
below 0.7 and `verify()` passes. The bill is wrong if a b² is above 0.05. "Open" means that too few
fits were made to say.
"""

ACCURACY = """\
## How good the fits are

b² is the worst over all scalars, and then their mean, from 100 000 draws. The references of
posteriordb are 10 000 draws, whose own error adds 1e-4 to a b² on average and several times that
to the worst of many; the others are exact, or a million draws. k-hat is what `print(fit)` shows.
With several seeds, cells are medians.
"""

COSTS = """\
## What they cost

A batch is one evaluation of the target's gradient at many points; batches come one after the
other, as the gradients within a chain of NUTS do. "To b² < 0.01" is where the worst b² fell below
0.01 for good: for a fit, of the rungs of its path, by weighted draws where k-hat is below 0.7 and
else by raw ones; for NUTS, of its first draws in all four chains together, warm-up included in the
cost. A dash means never. Where NUTS does not get there, the ratio uses its whole run.
NumPyro's time is with compilation, then without it. Wall times, here and above, were taken on a
machine that did other work at the same time. Samplers run four chains of 1 000 draws after 1 000
of warm-up. A star: Pyro's NUTS took millions of gradients and ran on the same density by its
sufficient statistics (`benchmarks/posteriors/sufficient_statistics.py`), where a gradient takes
less than half the time; through the model its seconds would be twice as many or more.
"""

DENSITIES = """\
## ELBO and evidence

Of the first seed; nats. Flat priors are improper: what stands for the evidence there is the
normaliser of the density as it is.
"""

SAMPLERS = "## The draws of Pyro's NUTS\n"
SEEDS = "## Over the seeds\n"
GRADIENTS = """\
## Path gradient and total gradient

The same formula, base, seed, start, draws and number of steps, one restart of each guide. With
"auto", all of that is what the fit of that seed kept, with more steps and draws where its rung took
few, as rungs stand on smaller ones. A start "auto" is a Gaussian that is fitted first; "zeros" the
base itself, tempered, as in the tournament of few dimensions; "fit" the components of the mixture
that was kept. It holds where the ELBO of the path gradient is better by 0.1 nats, or both are
within 0.02 of log Z, which is the known one or the evidence by importance sampling. The first table
compares this with its goal.
"""


def page(rows: Sequence[Row], formula: str = "auto") -> str:
    """The whole page.

    Args:
        rows: of all methods.
        formula: whose fits are shown.
    """
    tables = [
        (ACCURACY, accuracy(rows, formula)),
        (COSTS, costs(rows, formula)),
        (DENSITIES, densities(rows, formula)),
        (SAMPLERS, samplers(rows)),
    ]
    for i, settings in enumerate(settings_of(rows)):
        text = "" if i else f"{GRADIENTS}\n"
        tables.append((f"{text}`{settings}`:\n", gradients(rows, settings)))
    seeds = {row["seed"] for row in rows if row["method"] == "fit"}
    if len(seeds) > 1:
        tables.insert(1, (SEEDS, over_seeds(rows, formula)))
    parts = [HEAD.format(formula=formula, environments=_environments(rows))]
    parts += [GOALS, _goals(goals(rows, formula))]
    for text, (header, cells) in tables:
        if cells:
            parts += [text, markdown_table(header, cells)]
    return "\n".join(parts)


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [list(header), ["---"] * len(header), *cells]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]
    return "\n".join([*text, ""])


def _goals(found: Sequence[Goal]) -> str:
    header = ["what", "asked", "found", ""]
    return markdown_table(header, [[g.what, g.demand, g.found, REACHED[g.reached]] for g in found])


def _environments(rows: Sequence[Row]) -> str:
    """Where and when the rows of each method were measured."""
    lines = []
    for method, label in LABELS.items():
        places = dict.fromkeys(r["environment"] for r in rows if r["method"] == method)
        if places:
            lines.append(f"- {label}: {'; and '.join(places)}.")
    return "\n".join(lines)
