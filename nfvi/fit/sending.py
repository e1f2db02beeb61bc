"""The target of a fit on its way to another process."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

from nfvi.targets import Target

__all__ = ["received", "sendable"]

REFUSALS = (pickle.PicklingError, AttributeError, TypeError)


def sendable(target: Target | None) -> Target | bytes | None:
    """A target as pickle takes it: itself, bytes of cloudpickle's, or ``None`` with a warning.

    Functions that are defined in a session, such as a lambda, are for cloudpickle alone.
    """
    try:
        pickle.dumps(target)
    except REFUSALS as error:
        sent = _by_cloudpickle(target)
        if sent is None:
            name = "" if target is None else target.name
            warnings.warn(
                f"the target {name!r} cannot be pickled ({error}) and stays behind: the copy of the"
                " fit draws, but knows no log p. Define its function in a module, or"
                " `pip install cloudpickle`",
                stacklevel=3,
            )
        return sent
    return target


def received(sent: Target | bytes | None) -> Any:
    """The target from what :func:`sendable` gave."""
    if not isinstance(sent, bytes):
        return sent
    import cloudpickle

    return cloudpickle.loads(sent)


def _by_cloudpickle(target: Target | None) -> bytes | None:
    try:
        import cloudpickle
    except ImportError:
        return None
    try:
        found: bytes = cloudpickle.dumps(target)
    except REFUSALS:
        return None
    return found
