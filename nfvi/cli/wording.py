"""Messages that name Python's arguments, in the words of the command line."""

from __future__ import annotations

import re

__all__ = ["in_shell"]

SAID = (
    (
        r"as in parameters=\{'tau': 'positive', 'phi': \(0, 1\)\}",
        "as in PARAMETERS = {'NAME': {'tau': 'positive', 'phi': (0, 1)}} beside the function NAME",
    ),
    (
        r"and one of named values parameters=, or NamedDensity\(f, parameters\) where that is no"
        r" argument",
        "and one of named values PARAMETERS = {'NAME': {…}} beside the function NAME",
    ),
    (r", as with x \+ rng\.uniform\(-0\.5, 0\.5, x\.shape\) for whole numbers", ""),
    (r"or make it the context", "or make it the context, with --context"),
    (r" \(the last good guide is error\.guide\)", ""),
    (r"; the last good guide is error\.guide\)", ")"),
    (r" The last good guide is error\.guide", ""),
    (r" \(there was no guide yet\)", ""),
    (r'NFVI\("auto"\)', "the formula auto"),
    (r" \(error\.guide is the best of [^)]*\)", ""),
    (
        r"from the file of a Checkpoint, NFVI\.resume\(path\) continues where it was",
        "with --checkpoint PATH --resume it continues where it was",
    ),
    (r"pass dtype= or device=", "pass --dtype or --device"),
    (r"\b(with|check|needs) dim=(?=\d)", r"\1 --dim "),
    (r"\b(with|check|needs) dim=(?!\d)", r"\1 --dim"),
)
"""Regular expressions, and what stands in their place."""


def in_shell(text: str) -> str:
    """A message of nfvi with options in the place of arguments and methods."""
    for said, words in SAID:
        text = re.sub(said, words, text)
    return text
