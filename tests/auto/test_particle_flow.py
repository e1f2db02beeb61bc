"""Learning a flow from particles that go on moving."""

from __future__ import annotations

import torch

from models import make_gaussian
from nfvi.auto.particle_flow import FORMULA, Particles, PooledLikelihood, broad_base
from nfvi.guides import Guide
from nfvi.search import MissedMass, Place
from nfvi.starts import gaussian_guide
from nfvi.training import Ensemble

DTYPE = torch.float64


def test_a_spare_moves_nothing_on() -> None:
    """A trace is tried on further batches; the pool of the fit must not see them."""
    stream = torch.Generator().manual_seed(0)
    pool = torch.randn(64, 2, dtype=DTYPE, generator=stream)
    ensemble = Ensemble([Guide(FORMULA, 2, dtype=DTYPE, generator=stream)])
    loss = PooledLikelihood(make_gaussian(2, seed=0), pool, batch=16)
    drawn = loss.spare().draw(ensemble, 1, stream).x
    assert drawn.shape == (16, 2) and not torch.isin(drawn, pool).all()
    assert torch.equal(loss.pool, pool)
    assert (loss.step_size, loss.gradient_evaluations) == (0.1, 0)
    loss.draw(ensemble, 1, stream)
    assert not torch.equal(loss.pool, pool) and loss.gradient_evaluations > 0


def test_particles_that_the_flow_draws_too_seldom_count_more() -> None:
    """The gradient is that of the halves of KL(p ‖ q) and of the α-divergence, by hand."""
    stream = torch.Generator().manual_seed(0)
    target = make_gaussian(2, seed=0)
    ensemble = Ensemble([Guide("scale-loc", 2, dtype=DTYPE, generator=stream)])
    loss = PooledLikelihood(target, torch.randn(64, 2, dtype=DTYPE, generator=stream), batch=16)
    batch = loss.draw(ensemble, 1, stream)
    torch.testing.assert_close(batch.log_p, target.log_prob(batch.x))
    terms, recorded = loss(ensemble, batch, torch.ones(1, dtype=DTYPE))
    log_q = ensemble.log_likelihood(batch.x)
    ratio = (batch.log_p - log_q.detach()).exp()
    by_hand = -(0.5 + 0.5 * ratio / ratio.mean()) * log_q
    (found,) = torch.autograd.grad(terms.mean(), ensemble.flat)
    (expected,) = torch.autograd.grad(by_hand.mean(), ensemble.flat)
    torch.testing.assert_close(found, expected)
    assert torch.equal(recorded, log_q.detach())
    assert float((ratio / ratio.mean()).max()) < 10.0  # so that none was cut here


def test_one_particle_does_not_rule_a_step() -> None:
    stream = torch.Generator().manual_seed(0)
    ensemble = Ensemble([Guide("scale-loc", 2, dtype=DTYPE, generator=stream)])
    x = torch.randn(64, 2, dtype=DTYPE, generator=stream)
    loss = PooledLikelihood(make_gaussian(2, seed=0), x, batch=64)
    log_p = ensemble.log_likelihood(x)[0].detach()
    log_p[0] += 50.0
    terms, log_q = loss(ensemble, Particles(x, log_p), torch.ones(1, dtype=DTYPE))
    torch.testing.assert_close(terms[0, 0], -5.5 * log_q[0, 0])
    torch.testing.assert_close(terms[0, 1:], -0.5 * log_q[0, 1:])


def test_the_base_reaches_where_ascents_ended_and_no_place_is() -> None:
    """All places at 2 in the first coordinate, where some ascents ended at −2."""
    places = tuple(Place(torch.tensor([2.0, y], dtype=DTYPE), 0.0, 0.1, 1.0) for y in (-2.0, 2.0))
    extent = torch.tensor([-2.0, -2.0], dtype=DTYPE), torch.tensor([2.0, 2.0], dtype=DTYPE)
    found = MissedMass(places, 0.2, 0.0, 0.0, 0.0, 100, 16, 10.0, 1, 16, extent=extent)
    one = gaussian_guide(torch.full((2,), 2.0, dtype=DTYPE), 0.3 * torch.eye(2, dtype=DTYPE), DTYPE)
    base = broad_base(one, found, torch.Generator().manual_seed(0))
    torch.testing.assert_close(base.loc, torch.zeros(2, dtype=DTYPE), atol=0.1, rtol=0)
    assert (base.scale > 2 * 2.0).all() and (base.scale < 2 * 2.2).all()
