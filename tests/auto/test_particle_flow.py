"""Learning a flow from particles that go on moving."""

from __future__ import annotations

import torch

from models import make_gaussian
from nfvi.auto.particle_flow import FORMULA, PooledLikelihood
from nfvi.guides import Guide
from nfvi.training import Ensemble

DTYPE = torch.float64


def test_a_spare_moves_nothing_on() -> None:
    """A trace is tried on further batches; the pool of the fit must not see them."""
    stream = torch.Generator().manual_seed(0)
    pool = torch.randn(64, 2, dtype=DTYPE, generator=stream)
    ensemble = Ensemble([Guide(FORMULA, 2, dtype=DTYPE, generator=stream)])
    loss = PooledLikelihood(make_gaussian(2, seed=0), pool, batch=16)
    drawn = loss.spare().draw(ensemble, 1, stream)
    assert drawn.shape == (16, 2) and not torch.isin(drawn, pool).all()
    assert torch.equal(loss.pool, pool)
    assert (loss.step_size, loss.gradient_evaluations) == (0.1, 0)
    loss.draw(ensemble, 1, stream)
    assert not torch.equal(loss.pool, pool) and loss.gradient_evaluations > 0
