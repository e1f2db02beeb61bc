"""A model of PyMC: the flow of PyMC3's NFVI, its verdict, and a picture of the posterior."""

import numpy as np
import pymc as pm

from nfvi import NFVI, plots

hours = np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0])
passed = np.array([0, 0, 1, 0, 1, 1, 1, 1])

with pm.Model() as model:
    intercept = pm.Normal("intercept", 0, 3)
    slope = pm.HalfNormal("slope", 2)
    pm.Bernoulli("passed", logit_p=intercept + slope * hours, observed=passed)

fit = NFVI("planar*8", seed=1).fit(model, steps=2_000)

print(fit.verdict)
print(fit.summary())
data = fit.to_arviz(1_000)  # what pm.sample returns
print(data["posterior"])
plots.pairs(fit).savefig("pymc_model.png")
