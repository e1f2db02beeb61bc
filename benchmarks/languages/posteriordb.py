"""posteriordb's posteriors in their Stan form: NFVI("auto"), Stan's NUTS, and nutpie's.

    python -m benchmarks.languages.posteriordb --posteriordb path/to/posterior_database
    ... --only arma-arma11 arK-arK                              # cheapest first: all
    ... --page                                                  # the page from the rows there are

Each Stan program is built once, in a minute or two, which is counted apart. A fit is
``NFVI("auto", seed=1).fit(StanTarget(...))`` with nothing else set; it is compared with the fit
of the Pyro form in ``benchmarks/results/posteriors.json``. Stan's NUTS runs by PyStan and nutpie's
by ``nuts(target, sampler="nutpie")``, both four chains of 1 000 draws after 1 000 of warm-up on
the same program. The time series are fitted by Pyro with a loop as well. The file of rows is whole
after every row, and what is there is not run again; a method whose library is not installed is
left out, and named.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.environment import describe_environment
from benchmarks.languages.page import page
from benchmarks.languages.pyro_loops import LOOPS, loop_case
from benchmarks.languages.stan_posteriors import PROGRAMS, stan_case, stan_nuts_row
from benchmarks.posteriors.rows import fit_row
from benchmarks.posteriors.store import Row, Store, read_rows
from benchmarks.progress import say, with_bar
from nfvi import nuts

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
ROWS, PAGE = RESULTS / "languages_posteriordb.json", ROOT / "docs/languages.md"
NEEDS = {
    "stan": ("pystan", "stan"),
    "stan-nuts": ("pystan", "stan"),
    "nutpie": ("nutpie", "nutpie"),
    "pyro-loop": ("pyro-ppl", "pyro"),
}
"""The package that brings each method, and the module by which it is known."""
DRAWS = 1000
SEED = 1


def stan_row(name: str, database: str) -> Row:
    """A fit of the Stan form, and what the build of the program took."""
    target, built = stan_case(name, database)
    return {**built, **fit_row(target, "auto", SEED)}


def nutpie_row(name: str, database: str) -> Row:
    """nutpie's NUTS on the Stan form, with times and b²."""
    known, _ = stan_case(name, database)
    cpu = time.process_time()
    run = nuts(
        known.target,
        sampler="nutpie",
        draws=DRAWS,
        warmup=DRAWS,
        chains=4,
        seed=SEED,
        progress=False,
    )
    cpu = time.process_time() - cpu
    bias = known.reference.bias(known.target.constrain(run.draws.flatten(0, 1)))
    return {
        "wall_time": run.wall_time,
        "cpu_time": cpu,
        "draws": 4 * DRAWS,
        "gradient_evaluations": run.gradient_evaluations,
        "divergences": int(run.diverging.sum()),
        "b2_worst": bias.worst,
        "b2_average": bias.average,
    }


def loop_row(name: str, database: str) -> Row:
    """A fit of the Pyro form with its loop over the times."""
    return fit_row(loop_case(name, database), "auto", SEED)


MAKERS: dict[str, Callable[[str, str], Row]] = {
    "stan": stan_row,
    "stan-nuts": lambda name, database: stan_nuts_row(name, database, DRAWS, SEED),
    "nutpie": nutpie_row,
    "pyro-loop": loop_row,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and not there yet, and write the page."""
    options = _options(arguments)
    store = Store(options.out, resume=True)
    if not options.page:
        _run(options, store)
    languages = read_rows(RESULTS / "languages.json")
    known = read_rows(RESULTS / "posteriors.json")
    text = page(languages, store.rows, known)
    Path(options.markdown).write_text(text, encoding="utf-8")


def _run(options: argparse.Namespace, store: Store) -> None:
    torch.set_num_threads(1)
    for method in options.methods:
        if find_spec(NEEDS[method][1]) is None:
            print(f"{method}: {NEEDS[method][0]} is not installed", flush=True)
    jobs = [
        (name, method)
        for name in options.only
        for method in options.methods
        if {"method": method, "target": name, "seed": SEED} not in store
        and find_spec(NEEDS[method][1]) is not None
        and (method != "pyro-loop" or name in LOOPS)
    ]
    for name, method in with_bar(jobs, "fits", name=" by ".join):
        row = MAKERS[method](name, options.posteriordb)
        environment = describe_environment(*({NEEDS[method][0]} - {"pyro-ppl"}))
        key = {"method": method, "target": name, "seed": SEED}
        store.add({**key, "status": "ok", **row, "environment": environment})
        say(_line(store.rows[-1]))


def _line(row: Row) -> str:
    bias = row.get("b2_psis_worst", row.get("b2_worst"))
    return (
        f"{row['target']}, {row['method']}: {row['wall_time']:.1f} s, CPU {row['cpu_time']:.1f} s,"
        f" worst b² {bias:.2g}"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.languages.posteriordb",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--posteriordb", help="folder of the database; needed to run anything")
    add("--only", nargs="+", default=list(PROGRAMS), choices=PROGRAMS, metavar="NAME", help="(all)")
    add("--methods", nargs="+", default=list(MAKERS), choices=MAKERS, help="(all)")
    add("--page", action="store_true", help="rewrite the page, and run nothing")
    add("--out", default=str(ROWS), help="JSON file of the rows")
    add("--markdown", default=str(PAGE), help="the page")
    options = parser.parse_args(arguments)
    if not options.page and options.posteriordb is None:
        parser.error("--posteriordb is needed, the folder of the database; or --page")
    return options


if __name__ == "__main__":
    main()
