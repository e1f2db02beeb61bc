"""Conditioners: networks that give the parameters of a flow."""

from nfvi.flows.networks.conditioner import Conditioner, ContextNetwork
from nfvi.flows.networks.conditioner_walk import Walk
from nfvi.flows.networks.masked_conditioner import MaskedConditioner
from nfvi.flows.networks.masked_linear import MaskedLinear
from nfvi.flows.networks.network import Features

__all__ = [
    "Conditioner",
    "ContextNetwork",
    "Features",
    "MaskedConditioner",
    "MaskedLinear",
    "Walk",
]
