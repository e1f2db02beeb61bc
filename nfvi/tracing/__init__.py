"""Functions of tensors as flat graphs of operations, which cost less than Python and autograd."""

from nfvi.tracing.trace import Traced, TraceError, compiled, equal, same, traced

__all__ = ["TraceError", "Traced", "compiled", "equal", "same", "traced"]
