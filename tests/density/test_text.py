"""What ``print(fit)`` says of a fit to data, for made-up numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from nfvi.density.quality import Likelihood, Quality
from nfvi.density.text import DensityReport, describe
from nfvi.density.validation import ValidationRecord

TRAIN = Likelihood(mean=-2.0, se=0.05, gaussian=-2.5, rows=1_800)
HELD_OUT = Likelihood(mean=-2.03, se=0.1, gaussian=-2.5, rows=200)
MADE = DensityReport(
    formula="maf*2",
    base="normal",
    dim=2,
    context_dim=0,
    seed=3,
    steps=1_000,
    batch_size=180,
    wall_time=12.345,
    stopped="steps",
    quality=Quality(TRAIN, HELD_OUT),
    validation=None,
)


def text(**changes: Any) -> str:
    """The text in one line."""
    found = describe(replace(MADE, **changes))
    assert max(map(len, found.splitlines())) <= 88, found
    return " ".join(found.split())


def looks(*values: float) -> ValidationRecord:
    steps = torch.arange(1, len(values) + 1) * 10
    tensor = torch.tensor(values, dtype=torch.float64)
    return ValidationRecord(steps, tensor, int(tensor.argmax()))


def test_header_and_numbers() -> None:
    assert describe(MADE).splitlines()[:6] == [
        "NFVI 'maf*2' on data, d = 2, base normal, seed 3",
        "  1,000 steps of 180 rows (100 epochs), 12.3 s (all steps done)",
        "",
        "  log-likelihood in nats a row, and that of a Gaussian with full covariance:",
        "  training   -2.000 ± 0.050  Gaussian -2.500  1,800 rows",
        "  held out     -2.03 ± 0.10  Gaussian -2.500  200 rows",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context_dim": 4}, "d = 2, context of 4, base"),
        ({"stopped": "interrupted"}, "interrupted; refine() continues"),
        (
            {"validation": looks(-3.0, -2.0, -2.5)},
            "after step 20, the best on the held-out rows of 3 looks",
        ),
        (
            {"quality": Quality(TRAIN, None)},
            "No rows were held out, so nothing here can show overfitting",
        ),
        (
            {"quality": Quality(TRAIN, replace(HELD_OUT, mean=-2.4))},
            "Training rows are 0.4 nats likelier",
        ),
        (
            {"quality": Quality(TRAIN, replace(HELD_OUT, gaussian=-2.0))},
            "a Gaussian with full covariance does as well",
        ),
        ({"quality": Quality(replace(TRAIN, gaussian=math.nan), HELD_OUT)}, "- (singular)"),
        (
            {"validation": looks(*(-4.0 + 0.1 * i for i in range(10)))},
            "rose by 0.2 nats in the last fifth",
        ),
    ],
)
def test_words(changes: dict[str, Any], words: str) -> None:
    assert words in text(**changes) and words not in text()


def test_few_looks_or_an_earlier_best_say_nothing_of_a_rise() -> None:
    assert "last fifth" not in text(validation=looks(*(-4.0 + 0.1 * i for i in range(9))))
    assert "last fifth" not in text(validation=looks(*(-4.0 + 0.1 * i for i in range(10)), -4.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stopped": "interrupted"}, "(interrupted)"),
        ({"quality": Quality(TRAIN, None)}, "--validation 0.1 holds out a tenth"),
        ({"quality": Quality(TRAIN, replace(HELD_OUT, mean=-2.4))}, "smaller layers, or more rows"),
        ({"validation": looks(*(-4.0 + 0.1 * i for i in range(10)))}, "more epochs, --epochs,"),
    ],
)
def test_advice_in_the_words_of_a_shell(changes: dict[str, Any], said: str) -> None:
    found = text(shell=True, **changes)
    assert said in found and "fit." not in found and "optimizer=" not in found
