"""Bayesian logistic regression on the Wisconsin breast-cancer data.

Reference:
    Nick Street, William Wolberg and Olvi Mangasarian, "Nuclear Feature Extraction for Breast Tumor
    Diagnosis", 1993; the data are those that scikit-learn ships.
"""

from __future__ import annotations

from functools import cache

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from nfvi.errors import TargetError

__all__ = ["breast_cancer", "logistic_regression"]


@cache  # a model is called at every step of a fit; reading the file each time would dominate it
def breast_cancer() -> tuple[Tensor, Tensor]:
    """The data: standardised features (569, 30) and outcomes (569,), 1 for benign, in float64.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ImportError(
            "logistic_regression reads its data from scikit-learn, which is not installed: "
            "`pip install scikit-learn`, or pass your own x and y"
        ) from error
    features, outcome = load_breast_cancer(return_X_y=True)
    x = torch.as_tensor(features, dtype=torch.float64, device="cpu")
    y = torch.as_tensor(outcome, dtype=torch.float64, device="cpu")
    return (x - x.mean(0)) / x.std(0, correction=0), y


def logistic_regression(x: Tensor | None = None, y: Tensor | None = None) -> None:
    """The model a ~ N(0, 1), w_i ~ N(0, 1), y ~ Bernoulli(sigmoid(a + x w)); 31 dimensions.

    Args:
        x: features (N, p), on a scale on which a weight of 1 is large; default the breast-cancer
            data's 30, standardised.
        y: outcomes (N,), 0 or 1; given if and only if x is.

    Raises:
        TargetError: only one of x and y is given.
        ImportError: the default data are asked for without scikit-learn.
    """
    if x is None or y is None:
        if x is not y:
            raise TargetError("logistic_regression takes both x and y, or neither")
        x, y = breast_cancer()
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
    with pyro.plate("features", x.shape[1]):
        weights = pyro.sample("weights", dist.Normal(0.0, 1.0))
    logits = intercept + weights @ x.to(weights).T
    with pyro.plate("patients", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y.to(weights))
