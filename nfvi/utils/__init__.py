"""What every floor may use: argument checks, files, terminal text, progress, a lock, ArviZ."""

from nfvi.utils.arviz_export import to_inference_data
from nfvi.utils.arviz_functions import psislw, tail_length
from nfvi.utils.caret import caret, character, choice, nearest, quote
from nfvi.utils.checks import check_dtype, check_flag, check_positive, check_whole, usable_device
from nfvi.utils.files import over, read_file, under, write_file
from nfvi.utils.process_wide import process_wide
from nfvi.utils.progress import progress_bar, progress_wanted
from nfvi.utils.text import align, plus_minus, short, to_sd, wrapped

__all__ = [
    "align",
    "caret",
    "character",
    "check_dtype",
    "check_flag",
    "check_positive",
    "check_whole",
    "choice",
    "nearest",
    "over",
    "plus_minus",
    "process_wide",
    "progress_bar",
    "progress_wanted",
    "psislw",
    "quote",
    "read_file",
    "short",
    "tail_length",
    "to_inference_data",
    "to_sd",
    "under",
    "usable_device",
    "wrapped",
    "write_file",
]
