"""The part of the page about posteriordb's posteriors in their Stan form."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.posteriors.store import Row
from models.posteriordb import POSTERIORS

__all__ = ["stan_part"]

HEAD = """## posteriordb by its Stan form

The same posteriors as on [](posteriors.md), each as a Stan program with its data, built by PyStan
and fitted by `NFVI("auto", seed=1).fit(StanTarget(...))`. Beside it stands the fit of the Pyro form
from that page, of the same seed.

- **CPU** is CPU seconds of a fit. The build of a program is a column of its own; it is done once.
  Where the wall time is far above it, the machine was busy with other work. CPU times are longer
  then, too, than those of a quiet machine: compare those of one row with care.
- **b²** is the worst over all scalars, after weighting, against the reference draws.
- **apart** is how far the two log evidences are from each other, in standard errors of their
  difference. An evidence relative to flat priors counts, too.
- **Stan's NUTS** is PyStan's, **nutpie** is `nuts(target, sampler="nutpie")` on the same program:
  four chains of 1 000 draws after 1 000 of warm-up, with their b². nutpie can sample a Stan program
  by itself where BridgeStan is, which was not here. **NumPyro's NUTS** is that of
  [](posteriors.md): wall seconds without compilation.

Run it with `python -m benchmarks.languages.posteriordb`.
"""
LOOPS = """### Time series as loops

The Pyro forms above have no loop: they are written with shifted arrays. Here Pyro runs through the
times in a loop of Python, line by line as the Stan program does.
"""


def stan_part(rows: Sequence[Row], known: Sequence[Row]) -> str:
    """Markdown of the tables; empty where nothing has been run.

    Args:
        rows: of ``benchmarks.languages.posteriordb``.
        known: of ``benchmarks.posteriors``.
    """
    by_key = {(row["method"], row["target"]): row for row in rows}
    pyro = {
        (row["method"], row["target"]): row
        for row in known
        if row["seed"] == 1 and row.get("settings", "auto") == "auto"
    }
    names = [name for name in POSTERIORS if ("stan", name) in by_key]
    if not names:
        return ""
    fits = [_fit(name, by_key["stan", name], pyro.get(("fit", name))) for name in names]
    samplers = [_samplers(name, by_key, pyro.get(("numpyro", name))) for name in names]
    parts = [HEAD, _table(FITS, fits), _table(SAMPLERS, samplers)]
    loops = [
        _loop(name, by_key["stan", name], by_key["pyro-loop", name])
        for name in names
        if ("pyro-loop", name) in by_key
    ]
    if loops:
        parts += [LOOPS, _table(LOOP, loops)]
    return "\n".join(parts)


FITS = (
    *("posterior", "d", "verdict", "k-hat", "b²", "Pyro's b²", "apart"),
    *("build, CPU s", "CPU, s", "Pyro's CPU, s", "wall, s", "Pyro's wall, s"),
)
SAMPLERS = (
    *("posterior", "auto, CPU s", "wall, s"),
    *("Stan's NUTS, CPU s", "wall, s", "b²", "nutpie, CPU s", "wall, s", "b²"),
    "NumPyro's NUTS, wall s",
)
LOOP = ("posterior", "Stan, CPU s", "Pyro's loop, CPU s", "ratio", "apart", "b²", "Pyro's b²")


def _fit(name: str, row: Row, pyro: Row | None) -> list[str]:
    cells = [name, str(row["dim"]), row["verdict"], f"{row['khat']:.2f}", _small(row)]
    if pyro is None:
        other = ["–"] * 4
    else:
        other = [_small(pyro), _apart(row, pyro), _seconds(pyro["cpu_time"])]
        other.append(_seconds(pyro["wall_time"]))
    bias, apart, cpu, wall = other
    build = _seconds(row["build_cpu_time"])
    return [
        *cells,
        *(bias, apart, build, _seconds(row["cpu_time"]), cpu),
        *(_seconds(row["wall_time"]), wall),
    ]


def _samplers(name: str, rows: dict[tuple[str, str], Row], numpyro: Row | None) -> list[str]:
    fit = rows["stan", name]
    cells = [name, _seconds(fit["cpu_time"]), _seconds(fit["wall_time"])]
    for method in ("stan-nuts", "nutpie"):
        row = rows.get((method, name))
        if row is None:
            cells += ["–"] * 3
        else:
            cells += [_seconds(row["cpu_time"]), _seconds(row["wall_time"]), _small(row)]
    return [*cells, "–" if numpyro is None else _seconds(numpyro["wall_time_compiled"])]


def _loop(name: str, stan: Row, pyro: Row) -> list[str]:
    return [
        name,
        *(_seconds(stan["cpu_time"]), _seconds(pyro["cpu_time"])),
        f"{pyro['cpu_time'] / stan['cpu_time']:.1f}",
        *(_apart(stan, pyro), _small(stan), _small(pyro)),
    ]


def _apart(one: Row, other: Row) -> str:
    error = (one["log_evidence_se"] ** 2 + other["log_evidence_se"] ** 2) ** 0.5
    return f"{abs(one['log_evidence'] - other['log_evidence']) / error:.1f}"


def _small(row: Row) -> str:
    return f"{row.get('b2_psis_worst', row.get('b2_worst')):.2g}"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
