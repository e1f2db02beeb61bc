"""Scalars of sites have names, and a table sums them up."""

from __future__ import annotations

import pytest
import torch

from nfvi.fit.scalars import scalars, summarize


def test_every_scalar_has_a_name_and_its_draws():
    x = torch.arange(12.0).reshape(2, 2, 3)
    found = dict(scalars({"a b": x[:, 0, 0], "m": x}))
    assert list(found) == ["a b", "m[0,0]", "m[0,1]", "m[0,2]", "m[1,0]", "m[1,1]", "m[1,2]"]
    assert found["a b"].tolist() == [0.0, 6.0] and found["m[1,2]"].tolist() == [5.0, 11.0]


def test_the_table_has_moments_and_quantiles():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    table = summarize({"a": x, "m": torch.stack([x, 2 * x, 3 * x, 4 * x], 1).reshape(-1, 2, 2)})
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["mean", "sd", "5%", "50%", "95%"]
    assert [line[0] for line in lines[1:]] == ["a", "m[0,0]", "m[0,1]", "m[1,0]", "m[1,1]"]
    assert [float(v) for v in lines[1][1:]] == pytest.approx([0.5, 0.2930, 0.05, 0.5, 0.95])
    assert [float(v) for v in lines[5][1:]] == pytest.approx([2.0, 1.172, 0.2, 2.0, 3.8], rel=1e-3)


def test_a_single_draw_has_no_sd():
    assert summarize({"a": torch.tensor([2.0])}).splitlines()[1].split() == [
        "a", "2.000", "-", "2.000", "2.000", "2.000",
    ]  # fmt: skip
