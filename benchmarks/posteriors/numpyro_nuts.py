"""NumPyro's NUTS on the posteriors of posteriordb, for the wall times of benchmarks.posteriors.

    python -m benchmarks.posteriors.numpyro_nuts \\
        --posteriordb path/to/posterior_database --out numpyro.json

Four chains of 1 000 draws after 1 000 of warm-up, one after the other in one compiled program, as
NumPyro does by itself where there is one device, and in double precision. What JAX says it took to
trace and compile is counted apart; a second run would show nothing, since it compiles again.
Neither torch nor nfvi is imported, so that an environment with NumPyro alone will do.
Log-densities at some of the reference draws go into the file too, for ``check_numpyro.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import numpyro
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from posteriordb import PosteriorDatabase

from benchmarks.environment import describe_machine
from benchmarks.posteriors.numpyro_models import MODELS
from benchmarks.posteriors.store import Row, Store

POINTS = 5
EXTRA = ("num_steps", "diverging")
COMPILING = tuple(
    f"/jax/core/compile/{name}_duration"
    for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


def numpyro_row(posterior: Any, draws: int) -> Row:
    """Times with and without compilation, and how good the draws were."""
    model = partial(MODELS[posterior.name], posterior.data.values())
    sampler = MCMC(
        NUTS(model),
        num_warmup=draws,
        num_samples=draws,
        num_chains=4,
        chain_method="sequential",
        progress_bar=False,
    )
    wall, compiling = _timed_run(sampler)
    steps, diverging = (np.asarray(sampler.get_extra_fields()[name]) for name in EXTRA)
    reference = _reference(posterior)
    bias = _bias(_scalars(sampler.get_samples(), list(reference)), reference)
    return {
        "wall_time": wall,
        "wall_time_compiled": wall - compiling,
        "leapfrog_steps": int(steps.sum()),
        "divergences": int(diverging.sum()),
        "b2_worst": max(bias),
        "b2_average": sum(bias) / len(bias),
        "log_densities": _log_densities(posterior, model, reference),
    }


def _timed_run(sampler: MCMC) -> tuple[float, float]:
    """Seconds in all, and those of them in which JAX traced and compiled."""
    parts: list[float] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event in COMPILING:
            parts.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    started = time.perf_counter()
    sampler.run(jax.random.PRNGKey(1), extra_fields=EXTRA)
    jax.block_until_ready(sampler.get_samples())
    wall = time.perf_counter() - started
    jax.monitoring.clear_event_listeners()
    return wall, sum(parts)


def _reference(posterior: Any) -> dict[str, np.ndarray]:
    """The reference draws by key, all chains together."""
    chains = posterior.reference_draws()
    return {key: np.concatenate([np.asarray(chain[key]) for chain in chains]) for key in chains[0]}


def _scalars(sites: dict[str, Any], keys: list[str]) -> dict[str, np.ndarray]:
    """``"beta[3]"`` is the third entry of the site ``beta``."""
    found = {}
    for key in keys:
        name, _, index = key.rstrip("]").partition("[")
        value = np.asarray(sites[name])
        found[key] = value[:, int(index) - 1] if index else value
    return found


def _bias(scalars: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> list[float]:
    """b² of the mean of every x and x²."""
    return [
        float((scalars[key] ** power).mean() - (x**power).mean()) ** 2
        / float((x**power).var(ddof=1))
        for power in (1, 2)
        for key, x in reference.items()
    ]


def _log_densities(
    posterior: Any, model: Callable[[], None], reference: dict[str, np.ndarray]
) -> list[float]:
    """log p at the first draws of the reference, on the constrained scale."""
    found = []
    for i in range(POINTS):
        point = _sites({key: x[i] for key, x in reference.items()})
        if posterior.name.endswith("noncentered"):
            point["eta"] = (point.pop("theta") - point["mu"]) / point["tau"]
        found.append(float(log_density(model, (), {}, point)[0]))
    return found


def _sites(scalars: dict[str, float]) -> dict[str, np.ndarray]:
    """The sites of one point from its scalars, which come in the order of their indices."""
    found: dict[str, Any] = {}
    for key, value in scalars.items():
        name, bracket, _ = key.partition("[")
        if bracket:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return {name: np.asarray(value) for name, value in found.items()}


def main() -> None:
    """Run what the file does not have yet; it is whole after every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posteriordb", required=True, help="folder of the database")
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=MODELS, metavar="NAME")
    parser.add_argument("--draws", type=int, default=1000, help="of each chain (1000)")
    parser.add_argument("--out", required=True, help="JSON file for the rows")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --out has")
    options = parser.parse_args()
    numpyro.enable_x64()
    environment = describe_machine("NumPyro on the CPU", "numpyro", "jax", "posteriordb")
    print(environment, flush=True)
    database = PosteriorDatabase(options.posteriordb)
    store = Store(options.out, resume=options.resume)
    for name in options.only:
        key = {"method": "numpyro", "target": name, "seed": 1}
        if key in store:
            continue
        row = {**key, "status": "ok", **numpyro_row(database.posterior(name), options.draws)}
        store.add({**row, "environment": environment})
        print(
            f"{name}: {row['wall_time']:.1f} s, {row['wall_time_compiled']:.1f} s of them not"
            f" compiling, worst b² {row['b2_worst']:.2g}, {row['divergences']} divergences",
            flush=True,
        )


if __name__ == "__main__":
    main()
