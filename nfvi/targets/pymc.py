"""A PyMC model as a target on unconstrained space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import CheckedTarget
from nfvi.targets.checks import USER_ERRORS, Evaluate, check_values, probe_points
from nfvi.targets.known_gradient import by_another_library
from nfvi.targets.minibatch import MinibatchTarget, random_rows
from nfvi.targets.pymc_compiled import compiled
from nfvi.targets.pymc_containers import NewData, holding, new_data, read_containers
from nfvi.targets.pymc_functions import OnPoints, check_mode
from nfvi.targets.pymc_graphs import draw_prior, is_pymc_model, read_facts, read_graphs
from nfvi.targets.pymc_minibatch import all_rows_model, check_sum_over_rows
from nfvi.targets.pymc_predictive import advice_on_lengths, check_followed, draw_data

__all__ = ["PyMCTarget"]

NO_PYMC = "PyMCTarget needs PyMC, the extra `pymc`: pip install 'nfvi[pymc]'"
# That of the jitter of PyMC's own samplers, uniform from −1 to 1.
JITTER = 0.6


class PyMCTarget(CheckedTarget, MinibatchTarget):
    """The posterior of a PyMC model's free variables, with PyMC's own transforms and Jacobians.

    The free variables x, in the model's order, are put end to end in one vector z (d,), on the
    unconstrained scale of ``model.value_vars``; log p is ``model.logp()``. What ``to_arviz()`` of
    a fit or a run returns is what ``pm.sample`` would: names, deterministics, dimensions,
    coordinates and data, so that ``pm.sample_posterior_predictive`` continues from there.

    The model is read when the target is made: ``pm.set_data`` later does not change it. For new
    data there is ``fit.predict(data={...})``. Discrete free variables are refused.

    Where observed variables take their data from ``pm.Minibatch(X, y, batch_size=B)``, with
    ``total_size=N``, a step of a fit draws B of the N rows anew, from the seed of the fit and not
    from PyMC's generator; see docs/large-data. ``log_prob`` is that of all rows, as is all else:
    deterministics, log-likelihoods, data and predictions.

    Log-density and gradient come from PyTensor and are float64, or PyTensor's ``floatX``. Torch can
    differentiate them once, so that steps are not traced.

    Args:
        model: a ``pm.Model``.
        name: for tables and figures; default the model's own name, or ``"PyMC model"``.
        mode: how PyTensor's graphs are run: ``"JAX"``, or one of PyTensor's modes, ``"NUMBA"`` or
            ``"CVM"`` (C). By default JAX, which compiles fastest, where it is installed and knows
            all operations of the model; else PyTensor's own default on a graph over batches.

    Attributes:
        mode: the one in use, or ``None`` for PyTensor's default.
        dims: variable -> names of its dimensions, as in the model.
        coords: name of a dimension -> the labels along it, as in the model.
        rows: N, where steps draw B of N rows of ``pm.Minibatch`` anew; else 0.
        batch_size: B.

    Raises:
        ImportError: PyMC is not installed.
        TargetError: it is no PyMC model, or one that cannot be used.

    Example:
        >>> import pymc as pm  # doctest: +SKIP
        >>> with pm.Model() as model:  # doctest: +SKIP
        ...     mu = pm.Normal("mu", 0, 10)
        ...     pm.Normal("y", mu, 1, observed=[1.2, 0.7])
        >>> PyMCTarget(model).log_prob(torch.zeros(3, 1)).shape  # doctest: +SKIP
        torch.Size([3])
    """

    named = True
    differentiable_once = True

    def __init__(self, model: Any, *, name: str | None = None, mode: Any = None) -> None:
        try:
            import pymc  # noqa: F401
        except ImportError as error:
            raise ImportError(NO_PYMC) from error
        if not is_pymc_model(model):
            raise TargetError(f"PyMCTarget takes a pm.Model; got {type(model).__name__}")
        check_mode(mode)
        super().__init__()
        self.model = model
        self.name = name or model.name or "PyMC model"
        self._graphs, facts = read_graphs(model, self.name), read_facts(model, self.name)
        self.dim = len(self._graphs.start)
        self.dtype = getattr(torch, self._graphs.z.dtype)
        self.dims, self.coords = facts.dims, facts.coords
        self.evidence_caveats = facts.caveats
        self._facts = facts
        self._containers = read_containers(model, [*facts.constant_data])
        self.mode = mode
        if self._graphs.of_rows is not None:
            self.rows = self._graphs.of_rows.rows
            self.batch_size = self._graphs.of_rows.batch_size
        self._compiled: dict[str, OnPoints] = {}
        self._loop = ""

    def __repr__(self) -> str:
        shown = list(self._graphs.places)
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, free={shown})"

    def __getstate__(self) -> dict[str, Any]:
        """Without what was compiled, which another process does for itself.

        Models hold functions that pickle alone refuses; PyMC sends them by cloudpickle, too.
        """
        import cloudpickle

        model = cloudpickle.dumps(self.model)
        return {**self.__dict__, "model": model, "_evaluators": {}, "_compiled": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From what :meth:`__getstate__` gave."""
        import cloudpickle

        self.__dict__.update({**state, "model": cloudpickle.loads(state["model"])})

    @property
    def observed_data(self) -> Mapping[str, Any]:
        """The data of the observed variables, by name."""
        return self._facts.observed_data

    @property
    def constant_data(self) -> Mapping[str, Any]:
        """The ``pm.Data`` that the model reads, by name."""
        return self._facts.constant_data

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """Free variables and deterministics at points z (n, d), each (n, \\*shape).

        Real values are in the dtype of z.
        """
        self._require_shape(z)
        values = self._function("sites")(z)
        return {
            name: value.to(z.dtype) if value.is_floating_point() else value
            for name, value in zip(self._graphs.shown, values, strict=True)
        }

    def log_likelihood(self, z: Tensor) -> dict[str, Tensor]:
        """log p(y | x) of every observation at points z (n, d): variable -> (n, \\*shape).

        Raises:
            TargetError: the model has no observed variable.
        """
        self._require_shape(z)
        if not self._graphs.likelihood:
            raise TargetError(f"{self.name!r} has no observed variable: pass observed= to one")
        found = self._function("likelihood")(z)
        pairs = zip(self._graphs.likelihood, found, strict=True)
        return {name: value.to(z.dtype) for name, value in pairs}

    def predict(
        self,
        z: Tensor,
        *,
        seed: int,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Data drawn anew by PyMC at points z (n, d): observed variable -> (n, \\*shape).

        Args:
            z: points, of the posterior or of the prior.
            seed: of the draws.
            args: refused, as a model of PyMC has none.
            kwargs: likewise.

        Raises:
            TargetError: the model has no observed variable, or there are arguments.
        """
        if args is not None or kwargs is not None:
            raise TargetError(
                f"{self.name!r} is a PyMC model, which takes no arguments; pass new values of its"
                " pm.Data by name, as in fit.predict(data={'x': x_new})"
            )
        same = NewData(self._containers, frozenset())
        return self._draw_data(z, seed, same, everything=False)

    def predict_new(
        self,
        z: Tensor,
        *,
        seed: int,
        data: Mapping[str, Any] | None,
        coords: Mapping[str, Sequence[Any]] | None,
    ) -> dict[str, Tensor]:
        """Data drawn by PyMC at points z (n, d), with other values in its ``pm.Data`` containers.

        The containers and coordinates of the model are put back afterwards.

        Args:
            z: points, of the posterior or of the prior.
            seed: of the draws.
            data: name of a ``pm.Data`` -> its new values; the others are as in the fit.
            coords: name of a dimension -> the labels along it, which say how long it is.

        Returns:
            Observed variable -> (n, \\*shape), and so of the deterministics. A free variable whose
            prior reads what is new, or whose length changes, is drawn from that prior, as PyMC does
            for new groups, and is among them.

        Raises:
            TypeError: ``data`` or ``coords`` is no dict.
            TargetError: the model has no observed variable, a name or a length is wrong, or PyMC
                raised; the message lists the containers or says what to do.
        """
        held = new_data(self._containers, data, coords, self.name)
        with advice_on_lengths(self.name):
            found = self._draw_data(z, seed, held, everything=True)
        arrays = {name: found[name].numpy(force=True) for name in self._facts.observed_data}
        check_followed(self.model, self._containers, held, arrays, self._facts.observed_data)
        return found

    def _draw_data(
        self, z: Tensor, seed: int, held: NewData, *, everything: bool
    ) -> dict[str, Tensor]:
        if not self._graphs.likelihood:
            raise TargetError(f"{self.name!r} has no observed variable: pass observed= to one")
        free = {name: x for name, x in self.constrain(z).items() if name in self._graphs.places}
        with holding(self.model, held.after):
            model = all_rows_model(self.model, self.name) if self.rows else self.model
            drawn = draw_data(model, _arrays(free), seed, self.dims, held, everything=everything)
        return {name: torch.from_numpy(x).to(z.device) for name, x in drawn.items()}

    def draw_rows(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The numbers of B rows of ``pm.Minibatch``, at random and none twice."""
        return (torch.from_numpy(random_rows(self.rows, self.batch_size, generator)),)

    def log_prob_of(self, z: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """The estimate of log p (n) from some rows, at points z (n, d)."""
        return self._evaluate(z, "_of_rows", rows[0].cpu().numpy())

    def numbers_per_draw(self) -> float:
        """How many numbers the operations of a step write for one draw, as PyTensor knows them."""
        return self._graphs.of_rows.work if self._graphs.of_rows is not None else 0.0

    def steps_of_a_look(self, n_mc: int) -> float:
        """N / (n_mc B): a look has as few calls as its memory allows."""
        return self.rows / (n_mc * self.batch_size)

    def _site_places(self) -> Mapping[str, slice]:
        return self._graphs.places

    def prior_draws(self, n: int, seed: int) -> Tensor | None:
        """n draws z (n, d) of the model's prior; ``None`` where it has none, as ``pm.Flat``.

        Args:
            n: how many.
            seed: of the draws.
        """
        with holding(self.model, self._containers):
            draws = draw_prior(self.model, n, seed)
        if draws is None:
            return None
        usable = torch.from_numpy(draws[np.isfinite(draws).all(1)])
        return usable.to(self.dtype) if len(usable) else None

    def _probes(self, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        start = torch.from_numpy(self._graphs.start).to(device, dtype)
        return start + JITTER * probe_points(n, self.dim, dtype, device)

    def _number_of_probes(self) -> int:
        return 3

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        try:
            self._evaluate(points)
        except TargetError:
            raise
        except USER_ERRORS as error:
            raise TargetError(
                f"{self.name!r} raised {type(error).__name__} near PyMC's initial point: {error}"
            ) from error
        self._flat = check_values(self._evaluate, points, self.name).flat
        if self.rows:
            of_rows = partial(self._evaluate, points[:1], "_of_rows")
            check_sum_over_rows(of_rows, self.rows, self.batch_size, self.name)
        why = (
            f"PyTensor cannot vectorise it ({self._loop}); install JAX, pip install"
            " 'nfvi[jax]', or write the model without such operations"
        )
        return self._evaluate, "loop" if self._loop else "batch", why

    def _evaluate(self, z: Tensor, kind: str = "", *rows: np.ndarray) -> Tensor:
        """log p (n) of points (n, d); its gradient is computed with it, where one is asked for."""
        if not (z.requires_grad and torch.is_grad_enabled()):
            return self._function(f"value{kind}")(z, *rows)[0].to(z.dtype)

        def with_gradient(z: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = self._function(f"gradient{kind}")(z, *rows)
            return value, gradient

        return by_another_library(with_gradient, z)

    def _function(self, kind: str) -> OnPoints:
        """``"value"``, ``"gradient"`` (log p with it), ``"sites"`` or ``"likelihood"``, once.

        The first two with ``"_of_rows"`` behind them take numbers of rows as well.
        """
        if kind not in self._compiled:
            self._compiled[kind] = self._compile(kind)
        return self._compiled[kind]

    def _compile(self, kind: str) -> OnPoints:
        found = compiled(self._graphs, kind, self.mode, self.name)
        if found.loop is not None:
            self.work = self._graphs.work
            if kind not in ("sites", "likelihood"):
                self._loop = found.loop
        elif not kind.endswith("_of_rows"):
            self.work = found.work if kind == "value" else self.work or found.work
        return found.run


def _arrays(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: x.detach().cpu().numpy() for name, x in values.items()}
