"""Fits of targets with several modes and narrow parts, checked against exact answers.

    python -m benchmarks.multimodal --data FOLDER       # everything over five seeds; hours
    ... --seeds 1 --only 'ring*' gmm40                  # some of it
    ... --seeds 0 --nested                              # nested sampling alone, by dynesty
    ... --seeds 0 --nested --live-points 5000           # nearer, for ten times the values
    ... --page                                          # the page again, from the rows there are

Each fit is ``NFVI("auto", seed=s).fit(target)`` with nothing set but ``--budget``. The file of rows
is whole after every row, and what is there is not run again: stop the command when you like, and
give it again to go on. ``--retry`` runs again what crashed. FOLDER holds ``sonar.csv`` and
``finpines.csv``, see ``literature.py``; without it, the two targets that need them are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch

from benchmarks.environment import describe_environment
from benchmarks.multimodal.catalogue import SMALL
from benchmarks.multimodal.jobs import Job, rows_of
from benchmarks.multimodal.literature import FROM_FILES, LITERATURE
from benchmarks.multimodal.nested import LIVE_POINTS, NESTED
from benchmarks.multimodal.page import page
from benchmarks.multimodal.text import line
from benchmarks.posteriors.store import Store, read_rows
from benchmarks.progress import say, with_bar

__all__ = ["jobs_of", "main"]

ROOT = Path(__file__).parents[2]
FEWEST_LIVE = 50
ROWS, PAGE = ROOT / "benchmarks/results/multimodal.json", ROOT / "docs/multimodal.md"


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """All that is asked for, a target's rows together.

    Raises:
        ValueError: a pattern fits no target, or the live points are too few, or for nothing.
    """
    if options.live_points < FEWEST_LIVE:
        raise ValueError(f"--live-points must be at least {FEWEST_LIVE}, got {options.live_points}")
    if options.live_points != LIVE_POINTS and not options.nested:
        raise ValueError("--live-points is for nested sampling; it needs --nested")
    data = None if options.data is None else Path(options.data)
    names = [*SMALL, *LITERATURE, *(FROM_FILES if data is not None else ())]
    for pattern in options.only:
        if not any(fnmatch(name, pattern) for name in names):
            raise ValueError(f"--only {pattern!r} fits none of the targets: {', '.join(names)}")
    chosen = [name for name in names if any(fnmatch(name, each) for each in options.only)]
    seeds = range(1, options.seeds + 1)
    fits = [Job("fit", name, seed, options.budget, data) for name in chosen for seed in seeds]
    if not options.nested:
        return fits
    nested = [
        Job("nested", name, 1, live_points=options.live_points) for name in chosen if name in NESTED
    ]
    return [*fits, *nested]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and not there yet, row by row, and write the page."""
    options = _options(arguments)
    store = Store(None)
    if Path(options.out).exists():
        # Crashes too: a run of other targets must not lose them.
        store.add(*read_rows(options.out))
    store.path = Path(options.out)
    if not options.page:
        _run(options, store)
    Path(options.markdown).write_text(page(store.rows), encoding="utf-8")


def _run(options: argparse.Namespace, store: Store) -> None:
    torch.set_num_threads(1)
    print(describe_environment(), flush=True)
    crashed = Store(None)
    if options.retry:
        crashed.add(*(row for row in store.rows if row["status"] != "ok"))
    keys = [(job, job.key()) for job in jobs_of(options)]
    jobs = [job for job, key in keys if key not in store or key in crashed]
    try:
        rows = rows_of(jobs, options.jobs)
        for row in with_bar(rows, "multimodal", name=lambda row: row["target"], total=len(jobs)):
            store.add(row)
            say(line(row))
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and the same command continues", flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.multimodal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seeds", type=int, default=5, help="fits of each, with seeds 1, 2, … (5)")
    add("--budget", type=float, metavar="S", help="seconds for each fit (no limit)")
    add("--only", nargs="+", default=["*"], metavar="PATTERN", help="names, with * and ? (all)")
    add("--nested", action="store_true", help="nested sampling too, on ten of the targets")
    add("--live-points", type=int, default=LIVE_POINTS, metavar="N", help=f"of it ({LIVE_POINTS})")
    add("--data", metavar="FOLDER", help="with sonar.csv and finpines.csv")
    add("--jobs", type=int, default=1, help="processes side by side, one thread each (1)")
    add("--retry", action="store_true", help="run again what crashed")
    add("--page", action="store_true", help="rewrite the page from the rows, and run nothing")
    add("--out", default=ROWS, help="JSON file of the rows (benchmarks/results/multimodal.json)")
    add("--markdown", default=PAGE, help="the page (docs/multimodal.md)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
