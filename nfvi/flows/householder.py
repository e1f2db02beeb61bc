"""Householder reflections, applied a run at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nfvi.flows.registry import register
from nfvi.flows.runs import RunFlow

__all__ = ["Householder", "compact_form"]


@register("hh", help="z − 2 v (vᵀz) / ‖v‖²")
class Householder(RunFlow):
    """Reflection at the hyperplane normal to v: f(z) = z − 2 v (vᵀz) / ‖v‖², log|det| = 0.

    K reflections in a row are applied at once in the compact form H₁⋯H_K = I − V T Vᵀ with the
    unit normals as columns of V and T⁻¹ = ½ I + striu(VᵀV), in O(dK + K²) a point and without
    a d × d matrix. The scale of v has no effect; v = 0 gives the identity.

    Args:
        dim: d. v (d) starts as a unit vector along (1, …, 1) + ``jitter`` times a standard normal
            draw, with ``jitter`` 10 by default: in almost independent directions. Without jitter
            all start equal, and pairs of them are the identity. See :class:`Flow` for the other
            arguments.

    Reference:
        Tomczak and Welling, Improving variational auto-encoders using Householder flow, 2016.
        Joffrain, Low, Quintana-Ortí, van de Geijn and Van Zee, Accumulating Householder
        transformations, revisited, 2006.
    """

    # Reflections that start alike get nearly the same gradient and part slowly. The length of v
    # sets how far a step of an optimiser turns it.
    default_jitter = 10.0

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        self.v = nn.Parameter(normalize(1 + self.jitter * self.noise(dim), dim=-1))

    @classmethod
    def _push(cls, layers: Sequence[Any], z: Tensor) -> tuple[Tensor, Tensor]:
        normals, compact = _compact(layers)
        return z - (z @ normals.mT) @ compact @ normals, z.new_zeros(z.shape[:-1])

    @classmethod
    def _pull(cls, layers: Sequence[Any], x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        normals, compact = _compact(layers)
        return x - (x @ normals.mT) @ compact.mT @ normals, x.new_zeros(x.shape[:-1])


def compact_form(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """K reflections in a row, the first one first, as I − V T Vᵀ acting on rows from the right.

    Args:
        vectors: a normal of each (K, d), of any length; of length 0 for the identity.

    Returns:
        Vᵀ (K, d) and T (K, K).
    """
    normals = normalize(vectors, dim=-1, eps=1e-30)
    identity = torch.eye(vectors.shape[0], dtype=normals.dtype, device=normals.device)
    triangle = (normals @ normals.mT).triu(1) + 0.5 * identity
    return normals, torch.linalg.solve_triangular(triangle, identity, upper=True)


def _compact(layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
    return compact_form(torch.stack([layer.v for layer in layers]))
