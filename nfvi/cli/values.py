"""What the words of options mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import torch

from nfvi.formula import Formula
from nfvi.inference import NFVI
from nfvi.training import ADAPTIVE

__all__ = ["check_word", "device_of", "fractions", "number_or_auto", "start_of"]

N = TypeVar("N", int, float)


def start_of(
    formula: str | Formula,
    *,
    base: str | None,
    seed: int | None,
    dtype: str | None,
    device: str | None,
    jitter: float | None = None,
) -> NFVI:
    """What is to be fitted; ``None`` where an option was not given."""
    return NFVI(
        formula,
        base=base or "normal",
        jitter=jitter,
        seed=seed,
        dtype=_dtype_of(dtype),
        device=device_of(device),
    )


def _dtype_of(text: str | None) -> torch.dtype | None:
    """``--dtype``."""
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if text is not None and text not in dtypes:
        raise ValueError(f"--dtype takes {' or '.join(dtypes)}, got {text!r}")
    return None if text is None else dtypes[text]


def device_of(text: str | None) -> torch.device | None:
    """``--device``, if it is there."""
    if text is None:
        return None
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise ValueError(
            f"--device {text!r} is none that torch knows: cpu, cuda, cuda:1"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here")
    return device


def check_word(option: str, text: str | None, words: Sequence[str]) -> None:
    """Check that an option is one of the words that it takes on the command line."""
    if text is not None and text not in words:
        raise ValueError(f"--{option} takes {', '.join(words[:-1])} or {words[-1]}, got {text!r}")


def number_or_auto(option: str, text: str | None, kind: type[N]) -> N | Literal["auto"] | None:
    """The number that an option holds, or the word ``auto``."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return kind(text)
    except ValueError as error:
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"--{option} takes {number} or auto, got {text!r}") from error


def fractions(text: str | None) -> float | str | list[float] | None:
    """``--anneal``: 0.3 for all restarts, 0.3,0 for one each, or ``adaptive``."""
    if text is None or text == ADAPTIVE:
        return text
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            "--anneal takes a fraction such as 0.3, one for each restart as in 0.3,0, or"
            f" {ADAPTIVE}; got {text!r}"
        ) from error
    return values[0] if len(values) == 1 else values
