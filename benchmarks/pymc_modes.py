"""PyMC models by JAX and by PyTensor: seconds until the first gradient, and for each after it.

Seconds are CPU seconds of this process and of the compilers that it starts. PyTensor keeps what it
compiled in C and by Numba on disk; say so by ``PYTENSOR_FLAGS=base_compiledir=$(mktemp -d)``.

    python -m benchmarks.pymc_modes                  # all models, JAX, CVM and NUMBA: minutes
    python -m benchmarks.pymc_modes JAX eight_schools mixture
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence

import torch

from benchmarks.progress import say, with_bar
from nfvi import PyMCTarget, TargetError
from tests.targets.pymc_models import MODELS

DRAWS = 512
REPEATS = 5
MODES = ("JAX", "CVM", "NUMBA")


def cpu_seconds() -> float:
    """Of this process and of its children."""
    return sum(os.times()[:4])


def measured(name: str, mode: str) -> str:
    """One row of the table."""
    target = PyMCTarget(MODELS[name](), mode=mode)
    generator = torch.Generator().manual_seed(0)
    z = 0.3 * torch.randn(DRAWS, target.dim, generator=generator, dtype=torch.float64)

    def gradient() -> None:
        leaf = z.clone().requires_grad_()
        torch.autograd.grad(target.log_prob(leaf).sum(), leaf)

    start = cpu_seconds()
    try:
        gradient()
    except TargetError as error:
        return f"{name:<18}{mode:<8}{str(error)[:70]}"
    first = cpu_seconds() - start
    gradient()  # what is compiled for this number of points is compiled
    start = cpu_seconds()
    for _ in range(REPEATS):
        gradient()
    each = 1000 * (cpu_seconds() - start) / REPEATS
    return f"{name:<18}{mode:<8}{first:>10.1f} s{each:>12.2f} ms"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", nargs="?", help=f"one mode; default {', '.join(MODES)}")
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; default all")
    options = parser.parse_args(argv)
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"no model is named {', '.join(sorted(unknown))}")
    print(f"{'':<26}{'first':>12}{f'{DRAWS} gradients':>15}")
    modes = MODES if options.mode is None else [options.mode]
    jobs = [(name, mode) for name in options.models or MODELS for mode in modes]
    for job in with_bar(jobs, "models", name=" by ".join):
        say(measured(*job))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
