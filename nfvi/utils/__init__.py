"""What every floor may use: argument checks, files, tables of text, progress bars, ArviZ."""

from nfvi.utils.arviz_export import to_inference_data
from nfvi.utils.caret import caret, character, choice, nearest, quote
from nfvi.utils.checks import check_dtype, check_flag, check_positive, check_whole, usable_device
from nfvi.utils.files import read_file, write_file
from nfvi.utils.pareto import psislw, tail_length
from nfvi.utils.progress import progress_bar, progress_wanted
from nfvi.utils.text_table import align, short, to_sd

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
    "progress_bar",
    "progress_wanted",
    "psislw",
    "quote",
    "read_file",
    "short",
    "tail_length",
    "to_inference_data",
    "to_sd",
    "usable_device",
    "write_file",
]
