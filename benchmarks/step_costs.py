"""What a step of each flow costs beside the same layer in Zuko or normflows.

    pip install -e '.[bench]'
    python -m benchmarks.step_costs             # about 3 minutes on 2 cores
    python -m benchmarks.step_costs --only nsf

A step takes four layers at d = 10 with 256 points: the log-density of given points, or draws with
their log-density, and the backward pass to the parameters. Networks have two hidden layers of 64
units and ReLU, splines 8 bins; options that the libraries do not share stay at their defaults. Each
pair is timed in turns, on one thread, and the table gives medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import normflows as nf
import torch
import zuko
from torch import Tensor

from benchmarks.environment import describe_environment
from benchmarks.progress import say, with_bar
from nfvi.guides import Guide

LAYERS, D, N, HIDDEN, BINS = 4, 10, 256, 64, 8
ROUNDS, STEPS = 40, 5

Step = Callable[[], None]


@dataclass(frozen=True)
class Pair:
    """A flow, the same layer elsewhere, and the direction that is timed."""

    formula: str
    library: str
    layer: str
    make: Callable[[], Any]
    direction: str


def ours(formula: str, direction: str, points: Tensor) -> Step:
    """A step of one of our flows."""
    guide = Guide(f"({formula})*{LAYERS}", D, generator=torch.Generator().manual_seed(0))

    def density() -> None:
        guide.zero_grad()
        guide.log_prob(points).mean().backward()

    def draws() -> None:
        guide.zero_grad()
        x, log_q = guide.rsample_and_log_prob(N)
        (log_q.mean() + x.square().mean()).backward()

    return density if direction == "density" else draws


def of_zuko(make: Callable[[], Any], direction: str, points: Tensor) -> Step:
    """A step of a layer of Zuko."""
    base = zuko.flows.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(D), torch.ones(D), buffer=True
    )
    flow = zuko.flows.Flow([make() for _ in range(LAYERS)], base)

    def density() -> None:
        flow.zero_grad()
        flow().log_prob(points).mean().backward()

    def draws() -> None:
        flow.zero_grad()
        x, log_q = flow().rsample_and_log_prob((N,))
        (log_q.mean() + x.square().mean()).backward()

    return density if direction == "density" else draws


def of_normflows(make: Callable[[], Any], direction: str, points: Tensor) -> Step:
    """A step of a layer of normflows."""
    base = nf.distributions.DiagGaussian(D, trainable=False)
    flow = nf.NormalizingFlow(base, [make() for _ in range(LAYERS)])

    def density() -> None:
        flow.zero_grad()
        flow.log_prob(points).mean().backward()

    def draws() -> None:
        flow.zero_grad()
        x, log_q = flow.sample(N)
        (log_q.mean() + x.square().mean()).backward()

    return density if direction == "density" else draws


def free(transform: Any, *parameters: Tensor) -> Any:
    """A transform of Zuko with parameters of its own."""
    return zuko.flows.UnconditionalTransform(transform, *parameters)


def affine_coupling() -> Any:
    """Zuko's affine coupling; the mask keeps the first half."""
    mask = torch.arange(D) < D // 2
    return zuko.flows.GeneralCouplingTransform(D, mask=mask, hidden_features=(HIDDEN, HIDDEN))


def spline_coupling() -> Any:
    """Zuko's coupling with rational-quadratic splines."""
    return zuko.flows.GeneralCouplingTransform(
        D,
        mask=torch.arange(D) < D // 2,
        univariate=zuko.transforms.MonotonicRQSTransform,
        shapes=[(BINS,), (BINS,), (BINS - 1,)],
        hidden_features=(HIDDEN, HIDDEN),
    )


def nf_affine_coupling() -> Any:
    """Normflows' affine coupling block."""
    net = nf.nets.MLP([D // 2, HIDDEN, HIDDEN, D], init_zeros=True)
    return nf.flows.AffineCouplingBlock(net)


def pairs() -> list[Pair]:
    """What is compared with what."""
    net = f"hidden=[{HIDDEN},{HIDDEN}],activation=relu"
    widths, slopes = torch.zeros(D, BINS), torch.zeros(D, BINS - 1)
    masked = partial(zuko.flows.MaskedAutoregressiveTransform, D, hidden_features=(HIDDEN, HIDDEN))
    affine = partial(nf.flows.AffineConstFlow, (D,))
    both = ("density", "draws")
    table: list[tuple[str, str, str, Callable[[], Any], tuple[str, ...]]] = [
        ("scale", "normflows", "AffineConstFlow", lambda: affine(shift=False), both),
        ("loc", "normflows", "AffineConstFlow", lambda: affine(scale=False), both),
        ("planar", "normflows", "Planar", lambda: nf.flows.Planar((D,)), ("draws",)),
        ("radial", "normflows", "Radial", lambda: nf.flows.Radial((D,)), ("draws",)),
        ("lu", "zuko", "LULinearTransform", lambda: free(_lu, torch.eye(D)), both),
        ("lu", "normflows", "LULinearPermute", lambda: nf.flows.LULinearPermute(D), both),
        (
            f"spline(bins={BINS})",
            "zuko",
            "MonotonicRQSTransform",
            lambda: free(_splines, widths, widths.clone(), slopes),
            both,
        ),
        (f"realnvp({net})", "zuko", "GeneralCouplingTransform", affine_coupling, both),
        (f"realnvp({net})", "normflows", "AffineCouplingBlock", nf_affine_coupling, both),
        (f"nsf(bins={BINS},{net})", "zuko", "GeneralCouplingTransform", spline_coupling, both),
        (
            f"nsf(bins={BINS},{net})",
            "normflows",
            "CoupledRationalQuadraticSpline",
            lambda: nf.flows.CoupledRationalQuadraticSpline(D, 2, HIDDEN, num_bins=BINS),
            both,
        ),
        (f"maf({net})", "zuko", "MaskedAutoregressiveTransform", masked, both),
        (
            f"iaf({net})",
            "normflows",
            "MaskedAffineAutoregressive",
            lambda: nf.flows.MaskedAffineAutoregressive(D, HIDDEN),
            both,
        ),
        (
            f"iaf({net})",
            "zuko",
            "MaskedAutoregressiveTransform, inverse",
            lambda: masked().inv,
            both,
        ),
    ]
    return [
        Pair(formula, library, layer, make, direction)
        for formula, library, layer, make, directions in table
        for direction in directions
    ]


def _lu(matrix: Tensor) -> Any:
    return zuko.transforms.LULinearTransform(matrix)


def _splines(*parameters: Tensor) -> Any:
    return zuko.transforms.DependentTransform(zuko.transforms.MonotonicRQSTransform(*parameters), 1)


def alternate(first: Step, second: Step) -> tuple[float, float]:
    """Median milliseconds of two steps, in turns, so that a noisy machine is noisy for both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for step in (first, second):
        for _ in range(STEPS):
            step()
    for _ in range(ROUNDS):
        for step, taken in zip((first, second), seconds, strict=True):
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            taken.append((time.perf_counter() - start) / STEPS)
    return 1e3 * statistics.median(seconds[0]), 1e3 * statistics.median(seconds[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="formulas that contain this text alone")
    only = parser.parse_args().only or ""
    torch.set_num_threads(1)
    print(describe_environment("normflows", "zuko"), flush=True)
    print("| flow | step | nfvi, ms | peer | peer, ms | ratio |\n|---|---|---|---|---|---|")
    points = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    wrap = {"zuko": of_zuko, "normflows": of_normflows}
    chosen = [pair for pair in pairs() if only in pair.formula]
    for pair in with_bar(chosen, "steps", name=lambda pair: pair.formula):
        mine, theirs = alternate(
            ours(pair.formula, pair.direction, points),
            wrap[pair.library](pair.make, pair.direction, points),
        )
        say(
            f"| `{pair.formula}` | {pair.direction} | {mine:.2f} | {pair.library} {pair.layer} |"
            f" {theirs:.2f} | {mine / theirs:.2f} |"
        )


if __name__ == "__main__":
    main()
