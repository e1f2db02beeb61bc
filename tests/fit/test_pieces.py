"""Tests of what takes many draws, under a bound on numbers that is far lower than the real one."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Fit, LogDensity
from nfvi.fit import mixture_weights
from nfvi.fit.evaluation import evaluate
from nfvi.guides import Guide, log_prob_in_pieces, numbers_of, sample_in_pieces
from nfvi.utils import pieces as limits

DIM = 400
BOUND = 2**16
LIMIT = 2.0
"""GiB."""


class Counting:
    """A normal density that notes the largest batch it was asked for."""

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.largest = max(self.largest, z.numel())
        return -0.5 * z.square().sum(-1)


@pytest.fixture
def counted() -> Counting:
    return Counting()


@pytest.fixture
def fit(counted: Counting) -> Fit:
    target = LogDensity(counted, DIM, name="counted", batched=True)
    few = {"steps": 2, "n_mc": 8, "restarts": 2, "draws": "iid"}
    return NFVI("scale-loc", seed=0).fit(target, progress=False, **few)


def test_nothing_asks_for_more_numbers_than_the_bound(monkeypatch, fit, counted):
    monkeypatch.setattr(limits, "HELD", BOUND)
    assert counted.largest > BOUND  # within the real bound, that is one piece
    for ask in (
        lambda: fit.diagnostics,
        lambda: fit.search(draws=2_000),
        lambda: fit.importance_resample(50, seed=0),
        lambda: fit.weighted_draws(3_000, seed=0),
        lambda: fit.refine(1, progress=False),
        lambda: mixture_weights([fit.guide] * 2, fit.target, 2_000, torch.Generator()),
    ):
        counted.largest = 0
        ask()
        assert 0 < counted.largest <= BOUND


def test_pieces_change_no_number(monkeypatch, fit):
    whole = fit.diagnostics
    chosen = fit.importance_resample(50, seed=3)
    points = fit.sample(3_000, seed=1)
    log_q = fit.log_prob(points)
    fit._diagnostics = None
    monkeypatch.setattr(limits, "HELD", BOUND)
    assert torch.equal(fit.sample(3_000, seed=1), points)
    assert torch.equal(fit.log_prob(points.reshape(30, 100, DIM)).flatten(), log_q)
    # The draws are those of one piece but for the last in a block of 4 096.
    assert torch.equal(fit.importance_resample(50, seed=3), chosen)
    assert fit.diagnostics.elbo == pytest.approx(whole.elbo, rel=1e-5)
    assert fit.diagnostics.khat == pytest.approx(whole.khat, abs=0.02)


def test_no_draws_are_kept_that_are_not_asked_for(monkeypatch, fit):
    kept = evaluate(fit.guide, fit.target, 3_000, torch.Generator(), keep=0)
    assert kept.z.shape == (0, DIM) and kept.log_p.shape == (3_000,)
    first = evaluate(fit.guide, fit.target, 5_000, torch.Generator().manual_seed(0), keep=4_500)
    every = evaluate(fit.guide, fit.target, 5_000, torch.Generator().manual_seed(0))
    assert torch.equal(first.z, every.z[:4_500]) and torch.equal(first.log_q, every.log_q)


def test_gradients_of_log_prob_are_kept(monkeypatch):
    monkeypatch.setattr(limits, "HELD", 64)
    guide = Guide("planar*2", 3, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
    leaf = points.clone().requires_grad_()
    (score,) = torch.autograd.grad(log_prob_in_pieces(guide, leaf).sum(), leaf)
    assert score.shape == (100, 3) and bool((score != 0).all())
    torch.testing.assert_close(log_prob_in_pieces(guide, points), guide.log_prob(points))


def test_a_network_that_keeps_more_gets_smaller_pieces():
    narrow, wide = (numbers_of(Guide(f"realnvp(hidden=[{h}])*2", 6)) for h in (8, 512))
    assert narrow.widest < 100 < 500 < wide.widest
    assert wide.written > 10 * narrow.written
    assert numbers_of(Guide("scale-loc", 50)).widest == 50


def test_a_sample_in_pieces_is_that_of_the_guide(monkeypatch):
    guide = Guide("planar*2-scale-loc", 3, generator=torch.Generator().manual_seed(0))
    one = guide.sample(1_001, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(limits, "HELD", 500)
    pieces = sample_in_pieces(guide, 1_001, torch.Generator().manual_seed(1))
    torch.testing.assert_close(pieces, one, rtol=1e-6, atol=1e-6)


MEMORY = """
import pathlib
import nfvi.fit.measured, nfvi.fit.restarts
from nfvi import NFVI, LogDensity
nfvi.fit.restarts.DRAWS = nfvi.fit.measured.DIAGNOSTIC_DRAWS = {draws}
target = LogDensity(lambda z: -0.5 * (z * z).sum(-1), {dim}, name="normal")
fit = NFVI("{formula}", seed=0).fit(target, steps=1, n_mc=64, progress=False)
assert fit.khat == fit.khat
status = pathlib.Path("/proc/self/status").read_text().split()
print(status[status.index("VmHWM:") + 1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("formula", "dim", "draws"), [("scale-loc", 10**6, 50), ("scale-hh*10-loc", 10**5, 400)]
)
def test_high_dimensions_fit_into_two_gibibytes(formula, dim, draws):
    program = MEMORY.format(formula=formula, dim=dim, draws=draws)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(run.stdout.split()[-1]) < LIMIT * 2**20
