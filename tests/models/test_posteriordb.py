"""The models of posteriordb: densities by hand on small data, how they batch, and their scalars."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from models.posteriordb import (
    POSTERIORS,
    latent_sites,
    posteriordb_target,
    reference_scalars,
)
from nfvi import PyroTarget

Scalars = dict[str, float]
each_posterior = pytest.mark.parametrize("name", POSTERIORS)

EIGHT = {"J": 3, "y": [28, 8, -3], "sigma": [15, 10, 16]}
DATA: dict[str, dict[str, Any]] = {
    "arK-arK": {"K": 2, "T": 6, "y": [0.3, -0.5, 0.9, 1.1, -0.2, 0.4]},
    "arma-arma11": {"T": 7, "y": [0.3, -0.5, 0.9, 1.1, -0.2, 0.4, 2.0]},
    "diamonds-diamonds": {
        "N": 4,
        "K": 3,
        "X": [[1, 0.5, 2.0], [1, -1.0, 0.3], [1, 4.0, 1.0], [1, 0.2, 0.1]],
        "Y": [7.5, 8.5, 9.0, 6.0],
        "prior_only": 0,
    },
    "earnings-logearn_interaction": {
        "N": 3,
        "earn": [200.0, 50000.0, 3000.0],
        "height": [60, 72, 66],
        "male": [0, 1, 1],
    },
    "eight_schools-eight_schools_centered": EIGHT,
    "eight_schools-eight_schools_noncentered": EIGHT,
    "gp_pois_regr-gp_regr": {"N": 3, "x": [-1.0, 0.5, 2.0], "y": [0.3, 2.0, -1.0], "k": [1, 2, 3]},
    "kidiq-kidscore_momhsiq": {
        "N": 3,
        "kid_score": [65, 98, 85],
        "mom_hs": [1, 0, 1],
        "mom_iq": [121.1, 89.4, 115.4],
        "mom_hs_new": 1,
        "mom_iq_new": 100,
    },
    "kilpisjarvi_mod-kilpisjarvi": {
        "N": 3,
        "x": [3952, 3970, 3990],
        "y": [8.1, 9.0, 9.9],
        "xpred": 2016,
        "pmualpha": 9.3,
        "psalpha": 100,
        "pmubeta": 0,
        "psbeta": 0.03,
    },
    "mesquite-mesquite": {
        "N": 2,
        "weight": [401.3, 513.7],
        "diam1": [1.8, 1.7],
        "diam2": [1.15, 1.35],
        "canopy_height": [1.0, 1.33],
        "total_height": [1.3, 1.35],
        "density": [1, 2],
        "group": [0, 1],
    },
    "nes2000-nes": {
        "N": 4,
        "partyid7": [2, 5, 7, 1],
        "real_ideo": [1, 6, 4, 3],
        "race_adj": [1.0, 2.0, 1.0, 1.5],
        "educ1": [4, 2, 3, 1],
        "gender": [1, 2, 2, 1],
        "income": [5, 3, 1, 4],
        "age_discrete": [1, 2, 3, 4],
        "year": [2000] * 4,
    },
    "sblrc-blr": {"N": 3, "D": 2, "X": [[0.5, 1.0], [1.5, -0.3], [0.1, 0.2]], "y": [1.0, 2.0, -1]},
}


def normal(x: float, mean: float, sd: float) -> float:
    return -0.5 * ((x - mean) / sd) ** 2 - math.log(sd) - 0.5 * math.log(2 * math.pi)


def half_normal(x: float, scale: float) -> float:
    return normal(x, 0, scale) + math.log(2)


def half_cauchy(x: float, scale: float) -> float:
    return math.log(2 / (math.pi * scale * (1 + (x / scale) ** 2)))


def student_t3(x: float, mean: float, scale: float) -> float:
    """Density 2 / (π √3 s (1 + t²/3)²) with t = (x − m) / s."""
    t = (x - mean) / scale
    return math.log(2 / (math.pi * math.sqrt(3) * scale)) - 2 * math.log1p(t**2 / 3)


def regression(data: dict[str, Any], s: Scalars, y: str, *terms: Callable[[int], float]) -> float:
    """Σ_i log N(y_i; Σ_k β_k term_k(i), σ)."""
    total = 0.0
    for i, value in enumerate(data[y]):
        mean = sum(s[f"beta[{k}]"] * term(i) for k, term in enumerate(terms, start=1))
        total += normal(value, mean, s["sigma"])
    return total


def ark(d: dict[str, Any], s: Scalars) -> float:
    total = normal(s["alpha"], 0, 10) + half_cauchy(s["sigma"], 2.5)
    total += normal(s["beta[1]"], 0, 10) + normal(s["beta[2]"], 0, 10)
    for t in range(2, 6):
        mean = s["alpha"] + s["beta[1]"] * d["y"][t - 1] + s["beta[2]"] * d["y"][t - 2]
        total += normal(d["y"][t], mean, s["sigma"])
    return total


def arma(d: dict[str, Any], s: Scalars) -> float:
    total = normal(s["mu"], 0, 10) + normal(s["phi"], 0, 2) + normal(s["theta"], 0, 2)
    total += half_cauchy(s["sigma"], 2.5)
    before, error = s["mu"], 0.0
    for y in d["y"]:
        error = y - (s["mu"] + s["phi"] * before + s["theta"] * error)
        total += normal(error, 0, s["sigma"])
        before = y
    return total


def diamonds(d: dict[str, Any], s: Scalars) -> float:
    total = normal(s["b[1]"], 0, 1) + normal(s["b[2]"], 0, 1) + student_t3(s["Intercept"], 8, 10)
    total += student_t3(s["sigma"], 0, 10) + math.log(2)
    means = [sum(row[k] for row in d["X"]) / 4 for k in (1, 2)]
    for row, y in zip(d["X"], d["Y"], strict=True):
        mean = s["Intercept"] + s["b[1]"] * (row[1] - means[0]) + s["b[2]"] * (row[2] - means[1])
        total += normal(y, mean, s["sigma"])
    return total


def earnings(d: dict[str, Any], s: Scalars) -> float:
    logs = {"log": [math.log(earn) for earn in d["earn"]]}
    h, m = d["height"], d["male"]
    terms = [lambda i: 1, lambda i: h[i], lambda i: m[i], lambda i: h[i] * m[i]]
    return regression(logs, s, "log", *terms)


def eight_schools(d: dict[str, Any], s: Scalars) -> float:
    """The centred form: its density in θ."""
    total = normal(s["mu"], 0, 5) + half_cauchy(s["tau"], 5)
    for j, (y, sigma) in enumerate(zip(d["y"], d["sigma"], strict=True), start=1):
        theta = s[f"theta[{j}]"]
        total += normal(theta, s["mu"], s["tau"]) + normal(y, theta, sigma)
    return total


def eight_schools_noncentered(d: dict[str, Any], s: Scalars) -> float:
    """The same density in η, with dθ / dη = τ for each school."""
    return eight_schools(d, s) + 3 * math.log(s["tau"])


def gp(d: dict[str, Any], s: Scalars) -> float:
    rho, alpha, sigma = s["rho"], s["alpha"], s["sigma"]
    total = 25 * math.log(4) - math.lgamma(25) + 24 * math.log(rho) - 4 * rho
    total += half_normal(alpha, 2) + half_normal(sigma, 1)
    kernel = [
        [alpha**2 * math.exp(-((a - b) ** 2) / (2 * rho**2)) + sigma * (a == b) for b in d["x"]]
        for a in d["x"]
    ]
    covariance = torch.tensor(kernel, dtype=torch.float64)
    y = torch.tensor(d["y"], dtype=torch.float64)
    return total + MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y).item()


def kidscore(d: dict[str, Any], s: Scalars) -> float:
    terms = [lambda i: 1, lambda i: d["mom_hs"][i], lambda i: d["mom_iq"][i]]
    return half_cauchy(s["sigma"], 2.5) + regression(d, s, "kid_score", *terms)


def kilpisjarvi(d: dict[str, Any], s: Scalars) -> float:
    total = normal(s["alpha"], 9.3, 100) + normal(s["beta"], 0, 0.03)
    for x, y in zip(d["x"], d["y"], strict=True):
        total += normal(y, s["alpha"] + s["beta"] * x, s["sigma"])
    return total


def mesquite(d: dict[str, Any], s: Scalars) -> float:
    names = ["diam1", "diam2", "canopy_height", "total_height", "density", "group"]
    columns = [[1, 1], *(d[name] for name in names)]
    return regression(d, s, "weight", *(column.__getitem__ for column in columns))


def nes(d: dict[str, Any], s: Scalars) -> float:
    ages = [[int(age == level) for age in d["age_discrete"]] for level in (2, 3, 4)]
    columns = [[1] * 4, d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"]]
    return regression(d, s, "partyid7", *(column.__getitem__ for column in columns))


def blr(d: dict[str, Any], s: Scalars) -> float:
    total = half_normal(s["sigma"], 10) + normal(s["beta[1]"], 0, 10) + normal(s["beta[2]"], 0, 10)
    return total + regression(d, s, "y", lambda i: d["X"][i][0], lambda i: d["X"][i][1])


HAND = dict(
    zip(
        DATA,
        [
            *[ark, arma, diamonds, earnings, eight_schools, eight_schools_noncentered],
            *[gp, kidscore, kilpisjarvi, mesquite, nes, blr],
        ],
        strict=True,
    )
)
POSITIVE = {"sigma", "tau"}


def posterior(name: str) -> Any:
    return SimpleNamespace(name=name, data=SimpleNamespace(values=lambda: DATA[name]))


def points(name: str, target: PyroTarget, n: int = 5) -> Tensor:
    """Points on unconstrained space, of some spread."""
    generator = torch.Generator().manual_seed(len(name))
    return 0.7 * torch.randn(n, target.dim, generator=generator, dtype=torch.float64)


@each_posterior
def test_the_density_is_the_one_written_out(name: str) -> None:
    target = posteriordb_target(posterior(name))
    z = points(name, target)
    scalars = reference_scalars(name, target.constrain(z))
    positive = POSITIVE | ({"rho", "alpha"} if name.startswith("gp") else set())
    for i, got in enumerate(target.log_prob(z).tolist()):
        s = {key: value[i].item() for key, value in scalars.items()}
        jacobian = sum(math.log(value) for key, value in s.items() if key in positive)
        # Eight schools has float32 numbers in it, all others are float64 throughout.
        expected = HAND[name](DATA[name], s) + jacobian
        assert got == pytest.approx(expected, rel=1e-6 if "eight" in name else 1e-10)


@each_posterior
def test_batches_go_through_at_once_in_the_dtype_of_the_data(name: str) -> None:
    target = posteriordb_target(posterior(name))
    target.check()
    assert target.batching == "vmap"
    assert target.name == name
    if "eight" not in name:
        assert target.dtype == torch.float64
        assert posteriordb_target(posterior(name), dtype=torch.float32).dtype == torch.float32


@each_posterior
def test_scalars_and_latent_sites_are_inverse(name: str) -> None:
    target = posteriordb_target(posterior(name))
    z = points(name, target)
    sites = target.constrain(z)
    scalars = reference_scalars(name, sites)
    torch.testing.assert_close(target.unconstrain(latent_sites(name, scalars)), z)
    chains = {key: value.unflatten(0, (5, 1)) for key, value in sites.items()}
    folded = reference_scalars(name, chains)
    assert all(torch.equal(folded[key], scalars[key].unsqueeze(1)) for key in scalars)
