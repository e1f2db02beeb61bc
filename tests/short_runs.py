"""What takes long, cut short, for tests that run what users read: pages and commands."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

import nfvi
from nfvi.fit import restarts

__all__ = ["at_most", "cut_short"]


def at_most(function: Callable[..., Any], **most: int) -> Callable[..., Any]:
    """A function whose numbers are cut to a maximum, given or by default."""

    @functools.wraps(function)
    def shorter(*args: Any, **kwargs: Any) -> Any:
        for name, value in most.items():
            given = kwargs.get(name)
            kwargs[name] = min(given, value) if isinstance(given, int) else value
        return function(*args, **kwargs)

    return shorter


def _short_fit() -> Callable[..., Any]:
    """``NFVI.fit`` with few steps, or with a budget of few where the formula is to be found."""
    fit, shorter = nfvi.NFVI.fit, at_most(nfvi.NFVI.fit, steps=40, n_mc=8, restarts=2)

    def quick(start: nfvi.NFVI, *args: Any, **kwargs: Any) -> nfvi.Fit:
        if start.formula == "auto":
            return fit(start, *args, **{**kwargs, "budget": nfvi.Budget(steps=10)})
        return shorter(start, *args, **kwargs)

    return functools.wraps(fit)(quick)


def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits, chains and diagnostics of a few steps and draws, for one test."""
    monkeypatch.setattr(nfvi.NFVI, "fit", _short_fit())
    monkeypatch.setattr(nfvi.NFVI, "fit_data", at_most(nfvi.NFVI.fit_data, epochs=2))
    refine = nfvi.Fit.refine
    monkeypatch.setattr(
        nfvi.Fit, "refine", lambda fit, steps, **kw: refine(fit, min(steps, 4), **kw)
    )
    monkeypatch.setattr("nfvi.fit.measured.DIAGNOSTIC_DRAWS", 400)
    monkeypatch.setattr(restarts, "DRAWS", 100)
    for name in ("DRAWS", "DRAWS_FEW_DIMENSIONS", "FEWEST_DRAWS"):
        monkeypatch.setattr(f"nfvi.search.search.{name}", 1_000)
    chains = {"draws": 10, "warmup": 10, "chains": 2}
    nuts = at_most(nfvi.nuts, **chains, max_tree_depth=3)
    compare = at_most(nfvi.compare, draws=50)
    for place in ("nfvi", "nfvi.cli.run"):
        monkeypatch.setattr(f"{place}.nuts", nuts)
        monkeypatch.setattr(f"{place}.compare", compare)
    fit_nuts = at_most(nfvi.Fit.nuts, **chains, max_tree_depth=3)
    monkeypatch.setattr(nfvi.Fit, "nuts", fit_nuts)
    monkeypatch.setattr(nfvi.Fit, "verify", at_most(nfvi.Fit.verify, chains=100))
    monkeypatch.setattr(nfvi, "calibrate", at_most(nfvi.calibrate, simulations=10))
    monkeypatch.setattr(nfvi, "hmc", at_most(nfvi.hmc, **chains))
    monkeypatch.setattr(logging.getLogger("nfvi"), "level", logging.NOTSET)
