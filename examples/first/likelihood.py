"""A likelihood and priors: the posterior, the evidence, and a picture of the parameters."""

import torch
import torch.distributions as dist

from nfvi import NFVI, plots

hours = torch.arange(12.0)
counts = torch.tensor([97.0, 83, 61, 66, 47, 42, 39, 31, 29, 25, 24, 20])


def likelihood(activity, half_life, noise):
    """A radioactive sample that decays over a constant background."""
    expected = noise + activity * 0.5 ** (hours / half_life)
    return dist.Poisson(expected).log_prob(counts).sum()


priors = {
    "activity": dist.HalfNormal(200.0),
    "half_life": dist.LogNormal(1.0, 0.5),
    "noise": dist.Gamma(4.0, 0.4),
}
fit = NFVI("auto", seed=1).fit(likelihood, parameters=priors)

print(fit.verdict)
print(fit.summary())
print(f"log evidence: {fit.log_evidence:.3f} ± {fit.log_evidence_se:.3f}")
plots.pairs(fit).savefig("likelihood.png")
