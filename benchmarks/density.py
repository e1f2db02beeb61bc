"""Densities of data: circles beside Zuko, and Iris beside quadratic discriminant analysis.

    pip install -e '.[bench]'
    python -m benchmarks.density                  # about 6 minutes on 2 cores
    python -m benchmarks.density --only circles

Circles: 1 000 points to fit to and 50 000 fresh ones to score, new ones for every seed. The
settings of both joint flows were tuned on points of seed 0, which is not among the seeds here: for
Zuko's NSF the number of transforms (2-5), bins (5-16), hidden units, activation, learning rate,
weight decay and epochs. For FlowTorch's marginal spline stands Zuko's, the same kind of spline,
with FlowTorch's defaults: 8 bins for each coordinate in the fixed box [-3, 3].
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from benchmarks.environment import describe_environment
from benchmarks.progress import say, with_bar
from nfvi import NFVI

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import circles
import iris

FRESH = 50_000
BINS, BOX = 8, 3.0

LogProb = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """A way to fit a density: from points and a seed to log q."""

    name: str
    fit: Callable[[Tensor, int], LogProb]


def ours(formula: str, **options: Any) -> Callable[[Tensor, int], LogProb]:
    """A formula of ours."""

    def fit(x: Tensor, seed: int) -> LogProb:
        return NFVI(formula, seed=seed).fit_data(x, progress=False, **options).log_prob

    return fit


def of_zuko(
    make: Callable[[], nn.Module], *, lr: float, epochs: int, batch_size: int
) -> Callable[[Tensor, int], LogProb]:
    """A flow of Zuko: Adam with a learning rate that falls along a cosine, on all points."""

    def fit(x: Tensor, seed: int) -> LogProb:
        torch.manual_seed(seed)
        flow = make()
        optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
        steps = epochs * -(-len(x) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for batch in x[torch.randperm(len(x))].split(batch_size):
                optimizer.zero_grad()
                (-flow().log_prob(batch).mean()).backward()
                nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                optimizer.step()
                schedule.step()
        return lambda z: flow().log_prob(z)

    return fit


def zuko_marginal() -> nn.Module:
    """A spline for each coordinate, from a standard normal."""
    splines = zuko.flows.UnconditionalTransform(
        _splines, *(0.01 * torch.randn(2, k) for k in (BINS, BINS, BINS - 1))
    )
    base = zuko.flows.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(2), torch.ones(2), buffer=True
    )
    return zuko.flows.Flow([splines], base)


def _splines(*parameters: Tensor) -> Any:
    splines = zuko.transforms.MonotonicRQSTransform(*parameters, bound=BOX)
    return zuko.transforms.DependentTransform(splines, 1)


def zuko_nsf() -> nn.Module:
    """Zuko's autoregressive neural spline flow, as it was best on points of seed 0."""
    return zuko.flows.NSF(2, transforms=4, bins=BINS, hidden_features=(64, 64))


WAYS = [
    Way(f"nfvi {circles.MARGINAL}", ours(circles.MARGINAL)),
    Way("Zuko, marginal splines", of_zuko(zuko_marginal, lr=0.02, epochs=300, batch_size=128)),
    Way(f"nfvi {circles.JOINT}, defaults", ours(circles.JOINT)),
    Way(f"nfvi {circles.JOINT}, tuned", ours(circles.JOINT, **circles.LONG_ENOUGH)),
    Way("Zuko NSF, tuned", of_zuko(zuko_nsf, lr=0.01, epochs=120, batch_size=128)),
]


def print_circles(seeds: int) -> None:
    """Held-out log-likelihood of every way over seeds, beside what the truth scores."""
    scores: dict[str, list[float]] = {way.name: [] for way in WAYS}
    seconds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    for seed in with_bar(range(1, seeds + 1), "circles", name="seed {}".format):
        x, fresh = circles.circles(1000, seed), circles.circles(FRESH, 10_000 + seed)
        for way in WAYS:
            start = time.process_time()
            log_prob = way.fit(x, seed)
            seconds[way.name].append(time.process_time() - start)
            with torch.no_grad():
                scores[way.name].append(log_prob(fresh).mean().item())
            say(f"  seed {seed} {way.name}: {scores[way.name][-1]:.3f}")
    print(f"\n| circles, {seeds} seeds | nats a fresh point, mean | lowest | highest | CPU s |")
    print("|---|---|---|---|---|")
    for name, values in scores.items():
        print(
            f"| {name} | {statistics.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |"
            f" {statistics.median(seconds[name]):.1f} |"
        )
    joint, apart = circles.ceilings()
    print(f"| the truth, by quadrature | {joint:.3f} | | | |")
    print(f"| its coordinates apart, by quadrature | {apart:.3f} | | | |")
    by_way = [np.array(values) for values in scores.values()]
    print(f"tuned joint flow above our marginal spline: {np.mean(by_way[3] - by_way[0]):.3f} nats")
    print(f"  above Zuko's marginal splines: {np.mean(by_way[3] - by_way[1]):.3f}")
    print(f"  above Zuko's NSF: {np.mean(by_way[3] - by_way[4]):+.3f}", flush=True)


def print_iris(repeats: int) -> None:
    """Accuracies of the example, in-sample for three seeds and cross-validated."""
    x, y, _ = iris.iris()
    for seed in with_bar(range(3), "iris in-sample", name="seed {}".format):
        each = iris.scores_of_each(iris.density_each(x, y, seed, **iris.OVERFIT))(x)
        one = iris.scores_of_one(iris.conditional(x, y, seed, **iris.OVERFIT))(x)
        say(
            f"iris in-sample, seed {seed}: a flow a species {iris.accuracy(each, y):.4f}, one"
            f" conditional flow {iris.accuracy(one, y):.4f}"
        )
    print(f"iris, {repeats} x 5-fold cross-validation")
    scores = iris.cross_validated(iris.methods({}), x, y, repeats=repeats, folds=5)
    print(iris.describe_scores(scores, y), flush=True)


def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="sets of circles (%(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="of 5 folds (%(default)s)")
    parser.add_argument("--only", choices=["circles", "iris"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_environment("zuko", "scikit-learn"), flush=True)
    if options.only in (None, "circles"):
        print_circles(options.seeds)
    if options.only in (None, "iris"):
        print_iris(options.repeats)


if __name__ == "__main__":
    main()
