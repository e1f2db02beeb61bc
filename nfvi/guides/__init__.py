"""Guides: a base distribution behind flows, mixtures of them, and the same for Pyro."""

from nfvi.guides.bases import Base, Normal, StudentT, make_base
from nfvi.guides.gaussian_parts import GaussianParts, gaussian_parts
from nfvi.guides.guide import Guide
from nfvi.guides.header import forms_of_header, guide_from_header, header_of_guide
from nfvi.guides.mixture import AnyGuide, MixtureGuide, parts
from nfvi.guides.pieces import (
    draws_at_once,
    log_prob_in_pieces,
    numbers_of,
    sample_in_pieces,
)
from nfvi.guides.placement import Placement
from nfvi.guides.pyro_guide import AutoFlow

__all__ = [
    "AnyGuide",
    "AutoFlow",
    "Base",
    "GaussianParts",
    "Guide",
    "MixtureGuide",
    "Normal",
    "Placement",
    "StudentT",
    "draws_at_once",
    "forms_of_header",
    "gaussian_parts",
    "guide_from_header",
    "header_of_guide",
    "log_prob_in_pieces",
    "make_base",
    "numbers_of",
    "parts",
    "sample_in_pieces",
]
