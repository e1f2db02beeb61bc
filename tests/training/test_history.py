"""The record of a fit: a table that grows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi.training.history import LEAST_ROOM, History

FIELDS = ("loss", "elbo", "elbo_se", "grad_norm", "beta")


def row(step: int) -> dict[str, Tensor]:
    """Values of two restarts, all different."""
    start = torch.tensor([0.0, 0.5], dtype=torch.float64)
    return {name: start + step + 10_000 * k for k, name in enumerate(FIELDS)}


def recorded(steps: int) -> History:
    history = History()
    for step in range(steps):
        history.append(0.1 * step, 7, **row(step))
    return history


@pytest.mark.parametrize("steps", [1, LEAST_ROOM, 2 * LEAST_ROOM + 3])
def test_every_step_is_kept_as_the_table_grows(steps: int) -> None:
    history = recorded(steps)
    expected = torch.stack([row(step)["grad_norm"] for step in range(steps)])
    assert len(history) == steps and torch.equal(history.grad_norm, expected)
    assert history.n_mc.tolist() == [7] * steps and history.last_lr == 0.1 * (steps - 1)
    assert torch.equal(history.last_row()[FIELDS.index("loss")], row(steps - 1)["loss"])
    assert torch.equal(history.last("grad_norm", 2), expected[-2:])


def test_steps_of_a_chunk_are_as_those_of_one_by_one() -> None:
    one, chunks = recorded(300), History()
    rows = one.state_dict()["rows"]
    for part in (slice(0, 1), slice(1, 290), slice(290, 300)):
        chunks.extend(one.lr[part].tolist(), 7, rows[part])
    assert torch.equal(chunks.loss, one.loss) and torch.equal(chunks.lr, one.lr)


def test_what_is_handed_out_is_not_the_record_itself() -> None:
    history = recorded(3)
    history.loss.zero_()
    history.last("loss", 1).zero_()
    history.state_dict()["rows"].zero_()
    assert torch.equal(history.loss, recorded(3).loss)


@pytest.mark.parametrize("steps", [0, 3])
def test_files_and_choices(steps: int) -> None:
    history = recorded(steps)
    back = History()
    back.load_state_dict(history.state_dict())
    back.append(0.9, 7, **row(99))
    assert len(back) == steps + 1 and len(history) == steps
    assert torch.equal(back.loss[:steps].flatten(), history.loss.flatten())
    second = history.select(1)
    assert len(second) == steps
    if steps:
        assert torch.equal(second.elbo, history.elbo[:, 1:])


def test_steps_leave_no_small_tensors_behind() -> None:
    """They would lie between the large ones, and memory would grow with every step."""
    history = recorded(LEAST_ROOM)
    whole = LEAST_ROOM * len(FIELDS) * 2 * 8
    assert history.last_row().untyped_storage().nbytes() == whole
