"""Tests of rows that do not fit into memory at once."""

import torch

from nfvi import NFVI
from nfvi.utils import pieces as limits

ROWS = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).cumsum(1).double()
WEIGHTS = torch.linspace(0.5, 1.5, 300).double()


def fitted():
    return NFVI("maf(hidden=[8])*2", seed=0, dtype=torch.float64).fit_data(
        ROWS, weights=WEIGHTS, epochs=5, batch_size=300, progress=False
    )


def test_a_fit_to_data_in_pieces_is_the_fit_in_one_piece(monkeypatch):
    whole = fitted()
    scores = whole.score_samples(ROWS)
    monkeypatch.setattr(limits, "KEPT", 2**14)
    monkeypatch.setattr(limits, "HELD", 2**9)
    sizes, cls = [], type(whole.guide)
    inverse = cls.inverse

    def noted(self, x, *rest):
        sizes.append(len(x))
        return inverse(self, x, *rest)

    monkeypatch.setattr(cls, "inverse", noted)
    pieces = fitted()
    assert max(sizes) < 100
    found, wanted = (
        torch.cat([p.flatten() for p in fit.guide.parameters()]) for fit in (pieces, whole)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(whole.score_samples(ROWS), scores, rtol=1e-12, atol=1e-12)
