"""Fits, NUTS and the truth on the posteriors of posteriordb and on targets with known answers.

    python -m benchmarks.posteriors --posteriordb path/to/posterior_database --out results.json \\
        --markdown docs/posteriors.md                       # hours, nearly all of them NUTS
    ... --seeds 10 --no-nuts --resume                       # the failures over ten seeds
    ... --seeds 0 --out nuts.json                           # NUTS alone; --nuts-from takes it up
    ... --seeds 0 --no-nuts --gradients --resume            # the path gradient and the total one

Each fit is ``NFVI("auto", seed=s).fit(target)`` with nothing else set. b² = (error of a mean)² /
variance, for x and for x², comes from 100 000 draws, raw and by Pareto-smoothed importance weights;
that of NUTS from four chains of 1 000 draws after 1 000 of warm-up. The gradients are compared on
the formula that such a fit keeps, or on that of ``--gradient-formula``. The file is whole after
every row: stop the command when you like, and go on with ``--resume``, which tries again what
crashed.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.environment import describe_environment
from benchmarks.posteriors.cases import NAMES, case
from benchmarks.posteriors.gradients import AUTO, gradients_row, settings_key
from benchmarks.posteriors.nuts import nuts_row
from benchmarks.posteriors.page import page
from benchmarks.posteriors.rows import CRASHES, fit_row
from benchmarks.posteriors.store import Row, Store, read_rows
from benchmarks.posteriors.text import line
from benchmarks.progress import say, with_bar


def main() -> None:
    """Measure what is asked for, row by row, and write the tables."""
    options = _options()
    torch.set_num_threads(1)
    environment = describe_environment("posteriordb")
    print(environment, flush=True)
    store = Store(options.out, resume=options.resume)
    for path in (*options.nuts_from, *options.numpyro_from):
        store.add(*read_rows(path))
    try:
        _measure(options, store, environment)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and --resume continues", flush=True)
    text = page(store.rows, options.formula)
    if options.markdown is None:
        print(text)
    else:
        Path(options.markdown).write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.posteriors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--posteriordb", required=True, help="folder of the database")
    add("--only", nargs="*", default=list(NAMES), choices=NAMES, metavar="NAME", help="(all)")
    add("--formula", default="auto", help="of the fits (auto)")
    add("--seeds", type=int, default=1, help="fits of each, with seeds 1, 2, … (1)")
    add("--nuts", action=argparse.BooleanOptionalAction, default=True, help="run Pyro's NUTS (yes)")
    add("--nuts-from", nargs="*", default=[], metavar="FILE", help="rows of NUTS measured before")
    add("--numpyro-from", nargs="*", default=[], metavar="FILE", help="rows of numpyro_nuts.py")
    add("--gradients", action="store_true", help="compare the path gradient with the total one")
    add("--gradient-formula", default=AUTO, help="of that comparison (auto: what a fit keeps)")
    add("--gradient-steps", type=int, default=1000, help="of that; with auto the least (1000)")
    add("--out", help="JSON file for the rows")
    add("--resume", action="store_true", help="keep the rows that --out has, but for crashes")
    add("--markdown", help="page for the tables")
    return parser.parse_args()


def _measure(options: argparse.Namespace, store: Store, environment: str) -> None:
    """Every row that is asked for and not there yet; a target's rows stand together."""
    jobs = [job for name in options.only for job in _jobs(options, name) if job[0] not in store]
    for key, make in with_bar(jobs, "posteriors", name=lambda job: job[0]["target"]):
        row = _guarded(key, make)
        row["environment"] = environment
        store.add(row)
        say(line(row))


def _jobs(options: argparse.Namespace, name: str) -> list[tuple[Row, Callable[[], Row]]]:
    """What is to be measured on a target: the key of each row, and how to make the rest of it."""
    jobs: list[tuple[Row, Callable[[], Row]]] = []

    def one() -> object:
        return case(name, options.posteriordb)

    for seed in range(1, options.seeds + 1):
        key = {"method": "fit", "target": name, "seed": seed, "settings": options.formula}
        jobs.append((key, lambda seed=seed: fit_row(one(), options.formula, seed)))
    if options.nuts:
        key = {"method": "nuts", "target": name, "seed": 1}
        jobs.append((key, lambda: nuts_row(one(), 1)))
    if options.gradients:
        formula, steps = options.gradient_formula, options.gradient_steps
        settings = settings_key(formula, steps)
        key = {"method": "gradients", "target": name, "seed": 1, "settings": settings}
        jobs.append((key, lambda: gradients_row(one(), formula, 1, steps)))
    return jobs


def _guarded(key: Row, make: Callable[[], Row]) -> Row:
    """The row; one that ends in an error is a row too, and counts as a crash."""
    started = time.perf_counter()
    try:
        return {**key, "status": "ok", **make(), "total_time": time.perf_counter() - started}
    except CRASHES as error:
        traceback.print_exc()
        return {**key, "status": "crashed", "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
