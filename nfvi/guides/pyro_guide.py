"""The guide of a formula as a Pyro autoguide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoContinuous
from pyro.infer.autoguide.guides import prototype_hide_fn
from pyro.params.param_store import param_with_module_name
from torch import Tensor
from torch.distributions import biject_to
from torch.utils.weak import WeakIdKeyDictionary

from nfvi.errors import TargetError
from nfvi.formula import Formula
from nfvi.guides.bases import Base, make_base
from nfvi.guides.guide import Guide
from nfvi.guides.placement import Placement
from nfvi.guides.pyro_posterior import BaseDistribution, FlowPosterior, FlowTransform
from nfvi.guides.pyro_start import (
    check_function,
    checked_plates,
    feasible,
    quantile_levels,
    start_at,
    start_scale,
)

__all__ = ["AutoFlow"]

# A 5 % quantile is then off by a level of 0.3 %; four times as many draws halve that.
_DRAWS_FOR_QUANTILES = 4000

# Parameters made here, by which one that some other AutoFlow left behind in Pyro's store is told
# from one that the user loaded into it.
_made_here: WeakIdKeyDictionary = WeakIdKeyDictionary()


class AutoFlow(AutoContinuous):
    """A Pyro autoguide q(z) = base pushed through the flows of a formula, over all latent sites.

    For Pyro's own ``SVI``, ``Predictive``, ``psis_diagnostic`` and ``NeuTraReparam``; a fit by
    :class:`NFVI` needs none of these. Like all of Pyro's automatic guides it takes the model's
    arguments, makes its parameters at the first call, when it learns how many dimensions there
    are, and needs latent sites with ``biject_to`` supports in vectorised plates. Sites marked
    for parallel enumeration are left to ``TraceEnum_ELBO``. Draws come from torch's default
    generator, which ``pyro.set_rng_seed`` sets.

    A state dict loads into a fresh guide of the same formula, before its first call too. What an
    earlier AutoFlow left in Pyro's parameter store is replaced at the first call; parameters
    that were loaded into the store from a file are taken.

    Args:
        model: a Pyro model.
        formula: text such as ``"planar*8"``, or a :class:`Formula`.
        base: ``"normal"``, ``"laplace"``, ``"studentt(df=5)"`` or a :class:`Base`.
        jitter: standard deviation of the start around the identity; ``None`` leaves each flow its
            own default.
        seed: of that start; ``None`` draws from torch's default generator.
        init_loc_fn: where the guide starts, as for Pyro's ``AutoNormal``: a function of a site such
            as ``pyro.infer.autoguide.init_to_median``. Its median is there, but for the jitter.
            Default the image of the base around z = 0.
        init_scale: sd of each unconstrained coordinate at the start, over 0; default 0.1 beside
            ``init_loc_fn``, as in Pyro, and else the base's own. Place and scale stand behind the
            flows as a fixed affine map, so that a formula without ``loc`` is placed as well.
        create_plates: a function of the model's arguments that returns a ``pyro.plate`` or several,
            such as those that subsample, for the guide to share with the model.

    Attributes:
        flow: the :class:`Guide` over the unconstrained vector; ``None`` before the first call.

    Raises:
        FormulaError: the formula or the base cannot be read.
        ValueError, TypeError: ``init_loc_fn``, ``init_scale`` or ``create_plates`` is wrong.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> guide = AutoFlow(model, "planar*8")
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        >>> loss = svi.step(torch.zeros(5))
        >>> guide.flow.dim
        1
        >>> pyro.clear_param_store()
    """

    def __init__(
        self,
        model: Any,
        formula: str | Formula = "scale-loc",
        *,
        base: str | Base = "normal",
        jitter: float | None = None,
        seed: int | None = None,
        init_loc_fn: Callable[..., Any] | None = None,
        init_scale: float | None = None,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        check_function("init_loc_fn", init_loc_fn, "of a site, such as init_to_median")
        check_function("create_plates", create_plates, "of the model's arguments to plates")
        start = feasible if init_loc_fn is None else partial(start_at, init_loc_fn)
        super().__init__(model, init_loc_fn=start)  # type: ignore[no-untyped-call]
        if create_plates is not None:
            self.create_plates = partial(checked_plates, create_plates)
        self.formula = Formula.parse(formula)
        self.base = make_base(base)
        self.init_scale = start_scale(init_scale, init_loc_fn is not None, self.base)
        self.jitter = jitter
        self.seed = seed
        self.flow: Guide | None = None
        self.register_buffer("latent_size", torch.tensor(0))

    def get_posterior(self, *args: Any, **kwargs: Any) -> FlowPosterior:
        """q over the unconstrained vector z (d,); it does not depend on the arguments.

        Raises:
            TargetError: the guide has neither been called nor loaded yet.
        """
        return FlowPosterior(self._ready_flow())

    def get_base_dist(self) -> BaseDistribution:
        """The base distribution, over vectors of length d."""
        return BaseDistribution(self._ready_flow())

    def get_transform(self, *args: Any, **kwargs: Any) -> FlowTransform:
        """The flows as a torch transform from base to target."""
        return FlowTransform(self._ready_flow())

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The marginal posterior median of each element of each site, as :meth:`quantiles`."""
        return {name: q[0] for name, q in self.quantiles([0.5], *args, **kwargs).items()}

    @torch.no_grad()
    def quantiles(
        self, quantiles: Iterable[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Marginal posterior quantiles of each element of each site, estimated from 4000 draws.

        The level q is met to √(q (1 − q) / 4000), one standard error: a median is the quantile of
        0.5 ± 0.008, and that of 0.05 is off by 0.003.

        Args:
            quantiles: Q levels in [0, 1].
            args: the model's arguments, as are ``kwargs``.

        Returns:
            (Q, \\*shape) for each site.

        Raises:
            ValueError, TypeError: the levels are none.
        """
        levels = quantile_levels(quantiles)
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        draws = self._constrained_draws(_DRAWS_FOR_QUANTILES)
        # The order statistic nearest to the level: torch.quantile refuses large tensors.
        rows = (levels * (_DRAWS_FOR_QUANTILES - 1)).round().long()
        return {name: value.sort(0).values[rows.to(value.device)] for name, value in draws.items()}

    @staticmethod
    def _prototype_hide_fn(msg: Any) -> bool:
        hidden: bool = prototype_hide_fn(msg)
        return hidden or msg["infer"].get("enumerate") == "parallel"

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)  # type: ignore[no-untyped-call]
        flow = self._silent_flow()
        if flow is None:
            start: Tensor = self._init_loc()  # type: ignore[no-untyped-call]
            placement = None
            if self.init_scale is not None:
                placement = Placement(start, torch.full_like(start, self.init_scale / self.base.sd))
            self._build(self.latent_dim, start.dtype, start.device, placement)
        elif flow.dim != self.latent_dim:
            self.prototype_trace = None
            raise TargetError(
                f"the guide was loaded with dim={flow.dim}, and the model's latent sites take "
                f"{self.latent_dim} dimensions; load it for the model that it was fitted to"
            )

    def _build(
        self,
        dim: int,
        dtype: torch.dtype,
        device: torch.device,
        placement: Placement | None = None,
    ) -> None:
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        flow = Guide(
            self.formula,
            dim,
            base=self.base,
            jitter=self.jitter,
            placement=placement,
            generator=generator,
            dtype=dtype,
            device=device,
        )
        for parameter in flow.parameters():
            _made_here[parameter] = True
        self.flow = flow
        self.latent_size.fill_(dim)

    def _silent_flow(self) -> Guide | None:
        """The flow without a word to Pyro, which the attribute tells of the parameters."""
        flow = self._modules.get("flow")
        return flow if isinstance(flow, Guide) else None

    def _ready_flow(self) -> Guide:
        """The flow; inside of Pyro, its parameters are those in the parameter store."""
        flow = self._silent_flow()
        if flow is None:
            raise TargetError(
                "the guide has no parameters yet: call it once with the model's arguments, or "
                "load a state dict"
            )
        if self._pyro_context.active and not pyro.settings.get("module_local_params"):
            _claim_store(self._pyro_get_fullname("flow"), flow)
        _ = self.flow
        return flow

    def _constrained_draws(self, n: int) -> dict[str, Tensor]:
        """n draws (n, \\*shape) of each site."""
        trace: Any = self.prototype_trace
        # The axis of the draws stands left of all plates.
        plates = max(len(node["fn"].batch_shape) for _, node in trace.iter_stochastic_nodes())
        latent = self.get_posterior().sample(torch.Size([n])).reshape(n, *(1,) * plates, -1)
        parts: Any = self._unpack_latent(latent)  # type: ignore[no-untyped-call]
        return {
            site["name"]: biject_to(site["fn"].support)(z).reshape(n, *site["value"].shape)
            for site, z in parts
        }

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        size = int(state_dict.get(prefix + "latent_size", 0))
        tensors = [value for key, value in state_dict.items() if key.startswith(f"{prefix}flow.")]
        if self._silent_flow() is None and size > 0 and tensors:
            placed = f"{prefix}flow.placement.loc" in state_dict
            placement = Placement.identity(size, diagonal=True) if placed else None
            self._build(size, tensors[0].dtype, tensors[0].device, placement)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _claim_store(name: str, flow: Guide) -> None:
    """Make Pyro's parameter store hold this flow's parameters under its name.

    Were another tensor there, Pyro would optimise that one, and the guide would not change.
    """
    store = pyro.get_param_store()
    for key, parameter in flow.named_parameters():
        full = param_with_module_name(name, key)
        if full not in store:
            continue
        stored: Tensor = store[full].unconstrained()  # type: ignore[attr-defined]
        if stored is parameter:
            return
        if stored not in _made_here and stored.shape == parameter.shape:
            with torch.no_grad():
                parameter.copy_(stored)
        del store[full]
