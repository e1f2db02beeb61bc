"""A fit held against something else: another run, other models, data simulated from the model."""

from nfvi.assess.calibration import Calibration, calibrate
from nfvi.assess.compare import Comparison, compare
from nfvi.assess.compare_sides import Side, side_of
from nfvi.assess.evidence import EvidenceComparison, compare_evidence
from nfvi.assess.rank_checks import LEVEL, RankCheck, rank_columns
from nfvi.assess.sliced_wasserstein import sliced_wasserstein
from nfvi.assess.uniformity import Counts, band, bin_band, ranks_below

__all__ = [
    "LEVEL",
    "Calibration",
    "Comparison",
    "Counts",
    "EvidenceComparison",
    "RankCheck",
    "Side",
    "band",
    "bin_band",
    "calibrate",
    "compare",
    "compare_evidence",
    "rank_columns",
    "ranks_below",
    "side_of",
    "sliced_wasserstein",
]
