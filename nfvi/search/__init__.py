"""Mass of a target that a guide misses: a search from wide draws, and particles that find modes."""

from nfvi.search.particles import BroadBase, Particles, anneal
from nfvi.search.places import MOST_PLACES
from nfvi.search.result import LEAST_SHARE, MissedMass, Place
from nfvi.search.search import search_mass
from nfvi.search.wide import prior_scale

__all__ = [
    "LEAST_SHARE",
    "MOST_PLACES",
    "BroadBase",
    "MissedMass",
    "Particles",
    "Place",
    "anneal",
    "prior_scale",
    "search_mass",
]
