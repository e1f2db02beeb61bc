"""Names of scalars."""

from __future__ import annotations

from nfvi.utils.names import scalar_names


def test_names():
    assert scalar_names("mu", ()) == ["mu"]
    assert scalar_names("L", (2, 2)) == ["L[0, 0]", "L[0, 1]", "L[1, 0]", "L[1, 1]"]
    assert scalar_names("empty", (0,)) == []
