"""HMC and NUTS on the same targets, and the statistics of their chains."""

from nfvi.mcmc.chain_stats import ess, rhat
from nfvi.mcmc.parallel_hmc import DENSE_LIMIT, ParallelHMC
from nfvi.mcmc.run import MCMCRun
from nfvi.mcmc.samplers import hmc, nuts
from nfvi.mcmc.summary import frame_text, summary_frame

__all__ = [
    "DENSE_LIMIT",
    "MCMCRun",
    "ParallelHMC",
    "ess",
    "frame_text",
    "hmc",
    "nuts",
    "rhat",
    "summary_frame",
]
