"""What the rungs of a climb are run with."""

from __future__ import annotations

import pytest

from nfvi.auto.rungs import (
    candidates,
    learned_rungs,
    plan_of,
    prolonged,
    settled,
    sharpened,
    tailed_rung,
)

RUNGS = (*learned_rungs(2), *learned_rungs(100), *candidates(2), prolonged(candidates(2)[0]))


@pytest.mark.parametrize("rung", [*RUNGS, tailed_rung(2)])
def test_a_rung_has_its_own_settings_and_no_default_of_a_formula(rung):
    """So that a climb stays as it is when the defaults of ``NFVI("planar*8").fit`` change."""
    plan = plan_of(rung, len(rung.tempered), 2, seed=0)
    assert (plan.steps, plan.n_mc, plan.lr) == (rung.steps, rung.n_mc, rung.lr)
    assert plan.lengths == tuple(round(part * rung.steps) for part in rung.tempered)
    assert plan.draws == ("iid" if rung.independent else "qmc")
    assert not plan.prune and not plan.open_ended and not plan.growing and not plan.adaptive


def test_draws_are_independent_where_the_best_of_a_tournament_goes_on():
    """On a normal base made heavier; that of the waves has even ones."""
    for way in (sharpened, settled, prolonged):
        assert [way(one).independent for one in candidates(2)] == [True, False, False]
    assert not any(rung.independent for dim in (2, 60, 100) for rung in learned_rungs(dim))
