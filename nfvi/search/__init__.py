"""Mass of a target that a guide misses: a search from wide draws, and particles that find modes."""

from nfvi.search.particles import BroadBase, Particles, anneal
from nfvi.search.result import MissedMass, Place
from nfvi.search.search import search_mass

__all__ = ["BroadBase", "MissedMass", "Particles", "Place", "anneal", "search_mass"]
