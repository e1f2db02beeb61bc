"""Any text at all is a Formula, whose own text means the same, or a FormulaError."""

from __future__ import annotations

import random

import pytest

from nfvi.errors import FormulaError
from nfvi.flows import names
from nfvi.formula import Formula
from nfvi.guides import make_base

PIECES = [
    *names(),
    *("normal", "laplace", "studentt", "fourier", "df", "hidden", "bins", "bound", "activation"),
    *("features", "rank", "terms", "alternate", "true", "false", "none", "tanh", "auto"),
    *"()[]()[]--**==,,..+ \t\n\0é²٣𝟙_\\'\"{}#",
    *("0", "1", "8", "64", "9999", "10001", "1e3", "-1", "1e400", "9" * 40, "1.5"),
]
GOOD = [
    "planar*8",
    "(planar*2-radial)*3-loc",
    "maf(hidden=[64,64],features=fourier(8),alternate=false)*2-perm-nsf(bins=4,bound=3.5)",
    "studentt(df=5)",
    "sylvester(rank=1)-spline-bnaf(hidden=[8])-tril-lu",
]


def text(rng: random.Random) -> str:
    """Pieces in a row, or a formula with some of its characters changed."""
    if rng.random() < 0.5:
        return "".join(rng.choices(PIECES, k=rng.randrange(1, 14)))
    found = list(rng.choice(GOOD))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(found))
        found[at : at + rng.randrange(3)] = [rng.choice(PIECES)] * rng.randrange(3)
        found = found or ["-"]
    return "".join(found)


@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_texts(count: int) -> None:
    rng, read = random.Random(3), 0
    for _ in range(count):
        tried = text(rng)
        try:
            formula = Formula.parse(tried)
        except FormulaError as error:
            assert str(error)
        else:
            again = Formula.parse(str(formula))
            assert again == formula and again.layers == formula.layers
            read += 1
        try:
            base = make_base(tried)
        except FormulaError:
            continue
        assert make_base(str(base)) == base
    # Both ends were reached.
    assert count / 50 < read < count
