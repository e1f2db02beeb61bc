"""Fits and chains in threads give what they give alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from nfvi import NFVI, nuts
from nfvi.errors import TargetError
from nfvi.targets import PyroTarget


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    """Threads change places as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def model(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    sd = pyro.sample("sd", dist.HalfNormal(5.0))
    pyro.deterministic("ratio", mu / sd)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, sd), obs=y)


def draws_needlessly(y: Tensor) -> None:
    torch.rand(2)
    model(y)


def together(*works: Callable[[], Tensor]) -> list[Tensor]:
    """What each returns, run at the same time."""
    found: dict[int, Tensor] = {}
    barrier = threading.Barrier(len(works))

    def run(i: int) -> None:
        barrier.wait()
        found[i] = works[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(len(works))), "a thread failed"
    return [found[i] for i in range(len(works))]


def chain(seed: int) -> Callable[[], Tensor]:
    y = torch.tensor([1.0, 2.0, 4.0]) + seed
    return lambda: nuts(model, y, draws=20, warmup=20, chains=1, seed=seed, progress=False).draws


def fitted(seed: int, of: Callable[[Tensor], None] = model) -> Callable[[], Tensor]:
    y = torch.tensor([1.0, 2.0, 4.0]) + seed

    def run() -> Tensor:
        fit = NFVI("scale-loc", seed=seed).fit(of, y, steps=30, n_mc=8, progress=False)
        sites = fit.sample(20, seed=1)
        return torch.stack([sites["mu"], sites["sd"], sites["ratio"]])

    return run


@pytest.mark.parametrize(
    "works",
    [
        (chain(1), chain(2)),
        (fitted(1), fitted(2)),
        (fitted(1, draws_needlessly), fitted(2, draws_needlessly)),
        (chain(1), fitted(2)),
    ],
    ids=["two chains", "two fits", "fits that use up random numbers", "a chain and a fit"],
)
def test_together_is_as_alone(works: tuple[Callable[[], Tensor], ...]) -> None:
    alone = [work() for work in works]
    before = torch.get_rng_state()
    for got, expected in zip(together(*works), alone, strict=True):
        assert torch.equal(got, expected)
    assert torch.equal(before, torch.get_rng_state())
    assert not _PYRO_STACK


def test_a_model_that_fails_leaves_no_handler_behind() -> None:
    def fails_later(y: Tensor) -> None:
        model(y)
        with pyro.plate("more", 2):
            pyro.sample("x", dist.Normal(0.0, 1.0))
            raise KeyError("the reason")

    with pytest.raises(TargetError, match="KeyError"):
        PyroTarget(fails_later, torch.ones(3))
    assert not _PYRO_STACK
