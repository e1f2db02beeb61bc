"""What changes the course of a running fit from within."""

from nfvi.training.controls.growth import FIRST, Growth
from nfvi.training.controls.plateau import CAP, Plateau, open_ended
from nfvi.training.controls.pruning import Pruning

__all__ = [
    "CAP",
    "FIRST",
    "Growth",
    "Plateau",
    "Pruning",
    "open_ended",
]
