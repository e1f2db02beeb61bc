"""The group of the processes that torchrun started, for a script that sets up none itself."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import threading

from torch import distributed

__all__ = ["is_launched", "join_launched"]

logger = logging.getLogger(__name__)


def join_launched() -> None:
    """Initialise ``torch.distributed`` by gloo where torchrun started several processes.

    That is done once, for the whole process, and only where a script has not done so itself, in
    the main thread of a process that torchrun started: not in its children, which inherit the
    environment. It waits for all the others. The group is taken down when the process ends.
    """
    free = distributed.is_available() and not distributed.is_initialized()
    if not free or not is_launched() or not distributed.is_gloo_available():
        return
    logger.info(
        "torchrun started %s processes: process %s joins them by gloo",
        *(os.environ["WORLD_SIZE"], os.environ["RANK"]),
    )
    distributed.init_process_group("gloo")
    atexit.register(_leave)


def is_launched() -> bool:
    """Whether this is the main thread of one of several processes that torchrun has started."""
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    # Those of multiprocessing and joblib inherit the environment, and would pass for their parent.
    own = multiprocessing.parent_process() is None
    main = threading.current_thread() is threading.main_thread()
    return distributed.is_torchelastic_launched() and several and own and main


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
