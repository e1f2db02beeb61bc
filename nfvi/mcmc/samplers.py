"""HMC and NUTS on any target, by Pyro's kernels."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from pyro.infer.mcmc import NUTS
from torch import Tensor

from nfvi.mcmc.bar import draw_bar
from nfvi.mcmc.chain import Chain, Kernel, run_chain
from nfvi.mcmc.kernels import MAX_LEAPFROG_STEPS, BoundedHMC, Mass, kernel_options
from nfvi.mcmc.nutpie_chains import chains_by_nutpie, check_nutpie
from nfvi.mcmc.potential import Potential, traced_potential
from nfvi.mcmc.processes import chains_in_processes
from nfvi.mcmc.run import MCMCRun
from nfvi.mcmc.starts import chain_seeds, starts
from nfvi.targets import Target, as_target
from nfvi.tracing import Traced
from nfvi.utils import check_positive, check_whole, jobs_for

__all__ = ["hmc", "nuts"]

logger = logging.getLogger(__name__)

MakeKernel = Callable[[Potential], Kernel]
Sampler: TypeAlias = Literal["pyro", "nutpie"]


@dataclass(frozen=True)
class _Plan:
    """What is the same for every kernel; checked where it is made."""

    draws: int
    warmup: int
    chains: int
    seed: int | None
    init: Any
    dtype: torch.dtype | None
    device: torch.device | str | None
    progress: bool | None
    n_jobs: int

    def __post_init__(self) -> None:
        check_whole("draws", self.draws, 1)
        check_whole("warmup", self.warmup, 0)
        check_whole("chains", self.chains, 1)
        jobs_for(self.n_jobs, self.chains)
        if self.seed is not None:
            check_whole("seed", self.seed, 0, 2**63 - 1)
        if self.dtype is not None and not self.dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type, got {self.dtype}")


RunChains = Callable[[Target, _Plan, Tensor, list[int]], Iterator[Chain]]


def nuts(
    target: Any,
    *args: Any,
    dim: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    init: Any = None,
    step_size: float | None = None,
    target_accept: float = 0.8,
    max_tree_depth: int = 10,
    mass: Mass = "diagonal",
    sampler: Sampler = "pyro",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
    n_jobs: int = 1,
) -> MCMCRun:
    """The No-U-Turn sampler, with multinomial draws from the trajectory.

    Chains run one after another, or side by side with ``n_jobs=``. Ctrl-C returns the
    finished chains, or, in the first one, its draws so far if there are four or more; it warns and
    sets ``run.interrupted``.

    Args:
        target: a Target, a log-density with ``dim=``, or a Pyro model.
        args: the arguments of the model.
        dim: dimension of a bare log-density.
        parameters: of a function of named parameters, as for :meth:`nfvi.NFVI.fit`.
        draws: draws kept of each chain, at least 1.
        warmup: steps before them, in which step size and mass are adapted; 0 adapts no mass.
        chains: number of chains, at least 1; R-hat needs 2.
        seed: fixes everything; default a fresh one, kept in ``run.seed``. Torch's global random
            state stays as it is.
        init: where the chains start, on unconstrained space: (chains, d), or (d,) for all. For a
            model also a dict of constrained sites, each with or without a leading chains axis.
            Default: uniform on (−2, 2)^d, retried until log p is finite.
        step_size: a fixed leapfrog step, in units of the adapted scale; default: adapted.
        target_accept: acceptance probability that the adaptation of the step aims at, in (0, 1).
        max_tree_depth: a draw takes at most 2^max_tree_depth − 1 leapfrog steps.
        mass: what the warm-up learns of the scale: variances, all covariances, or nothing.
        sampler: ``"pyro"``, or ``"nutpie"``, NUTS in Rust, which takes about a third of the
            time (the extra ``nutpie``). It has its own adaptation and random numbers, so that a
            seed gives other draws; it takes no ``step_size``, no other ``mass`` than
            ``"diagonal"``, ten steps of warm-up at least, and the CPU. Its chains side by side are
            threads: nothing is sent to processes.
        dtype: default that of ``init``, else ``torch.get_default_dtype()``.
        device: default that of ``init``, else ``torch.get_default_device()``.
        progress: whether to show a bar; default only in a terminal or notebook.
        n_jobs: chains side by side, each in a process of its own, by joblib (the extra ``jobs``);
            -1 for one on each CPU; or where ``joblib.parallel_config`` says. The draws are the very
            ones of ``n_jobs=1``. The target is sent to the processes: lambdas can be, open files
            and locks cannot. Ctrl-C stops the processes and keeps the chains that were finished.

    Returns:
        The draws with their diagnostics.

    Raises:
        ImportError: ``n_jobs`` is over 1 and joblib is not installed, or ``sampler="nutpie"`` and
            nutpie is not.
        ValueError: an argument out of range, or starting points of a wrong shape or with a
            log-density that is not finite.
        TargetError: the target cannot be used or not be sent, or no starting point was found.

    Example:
        >>> run = nuts(lambda z: -0.5 * (z**2).sum(-1), dim=2, draws=10, warmup=20, chains=2)
        >>> run.draws.shape
        torch.Size([2, 10, 2])

    Reference:
        Hoffman, Gelman, "The No-U-Turn sampler", 2014; Betancourt, "A conceptual introduction to
        Hamiltonian Monte Carlo", 2017.
    """
    check_whole("max_tree_depth", max_tree_depth, 1)
    options = kernel_options(step_size, target_accept, mass)
    if sampler not in ("pyro", "nutpie"):
        raise ValueError(f"sampler must be 'pyro' or 'nutpie', got {sampler!r}")

    def make(potential: Potential) -> Kernel:
        return NUTS(potential_fn=potential, max_tree_depth=max_tree_depth, **options)

    plan = _Plan(draws, warmup, chains, seed, init, dtype, device, progress, n_jobs)
    limit = 2**max_tree_depth - 1
    if sampler == "pyro":
        target = as_target(target, *args, dim=dim, parameters=parameters)
        return _run("NUTS", partial(_chains, "NUTS", make), target, plan, limit)
    check_nutpie(warmup, step_size, mass)
    target = as_target(target, *args, dim=dim, parameters=parameters)
    by_nutpie = partial(_nutpie_chains, target_accept, max_tree_depth)
    return _run("NUTS", by_nutpie, target, plan, limit)


def hmc(
    target: Any,
    *args: Any,
    dim: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    init: Any = None,
    step_size: float | None = None,
    target_accept: float = 0.8,
    trajectory_length: float | None = None,
    num_steps: int | None = None,
    mass: Mass = "diagonal",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
    n_jobs: int = 1,
) -> MCMCRun:
    """Hamiltonian Monte Carlo with trajectories of fixed length, or of fixed number of steps.

    Arguments that are not listed, and Ctrl-C, are as for :func:`nuts`.

    Args:
        trajectory_length: step size × number of steps, in units of the adapted scale; default π/2,
            a quarter of the period of a Gaussian, after which its draws are independent.
            A draw takes at most 1024 steps.
        num_steps: a fixed number of leapfrog steps in place of a length, 1 to 1024.

    Returns:
        The draws with their diagnostics.

    Raises:
        ValueError: as for :func:`nuts`; also both trajectory_length and num_steps given.
        TargetError: as for :func:`nuts`.

    Reference:
        Neal, "MCMC using Hamiltonian dynamics", 2011.
    """
    if trajectory_length is not None and num_steps is not None:
        raise ValueError("trajectory_length and num_steps exclude each other; give one of them")
    if num_steps is not None:
        check_whole("num_steps", num_steps, 1, MAX_LEAPFROG_STEPS)
    length = math.pi / 2 if trajectory_length is None else trajectory_length
    check_positive("trajectory_length", length)
    options = kernel_options(step_size, target_accept, mass)

    def make(potential: Potential) -> Kernel:
        return BoundedHMC(num_steps, potential_fn=potential, trajectory_length=length, **options)

    limit = MAX_LEAPFROG_STEPS if num_steps is None else MAX_LEAPFROG_STEPS + 1
    plan = _Plan(draws, warmup, chains, seed, init, dtype, device, progress, n_jobs)
    target = as_target(target, *args, dim=dim, parameters=parameters)
    return _run("HMC", partial(_chains, "HMC", make), target, plan, limit)


def _run(name: str, run: RunChains, target: Target, plan: _Plan, max_gradients: int) -> MCMCRun:
    """Run the chains and put them together."""
    seed = torch.Generator(device="cpu").seed() >> 1 if plan.seed is None else plan.seed
    began = time.perf_counter()
    with torch.inference_mode(False), torch.enable_grad():
        seeds = chain_seeds(seed, 2 * plan.chains)
        points = starts(target, plan.init, seeds[::2], plan.dtype, plan.device)
        finished: list[Chain] = []
        try:
            for chain in run(target, plan, points, seeds[1::2]):
                if chain.complete or not finished:
                    finished.append(chain)
                if not chain.complete:
                    break
        except KeyboardInterrupt:
            if not finished:
                raise
    return _together(name, target, plan, seed, points, finished, began, max_gradients)


def _chains(
    name: str,
    make: MakeKernel,
    target: Target,
    plan: _Plan,
    points: Tensor,
    seeds: list[int],
) -> Iterator[Chain]:
    """Pyro's chains, one after another or as many side by side as the plan asks for."""
    length = {"draws": plan.draws, "warmup": plan.warmup}
    processes = jobs_for(plan.n_jobs, plan.chains)
    if processes > 1:
        with draw_bar(
            plan.progress, f"{name}, {processes} chains side by side", plan.chains
        ) as on_chain:
            for chain in chains_in_processes(
                make, target, points, seeds, processes=processes, **length
            ):
                on_chain("chains")
                yield chain
        return
    graph = _graph(target, plan, points)
    for i, (point, seed) in enumerate(zip(points, seeds, strict=True)):
        label = f"{name} chain {i + 1}/{plan.chains}"
        with draw_bar(plan.progress, label, plan.warmup + plan.draws) as on_draw:
            own = Potential(target, graph)
            chain = run_chain(make, own, point, seed=seed, on_draw=on_draw, **length)
        yield chain


def _nutpie_chains(
    target_accept: float,
    max_tree_depth: int,
    target: Target,
    plan: _Plan,
    points: Tensor,
    seeds: list[int],
) -> Iterator[Chain]:
    """Nutpie's chains, in as many threads as the plan asks for.

    Raises:
        ValueError: they are to run elsewhere than on the CPU.
    """
    if points.device.type != "cpu":
        raise ValueError(f"sampler='nutpie' runs on the CPU, got device {str(points.device)!r}")
    threads = jobs_for(plan.n_jobs, plan.chains)
    with draw_bar(plan.progress, "NUTS by nutpie", plan.chains) as on_chain:
        for chain in chains_by_nutpie(
            Potential(target, _graph(target, plan, points)),
            points,
            seeds,
            draws=plan.draws,
            warmup=plan.warmup,
            target_accept=target_accept,
            max_tree_depth=max_tree_depth,
            threads=threads,
        ):
            on_chain("chains")
            yield chain


def _graph(target: Target, plan: _Plan, points: Tensor) -> Traced | None:
    return traced_potential(target, points, plan.chains * (plan.warmup + plan.draws))


def _together(
    name: str,
    target: Target,
    plan: _Plan,
    seed: int,
    points: Tensor,
    chains: list[Chain],
    began: float,
    max_gradients: int,
) -> MCMCRun:
    interrupted = len(chains) < plan.chains or not chains[-1].complete
    for i, chain in enumerate(chains):
        logger.info(
            "%s chain %d: step size %.3g, acceptance %.2f, %d divergences",
            *(name, i + 1, chain.step_size, chain.accept, int(chain.diverging.sum())),
        )
    if interrupted:
        kept = f"{len(chains)} of {plan.chains} chains kept, of {len(chains[0].draws)} draws each"
        warnings.warn(f"interrupted: {kept}", RuntimeWarning, stacklevel=4)
    return MCMCRun(
        target=target,
        kernel=name,
        draws=torch.stack([c.draws for c in chains]),
        starts=points[: len(chains)],
        diverging=torch.stack([c.diverging for c in chains]),
        draw_gradients=torch.stack([c.gradients for c in chains]),
        accept=torch.tensor([c.accept for c in chains], dtype=torch.float64, device="cpu"),
        step_size=torch.tensor([c.step_size for c in chains], dtype=torch.float64, device="cpu"),
        warmup=plan.warmup,
        seed=seed,
        gradient_evaluations=sum(c.all_gradients for c in chains),
        wall_time=time.perf_counter() - began,
        warmup_time=sum(c.warmup_time for c in chains),
        sampling_time=sum(c.sampling_time for c in chains),
        max_gradients=max_gradients,
        interrupted=interrupted,
    )
