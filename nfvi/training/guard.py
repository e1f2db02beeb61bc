"""What keeps one bad gradient from spoiling a fit: finite check, clipping, dropping."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

__all__ = ["PATIENCE", "Guard", "factors", "limits", "remembered"]

logger = logging.getLogger(__name__)

# Not measured: the length of a gradient varies by a few times in a sound fit, and by orders of
# magnitude where a draw falls off a cliff; nearer to 1 a clip would bias every step.
CLIP = 10.0
# A memory of a hundred steps, as Adam's of the squares: the limit follows a fit that settles.
DECAY = 0.99
# What does not recover in two warm-ups will not; a restart that continues for nothing costs its
# share.
PATIENCE = 100


def limits(mean_square: Tensor, weight: Tensor) -> Tensor:
    """The longest gradient of each restart that is left as it is (R), from its running mean."""
    mean_square = mean_square / weight.clamp_min(1 - DECAY)
    return torch.where(mean_square > 0, CLIP * mean_square.sqrt(), torch.inf)


def factors(norm: Tensor, limit: Tensor) -> Tensor:
    """What scales gradients of such lengths back to the limits (R)."""
    return (limit / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)


def remembered(
    mean_square: Tensor, weight: Tensor, norm: Tensor, good: Tensor
) -> tuple[Tensor, Tensor]:
    """The running mean and its weight (R) after a step with clipped gradients of such lengths."""
    rate = torch.where(good, 1 - DECAY, 0.0).to(norm.dtype)
    # An infinite square would make the mean NaN at the next step, and with it the gradient.
    square = torch.where(good, norm * norm, 0.0).clamp_max(torch.finfo(norm.dtype).max)
    mean_square = torch.lerp(mean_square, square, rate)
    return mean_square, torch.lerp(weight, torch.ones_like(rate), rate)


class Guard:
    """Checks and clips the gradient of each restart.

    A gradient longer than 10 times its running root-mean-square length (decay 0.99) is scaled
    back to that, except while all lengths were 0. A step whose loss or gradient is not finite is
    skipped for that restart and counted; after 100 in a row the restart is dropped.

    Args:
        like: the parameters (R, P), for shape, dtype and device.
    """

    def __init__(self, like: Tensor) -> None:
        self.mean_square = like.new_zeros(like.shape[0])
        self.weight = like.new_zeros(like.shape[0])
        self.alive = like.new_ones(like.shape[0], dtype=torch.bool)
        self.skipped = like.new_zeros(like.shape[0], dtype=torch.int64)
        self.in_a_row = torch.zeros_like(self.skipped)

    def __call__(self, loss: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Clip ``gradient`` (R, P) in place, and set it to 0 where the step must be skipped.

        Returns:
            Which restarts may step (R), and the length of each gradient before clipping (R).
        """
        norm = torch.linalg.vector_norm(gradient, dim=1)
        good = torch.isfinite(norm) & torch.isfinite(loss) & self.alive
        limit = limits(self.mean_square, self.weight)
        factor = factors(norm, limit)
        if bool(good.all()):
            gradient.mul_(factor.unsqueeze(1))
            self.in_a_row.zero_()
        else:
            scaled = gradient * factor.unsqueeze(1)
            gradient.copy_(torch.where(good.unsqueeze(1), scaled, 0.0))
            self._count(good)
        self.mean_square, self.weight = remembered(
            self.mean_square, self.weight, torch.minimum(norm, limit), good
        )
        return good, norm

    def _count(self, good: Tensor) -> None:
        bad = self.alive & ~good
        self.skipped += bad
        self.in_a_row = torch.where(bad, self.in_a_row + 1, 0)
        left = self.in_a_row < PATIENCE
        for row in (self.alive & ~left).nonzero()[:, 0].tolist():
            logger.info("restart %d is dropped: %d steps in a row were not finite", row, PATIENCE)
        self.alive &= left

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the restarts."""
        for name, value in self.state_dict().items():
            setattr(self, name, value[rows])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next call depends on."""
        names = ("mean_square", "weight", "alive", "skipped", "in_a_row")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the state of another guard."""
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name).device))
