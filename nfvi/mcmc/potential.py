"""The potential that Pyro's kernels call, as it is written or as a traced graph."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from nfvi.targets import Target, known_gradient
from nfvi.tracing import Traced, TraceError, traced
from nfvi.utils import unvalidated

__all__ = ["Potential", "traced_potential"]

logger = logging.getLogger(__name__)

# A trace costs about 0.3 s of CPU, and 1.2 s more in a process that never traced. It saves 0.2 ms
# a gradient on a bare log-density and over 1 ms on a Pyro model, at some seven gradients a draw.
LEAST_DRAWS = 1_000
# From the starts of the chains, for other numbers to hold the graph against.
SPREAD = 0.1


class Potential:
    """U(z) = −log p(z) of one point, the way Pyro's kernels call it, counting gradients.

    Args:
        target: the log-density.
        graph: what gives U and its gradient in its place, see :func:`traced_potential`.
    """

    def __init__(self, target: Target, graph: Traced | None = None) -> None:
        self.target, self.graph = target, graph
        self.gradients = 0

    def __call__(self, params: dict[str, Tensor]) -> Tensor:
        """The potential at ``params["z"]`` (d,): a scalar in the dtype of z."""
        z = params["z"]
        self.gradients += z.requires_grad
        if self.graph is not None:
            try:
                value, gradient = self.graph(z.detach())
            except RuntimeError:  # the target itself says what is wrong, as Pyro knows it
                return _potential(self.target, z)
            return known_gradient(z, value, gradient)
        return _potential(self.target, z)

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The potential at a point (d,), and its gradient."""
        if self.graph is not None:
            try:
                value, gradient = self.graph(z)
            except RuntimeError:  # the target itself says what is wrong
                pass
            else:
                self.gradients += 1
                return value, gradient
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = self({"z": leaf})
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient


def traced_potential(target: Target, starts: Tensor, draws: int) -> Traced | None:
    """U and its gradient as a graph; ``None`` where that does not pay or cannot be.

    Args:
        target: the log-density.
        starts: points (c, d) where chains begin.
        draws: of all chains, warm-up included.
    """
    if draws < LEAST_DRAWS or starts.device.type != "cpu" or target.differentiable_once:
        return None

    def evaluate(z: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = _potential(target, leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(starts.shape, generator=generator, dtype=starts.dtype)
    points = [*starts.detach(), *(starts.detach() + SPREAD * noise)]
    try:
        with unvalidated():
            return traced(evaluate, [(point.clone(),) for point in points])
    except TraceError as error:
        logger.info("gradients of %s run as written: %s", target.name, error)
        return None


def _potential(target: Target, z: Tensor) -> Tensor:
    return -target.log_prob(z.unsqueeze(0)).to(z.dtype).squeeze(0)
