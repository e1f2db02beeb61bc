"""Reading posteriordb: names of scalars, a database on disk, and what models do at their edges."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import posteriordb
import pytest
import torch

import models
from models.posteriordb import (
    latent_sites,
    posteriordb_target,
    reference_draws,
    reference_scalars,
)
from nfvi import PyroTarget
from nfvi.errors import TargetError

CENTRED = "eight_schools-eight_schools_centered"
NONCENTRED = "eight_schools-eight_schools_noncentered"


def test_scalars_have_the_keys_of_the_reference_in_its_order() -> None:
    vector = torch.arange(24.0).expand(2, 24)
    one = torch.ones(2)
    found = reference_scalars("diamonds-diamonds", {"sigma": one, "Intercept": one, "b": vector})
    assert list(found) == [*(f"b[{i}]" for i in range(1, 25)), "Intercept", "sigma"]
    assert found["b[10]"].tolist() == [9.0, 9.0]


@pytest.mark.parametrize("length", [1, 2, 7, 64, 65])
@pytest.mark.parametrize("theta", [0.0, -0.8, 1.6])
def test_arma_errors_and_their_gradients_are_those_of_the_recursion(
    length: int, theta: float
) -> None:
    y = torch.randn(length, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    z = torch.tensor([0.4, -0.7, theta, 0.2], dtype=torch.float64, requires_grad=True)
    mu, phi, moving, log_sigma = z.unbind()
    before, error, total = mu, torch.zeros(()), log_sigma
    total = total - 0.5 * (mu / 10) ** 2 - 0.5 * (phi / 2) ** 2 - 0.5 * (moving / 2) ** 2
    total = total - torch.log1p((2 * log_sigma).exp() / 2.5**2)
    for value in y:
        error = value - (mu + phi * before + moving * error)
        total = total - 0.5 * (error / log_sigma.exp()) ** 2 - log_sigma
        before = value
    (expected,) = torch.autograd.grad(total, z)
    target = PyroTarget(models.arma11, y)
    batch = z.detach().expand(3, 4).clone().requires_grad_()
    (got,) = torch.autograd.grad(target.log_prob(batch).sum(), batch)
    torch.testing.assert_close(got, expected.expand(3, 4), rtol=1e-9, atol=1e-9)


def test_a_point_with_a_hopeless_covariance_leaves_the_others_alone() -> None:
    """With σ = e^−200 the kernel of three near points is singular in float64."""
    x = torch.tensor([0.0, 1e-9, 2e-9], dtype=torch.float64)
    target = PyroTarget(models.gp_regression, x, torch.zeros_like(x))
    z = torch.tensor([[0.0, 0.0, 0.0], [3.0, 2.0, -200.0]], dtype=torch.float64)
    values = target.log_prob(z)
    assert not values[1].isfinite()
    torch.testing.assert_close(values[:1], target.log_prob(z[:1]))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TargetError, match=r"no Pyro model .*'mcycle'.*arK-arK"):
        posteriordb_target(SimpleNamespace(name="mcycle"))
    with pytest.raises(TargetError, match="needs the sites sigma"):
        reference_scalars("sblrc-blr", {"beta": torch.ones(2, 5)})
    with pytest.raises(TargetError, match="needs the scalar 'tau'"):
        latent_sites(CENTRED, {"theta[1]": torch.ones(2), "mu": 1})
    with pytest.raises(TargetError, match=r"order= must be from 1 to 3 .*got 4"):
        models.autoregression(torch.ones(4), order=4)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_zip(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path.with_name(path.name + ".zip"), "w") as archive:
        archive.writestr(path.name, json.dumps(content))


@pytest.fixture
def database(tmp_path: Path) -> posteriordb.PosteriorDatabase:
    """Two posteriors in posteriordb's layout, of which one has its draws from the other."""
    for name in (CENTRED, NONCENTRED):
        write(
            tmp_path / "posteriors" / f"{name}.json",
            {
                "name": name,
                "model_name": name.split("-")[1],
                "data_name": "eight_schools",
                "reference_posterior_name": NONCENTRED,
            },
        )
        write(
            tmp_path / "models" / "info" / f"{name.split('-')[1]}.info.json",
            {"name": name.split("-")[1], "model_implementations": {}},
        )
    write(
        tmp_path / "data" / "info" / "eight_schools.info.json",
        {"name": "eight_schools", "data_file": "data/data/eight_schools.json"},
    )
    write_zip(
        tmp_path / "data" / "data" / "eight_schools.json",
        {"J": 3, "y": [28, 8, -3], "sigma": [15, 10, 16]},
    )
    reference = tmp_path / "reference_posteriors" / "draws"
    write(reference / "info" / f"{NONCENTRED}.info.json", {"name": NONCENTRED})
    keys = ["theta[1]", "theta[2]", "theta[3]", "mu", "tau"]
    chains = [{key: [i + j + 1.0, i + j + 2.0] for j, key in enumerate(keys)} for i in range(2)]
    write_zip(reference / "draws" / f"{NONCENTRED}.json", chains)
    return posteriordb.PosteriorDatabase(str(tmp_path))


@pytest.mark.parametrize("name", [CENTRED, NONCENTRED])
def test_posteriors_are_read_through_the_package(
    database: posteriordb.PosteriorDatabase, name: str
) -> None:
    found = database.posterior(name)
    target = posteriordb_target(found)
    draws = reference_draws(found)
    assert target.dim == 5
    assert draws["tau"].tolist() == [[5.0, 6.0], [6.0, 7.0]]
    assert draws["tau"].dtype == torch.float64
    z = target.unconstrain(latent_sites(name, {key: v.flatten() for key, v in draws.items()}))
    back = reference_scalars(name, target.constrain(z))
    assert list(back) == list(draws)
    for key, value in draws.items():
        torch.testing.assert_close(back[key], value.flatten())
