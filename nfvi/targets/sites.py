"""Sites with a name: shapes, places in the vector z, and maps to their supports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform

from nfvi.errors import TargetError
from nfvi.targets.bijections import beyond_floats, on_device
from nfvi.targets.checks import shape_text

__all__ = ["Site", "constrain_sites", "sites_on_edge", "unconstrain_sites", "unconstrained_parts"]

# In units of z; a value in the middle of its support tells z to some 1e-16, or 1e-7 in float32.
LOST = 0.5


@dataclass(frozen=True)
class Site:
    """A continuous latent site and its place in the unconstrained vector z (d,).

    Attributes:
        name: as in the model.
        shape: of its value, batch and event together.
        unconstrained_shape: of the numbers that its value is made from.
        start: index in z of the first of them.
        stop: index in z after the last.
        event_dim: how many of the last axes of the value are one event.
        transform: from unconstrained to constrained values; ``None`` is the identity.
        dtype: what the model itself draws the site in.
        log_space: whether its prior is computed from z and not from the value.
        origin: where z = 0 lies (size,), as a point of the map's domain; ``None`` for its origin.
    """

    name: str
    shape: torch.Size
    unconstrained_shape: torch.Size
    start: int
    stop: int
    event_dim: int
    transform: Transform | None
    dtype: torch.dtype
    log_space: bool = False
    origin: Tensor | None = None
    _maps: dict[torch.device, Transform] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Without copies on other devices."""
        return {**self.__dict__, "_maps": {}}

    @property
    def size(self) -> int:
        """How many numbers of z the site takes."""
        return self.stop - self.start

    def unflatten(self, flat: Tensor) -> Tensor:
        """(n, \\*unconstrained_shape), what the map takes, from z (n, size)."""
        if self.origin is not None:
            flat = flat + self.origin.to(flat)
        return flat.reshape(-1, *self.unconstrained_shape)

    def constrain(self, flat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values (n, \\*shape) from z (n, size), and log|det| (n,) of the map, None for 0.

        log|det| is −∞ where the value was kept from leaving the floats, unless the prior is
        computed from z.
        """
        z = self.unflatten(flat)
        transform = self._map(z)
        if transform is None:
            return z, None
        value = transform(z)
        ladj = transform.log_abs_det_jacobian(z, value)
        if not self.log_space and (beyond := beyond_floats(transform, z)) is not None:
            ladj = torch.where(beyond, -torch.inf, ladj)
        return value, ladj.flatten(1).sum(1) if ladj.dim() > 1 else ladj

    def unconstrain(self, value: Tensor) -> Tensor:
        """z (n, size) from values (n, \\*shape).

        Raises:
            TargetError: a value is outside the support, or on its edge.
        """
        transform = self._map(value)
        z = value if transform is None else transform.inv(value)
        flat = z.reshape(len(value), self.size)
        if self.origin is not None:
            flat = flat - self.origin.to(flat)
        back, _ = self.constrain(flat)
        close = torch.isclose(back, value, rtol=1e-3, atol=1e-5).all()
        if not (flat.isfinite().all() and close):
            least, most = (float(end) for end in value.aminmax())
            raise TargetError(
                f"site {self.name!r}: a value is outside its support, or on its edge; got values"
                f" from {least:g} to {most:g}"
            )
        return flat

    def on_edge(self, flat: Tensor) -> Tensor:
        """Whether a value, as a float, no longer tells its z (n, size): (n,) bool.

        So it is where the value was rounded to an edge of the support, or to the last float before
        one. A z that is off by 0.5 has a distance from the edge that is wrong by a factor of 1.6.
        """
        transform = self._map(flat)
        if transform is None:
            return torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
        try:
            z = self.unflatten(flat)
            moved = (transform.inv(transform(z)) - z).reshape(flat.shape)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            if len(flat) == 1:  # a matrix that is no longer positive definite
                return torch.ones(1, dtype=torch.bool, device=flat.device)
            return torch.cat([self.on_edge(part) for part in flat.tensor_split(2)])
        lost: Tensor = ~(moved.abs() < LOST)
        return lost.any(1)

    def _map(self, like: Tensor) -> Transform | None:
        """The transform, with bounds that are tensors on the device of the numbers."""
        if self.transform is None:
            return None
        if like.device not in self._maps:
            self._maps[like.device] = on_device(self.transform, like.device)
        return self._maps[like.device]


def constrain_sites(
    sites: Mapping[str, Site], z: Tensor
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Values (n, \\*shape) of all sites from z (n, d), and log|det| (n,) of the map, None for 0."""
    total: Tensor | None = None
    values = {}
    parts = z.split([site.size for site in sites.values()], dim=1)
    for (name, site), part in zip(sites.items(), parts, strict=True):
        values[name], ladj = site.constrain(part)
        if ladj is not None:
            total = ladj if total is None else total + ladj
    return values, total


def unconstrained_parts(sites: Mapping[str, Site], z: Tensor) -> dict[str, Tensor]:
    """The numbers (n, \\*unconstrained_shape) of the sites whose prior is computed from them."""
    return {
        name: site.unflatten(z[:, site.start : site.stop])
        for name, site in sites.items()
        if site.log_space
    }


def sites_on_edge(sites: Mapping[str, Site], z: Tensor) -> Tensor:
    """Whether some site's value at z (n, d) sits on an edge of its support: (n,) bool."""
    found = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for site in sites.values():
        found |= site.on_edge(z[:, site.start : site.stop])
    return found


def unconstrain_sites(sites: Mapping[str, Site], values: Mapping[str, Tensor]) -> Tensor:
    """z (n, d) from values (n, \\*shape) of all sites, or z (d,) from values without n.

    Raises:
        TargetError: a site is missing, of another shape, or has a value outside its support.
    """
    missing = [name for name in sites if name not in values]
    if missing:
        raise TargetError(f"no value for the sites {', '.join(missing)}")
    first = next(iter(sites.values()))
    lead = values[first.name].shape[: values[first.name].dim() - len(first.shape)]
    parts = []
    for name, site in sites.items():
        value = values[name]
        if len(lead) > 1 or value.shape != lead + site.shape:
            raise TargetError(
                f"site {name!r} takes values of shape {shape_text(site.shape)}, or n of them in "
                f"{shape_text(('n', *site.shape))}; got {shape_text(value.shape)}"
            )
        parts.append(site.unconstrain(value.reshape(-1, *site.shape)))
    return torch.cat(parts, dim=1).reshape(*lead, -1)
