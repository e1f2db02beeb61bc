"""How fast nfvi is: fits to a given KL, single steps, and NUTS, beside other libraries.

    python -m benchmarks.speed                              # everything, five times; hours
    python -m benchmarks.speed --repeats 1 --only "step"    # some of it
    python -m benchmarks.speed --only "process"             # from cold starts, by default settings
    python -m benchmarks.speed --device cuda                # fits and steps on a GPU
    python -m benchmarks.speed --page                       # the page again, and no measurement

Every measurement has a process of its own with one thread, and the methods take turns. The peers
are in the extra ``bench``; one that is missing is a row that says so, and ``--python`` takes the
interpreter of another environment. The file of rows is whole after every row, and what is there is
not measured again: stop the command when you like, and give it again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import describe_environment
from benchmarks.posteriors.store import Row, Store, read_rows
from benchmarks.progress import say, with_bar
from benchmarks.speed.jobs import jobs_of, measured
from benchmarks.speed.page import page

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
ROWS, PAGE = ROOT / "benchmarks/results/speed.json", ROOT / "docs/speed.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and not there yet, row by row, and write the page."""
    options = _options(arguments)
    store = _store(options.out, crashes=options.page)
    if not options.page:
        print(describe_environment(), flush=True)
        jobs = jobs_of(
            options.only, options.repeats, options.device, options.draws, options.seconds
        )
        try:
            left = [job for job in jobs if job.key() not in store]
            for job in with_bar(left, "speed", name=lambda job: f"{job.method} on {job.target}"):
                row = measured(job, options.python)
                store.add(row)
                say(_line(row))
        except KeyboardInterrupt:
            print("interrupted; what is done is kept, and the same command goes on", flush=True)
    Path(options.markdown).write_text(page(store.rows), encoding="utf-8")


def _store(path: str, *, crashes: bool) -> Store:
    """The rows of the file; without those of what crashed or was missing, it is measured again."""
    store = Store(path, resume=True)
    if crashes and Path(path).exists():
        store.add(*read_rows(path))
    return store


def _line(row: Row) -> str:
    head = f"{row['settings']}: {row['method']} on {row['target']}, repeat {row['seed']}: "
    if row["status"] != "ok":
        return head + f"{row['status']}: {row['error']}"
    if "rungs" in row:
        best = min(rung["gap"] for rung in row["rungs"])
        return head + f"{best:.4f} nats at best, {row['cpu_time']:.1f} CPU s in all"
    if "ms" in row:
        return head + f"{row['ms']:.3f} ms a step, {row['cpu_ms']:.3f} of the CPU"
    if "gap" in row:
        return head + f"{row['gap']:.4f} nats in {row['cpu_time']:.1f} CPU s"
    return head + f"ESS {row['ess']:.0f} in {row['wall_time']:.1f} s"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--repeats", type=int, default=5, help="of every measurement (5)")
    add("--only", nargs="+", default=[""], metavar="TEXT", help='"kind method target" with it')
    add("--device", choices=["cpu", "cuda"], default="cpu", help="of fits and steps (cpu)")
    add("--draws", type=int, default=1_000, help="of each chain of NUTS (1000)")
    add("--seconds", type=float, default=120.0, help="for the fits of a ladder together (120)")
    add("--python", default=sys.executable, help="interpreter of the measurements (this one)")
    add("--page", action="store_true", help="rewrite the page from the rows, and measure nothing")
    add("--out", default=ROWS, help="JSON file of the rows (benchmarks/results/speed.json)")
    add("--markdown", default=PAGE, help="the page (docs/speed.md)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
