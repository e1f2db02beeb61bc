"""Tests of how many draws are taken at once."""

import pytest
import torch
from torch import Tensor

from nfvi.utils import at_once, numbers_per_row, sizes
from nfvi.utils.pieces import HELD, KEPT, kept_at_once

CPU = torch.device("cpu")


@pytest.mark.parametrize("numbers", [1, 7, 300, 10**5, HELD // 3, HELD, 10 * HELD])
@pytest.mark.parametrize(("count", "bound"), [(at_once, HELD), (kept_at_once, KEPT)])
def test_a_piece_holds_no_more_numbers_than_the_bound(numbers, count, bound):
    found = count(numbers, 4_096, CPU)
    assert 1 <= found <= 4_096
    assert found == 1 or found * numbers <= bound
    # No piece is needlessly small: the next size would be over the bound, or is not asked for.
    assert found == 4_096 or (found + 16) * numbers > bound


def test_a_gpu_takes_more():
    assert at_once(HELD, 64, torch.device("cuda")) > at_once(HELD, 64, CPU) == 1


def test_sizes_make_up_the_whole():
    assert list(sizes(10, 4)) == [4, 4, 2]
    assert list(sizes(8, 4)) == [4, 4]


def test_pieces_of_whole_blocks_hold_the_draws_of_one_piece():
    n, d = 1_000, 37
    count = at_once(HELD // 100, n, CPU)
    assert count % 16 == 0 and count < n
    whole = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    pieces = [torch.randn(size, d, generator=generator) for size in sizes(n, count)]
    # The last block of torch is made anew where it is not whole.
    assert torch.equal(torch.cat(pieces)[:-1], whole[:-1])


def test_numbers_are_those_of_the_rows_and_not_of_the_parameters():
    weight = torch.ones(50, 3)

    def layer(n: int) -> Tensor:
        return (torch.zeros(n, 3) @ (2 * weight).T).sum(-1)

    assert numbers_per_row(layer) == (50, 3 + 50 + 1)
