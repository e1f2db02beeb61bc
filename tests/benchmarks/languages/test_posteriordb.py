"""posteriordb's posteriors in Stan and as loops of Pyro: the densities of the Pyro forms."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.languages.posteriordb_page import stan_part
from benchmarks.languages.pyro_loops import LOOPS, loop_target
from benchmarks.languages.stan_posteriors import PROGRAMS
from models.posteriordb import POSTERIORS, posteriordb_target
from nfvi import StanTarget
from nfvi.targets import Target

SERIES: dict[str, Any] = {"y": np.random.default_rng(0).normal(size=12).tolist(), "T": 12, "K": 3}


def in_pyro(name: str) -> Target:
    data = SimpleNamespace(values=lambda: SERIES)
    return posteriordb_target(SimpleNamespace(name=name, data=data))


def points(target: Target) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 * torch.randn(5, target.dim, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_pyro_have_the_density_of_the_form_without(name: str) -> None:
    pyro, loop = in_pyro(name), loop_target(name, SERIES)
    z = points(pyro)
    torch.testing.assert_close(loop.log_prob(z), pyro.log_prob(z))
    for site, value in pyro.constrain(z).items():
        torch.testing.assert_close(loop.constrain(z)[site], value)


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_program_of_each_with_the_sites_of_the_reference(name: str) -> None:
    """No statement with ``~``, whose constants a build by PyStan alone would lack."""
    text = PROGRAMS[name].read_text(encoding="utf-8")
    assert "~" not in re.sub(r"//.*", "", text)
    for site in POSTERIORS[name].sites:
        assert re.search(rf"^  \S.* {site}( = .*)?;$", text, re.MULTILINE), site


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", LOOPS)
def test_the_density_in_stan(name: str) -> None:
    """With all constants and the Jacobian. Stan builds for a minute or two, once."""
    pytest.importorskip("httpstan")
    pyro, stan = in_pyro(name), StanTarget(PROGRAMS[name], SERIES)
    z = points(pyro)
    torch.testing.assert_close(stan.log_prob(z), pyro.log_prob(z))


def fitted(method: str, cpu: float, evidence: float, **values: Any) -> dict[str, Any]:
    return {
        "method": method,
        "target": "arma-arma11",
        "seed": 1,
        "dim": 4,
        "verdict": "good",
        "khat": 0.31,
        "b2_psis_worst": 2.3e-4,
        "log_evidence": evidence,
        "log_evidence_se": 3e-4,
        "cpu_time": cpu,
        "wall_time": 2 * cpu,
        "build_cpu_time": 75.0,
        **values,
    }


def test_the_page_has_what_was_run() -> None:
    nuts = {"cpu_time": 3.0, "wall_time": 1.5, "b2_worst": 0.0021}
    rows = [
        fitted("stan", 8.0, 57.25),
        fitted("pyro-loop", 60.0, 57.2506),
        {"method": "stan-nuts", "target": "arma-arma11", "seed": 1, **nuts},
    ]
    known = [fitted("fit", 12.0, 57.2503), fitted("fit", 99.0, 50.0, seed=2)]
    known.append({"method": "numpyro", "target": "arma-arma11", "seed": 1})
    known[-1]["wall_time_compiled"] = 0.52
    text = stan_part(rows, known)
    assert (
        "| arma-arma11 | 4 | good | 0.31 | 0.00023 | 0.00023 | 0.7 | 75 | 8.0 | 12 | 16 | 24 |"
        in text
    )
    assert "| arma-arma11 | 8.0 | 16 | 3.0 | 1.5 | 0.0021 | – | – | – | 0.5 |" in text
    assert "| arma-arma11 | 8.0 | 60 | 7.5 | 1.4 | 0.00023 | 0.00023 |" in text
    assert stan_part([], known) == ""
    assert "| – | – | 75 | 8.0 | – | 16 | – |" in stan_part(rows, [])
