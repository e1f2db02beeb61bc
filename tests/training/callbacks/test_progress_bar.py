"""The progress bar shows ELBO, gradient and speed where somebody looks, and nothing elsewhere."""

from __future__ import annotations

import io
import sys
from functools import partial

import pytest

from models import pot4
from nfvi import NFVI, Budget, ProgressBar
from nfvi.training.callbacks import with_progress
from nfvi.training.callbacks.progress_bar import shorten


def normal(z):
    return -0.5 * (z**2).sum(-1)


fit = partial(NFVI("scale-loc", seed=0).fit, normal, dim=2, n_mc=16, restarts=2)


def test_says_nothing_by_default_where_nobody_looks(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    fit(steps=5)
    fit(steps=5, progress=False)
    assert capsys.readouterr() == ("", "")


def test_shows_elbo_gradient_and_speed(capsys):
    result = fit(steps=60, progress=True)
    out, err = capsys.readouterr()
    last = err.strip().split("\r")[-1]
    assert out == "" and "60/60" in last and "it/s" in last
    assert last.startswith("scale-loc: 100%")
    # The mean over the last 50 steps, and the gradient of the last one, of the best restart.
    elbo = result.history.elbo[-50:].mean(0)
    norm = result.history.grad_norm[-1, elbo.argmax()]
    assert f"elbo={elbo.max():.3f}" in last and f"gradient={norm:.2g}" in last


def test_counts_the_steps_of_this_run_when_a_fit_goes_on(capsys):
    fit(steps=30).refine(20, progress=True)
    assert "20/20" in capsys.readouterr().err


def test_names_each_rung_of_a_climb_and_cuts_long_formulas_short(capsys):
    bar = [ProgressBar()]
    NFVI("auto", seed=0).fit(pot4, budget=Budget(steps=3), callbacks=bar)
    assert capsys.readouterr().err.strip().split("\r")[-1].startswith("monotone")
    assert shorten("planar*8") == "planar*8"
    assert shorten("monotone(features=fourier(8))*2") == "monotone(features=fouri…"


def test_is_closed_after_an_error(capsys):
    bar = ProgressBar()

    def fail(state):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fit(steps=5, callbacks=[bar, fail])
    assert bar._bar.disable  # what tqdm sets when it is closed


def test_one_bar_at_most(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    mine = ProgressBar(every=10)
    assert with_progress([mine], True) == with_progress([mine], False) == (mine,)
    assert with_progress([], False) == ()
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert [type(c) for c in with_progress([], None)] == [ProgressBar]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="every must be an integer"):
        ProgressBar(every=0)
