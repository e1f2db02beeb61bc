"""How benchmarks/posteriors compares the path gradient with the total one."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.posteriors import __main__ as command
from benchmarks.posteriors.cases import Case
from benchmarks.posteriors.gradients import (
    Comparison,
    gradients_row,
    kept,
    path_holds,
    settings_key,
    settings_of,
)
from benchmarks.posteriors.metrics import exact_reference
from models.gaussian import Gaussian
from models.mixture import GaussianMixture
from nfvi.guides.guide import Guide
from nfvi.guides.mixture import MixtureGuide
from nfvi.guides.placement import Placement

LOG_Z = math.log(math.tau)
IDENTITY = Placement.identity(2)
MOVED = Placement(torch.tensor([0.0, 1.0]), torch.eye(2))
STRETCHED = Placement(torch.zeros(2), 2 * torch.eye(2))


def case_of(target: Any, log_z: float | None) -> Any:
    reference = exact_reference(target)
    return Case("exact", "exact", target, reference, log_z)


def gaussian_case(log_z: float | None = LOG_Z) -> Any:
    """A normal around (1, -2) with correlation 0.6, without its constant: log Z = log 2π."""
    cov = torch.tensor([[1.0, 0.6], [0.6, 1.0]])
    target = Gaussian(torch.tensor([1.0, -2.0]), cov / cov.det().sqrt())
    return case_of(target, log_z)


def flows(formula: str, place: Placement | None, base: str = "normal") -> Guide:
    return Guide(formula, 2, base=base, placement=place, generator=torch.Generator().manual_seed(0))


def kept_fit(guide: Guide | MixtureGuide, steps: int, n_mc: int = 128) -> Any:
    """What of a fit by "auto" counts, with a rung after the best one."""
    rungs = [SimpleNamespace(steps=steps), SimpleNamespace(steps=7)]
    path = type("Path", (list,), {"best": 0})(rungs)
    settings = {"lr": 0.013, "n_mc": n_mc}
    return SimpleNamespace(guide=guide, formula=guide.formula, path=path, settings=settings)


@pytest.mark.parametrize(
    ("place", "start"),
    [(IDENTITY, "zeros"), (MOVED, "auto"), (STRETCHED, "auto")],
)
def test_what_auto_kept_is_compared(place: Placement, start: str) -> None:
    found = kept(kept_fit(flows("monotone*2", place, "laplace"), 4000), 1000)
    assert found == Comparison("monotone*2", 4000, "laplace", 1, start, 256, 0.013)
    assert kept(kept_fit(flows("monotone*2", place), 600), 1000).steps == 1000
    assert kept(kept_fit(flows("monotone*2", place), 2000, 1024), 1000).n_mc == 1024


def test_kept_gaussians_and_mixtures_start_where_they_can() -> None:
    gaussian = flows("tril", None)
    found = kept(kept_fit(gaussian, 0), 1000)
    assert (found.start, found.n_mc, found.components, found.steps) == ("auto", None, 1, 1000)
    several = MixtureGuide([flows("monotone", place) for place in (IDENTITY, MOVED)], [0.5, 0.5])
    found = kept(kept_fit(several, 400), 100)
    assert (found.start, found.n_mc, found.components, found.steps) == ("fit", 256, 2, 400)


@pytest.mark.parametrize(
    ("start", "base", "tempered", "draws"),
    [
        ("auto", "normal", 0, "qmc"),
        ("zeros", "laplace", 4, "qmc"),
        ("auto", "studentt(df=20)", 0, "iid"),
    ],
)
def test_a_start_is_tempered_only_where_there_is_none(
    start: str, base: str, tempered: int, draws: str
) -> None:
    comparison = Comparison("tril", 10, base, 1, start, 32, 0.01)
    fits = [comparison.fit(gaussian_case(), gradient, 5) for gradient in ("path", "total")]
    settings = [dict(fit.settings) for fit in fits]
    assert [some.pop("gradient") for some in settings] == ["path", "total"]
    assert settings[0] == settings[1]  # all else is the same
    first = settings[0]
    assert list(first["lengths"]) == [tempered]  # one restart; 0.4 of ten steps
    assert (first["draws"], first["n_mc"], first["lr"], first["seed"]) == (draws, 32, 0.01, 5)
    assert first["init"].startswith(start) and str(fits[0].guide.base) == base


def test_the_path_gradient_stays_at_a_gaussian_that_is_right() -> None:
    """Where q = p the path gradient is 0 draw by draw, up to rounding, and the total one is not."""
    row = gradients_row(gaussian_case(None), "auto", 1, 20)
    assert (row["formula"], row["base"], row["components"]) == ("tril", "normal", 1)
    assert (row["steps"], row["start"]) == (20, "auto")
    assert row["elbo_path"] == pytest.approx(LOG_Z, abs=1e-4)
    assert row["elbo_total"] < row["elbo_path"]
    assert row["log_z"] == pytest.approx(LOG_Z, abs=1e-4) and row["log_z_known"] is False


def test_a_fixed_formula_is_taken_as_it_is() -> None:
    row = gradients_row(gaussian_case(), "scale-loc", 1, 10)
    assert (row["formula"], row["steps"], row["start"]) == ("scale-loc", 10, "auto")
    assert row["log_z"] == LOG_Z
    # The best guide without correlations, and without a Gaussian under it, is −½ log(1 − 0.6²) =
    # 0.223 nats below.
    assert LOG_Z - row["elbo_path"] < 0.02 and LOG_Z - row["elbo_total"] < 0.1


def test_a_mixture_is_compared_from_its_components() -> None:
    means = torch.tensor([[-6.0, 0.0], [6.0, 0.0]])
    case = case_of(
        GaussianMixture(torch.tensor([0.3, 0.7]), means, torch.eye(2).expand(2, 2, 2)), 0.0
    )
    row = gradients_row(case, "auto", 1, 20)
    assert (row["components"], row["start"]) == (2, "fit")
    # One of the two modes alone has an ELBO of at most log 0.7.
    assert abs(row["elbo_path"]) < 0.02 and row["elbo_total"] > math.log(0.7) / 2


def test_comparisons_are_told_apart() -> None:
    assert settings_key("monotone*3", 1000) == "monotone*3, 1000 steps"  # as in old files
    asked = [("auto", 1000), ("auto", 2000), ("monotone*3", 1000), ("monotone*3", 2000)]
    keys = [settings_key(*pair) for pair in asked]
    assert len(set(keys)) == 4
    rows = [{"method": "gradients", "settings": key} for key in (keys[3], *keys[2:], keys[0])]
    rows.append({"method": "fit", "settings": keys[1]})
    assert settings_of(rows) == [keys[0], keys[3], keys[2]]
    assert settings_of([]) == []


def test_the_command_compares_what_auto_keeps_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(*words: str) -> dict[str, Any]:
        asked = ["posteriors", "--posteriordb", "x", "--seeds", "0", "--no-nuts", "--gradients"]
        monkeypatch.setattr(sys, "argv", [*asked, *words])
        ((found, _),) = command._jobs(command._options(), "pot1")
        return found

    assert key()["settings"] == "auto, 1000 steps or more"
    assert key("--gradient-formula", "monotone*3")["settings"] == "monotone*3, 1000 steps"


@pytest.mark.parametrize(
    ("path", "total", "log_z", "holds"),
    [
        (-1.0, -1.1, None, True),
        (-1.0, -1.05, None, False),
        (-1.01, -1.0, -0.995, True),
        (-1.01, -1.03, -1.0, False),
        (-1.0, math.nan, -1.0, False),
    ],
)
def test_path_gradients_hold(path: float, total: float, log_z: float | None, holds: bool) -> None:
    row = {"elbo_path": path, "elbo_total": total, "log_z": log_z}
    assert path_holds(row) is holds
