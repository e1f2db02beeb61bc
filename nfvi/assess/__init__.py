"""A fit compared with something else: another run, other models, data simulated from the model."""

from nfvi.assess.calibration import Calibration, calibrate
from nfvi.assess.compare import Comparison, compare
from nfvi.assess.compare_sides import Side
from nfvi.assess.evidence import EvidenceComparison, compare_evidence
from nfvi.assess.rank_checks import RankCheck
from nfvi.assess.sliced_wasserstein import sliced_wasserstein

__all__ = [
    "Calibration",
    "Comparison",
    "EvidenceComparison",
    "RankCheck",
    "Side",
    "calibrate",
    "compare",
    "compare_evidence",
    "sliced_wasserstein",
]
