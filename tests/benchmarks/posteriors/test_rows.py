"""What benchmarks/posteriors measures of a guide, of a path of rungs, and of chains."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import models
from benchmarks.posteriors import rows
from benchmarks.posteriors.cases import Case, modes_found
from benchmarks.posteriors.metrics import exact_reference
from benchmarks.posteriors.nuts import nuts_row
from benchmarks.posteriors.rows import check_complete, guide_quality, timed_search
from models.gaussian import Gaussian
from nfvi import NFVI
from nfvi.guides.guide import Guide


def gaussian_case() -> Any:
    """A standard normal in two dimensions, with log Z = log 2π."""
    target = Gaussian(torch.zeros(2), torch.eye(2))
    reference = exact_reference(target)
    return Case("gaussian", "exact", target, reference, math.log(math.tau))


def guide(shift: float = 0.0) -> Guide:
    made = Guide("loc", 2, jitter=0.0, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(shift)
    return made


def test_an_exact_guide_has_nothing_but_the_noise_of_its_draws() -> None:
    """n b² of a mean is chi-squared with one degree of freedom: over 25 once in two million."""
    n = 2000
    found = guide_quality(gaussian_case(), guide(), n, 3)
    assert max(found["b2_raw_worst"], found["b2_psis_worst"]) < 25 / n
    assert found["b2_raw_average"] <= found["b2_raw_worst"]
    assert found["khat"] == -math.inf and found["efficiency"] == pytest.approx(1)
    assert found["elbo"] == pytest.approx(math.log(math.tau))
    assert found["log_evidence"] == pytest.approx(math.log(math.tau))


def test_weights_put_a_shifted_guide_right() -> None:
    """Shifted by s = 0.5 in both: b² of the mean is s², and KL is s² nats.

    Weighted draws are worth e^{-2 s²} of their number, 12 000; b² over 25 times its expectation
    comes up once in two million. The ELBO's sd is s √2 / √n.
    """
    n, shift = 20_000, 0.5
    found = guide_quality(gaussian_case(), guide(shift), n, 3)
    assert found["b2_raw_worst"] == pytest.approx(shift**2, abs=5 * 2 * shift / n**0.5)
    assert found["b2_psis_worst"] < 2 * 25 / (n * math.exp(-2 * shift**2))
    error = 5 * shift * 2**0.5 / n**0.5
    assert found["elbo"] == pytest.approx(math.log(math.tau) - shift**2, abs=error)


def test_draws_without_any_weight_are_no_result() -> None:
    case = gaussian_case()
    z = torch.zeros(4, 2, dtype=torch.float64)
    nothing = torch.full((4,), -torch.inf, dtype=torch.float64)
    found = rows._bias(case, SimpleNamespace(z=z, log_weights=nothing))
    assert found["b2_raw_worst"] == 1 / 2  # of x²: (0 − 1)² / 2
    assert math.isnan(found["b2_psis_worst"])


def rung(bias: float, batches: int, khat: float = 0.1, raw: float = 1.0) -> dict[str, Any]:
    return {
        **{"b2_psis_worst": bias, "b2_raw_worst": raw, "khat": khat, "formula": f"at {batches}"},
        **{"batched_evaluations": batches, "gradient_evaluations": 9, "wall_time": 1.0},
    }


@pytest.mark.parametrize(
    ("path", "cost"),
    [
        ([rung(0.5, 10), rung(0.005, 20)], 20),
        ([rung(0.005, 10), rung(0.5, 20)], 30),
        ([rung(0.005, 10), rung(0.001, 20)], 10),
        # Weighted draws do not count where k-hat is 0.7, but raw ones do.
        ([rung(0.005, 10, khat=0.7), rung(0.5, 20, khat=0.8, raw=0.001)], 20),
        ([], 30),
    ],
)
def test_a_path_is_accurate_from_its_first_good_rung(path: list[dict[str, Any]], cost: int) -> None:
    assert rows._to_accuracy({**rung(0.001, 30), "path": path})["to_accuracy"] == cost
    assert rows._to_accuracy({**rung(0.1, 30), "path": path})["to_accuracy"] is None


def test_an_interrupted_fit_is_no_result() -> None:
    check_complete(SimpleNamespace(stopped="steps"))
    check_complete(SimpleNamespace(stopped="auto", path=SimpleNamespace(reason="k-hat is small")))
    for stopped, reason in (("interrupted", "x"), ("auto", "interrupted")):
        with pytest.raises(KeyboardInterrupt):
            check_complete(SimpleNamespace(stopped=stopped, path=SimpleNamespace(reason=reason)))


def test_chains_are_measured_on_the_same_scale() -> None:
    row = nuts_row(gaussian_case(), 1, draws=100)
    # Four times the sequential count is at least the total: it is of the longest chain.
    assert 4 * row["sequential_evaluations"] >= row["gradient_evaluations"] > 800
    assert row["to_accuracy"] is None or row["to_accuracy"] <= row["sequential_evaluations"]
    assert row["b2_average"] <= row["b2_worst"] < 25 / 20  # even if 20 draws were effective
    assert "modes" not in row


def test_chains_run_on_sufficient_statistics_and_the_row_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = gaussian_case()
    summarised = replace(case, summarised=Gaussian(torch.zeros(2), torch.eye(2)))
    plain = nuts_row(case, 1, draws=10)
    monkeypatch.setattr(case.target, "log_prob", None)
    row = nuts_row(summarised, 1, draws=10)
    assert row["density"] == "sufficient statistics" and "density" not in plain
    assert row["b2_worst"] == plain["b2_worst"]


def test_modes_are_counted_by_their_share() -> None:
    target = models.mixture_10d
    means = target.means
    assert modes_found(target, means) == (8, 8)
    assert modes_found(target, means[:3]) == (3, 8)
    few = torch.cat([means[:7].repeat(100, 1), means[7:]])
    assert modes_found(target, few) == (7, 8)
    assert modes_found(models.pot1, torch.zeros(1, 2)) is None


def test_the_time_of_a_search_is_part_of_that_of_the_fit() -> None:
    started = time.process_time()
    with timed_search() as searched:
        assert searched.seconds == 0
        NFVI("auto", seed=1).fit(Gaussian(torch.zeros(2), torch.eye(2)), progress=False)
    assert 0 < searched.seconds < time.process_time() - started
