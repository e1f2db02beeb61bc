"""Scalars of sites have names, and a table sums them up."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from nfvi.fit.scalars import scalars, summarize, summary_lines


def test_every_scalar_has_a_name_and_its_draws():
    x = torch.arange(12.0).reshape(2, 2, 3)
    found = dict(scalars({"a b": x[:, 0, 0], "m": x}))
    assert list(found) == ["a b", *(f"m[{i}, {j}]" for i in range(2) for j in range(3))]
    assert found["a b"].tolist() == [0.0, 6.0] and found["m[1, 2]"].tolist() == [5.0, 11.0]


def test_the_table_has_moments_and_intervals():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    table = summarize({"a": x, "m": torch.stack([x, 2 * x, 3 * x, 4 * x], 1).reshape(-1, 2, 2)})
    assert list(table.columns) == ["mean", "sd", "hdi_3%", "hdi_97%", "mcse_mean", "mcse_sd"]
    assert list(table.index) == ["a", "m[0, 0]", "m[0, 1]", "m[1, 0]", "m[1, 1]"]
    moments = table.loc[:, :"hdi_97%"]
    assert list(moments.loc["a"]) == pytest.approx([0.5, 0.2930, 0.0, 0.94], rel=1e-3)
    assert list(moments.loc["m[1, 1]"]) == pytest.approx([2.0, 1.172, 0.0, 3.76], rel=1e-3)
    assert list(summarize(x.unsqueeze(1)).index) == ["z[0]"]


def test_equal_weights_change_nothing():
    x = torch.randn(1_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pd.testing.assert_frame_equal(summarize(x), summarize(x, torch.full((1_000,), 7.0)))


def test_a_draw_without_weight_may_be_anything():
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    more = torch.cat([x, torch.tensor([[math.nan], [math.inf]])])
    weights = torch.cat([torch.ones(50), torch.zeros(2)])
    pd.testing.assert_frame_equal(summarize(more, weights), summarize(x, torch.ones(50)))


def test_errors_of_weighted_draws_are_those_of_repetitions():
    """Of 400 repetitions the sd of an estimate is known to 3.5 %; five of these are 18 %."""
    means, sds, errors = [], [], []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        x = 1.5 * torch.randn(500, 1, generator=generator, dtype=torch.float64)
        row = summarize(x, (-0.5 * x**2 + 0.5 * (x / 1.5) ** 2).exp().flatten()).iloc[0]
        means.append(row["mean"])
        sds.append(row["sd"])
        errors.append([row["mcse_mean"], row["mcse_sd"]])
    found = np.mean(errors, 0)
    assert [np.std(means), np.std(sds)] == pytest.approx(found.tolist(), rel=0.18)
    assert abs(np.mean(means)) < 5 * found[0] / 20 and abs(np.mean(sds) - 1) < 0.005


def test_errors_are_those_of_independent_draws():
    """Of a normal the mean has sd/√n, and the sd has sd/√(2n)."""
    x = 3 * torch.randn(40_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    row = summarize({"a": x}).loc["a"]
    assert row["mcse_mean"] == pytest.approx(3 / 200, rel=0.02)
    assert row["mcse_sd"] == pytest.approx(3 / 200 / 2**0.5, rel=0.05)
    assert summarize({"a": torch.ones(5)}).loc["a", "mcse_sd"] == 0


def test_a_single_draw_has_no_sd():
    lines = str(summarize({"a": torch.tensor([2.0])})).splitlines()
    assert lines[1].split() == ["a", "2.000", "-", "2.000", "2.000", "-", "-"]


def test_a_terminal_gets_the_first_rows():
    table = summarize({"a": torch.randn(10, 5)})
    assert [line.split()[0] for line in summary_lines(table, 2).splitlines()[1:]] == [
        "a[0]", "a[1]", "...",
    ]  # fmt: skip
    assert len(summary_lines(table, 5).splitlines()) == 6
