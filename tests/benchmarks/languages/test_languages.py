"""One posterior whichever library says it, and the page that says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.languages import in_pyro
from benchmarks.languages.data import MODELS
from benchmarks.languages.page import page, spread
from benchmarks.languages.sites import COMPARED, moments, noise
from nfvi import as_target


@pytest.mark.parametrize("name", MODELS)
def test_the_same_density_in_pyro_and_numpyro(name: str) -> None:
    """With its constants and Jacobians, at points whose sites come in the same order."""
    pytest.importorskip("numpyro")
    from benchmarks.languages import in_numpyro

    pyro, numpyro = (as_target(module.target(name)) for module in (in_pyro, in_numpyro))
    z = torch.randn(3, pyro.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(numpyro.log_prob(z), pyro.log_prob(z))
    ours, theirs = (target.constrain(z) for target in (pyro, numpyro))
    for site, size in COMPARED[name].items():
        torch.testing.assert_close(theirs[site], ours[site])
        assert ours[site].numel() == 3 * size


def test_the_loop_of_pyro_and_the_form_that_nuts_runs_on() -> None:
    loop, at_once = in_pyro.target("garch"), as_target(in_pyro.garch_at_once)
    z = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(at_once.log_prob(z), loop.log_prob(z))
    for site, value in loop.constrain(z).items():
        torch.testing.assert_close(at_once.constrain(z)[site], value)


def row(method: str, log_evidence: float, **values: Any) -> dict[str, Any]:
    return {
        "method": method,
        "target": "schools",
        "log_evidence": log_evidence,
        "log_evidence_se": 0.003,
        "verdict": "good",
        "khat": 0.4,
        "mean_error": 0.02,
        "sd_error": 0.031,
        "cpu_time": 9.0,
        "wall_time": 12.0,
        "nuts_error": 0.0123,
        "nuts_time": 40.0,
        "environment": "2026-01-02, here",
        **values,
    }


def test_the_page() -> None:
    rows = [row("pyro", -31.3), row("stan", -31.32), row("pymc", -31.308)]
    text = page(rows)
    assert "| Stan | −31.3200 ± 0.0030 | good | 0.40 | 0.020 | 3.1% | 9 | 12 | 0.012 | 40 |" in text
    assert "farthest apart differ by 4.7 standard errors" in text
    assert text.count("2026-01-02, here") == 1
    assert spread(rows) == pytest.approx(0.02 / (2 * 0.003**2) ** 0.5)
    assert "One library alone has been run." in page(rows[:1])
    assert "The CPU time" not in text


def test_the_page_says_what_a_loop_of_python_costs() -> None:
    rows = [row(name, -301.5, target="garch") for name in ("stan", "pyro", "numpyro")]
    rows[0]["cpu_time"], rows[1]["cpu_time"] = 4.0, 36.0
    text = page(rows)
    assert "through Pyro is 9.0 times that of Stan, 4.0 times that of NumPyro;" in text
    assert "The CPU time" not in page(rows[:1])


def test_moments_of_chains_and_of_draws_are_in_one_order() -> None:
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(size=100), "tau": rng.normal(size=100)}
    draws["theta"] = rng.normal(size=(100, 8))
    chains = {site: value.reshape(4, 25, *value.shape[1:]) for site, value in draws.items()}
    for found, expected in zip(moments("schools", chains), moments("schools", draws), strict=True):
        assert found.shape == (10,)
        np.testing.assert_allclose(found, expected)
    assert moments("schools", draws)[0][1] == pytest.approx(draws["tau"].mean())


def test_the_error_of_means_of_chains() -> None:
    """1 / √n for n independent draws, and the largest over the scalars."""
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(size=(4, 500)), "theta": rng.normal(size=(4, 500, 8))}
    draws["tau"] = rng.normal(size=(4, 125)).repeat(4, axis=1)
    assert noise("schools", draws) == pytest.approx(500**-0.5, rel=0.1)
