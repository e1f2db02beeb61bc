"""What benchmarks/posteriors makes of its rows: clean bills, goals, tables, the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.posteriors.accuracy import first_for_good, prefix_bias, sequential_gradients
from benchmarks.posteriors.cases import NAMES
from benchmarks.posteriors.goals import clean, evaluations_ratio, goals, has_nan, wrong
from benchmarks.posteriors.metrics import squared_bias
from benchmarks.posteriors.page import page
from benchmarks.posteriors.store import Store, read_rows
from benchmarks.posteriors.tables import costs
from benchmarks.posteriors.text import line
from models.moments import Moments
from models.posteriordb import POSTERIORS

FIT = {
    **{"method": "fit", "seed": 1, "settings": "auto", "status": "ok", "environment": "here"},
    **{"dim": 3, "formula": "tril", "stopped": "auto", "path": [], "warns": False},
    **{
        "b2_raw_worst": 1e-3,
        "b2_raw_average": 1e-4,
        "b2_psis_worst": 2e-4,
        "b2_psis_average": 1e-4,
    },
    **{"khat": 0.2, "efficiency": 0.9, "elbo": -1.0, "elbo_se": 0.01, "log_evidence": -0.99},
    **{"log_evidence_se": 0.01, "log_z": -0.999, "gap": 0.001, "gap_se": 1e-4},
    **{"steps": 10, "gradient_evaluations": 1000, "batched_evaluations": 100, "wall_time": 2.0},
    **{"to_accuracy": 50, "verify_passed": True, "verify_wrong": [], "verify_scalars": 3},
}
NUTS = {
    **{"method": "nuts", "seed": 1, "status": "ok", "environment": "there", "wall_time": 99.0},
    **{"b2_worst": 0.001, "b2_average": 1e-4, "rhat": 1.0, "ess": 1234.5, "divergences": 2},
    **{"tree_limit_reached": 0, "gradient_evaluations": 8000, "sequential_evaluations": 2000},
    **{"to_accuracy": 1000},
}
NUMPYRO = {"method": "numpyro", "seed": 1, "status": "ok", "environment": "there"}
NUMPYRO |= {"wall_time": 20.0, "wall_time_compiled": 1.5}
GRADIENTS = {
    **{"method": "gradients", "seed": 1, "settings": "realnvp*4, 1000 steps", "status": "ok"},
    **{"environment": "here", "formula": "realnvp*4", "steps": 1000},
    **{"elbo_path": -1.0, "elbo_total": -1.2, "log_z": None},
}


def fit(target: str, **changes: Any) -> dict[str, Any]:
    modes = {"modes": 8, "modes_all": 8} if target == "mixture_10d" else {}
    return {**FIT, "target": target, **modes, **changes}


def nuts(target: str, **changes: Any) -> dict[str, Any]:
    return {**NUTS, "target": target, **changes}


def gradients(target: str, **changes: Any) -> dict[str, Any]:
    return {**GRADIENTS, "target": target, **changes}


def goal(rows: list[dict[str, Any]], what: str) -> Any:
    (found,) = [g for g in goals(rows) if what in g.what]
    return found


@pytest.mark.parametrize(
    ("bias", "first"),
    [
        ([1.0, 0.5, 0.009, 0.001], 2),
        ([0.001, 0.5, 0.009], 2),  # below once by chance
        ([0.001, 0.002], 0),
        ([0.001, 0.01], None),  # not below
        ([0.001, math.nan, 0.001], 2),
        ([0.001, math.nan], None),
        ([], None),
    ],
)
def test_accuracy_counts_from_where_it_lasts(bias: list[float], first: int | None) -> None:
    assert first_for_good(bias) == first


def test_prefixes_are_the_first_draws_of_all_chains() -> None:
    values = torch.randn(3, 7, 2, dtype=torch.float64)
    reference = Moments(*torch.rand(4, 2, dtype=torch.float64) + 0.5)
    found = prefix_bias(values, reference)
    expected = [squared_bias(values[:, :t].flatten(0, 1), reference).worst for t in range(1, 8)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_sequential_gradients_are_those_of_the_longest_chain() -> None:
    gradients = torch.tensor([[1, 1, 10], [4, 1, 1]])
    found = sequential_gradients(gradients, 18 + 20)
    # Ten gradients of warm-up in either chain; the second is ahead until the first overtakes it.
    torch.testing.assert_close(found, torch.tensor([14.0, 15.0, 22.0], dtype=torch.float64))


def test_a_clean_bill_needs_both_and_is_wrong_by_either() -> None:
    assert clean(fit("pot1"))
    assert not clean(fit("pot1", khat=0.7))
    assert not clean(fit("pot1", khat=math.nan))
    assert not clean(fit("pot1", verify_passed=False))
    assert not clean({"status": "crashed", "target": "pot1"})
    assert not wrong(fit("pot1"))
    assert wrong(fit("pot1", b2_raw_worst=0.06))
    assert wrong(fit("pot1", b2_psis_worst=0.06))
    assert not wrong(fit("pot1", b2_raw_worst=0.06, khat=0.9))
    assert has_nan(fit("pot1", elbo=math.nan))
    assert not has_nan(fit("pot1", khat=-math.inf))


def test_failures_are_open_until_ten_seeds_are_run() -> None:
    few = [fit(name) for name in NAMES]
    many = [fit(name, seed=seed) for name in NAMES for seed in range(10)]
    what = "wrong with a clean bill"
    assert goal(few, what).reached is None
    assert goal(many, what).reached is True
    many[3] |= {"b2_raw_worst": 0.2}
    assert goal(many, what)[2:] == (f"1 of {10 * len(NAMES)}", False)
    many[5] = {k: many[5][k] for k in ("method", "target", "seed", "settings")}
    many[5] |= {"status": "crashed", "error": "ValueError: no"}
    assert goal(many, "crashes").reached is False


def test_shares_are_of_all_models() -> None:
    rows = [fit(name) for name in POSTERIORS]
    what = "worst b² < 0.0025 raw"
    assert goal(rows[:-1], what)[2:] == ("11 of 11, from 11 of 12 models", None)
    assert goal(rows, what)[2:] == ("12 of 12", True)
    rows[0] |= {"b2_raw_worst": 0.02}
    assert goal(rows, what).reached is True  # 11 of 12 are more than 90 %
    assert goal(rows, "largest b² raw")[2:] == ("0.02", False)
    rows[1] |= {"b2_raw_worst": math.nan}
    assert goal(rows, what)[2:] == ("10 of 12", False)
    assert goal(rows, "largest b² raw").reached is False


def test_what_is_not_trusted_must_say_so() -> None:
    rows = [fit(name) for name in NAMES]
    what = "k-hat ≥ 0.7"
    assert goal(rows, what)[2:] == ("0 and 0 of 0", True)
    rows[0] |= {"khat": 0.8, "warns": True, "verify_passed": False}
    assert goal(rows, what)[2:] == ("1 and 1 of 1", True)
    rows[0] |= {"verify_passed": True}
    assert goal(rows, what)[2:] == ("1 and 0 of 1", False)


SEARCHED = {"search_clean": True, "search_cpu_time": 1.0, "cpu_time": 10.0}


def test_false_alarms_are_open_until_ten_seeds_are_searched() -> None:
    """Rows of before there was a search do not count."""
    rows = [fit(name, seed=seed) for name in NAMES for seed in range(1, 11)]
    assert goal(rows, "false alarms").reached is None
    rows = [{**row, **SEARCHED} for row in rows]
    assert goal(rows, "false alarms").reached
    rows[3]["search_clean"] = False
    found = goal(rows, "false alarms")
    assert found.reached is False and found.found == f"1 of {len(rows)}"


def test_what_the_search_costs_is_a_median_over_posteriordb() -> None:
    rows = [fit(name, **SEARCHED) for name in NAMES]
    for row in rows:
        row["search_cpu_time"] = 1.0 if row["target"] in POSTERIORS else 9.0
    found = goal(rows, "share of the CPU time")
    assert found.found == "10%" and found.reached
    some = [row for row in rows if row["target"] != next(iter(POSTERIORS))]
    assert goal(some, "share of the CPU time").reached is None


def test_a_gap_is_that_of_the_worst_seed() -> None:
    rows = [fit("pot1", seed=seed, gap=gap) for seed, gap in enumerate((0.001, 0.009, 0.002))]
    assert goal(rows[:1], "pot1").reached is True
    found = goal(rows, "pot1")
    assert found.reached is False
    assert found.found.startswith("0.0090 ± 0.0001, the worst of 3 seeds; median 0.0020")
    assert goal([], "pot1").reached is None


def test_batches_are_held_against_what_nuts_needs() -> None:
    assert evaluations_ratio(fit("pot1"), nuts("pot1")) == 50 / 1000
    # The whole run stands for a NUTS that does not get there.
    assert evaluations_ratio(fit("pot1"), nuts("pot1", to_accuracy=None)) == 50 / 2000
    assert evaluations_ratio(fit("pot1", to_accuracy=None), nuts("pot1")) == math.inf
    rows = [row for name in NAMES for row in (fit(name), nuts(name))]
    assert goal(rows, "batches to b²").reached is True
    slow = [{**row, "to_accuracy": 101} if row["method"] == "fit" else row for row in rows]
    assert goal(slow, "batches to b²").reached is False


def test_the_mixture_may_lose_a_mode_in_one_seed_of_ten() -> None:
    rows = [fit("mixture_10d", seed=seed) for seed in range(10)]
    what = "all modes found"
    assert goal(rows[:9], what)[2:] == ("9 of 9", None)
    rows[0] |= {"modes": 7}
    assert goal(rows, what)[2:] == ("9 of 10", True)
    rows[1] |= {"modes": 7, "log_evidence": -1.06}
    assert goal(rows[:5], what)[2:] == ("3 of 5", False)
    assert goal(rows, "error of the log evidence")[2:] == ("0.0610", False)


def test_path_gradients_are_judged_by_one_comparison() -> None:
    fixed = [gradients(name, settings="realnvp*4, 1000 steps") for name in NAMES]
    few = [gradients(name, settings="planar, 1000 steps", elbo_total=-1.0) for name in NAMES[1:]]
    what = "path gradient"
    assert goal([*few, *fixed], what)[2:] == (f"{len(NAMES)} of {len(NAMES)}", True)
    # One row of "auto" is worth more than all of these.
    auto = [gradients(NAMES[0], settings="auto, 1000 steps or more", elbo_total=-1.0)]
    found = goal([*few, *fixed, *auto], what)
    assert found[2:] == (f"0 of 1, from 1 of {len(NAMES)} models", None)
    assert goal([fit("pot1")], what)[2:] == ("–", None)


def test_every_comparison_has_a_table_and_auto_the_first() -> None:
    auto = {"settings": "auto, 1000 steps or more", "formula": "tril", "components": 8}
    auto |= {"base": "laplace", "start": "fit", "steps": 2000}
    rows = [gradients("pot1"), gradients("mixture_10d", **auto)]
    text = page(rows)
    tables = [
        "| mixture_10d | `8 × tril` | laplace | fit | 2,000 | −1.0000 | −1.2000 | 0.2000 |",
        "| pot1 | `realnvp*4` | normal | auto | 1,000 | −1.0000 | −1.2000 | 0.2000 |",
    ]
    headings = ["`auto, 1000 steps or more`:", "`realnvp*4, 1000 steps`:"]
    places = [text.index(part) for pair in zip(headings, tables, strict=True) for part in pair]
    assert places == sorted(places)
    assert all(text.count(part) == 1 for part in (*tables, "## Path gradient and total gradient"))


def test_a_mixture_shows_its_components() -> None:
    rows = [fit("mixture_10d", components=8), fit("pot1", components=1), fit("pot2")]
    text = page(rows)
    assert "| mixture_10d | 3 | `8 × tril` |" in text
    assert all(f"| {name} | 3 | `tril` |" in text for name in ("pot1", "pot2"))
    assert ": 8 × tril, b²" in line(rows[0])
    # Seeds that found other numbers of modes chose other guides.
    rows = [fit("mixture_10d", seed=seed, components=7 + (seed > 0)) for seed in range(3)]
    assert "| `8 × tril` and 1 more |" in page(rows)


def test_seconds_that_are_not_those_of_the_model_have_a_star() -> None:
    rows = [nuts("pot1"), nuts("pot2", density="sufficient statistics")]
    header, table = costs(rows, "auto")
    assert [row[header.index("NUTS, s")] for row in table] == ["99", "99*"]


def test_the_page_shows_every_row() -> None:
    name = "sblrc-blr"
    rows = [
        *(fit(name), fit(name, seed=2, formula="diag", b2_raw_worst=3e-3), fit("pot1")),
        *(nuts(name), {**NUMPYRO, "target": name}, gradients(name)),
    ]
    text = page(rows)
    lines = text.splitlines()
    assert f"| {name} | 3 | `tril` and 1 more | 0.002 | 0.0001 | 0.0002 |" in text
    assert f"| {name} | 100 | 50 | 2,000 | 1,000 | 0.050 | 2.0 | 99 | 20 | 1.5 |" in lines
    assert f"| {name} | 2 | 0 | 0 | 2 | 0 | 0.003 | 0.0002 | 0.20 | 0.0010 |" in lines
    head = f"| {name} | `realnvp*4` | normal | auto | 1,000 |"
    assert f"{head} −1.0000 | −1.2000 | 0.2000 | – | yes |" in lines
    assert "- Fits: here." in lines
    assert "- Pyro's NUTS: there." in lines
    tables = [line for line in lines if line.startswith("|")]
    widths = [line.count("|") for line in tables]
    heads = [i for i, line in enumerate(tables) if line.startswith("| ---")]
    # Every row is as wide as the head of its table.
    for start, end in zip(heads, [*(i - 1 for i in heads[1:]), len(tables)], strict=True):
        assert len(set(widths[start - 1 : end])) == 1


def test_a_page_of_nothing_is_all_open() -> None:
    assert {goal.reached for goal in goals([])} == {None}
    assert "| **not reached** |" not in page([])


def test_rows_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    first = Store(path)
    first.add(fit("pot1", khat=-math.inf, b2_raw_worst=math.nan, gap=None))
    json.loads(path.read_text(), parse_constant=pytest.fail)  # strict JSON
    again = Store(path, resume=True)
    assert fit("pot1") in again
    assert fit("pot1", seed=2) not in again
    assert fit("pot1", settings="tril") not in again
    (row,) = again.rows
    assert row["khat"] == -math.inf and math.isnan(row["b2_raw_worst"]) and row["gap"] is None
    again.add(fit("pot1", khat=0.5), nuts("pot1"))
    assert [row.get("khat") for row in read_rows(path)] == [0.5, None]
    crashed = {k: FIT[k] for k in ("method", "seed", "settings")} | {"status": "crashed"}
    again.add({**crashed, "target": "pot1"})
    assert [row["method"] for row in Store(path, resume=True).rows] == ["nuts"]
    assert not Store(path).rows  # begun anew
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"holds no rows: it must be a file that --out wrote"):
        read_rows(path)
