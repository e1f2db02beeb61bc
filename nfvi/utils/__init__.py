"""What every floor may use: argument checks, files, text, HTML, progress, a lock, ArviZ."""

from nfvi.utils import arviz_functions
from nfvi.utils.arviz_export import dims_for, to_inference_data
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
from nfvi.utils.html import card, folded, html_table, preformatted, sparkline
from nfvi.utils.interval import HDI, hdi
from nfvi.utils.limits import KHAT_LIMIT
from nfvi.utils.masks import check_unmasked
from nfvi.utils.memory import check_memory, keep_freed_memory
from nfvi.utils.multiples import next_multiple
from nfvi.utils.names import scalar_names
from nfvi.utils.pareto import psislw, tail_length
from nfvi.utils.pieces import (
    Counter,
    Numbers,
    at_once,
    held,
    kept_at_once,
    numbers_per_row,
    sizes,
)
from nfvi.utils.posterior import Posterior, fresh_draws, label_of
from nfvi.utils.process_wide import process_wide, unvalidated
from nfvi.utils.progress import counted, progress_bar, progress_wanted, stage_bar, ticking
from nfvi.utils.quiet_log import quiet_log
from nfvi.utils.report import (
    Report,
    Section,
    facts,
    frame,
    picture,
    scrolled,
    words,
    write_report,
)
from nfvi.utils.text import WIDTH, align, filled, plus_minus, short, to_sd, wrapped
from nfvi.utils.user_code import place_of
from nfvi.utils.versions import show_versions
from nfvi.utils.workers import WorkerError, in_processes, jobs_for

__all__ = [
    "HDI",
    "KHAT_LIMIT",
    "WIDTH",
    "Amount",
    "Count",
    "Counter",
    "Floating",
    "Numbers",
    "Positive",
    "Posterior",
    "Report",
    "Section",
    "Seed",
    "Within",
    "WorkerError",
    "align",
    "arviz_functions",
    "at_once",
    "card",
    "caret",
    "character",
    "check_dtype",
    "check_entries",
    "check_flag",
    "check_memory",
    "check_positive",
    "check_unmasked",
    "check_whole",
    "choice",
    "common_dim",
    "complete",
    "counted",
    "digest_of",
    "dims_for",
    "entry",
    "facts",
    "filled",
    "folded",
    "frame",
    "fresh_draws",
    "hdi",
    "held",
    "html_table",
    "in_processes",
    "jobs_for",
    "keep_freed_memory",
    "kept_at_once",
    "label_of",
    "nearest",
    "next_multiple",
    "numbers_per_row",
    "over",
    "picture",
    "place_of",
    "plus_minus",
    "preformatted",
    "process_wide",
    "progress_bar",
    "progress_wanted",
    "psislw",
    "quiet_log",
    "quote",
    "read_file",
    "record_of",
    "scalar_names",
    "scrolled",
    "short",
    "show_versions",
    "sizes",
    "sparkline",
    "stage_bar",
    "tail_length",
    "ticking",
    "to_inference_data",
    "to_sd",
    "under",
    "unvalidated",
    "usable_device",
    "whole_file",
    "words",
    "wrapped",
    "write_file",
    "write_report",
]
