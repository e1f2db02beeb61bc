"""The models in Stan, built and sampled by PyStan.

Densities are written with ``target +=``, which keeps their constants; ``~`` drops them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import stan

from benchmarks.languages.data import SCHOOLS, counties, returns, trials
from benchmarks.languages.sites import COMPARED, Sites
from nfvi import StanTarget

__all__ = ["sampled", "target"]

SCHOOLS_PROGRAM = """
data {
  int J;
  vector[J] y;
  vector[J] sigma;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] eta;
}
transformed parameters {
  vector[J] theta = mu + tau * eta;
}
model {
  target += normal_lpdf(mu | 0, 5);
  target += cauchy_lpdf(tau | 0, 5) - cauchy_lccdf(0 | 0, 5);
  target += std_normal_lpdf(eta);
  target += normal_lpdf(y | theta, sigma);
}
"""

COUNTIES_PROGRAM = """
data {
  int N;
  int J;
  array[N] int county;
  vector[N] floor_of;
  vector[N] y;
}
parameters {
  real m;
  real<lower=0> s;
  real b;
  real<lower=0> sigma;
  vector[J] eta;
}
transformed parameters {
  vector[J] a = m + s * eta;
}
model {
  target += normal_lpdf(m | 0, 2) + normal_lpdf(b | 0, 1) + std_normal_lpdf(eta);
  target += normal_lpdf(s | 0, 1) + normal_lpdf(sigma | 0, 1) + 2 * log(2);
  target += normal_lpdf(y | a[county] + b * floor_of, sigma);
}
"""

LOGISTIC_PROGRAM = """
data {
  int N;
  matrix[N, 5] x;
  array[N] int y;
}
parameters {
  vector[5] beta;
}
model {
  target += normal_lpdf(beta | 0, 2.5);
  target += bernoulli_logit_lpmf(y | x * beta);
}
"""

GARCH_PROGRAM = """
data {
  int T;
  vector[T] y;
}
parameters {
  real mu;
  real<lower=0> a0;
  real<lower=0, upper=1> a1;
  real<lower=0, upper=1> share;
}
transformed parameters {
  real b1 = (1 - a1) * share;
}
model {
  real variance = 1;
  target += normal_lpdf(mu | 0, 1) + normal_lpdf(a0 | 0, 1) + log(2);
  for (t in 1:T) {
    target += normal_lpdf(y[t] | mu, sqrt(variance));
    variance = a0 + a1 * square(y[t] - mu) + b1 * variance;
  }
}
"""


def _program(name: str) -> tuple[str, dict[str, Any]]:
    houses, yes_or_no = counties(), trials()
    return {
        "schools": (
            SCHOOLS_PROGRAM,
            {"J": 8, **{key: value.tolist() for key, value in SCHOOLS.items()}},
        ),
        "counties": (
            COUNTIES_PROGRAM,
            {
                "N": len(houses.y),
                "J": houses.number,
                "county": (houses.county + 1).tolist(),
                "floor_of": houses.floor.tolist(),
                "y": houses.y.tolist(),
            },
        ),
        "logistic": (
            LOGISTIC_PROGRAM,
            {
                "N": len(yes_or_no.y),
                "x": yes_or_no.x.tolist(),
                "y": yes_or_no.y.astype(int).tolist(),
            },
        ),
        "garch": (GARCH_PROGRAM, {"T": len(returns()), "y": returns().tolist()}),
    }[name]


def target(name: str) -> Any:
    """What is fitted, as someone with a ``.stan`` file would write it."""
    program, data = _program(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.stan"
        path.write_text(program, encoding="utf-8")
        return StanTarget(path, data=data)


def sampled(name: str, draws: int, seed: int) -> Sites:
    """Draws of Stan's NUTS, four chains."""
    program, data = _program(name)
    run = stan.build(program, data=data, random_seed=seed).sample(
        num_chains=4, num_samples=draws, num_warmup=1000
    )
    return {site: _by_chain(run[site], draws) for site in COMPARED[name]}


def _by_chain(values: np.ndarray, draws: int) -> np.ndarray:
    """PyStan puts the draws last, those of all chains at one time side by side."""
    at_times = np.moveaxis(values, -1, 0)
    return at_times.reshape(draws, -1, *at_times.shape[1:]).swapaxes(0, 1)
