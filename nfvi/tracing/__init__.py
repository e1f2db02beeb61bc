"""Functions of tensors as flat graphs of operations, which cost less than Python and autograd."""

from nfvi.tracing.record import opaque
from nfvi.tracing.trace import (
    Traced,
    TraceError,
    compiled,
    compiled_in_place,
    equal,
    same,
    traced,
)

__all__ = [
    "TraceError",
    "Traced",
    "compiled",
    "compiled_in_place",
    "equal",
    "opaque",
    "same",
    "traced",
]
