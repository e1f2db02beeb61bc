"""Densities fitted to data: rows, their scale, the likelihood, and what comes out."""

from nfvi.density.data import Data, read_data
from nfvi.density.data_setup import (
    BATCH_SIZE,
    DATA_LEARNING_RATE,
    DATA_STEPS,
    LEAST_EPOCHS,
    DataPlan,
    build_data_trainer,
    data_plan,
)
from nfvi.density.density import Density
from nfvi.density.fit import DensityFit
from nfvi.density.notes import notes_on, warn_of
from nfvi.density.run import Running
from nfvi.density.split import Split, fingerprint, fraction_of, make_rows, split_data
from nfvi.density.standardization import Standardization
from nfvi.density.validation import Validation

__all__ = [
    "BATCH_SIZE",
    "DATA_LEARNING_RATE",
    "DATA_STEPS",
    "LEAST_EPOCHS",
    "Data",
    "DataPlan",
    "Density",
    "DensityFit",
    "Running",
    "Split",
    "Standardization",
    "Validation",
    "build_data_trainer",
    "data_plan",
    "fingerprint",
    "fraction_of",
    "make_rows",
    "notes_on",
    "read_data",
    "split_data",
    "warn_of",
]
