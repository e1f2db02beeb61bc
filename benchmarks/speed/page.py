"""The Markdown page of benchmarks.speed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.posteriors.page import markdown_table
from benchmarks.posteriors.store import Row
from benchmarks.speed.fitter import LADDER, reached
from benchmarks.speed.jobs import SIZES
from benchmarks.speed.methods import FITS, FOURIER, NUTS, STEPS, WHOLE, WIDE
from benchmarks.speed.problems import PROBLEMS
from benchmarks.speed.sampler_models import SAMPLED

__all__ = ["page"]

HEAD = """\
# Speed

Written by `python -m benchmarks.speed`; nothing on this page is typed in but what the tables mean.
Every number is the median over the repeats. Each measurement had a process of its own with one
thread, and the methods took turns, so that a busy machine is busy for all of them.
"""
FITTING = f"""\
## Seconds to a given KL

Log Z is known, so that log Z − ELBO is the exact KL but for Monte-Carlo error. It is taken from
50 000 draws while no clock runs. A method fits with {LADDER[0]} steps, then with {LADDER[1]}, and
so on, each time from the beginning, until a fit comes near enough. That last fit is what counts:
its learning rate falls to its end as in any fit of that length.

- `warm`: wall time of that fit without what JAX traced and compiled, by JAX's own account.
- `cold`: the same with it, as in a new process. What nfvi traces is in both.
- `CPU s`: of that fit as it was run. Look at it first where the load was high.

All libraries fit the same log-density of one flat vector, not a model. nfvi has its defaults. Pyro,
NumPyro and FlowJAX run their own loops with 256 draws a step and Adam, and were tuned little.
"JAX by hand" is one loop that does what nfvi does for `planar*8`: eight restarts and tempering.
"16 terms" is `{WIDE}`, which was chosen on pot1: above 5 000 parameters
the default is two restarts in place of eight. "Fourier" is
`{FOURIER}`.
A dash: not reached; the gap beside it is the least that was seen.
"""
STEPPING = """\
## Milliseconds a step

CPU time / wall time: `planar*8` on pot1, one restart, float32, Adam. nfvi takes its path gradient,
and its steps hold the guard and the record of the history; the others take the total gradient and
keep nothing.
"""
SAMPLING = """\
## NUTS

Four chains, one after the other, with as many draws as steps of warm-up. ESS is the least bulk
effective sample size over all coordinates. "Without compiling" takes off what JAX or numba
compiled. nfvi runs the Pyro models of `models/`; NumPyro and PyMC run the same models.
"""
PROCESSES = """\
## Whole processes

From the start of Python to the answer, on one core: imports, tracing and compiling count. nfvi has
its default settings, with no number of steps. NumPyro's BNAF takes 10 000 steps, and its NUTS four
chains of 1 000 draws after as many of warm-up. The check of the answer does not count.
"""
MISSING = "**Not measured yet.**\n"


def page(rows: Sequence[Row]) -> str:
    """The whole page, from the rows there are."""
    parts = [HEAD, _conditions(rows)]
    for device in dict.fromkeys(_device(row) for row in rows):
        some = [row for row in rows if _device(row) == device]
        where = "" if device == "cpu" else f"On `{device}`.\n"
        fits, steps, chains, whole = (_of(some, k) for k in ("fit", "step", "nuts", "process"))
        parts += [FITTING, where, *(_fits(fits) if fits else [MISSING])]
        parts += [STEPPING, where, _steps(steps) if steps else MISSING]
        if device == "cpu":  # chains and whole processes run nowhere else
            parts += [SAMPLING, _nuts(chains) if chains else MISSING]
            parts += [PROCESSES, _processes(whole) if whole else MISSING]
    return "\n".join(part for part in parts if part)


def _device(row: Row) -> str:
    return str(row["settings"].split(", ")[1])


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["settings"].split(", ")[0] == kind]


def _conditions(rows: Sequence[Row]) -> str:
    """When and where, with what load, and how often."""
    done = [row for row in rows if row["status"] == "ok"]
    if not done:
        return "**Nothing has been measured yet.**\n"
    loads = [row["load"] for row in done]
    places = dict.fromkeys(row["environment"].split(", Python")[0] for row in done)
    versions = dict.fromkeys(
        part for row in done for part in row["environment"].split(", ") if " " in part
    )
    packages = [v for v in versions if v.split()[0].lower() in NAMES]
    return (
        f"{'; '.join(places)}. {', '.join(packages)}. {_repeats(rows)}."
        " The load (processes that want to run) was"
        f" {min(loads):.1f} to {max(loads):.1f}, {statistics.median(loads):.1f} in the median:"
        " where it is above the number of cores, wall times are longer than on a machine of one's"
        " own.\n"
    )


def _repeats(rows: Sequence[Row]) -> str:
    """How often what was measured was, from kind to kind."""
    said = []
    for kind, name in KINDS.items():
        often: dict[tuple[str, str, str], int] = {}
        for row in _of(rows, kind):
            key = (row["method"], row["target"], row["settings"])
            often[key] = max(often.get(key, 0), row["seed"])
        if often:
            least, most = min(often.values()), max(often.values())
            times = str(most) if least == most else f"{least} to {most}"
            said.append(f"{times} {'repeat' if most == 1 else 'repeats'} of {name}")
    text = ", ".join(said)
    return text[:1].upper() + text[1:]


KINDS = {
    "fit": "fits",
    "step": "steps",
    "nuts": "NUTS",
    "process": "whole processes",
}
NAMES = (
    *("nfvi", "torch", "pyro-ppl", "numpyro", "jax", "flowjax", "optax"),
    *("nutpie", "pymc"),
)


def _fits(rows: Sequence[Row]) -> list[str]:
    parts = []
    for problem in PROBLEMS.values():
        some = [row for row in rows if row["target"] == problem.name]
        for limit in problem.limits if some else ():
            cells = [_fit(name, _with(some, name), limit) for name in FITS if _with(some, name)]
            header = ["method", "steps", "warm, s", "cold, s", "CPU s", "gap, nats"]
            parts.append(f"### {problem.name}, to {limit:g} nats\n")
            parts.append(markdown_table(header, cells))
    return parts


def _with(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def _fit(name: str, rows: Sequence[Row], limit: float) -> list[str]:
    done = [row for row in rows if row["status"] == "ok"]
    if not done:
        return [name, _why(rows), "", "", "", ""]
    found = [reached(row["rungs"], limit) for row in done]
    near = [one for one in found if one is not None]
    gap = statistics.median(min(rung["gap"] for rung in row["rungs"]) for row in done)
    if 2 * len(near) <= len(found):
        most = max(rung["steps"] or 0 for row in done for rung in row["rungs"])
        part = f", but in {len(near)} of {len(found)}" if near else ""
        steps = f"{most:,}".replace(",", " ")
        return [name, f"not in {steps}{part}", "–", "–", "–", f"{gap:.3f}"]
    taken = [one["steps"] for one in near]
    missed = (
        f" ({len(found) - len(near)} of {len(found)} did not)" if len(near) < len(found) else ""
    )
    middle = "its own" if taken[0] is None else f"{statistics.median_high(taken):,}"
    times = [f"{_median(near, key):.1f}" for key in ("warm", "cold", "cpu_time")]
    return [name, middle.replace(",", " ") + missed, *times, f"{gap:.3f}"]


def _why(rows: Sequence[Row]) -> str:
    """What happened where nothing was measured."""
    return "; ".join(dict.fromkeys(f"{row['status']}: {row['error']}" for row in rows))


def _median(rows: Sequence[Row], name: str) -> float:
    return float(statistics.median(row[name] for row in rows))


def _steps(rows: Sequence[Row]) -> str:
    header = ["method", *(f"n = {n:,}".replace(",", " ") for n in SIZES)]
    return markdown_table(header, _grid(rows, STEPS, SIZES, "n = {}", _ms))


def _ms(rows: Sequence[Row]) -> str:
    return " / ".join(f"{_median(rows, name):.3g}" for name in ("cpu_ms", "ms"))


def _grid(
    rows: Sequence[Row],
    methods: Sequence[str],
    columns: Sequence[int],
    word: str,
    cell: Callable[[Sequence[Row]], str],
) -> list[list[str]]:
    lines = []
    for name in methods:
        mine = _with(rows, name)
        line = [name]
        for column in columns:
            some = [row for row in mine if row["settings"].endswith(", " + word.format(column))]
            done = [row for row in some if row["status"] == "ok"]
            line.append(cell(done) if done else _why(some) or "not run")
        lines.append(line)
    return lines


def _nuts(rows: Sequence[Row]) -> str:
    header = ["model", "sampler", "draws", "ESS", "wall s", "ESS / s"]
    header += ["ESS / s without compiling", "ESS / CPU s"]
    cells = []
    for model in SAMPLED:
        for name in NUTS:
            some = [row for row in _with(rows, name) if row["target"] == model]
            done = [row for row in some if row["status"] == "ok"]
            if some:
                drawn = some[0]["settings"].rpartition("= ")[2]
                cells.append(
                    [model, name, f"4 × {drawn}", *(_chain(done) or [_why(some)] + 4 * [""])]
                )
    return markdown_table(header, cells)


def _chain(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    each = [
        {
            "ess": row["ess"],
            "wall": row["wall_time"],
            "cold": row["ess"] / row["wall_time"],
            "warm": row["ess"] / max(row["wall_time"] - row["compiling"], 1e-9),
            "cpu": row["ess"] / row["cpu_time"],
        }
        for row in rows
    ]
    return [f"{_median(each, name):.3g}" for name in each[0]]


def _processes(rows: Sequence[Row]) -> str:
    header = ["target", "method", "answer", "CPU s", "wall s", "CPU beside NumPyro's"]
    cells = []
    for target, methods in WHOLE.items():
        done = {
            name: [row for row in _with(rows, name) if _ends_well(row, target)] for name in methods
        }
        peer = next((done[name] for name in methods if name.startswith("NumPyro")), [])
        for name in methods:
            if mine := done[name]:
                times = [f"{_median(mine, key):.1f}" for key in ("cpu_time", "wall_time")]
                ratio = _median(mine, "cpu_time") / _median(peer, "cpu_time") if peer else None
                beside = "–" if ratio is None else f"{ratio:.2f} ×"
                cells.append([target, name, _answer(mine), *times, beside])
            elif some := [row for row in _with(rows, name) if row["target"] == target]:
                cells.append([target, name, _why(some), "", "", ""])
    return markdown_table(header, cells)


def _ends_well(row: Row, target: str) -> bool:
    return row["target"] == target and row["status"] == "ok"


def _answer(rows: Sequence[Row]) -> str:
    """The median, and the worst of the repeats where there are several."""
    if "ess" in rows[0]:
        return f"ESS {_median(rows, 'ess'):,.0f}"
    worst = max(row["gap"] for row in rows)
    return f"KL {_median(rows, 'gap'):.4f}" + (f", at most {worst:.4f}" if len(rows) > 1 else "")
