"""How long JAX traces and compiles, by its own account."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Compiling"]

COMPILING = tuple(
    f"/jax/core/compile/{name}_duration"
    for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Compiling:
    """A context that measures the wall time in which JAX, where it is imported, compiles."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        """So far; a trace within a trace is counted once."""
        total, end = 0.0, float("-inf")
        for first, last in sorted(self._spans):
            total += max(last - max(first, end), 0.0)
            end = max(end, last)
        return total

    def __enter__(self) -> Compiling:
        if "jax" in sys.modules:
            import jax

            jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        if "jax" in sys.modules:
            import jax

            jax.monitoring.clear_event_listeners()

    def _listen(self, event: str, duration: float, **_: Any) -> None:
        if event in COMPILING:
            now = time.perf_counter()
            self._spans.append((now - duration, now))
