"""One posterior in four languages: what NFVI("auto") says of it, and that library's own NUTS.

    python -m benchmarks.languages                              # all; Stan builds for some minutes
    python -m benchmarks.languages --only schools --languages pyro pymc
    python -m benchmarks.languages --page                       # the page from the rows there are

Eight schools without centering, a hierarchical model of houses in twenty counties, a logistic
regression and a GARCH series are written in Pyro, NumPyro, PyMC and Stan. The log evidence must be
the same number in all four. Means are compared with four chains of NUTS of the library itself,
after 1 000 steps of warm-up each. A language whose library is not installed is left out, and named.
The file of rows is whole after every row, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import describe_environment
from benchmarks.languages.data import MODELS
from benchmarks.languages.page import page
from benchmarks.languages.sites import moments, noise
from benchmarks.posteriors.store import Row, Store, read_rows
from benchmarks.progress import say, with_bar
from nfvi import NFVI

__all__ = ["main", "row_of"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
ROWS, PAGE = RESULTS / "languages.json", ROOT / "docs/languages.md"
LANGUAGES = {"pyro": (), "numpyro": ("numpyro",), "pymc": ("pymc",), "stan": ("pystan",)}
"""The packages that bring each, beside those that nfvi needs."""
DRAWS = 50_000


def row_of(language: str, name: str, seed: int, draws: int) -> Row:
    """A fit, its log evidence, and how far its means and sds are from that library's NUTS."""
    module = importlib.import_module(f"benchmarks.languages.in_{language}")
    wall, cpu = time.perf_counter(), time.process_time()
    fit = NFVI("auto", seed=seed, dtype=torch.float64).fit(module.target(name), progress=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    means, sds = moments(name, _weighted(fit, seed))
    started = time.perf_counter()
    chains = module.sampled(name, draws, seed)
    nuts_time = time.perf_counter() - started
    true_means, true_sds = moments(name, chains)
    return {
        "method": language,
        "target": name,
        "seed": seed,
        "status": "ok",
        "dim": fit.guide.dim,
        "formula": str(fit.formula),
        "verdict": fit.verdict.word,
        "log_evidence": fit.log_evidence,
        "log_evidence_se": fit.log_evidence_se,
        "khat": fit.khat,
        "mean_error": float(np.abs((means - true_means) / true_sds).max()),
        "sd_error": float(np.abs(sds / true_sds - 1).max()),
        "wall_time": wall,
        "cpu_time": cpu,
        "nuts_draws": 4 * draws,
        "nuts_error": noise(name, chains),
        "nuts_time": nuts_time,
    }


def _weighted(fit: Any, seed: int) -> dict[str, np.ndarray]:
    """Draws of the fit by site, corrected by their weights."""
    drawn = fit.importance_resample(DRAWS, seed=seed)
    return {site: value.numpy() for site, value in drawn.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and not there yet, and write the page."""
    options = _options(arguments)
    store = Store(options.out, resume=True)
    if not options.page:
        _run(options, store)
    others = [
        read_rows(path) if path.exists() else []
        for path in (RESULTS / "languages_posteriordb.json", RESULTS / "posteriors.json")
    ]
    Path(options.markdown).write_text(page(store.rows, *others), encoding="utf-8")


def _run(options: argparse.Namespace, store: Store) -> None:
    torch.set_num_threads(1)
    for language in options.languages:
        try:
            environment = describe_environment(*LANGUAGES[language])
        except importlib.metadata.PackageNotFoundError:
            print(f"{language}: {' '.join(LANGUAGES[language])} is not installed", flush=True)
            continue
        jobs = [
            (name, seed)
            for name in options.only
            for seed in range(1, options.seeds + 1)
            if {"method": language, "target": name, "seed": seed} not in store
        ]
        for name, seed in with_bar(jobs, language, name=lambda job: job[0]):
            row = row_of(language, name, seed, options.draws)
            store.add({**row, "environment": environment})
            say(
                f"{name} in {language}, seed {seed}: log evidence {row['log_evidence']:.4f}"
                f" ± {row['log_evidence_se']:.4f}, {row['verdict']}, means within"
                f" {row['mean_error']:.3f} sd of NUTS, {row['wall_time']:.0f} s"
            )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.languages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=1, help="fits of each, seeds 1, 2, … (1)")
    parser.add_argument("--only", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--draws", type=int, default=2500, help="of each chain of NUTS (2500)")
    parser.add_argument("--page", action="store_true", help="rewrite the page, and run nothing")
    parser.add_argument("--out", default=str(ROWS), help="JSON file of the rows")
    parser.add_argument("--markdown", default=str(PAGE), help="the page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
