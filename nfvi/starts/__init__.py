"""Where a guide begins: Gaussian fits, Laplace, Pathfinder, and scattered starts."""

from nfvi.starts.explore import Modes, explore, grouped
from nfvi.starts.gaussian_fit import fit_gaussians
from nfvi.starts.gaussian_guide import gaussian_guide, gaussian_of
from nfvi.starts.starts import FULL_RANK_LIMIT, STARTS, Start, StartName, find_start

__all__ = [
    "FULL_RANK_LIMIT",
    "STARTS",
    "Modes",
    "Start",
    "StartName",
    "explore",
    "find_start",
    "fit_gaussians",
    "gaussian_guide",
    "gaussian_of",
    "grouped",
]
