"""What a run says of itself, for made-up numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from nfvi.mcmc.summary import RunReport, ScalarSummary, scalar_table, summary_text

ROW = ScalarSummary("z[0]", 1.0, 0.5, 0.2, 1.8, 1.001, 900.0, 800.0)
MADE = RunReport(
    kernel="NUTS",
    target="pot1",
    chains=2,
    draws=500,
    warmup=300,
    seed=4,
    wall_time=2.5,
    warmup_time=1.0,
    sampling_time=3.0,
    gradient_evaluations=8_000,
    accept=[0.8, 0.91],
    step_size=[0.5, 0.25],
    diverged=0,
    cut=0,
    max_gradients=1023,
    interrupted=False,
    table=(ROW,),
)


def text(**changes: Any) -> str:
    return summary_text(replace(MADE, **changes))


def test_the_whole_text() -> None:
    assert text().splitlines() == [
        "NUTS on pot1: 2 chains of 500 draws after 300 of warm-up; seed 4",
        "2.5 s (warm-up 1.0, draws 3.0); 8000 gradients, 0.50 ms each",
        "acceptance 0.800, 0.910; step size 0.500, 0.250; 0 of 1000 draws diverged",
        "",
        "       mean     sd  hdi_3%  hdi_97%  ess_bulk  ess_tail  r_hat",
        "z[0]  1.000  0.500   0.200    1.800       900       800  1.001",
        "",
        "No divergence, R-hat within 1.01, ESS of 100 a chain or more: nothing here speaks",
        "against the draws. R-hat cannot see a mode that no chain has visited.",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interrupted": True}, "Interrupted: these are the draws finished until then."),
        ({"diverged": 7}, "7 draws diverged: near them the step is too long"),
        ({"cut": 3}, "3 draws were cut at 1023 gradients: the step is small beside the width of"),
        ({"chains": 1}, "One chain gives no R-hat; run two or more."),
        (
            {"table": (ROW, replace(ROW, name="b", rhat=1.2))},
            "R-hat is up to 1.200 (b): the chains",
        ),
        (
            {"table": (ROW, replace(ROW, name="b", ess_tail=150.0))},
            "ESS is down to 150 (b), under 100 a",
        ),
        (
            {"accept": [0.1, 0.5, 0.7, 0.8, 0.9]},
            "acceptance 0.100 to 0.900; step size 0.500, 0.250",
        ),
        (
            {"table": tuple(replace(ROW, name=f"z[{i}]") for i in range(33))},
            "... and 3 more in .table",
        ),
    ],
)
def test_words(changes: dict[str, Any], words: str) -> None:
    assert words in " ".join(text(**changes).split("\n")) and words not in text()


def test_numbers_that_are_not_known_are_dashes() -> None:
    unknown = replace(ROW, rhat=math.nan, ess_bulk=math.nan, ess_tail=math.nan)
    assert text(table=(unknown,)).splitlines()[5].split()[-3:] == ["-", "-", "-"]


def test_a_row_for_every_scalar_that_varies() -> None:
    x = torch.linspace(0, 1, 101, dtype=torch.float64).expand(2, 101)
    sites = {"a": x, "b": torch.stack([torch.zeros_like(x), 2 * x], -1)}
    checks = {"a": torch.tensor(1.0), "b": torch.tensor([math.nan, 3.0])}
    first, second = scalar_table(sites, checks, checks, checks)
    assert (first.name, second.name, second.rhat) == ("a", "b[1]", 3.0)
    # Of twice 101 places the narrowest that hold more than 94 % are the first 95 of them.
    assert [first.mean, first.hdi_low, first.hdi_high] == pytest.approx([0.5, 0.0, 0.94])
    assert first.sd == pytest.approx(float(x.std())) and second.sd == pytest.approx(2 * first.sd)


def test_advice_in_the_words_of_a_shell() -> None:
    many = tuple(replace(ROW, name=f"z[{i}]") for i in range(33))
    found = " ".join(text(diverged=7, cut=3, table=many, shell=True).split("\n"))
    assert "region. A longer --warmup, or" in found and "Longer warm-up, or repara" in found
    assert "and 3 more" in found
    assert not [word for word in ("target_accept", "mass=", ".table") if word in found]
