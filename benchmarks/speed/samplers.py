"""NUTS of three libraries on the same models, with the effective sample size of its draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.posteriors.store import Row
from benchmarks.speed.compiling import Compiling
from benchmarks.speed.sampler_models import numpyro_model, pymc_model, torch_target
from nfvi import nuts
from nfvi.mcmc import ess

__all__ = ["CHAINS", "SAMPLERS", "least_ess", "sampler_row"]

CHAINS = 4


def sampler_row(sampler: str, model: str, draws: int, seed: int) -> Row:
    """Four chains of draws after as many of warm-up, one after the other: what they took.

    Args:
        sampler: a name in ``SAMPLERS``.
        model: a name in ``SAMPLED``.
        draws: of each chain.
        seed: of all.

    Returns:
        The least bulk effective sample size of all coordinates; wall and CPU seconds in all, and
        those of the wall time in which JAX or numba compiled.
    """
    run = SAMPLERS[sampler](model, draws)
    with Compiling() as compiling:
        wall, cpu = time.perf_counter(), time.process_time()
        chains = run(seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "ess": least_ess(chains),
        "wall_time": wall,
        "cpu_time": cpu,
        "compiling": compiling.seconds + getattr(run, "compiling", 0.0),
    }


def least_ess(chains: Any) -> float:
    """The least bulk effective sample size of all coordinates, from draws as samplers give them."""
    return float(ess(_tensor(chains), "bulk").min())


def _tensor(chains: Any) -> Tensor:
    """Draws (chains, n, d) in float64, from one array or one for each variable."""
    arrays: Iterable[Any] = chains.values() if isinstance(chains, dict) else [chains]
    flat = [torch.as_tensor(np.asarray(values)).double() for values in arrays]
    return torch.cat([values.reshape(*values.shape[:2], -1) for values in flat], dim=-1)


def _pyro(model: str, draws: int) -> Callable[[int], Any]:
    target = torch_target(model)

    def run(seed: int) -> Any:
        return nuts(
            target, draws=draws, warmup=draws, chains=CHAINS, seed=seed, progress=False
        ).draws

    return run


def _numpyro(model: str, draws: int) -> Callable[[int], Any]:
    import jax
    from numpyro.infer import MCMC, NUTS

    sampler = MCMC(
        NUTS(numpyro_model(model)),
        num_warmup=draws,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )

    def run(seed: int) -> Any:
        sampler.run(jax.random.PRNGKey(seed))
        return jax.block_until_ready(sampler.get_samples(group_by_chain=True))

    return run


class _Nutpie:
    """nutpie on a PyMC model by numba, which it compiles once.

    Attributes:
        compiling: wall seconds of that.
    """

    def __init__(self, model: str, draws: int) -> None:
        import nutpie

        self.sample, self.compile = nutpie.sample, nutpie.compile_pymc_model
        self.model, self.draws, self.compiling = pymc_model(model), draws, 0.0

    def __call__(self, seed: int) -> Any:
        started = time.perf_counter()
        compiled = self.compile(self.model)
        self.compiling = time.perf_counter() - started
        trace = self.sample(
            compiled,
            draws=self.draws,
            tune=self.draws,
            chains=CHAINS,
            cores=1,
            seed=seed,
            save_warmup=False,
            progress_bar=False,
        )
        return {name: values.to_numpy() for name, values in trace.posterior.data_vars.items()}


SAMPLERS: dict[str, Callable[[str, int], Callable[[int], Any]]] = {
    "nfvi.nuts (Pyro)": _pyro,
    "NumPyro": _numpyro,
    "nutpie (PyMC, numba)": _Nutpie,
}
