"""What every floor may use: argument checks, files, text for a terminal, progress bars, ArviZ."""

from nfvi.utils.arviz_export import to_inference_data
from nfvi.utils.arviz_functions import psislw, tail_length
from nfvi.utils.caret import caret, character, choice, nearest, quote
from nfvi.utils.checks import (
    check_dtype,
    check_flag,
    check_positive,
    check_whole,
    common_dim,
    usable_device,
)
from nfvi.utils.entries import (
    Amount,
    Count,
    Floating,
    Positive,
    Seed,
    Within,
    check_entries,
    entry,
    record_of,
)
from nfvi.utils.files import (
    complete,
    digest_of,
    over,
    read_file,
    under,
    whole_file,
    write_file,
)
from nfvi.utils.limits import KHAT_LIMIT
from nfvi.utils.names import scalar_names
from nfvi.utils.posterior import Posterior, fresh_draws, label_of
from nfvi.utils.progress import progress_bar, progress_wanted
from nfvi.utils.text import align, plus_minus, short, to_sd, wrapped

__all__ = [
    "KHAT_LIMIT",
    "Amount",
    "Count",
    "Floating",
    "Positive",
    "Posterior",
    "Seed",
    "Within",
    "align",
    "caret",
    "character",
    "check_dtype",
    "check_entries",
    "check_flag",
    "check_positive",
    "check_whole",
    "choice",
    "common_dim",
    "complete",
    "digest_of",
    "entry",
    "fresh_draws",
    "label_of",
    "nearest",
    "over",
    "plus_minus",
    "progress_bar",
    "progress_wanted",
    "psislw",
    "quote",
    "read_file",
    "record_of",
    "scalar_names",
    "short",
    "tail_length",
    "to_inference_data",
    "to_sd",
    "under",
    "usable_device",
    "whole_file",
    "wrapped",
    "write_file",
]
