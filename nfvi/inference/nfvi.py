"""NFVI, the face of the package: a formula that can be fitted to a target."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from nfvi.auto import Budget
from nfvi.density import DensityFit, read_data
from nfvi.fit import Fit
from nfvi.formula import Formula
from nfvi.guides import Base, Guide, make_base
from nfvi.inference.arguments import DataArguments, FitArguments, check_callbacks
from nfvi.inference.auto import (
    AUTO,
    auto_fit,
    is_auto,
    refuse_data,
    refuse_guide_options,
)
from nfvi.inference.data import data_fit, resumed_data_fit
from nfvi.inference.guide_spec import GuideSpec
from nfvi.inference.init import Init
from nfvi.inference.saved_run import SavedRun
from nfvi.inference.size import check_size
from nfvi.inference.target import resumed_target_trainer, target_trainer
from nfvi.targets import Target, as_target
from nfvi.training import (
    Anneal,
    CallbackLike,
    Compile,
    Distribute,
    OptimizerSpec,
    Ranks,
    check_compile,
    with_progress,
)
from nfvi.utils import check_dtype, check_whole, common_dim, usable_device

__all__ = ["NFVI"]


class NFVI:
    """Normalizing-flow variational inference: a formula becomes a guide, and is fitted.

    Args:
        formula: the flows, first one next to the base: ``"scale-loc"``, ``"planar*8"``,
            ``"(planar*2-radial)*3"``. ``"auto"``, the default, finds one that suits the target, see
            :meth:`fit`.
        base: ``"normal"``, ``"laplace"``, ``"studentt(df=5)"`` or a :class:`~nfvi.guides.Base`.
        jitter: standard deviation of the random start around the identity; ``None`` leaves each
            flow its own default.
        seed: fixes everything random in a fit; ``None`` takes a new one, kept as ``fit.seed``.
        dtype: of the guide; default that of the target if it has one, else
            ``torch.get_default_dtype()``.
        device: of the guide; default the CPU.

    Raises:
        FormulaError: formula or base cannot be read; the message shows the place.
        ValueError: seed, jitter, dtype or device is none of those.

    Example:
        >>> fit = NFVI("scale-loc", seed=1).fit(lambda z: -(z**2).sum(-1) / 2, dim=2, steps=200)
        >>> fit.sample(1000).shape
        torch.Size([1000, 2])
    """

    def __init__(
        self,
        formula: str | Formula = "auto",
        *,
        base: str | Base = "normal",
        jitter: float | None = None,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.formula = AUTO if is_auto(formula) else Formula.parse(formula)
        self.base = make_base(base)
        if jitter is not None and not (
            isinstance(jitter, int | float) and 0 <= jitter < float("inf")
        ):
            raise ValueError(f"jitter must be a number of at least 0, got {jitter!r}")
        if seed is not None:
            check_whole("seed", seed, 0, 2**63 - 1)
        if dtype is not None:
            check_dtype("dtype", dtype)
        self.jitter, self.seed, self.dtype = jitter, seed, dtype
        self.device = usable_device("device", device)
        if self.formula == AUTO:
            refuse_guide_options(self.spec)
        self._saved: SavedRun | None = None

    def __repr__(self) -> str:
        return f"NFVI({str(self.formula)!r}, base={str(self.base)!r})"

    @property
    def spec(self) -> GuideSpec:
        """What its guides are made from."""
        return GuideSpec(self.formula, self.base, self.jitter, self.seed, self.dtype, self.device)

    @classmethod
    def resume(
        cls, path: str | os.PathLike[str], *, device: torch.device | str | None = None
    ) -> NFVI:
        """Go on with a fit that was stopped, from the last file of a :class:`~nfvi.Checkpoint`.

        ``NFVI.resume(path).fit(target)`` takes the same target and callbacks as the fit that
        wrote the file (a file holds no code) and ends bit for bit where that one would have. So
        does ``NFVI.resume(path).fit_data(x)`` with the same data.

        Args:
            path: the checkpoint.
            device: where to go on; default the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            FitError: the file is truncated or damaged, not a checkpoint of nfvi, or of a newer
                version.
        """
        saved = SavedRun.read(path, device)
        values = saved.values
        nfvi = cls(
            values["formula"],
            base=values["base"],
            seed=values["seed"],
            dtype=getattr(torch, values["dtype"]),
            device=device,
        )
        nfvi._saved = saved
        return nfvi

    def fit(
        self,
        target: Any,
        *args: Any,
        dim: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        init: Init = None,
        steps: int | Literal["auto"] | None = None,
        n_mc: int | Literal["auto"] | None = None,
        restarts: int | None = None,
        prune: bool | None = None,
        combine: Literal["best", "mixture"] | None = None,
        anneal: Anneal = None,
        gradient: Literal["path", "total"] | None = None,
        draws: Literal["iid", "qmc"] | None = None,
        optimizer: OptimizerSpec = None,
        lr: float | Literal["auto"] | None = None,
        hold: float | None = None,
        budget: Budget | float | None = None,
        compile: Compile = "trace",
        distribute: Distribute = None,
        callbacks: Sequence[CallbackLike] = (),
        progress: bool | None = None,
    ) -> Fit:
        """Fit the guide to a target by maximising the ELBO.

        ``NFVI("auto")`` climbs: a Gaussian without correlations, one of full rank, a mixture of
        them where scattered starts find several modes, then learned flows of growing size, each
        started from the last. It ends when k-hat and the distance from ELBO to log evidence are
        small, when a rung gains nothing, at the last rung, or with the ``budget``; ``fit.path``
        shows every rung, and ``fit.formula`` is the formula that was kept. It takes no argument
        below but ``dim``, ``parameters``, ``budget``, ``compile``, ``distribute``, ``callbacks``
        and ``progress``.

        Args:
            target: a :class:`~nfvi.Target`, a log-density as a function of z (n, d) with
                ``dim=`` or of named values with ``parameters=``, or a Pyro model.
            args: the arguments of a Pyro model.
            dim: d, for a bare log-density.
            parameters: for a function of named parameters, what each is: a number of entries, a
                support such as ``"positive"`` or ``(0, 6.28)``, or a prior, see
                :class:`~nfvi.NamedDensity`. The function is then log p of their values or, with
                priors, the log-likelihood.
            init: where guides start: ``None`` or ``"zeros"``, the base itself; ``"gaussian"``,
                ``"laplace"``, ``"pathfinder"`` or, of these, the best, ``"auto"``: a Gaussian is
                fitted first and placed behind the flows, see
                :func:`~nfvi.starts.starts.find_start`; a point (d) of unconstrained space or a
                dict of a model's sites, around which flows start with unit scale; a :class:`Fit`,
                whose parameters are copied if formula and base are the same (each component of a
                mixture becomes a restart), or else its mean and covariance are placed.
            steps: optimiser steps; default 2 500, but 5 000 with ``realnvp``, ``nsf``, ``maf`` or
                ``iaf``. ``"auto"`` continues at the full learning rate until as many steps again
                would gain less than 0.01 nats, and then lets it decay over half as many, at most
                20 000 in all, see :class:`~nfvi.training.controls.Plateau`; ``fit.stopped`` is then
                ``"converged"``.
            n_mc: draws a step for each restart; default 256 for up to 10 dimensions, 64 for more.
                ``"auto"`` starts with 64 and doubles them, up to 1 024, when the gradient is mostly
                noise, see :class:`~nfvi.training.controls.Growth`; ``fit.history.n_mc`` has them.
            restarts: independent fits run side by side, of which the one with the highest final
                ELBO is kept; default 8 for up to 10 dimensions and 4 for more, but 2 for more than
                5 000 parameters, and 1 for a target that is evaluated draw by draw or an
                optimiser that may mix restarts.
            prune: whether to give up restarts that are far behind on the way (successive halving,
                see :class:`~nfvi.training.controls.Pruning`), so that later steps cost less;
                default ``False``.
            combine: ``"best"``, the default, keeps the restart with the highest ELBO.
                ``"mixture"`` makes those that sit in different modes one
                :class:`~nfvi.MixtureGuide`, with weights by importance sampling, see
                :func:`~nfvi.fit.mixture_weights.mixture_weights`; not with ``prune=True``.
            anneal: fraction of ``steps`` in which β rises from 0.01 to 1: one number for all
                restarts, or one for each; ``True`` is 0.4, or 0.6 with ``realnvp``, ``nsf``,
                ``maf`` or ``iaf``, and ``False`` is 0. Default ``True`` for three restarts in four
                and 0 for the second of each four: tempering finds modes and keeps their shares
                right, but costs accuracy on some targets, and the ELBO decides. With
                ``steps="auto"``, of 2 500 steps. ``"adaptive"``, for all or in the list beside
                ``False``, tempers from the base to the target as fast as the draws follow, see
                :class:`~nfvi.training.tempering.AdaptiveTempering`.
            gradient: ``"path"`` or ``"total"``, see :class:`~nfvi.training.objectives.ReverseKL`;
                default ``"path"``, but ``"total"`` for a formula with splines, whose bins make
                the path gradient noisy.
            draws: ``"iid"``, independent draws, or ``"qmc"``, randomised quasi-Monte Carlo, see
                :class:`~nfvi.training.noise.SobolNoise`: less noise in few dimensions; not for
                studentt with ``df`` below 1. Default ``"qmc"`` in up to 1 000 dimensions, but
                ``"iid"`` with ``steps="auto"``, ``n_mc="auto"`` or ``anneal="adaptive"``.
            optimizer: a ``torch.optim`` class, or a function from a list of parameters to an
                optimiser; default Adam. :class:`~nfvi.NaturalGradient`, whose defaults are 200
                steps of 512 draws in two restarts, finishes what Adam has begun.
            lr: learning rate at the top of the schedule, a warm-up over 50 steps, a plateau and a
                cosine decay to 0; default for Adam 0.02, but 0.005 with ``realnvp``, ``nsf``,
                ``maf`` or ``iaf``; the class's own for another optimiser. ``"auto"`` finds it first
                by short fits at 0.1 to 2 times that, see
                :func:`~nfvi.training.rate_ladder.find_learning_rate`; it is kept as
                ``fit.settings["lr"]``.
            hold: fraction of the steps before the decay of the learning rate begins; default 0.6,
                but 0 with ``realnvp``, ``nsf``, ``maf`` or ``iaf``, or where steps see some rows of
                many. Not with ``steps="auto"``, which finds it.
            budget: for ``"auto"``: seconds, or a :class:`~nfvi.Budget` of seconds, steps or
                evaluations; default none.
            compile: ``"trace"`` runs the steps of a fit of 300 or more as a graph that is traced
                once, two to four times faster on the CPU and with the same numbers to the last
                bit. On CUDA a fit of 50 steps or more runs as a captured graph of kernels.
                ``"inductor"`` compiles the graph, for long fits: that takes half a minute to
                minutes, and numbers are equal to rounding. Where none of these can be, and with
                ``False``, steps run as written; ``fit.settings["evaluation"]`` says which, and why.
            distribute: what the processes of a group of ``torch.distributed`` split: ``"draws"``,
                the default there, the draws of each step, or ``"restarts"``; all of them call
                ``fit`` and get the same fit. A group of the processes that torchrun started is
                initialised by gloo where there is none yet. ``False`` keeps to this process.
            callbacks: called after every step with a
                :class:`~nfvi.training.state.TrainState`; one that returns :class:`~nfvi.Stop`
                ends the fit.
            progress: whether to show a progress bar; default in a terminal or notebook only.

        Returns:
            The fit; after Ctrl-C, the fit so far.

        Raises:
            TargetError: the target cannot be used; or it changed in the middle of the fit, with
                ``error.guide``.
            FormulaError: a flow cannot have the target's dimension.
            ValueError, TypeError: an argument is wrong; nothing has been run then.
            FitError: every restart was dropped, or the target raised in the middle of the fit
                (its exception is the ``__cause__``); ``error.guide`` is the last good guide. Or no
                start of the kind in ``init`` was found.
        """
        started = time.perf_counter()
        target = as_target(target, *args, dim=dim, parameters=parameters)
        ranks, saved = Ranks.launched(distribute), self._saved
        spec = self.spec.shared(ranks)
        with ranks.together(spec.device):
            check_size(spec, target)
            target.check(spec.target_dtype(target), spec.device)
        check_callbacks(callbacks)
        check_compile(compile)
        arguments = FitArguments(
            init=init,
            steps=steps,
            n_mc=n_mc,
            restarts=restarts,
            combine=combine,
            prune=prune,
            anneal=anneal,
            lr=lr,
            hold=hold,
            draws=draws,
            gradient=gradient,
            optimizer=optimizer,
            compile=compile,
        )
        if spec.formula == AUTO:
            return auto_fit(spec, target, arguments, budget, callbacks, progress, started, ranks)
        if budget is not None:
            raise ValueError(f'budget={budget!r} is for NFVI("auto"); use steps= with a formula')
        callbacks = with_progress(callbacks, progress)
        if saved is None:
            trainer = target_trainer(spec, target, arguments, ranks)
        else:
            trainer = resumed_target_trainer(spec, target, arguments, saved)
        trainer.ranks = ranks
        return Fit.from_trainer(trainer, callbacks, started)

    def fit_data(
        self,
        x: Any,
        *,
        validation: Any = 0.1,
        batch_size: int | None = None,
        epochs: int | None = None,
        weights: Any = None,
        context: Any = None,
        standardize: bool = True,
        patience: int | None = None,
        optimizer: OptimizerSpec = None,
        lr: float | None = None,
        compile: Compile = "trace",
        distribute: Distribute = None,
        callbacks: Sequence[CallbackLike] = (),
        progress: bool | None = None,
    ) -> DensityFit:
        """Fit the guide to data by maximum likelihood: a density q(x), or q(x | context).

        Args:
            x: rows (n, d), or (n) for d = 1: an array, tensor or table; or a ``DataLoader`` of
                batches x, (x,) or (x, context), which is read into memory once.
            validation: fraction of the rows to hold out, from 0 to below 1, chosen by the seed; or
                held-out data itself, x or (x, context). ``None`` is 0.
            batch_size: rows a step; default that of the loader, or else 256.
            epochs: how often each row is seen; default as many as make 3 000 steps, at least 10.
            weights: (n), at least 0: row i counts as ``weights[i]`` rows.
            context: (n, c), what the density is conditional on.
            standardize: whether the guide sees columns of x and context with mean 0 and sd 1, or
                with median and robust sd where there are outliers, which are compressed. The
                result is in the units of the data in either case.
            patience: looks at the held-out rows without a gain after which the fit stops; default a
                third of all looks. There is a look every epoch, but at most 200 in a fit.
            optimizer: as for :meth:`fit`.
            lr: learning rate at the top of the schedule (warm-up over 50 steps, cosine decay to
                0); default 0.003 for Adam, the class's own for another optimiser.
            compile: as for :meth:`fit`.
            distribute: as for :meth:`fit`; ``"draws"`` are rows here.
            callbacks: as for :meth:`fit`.
            progress: as for :meth:`fit`.

        Returns:
            The fit, in the state that was best on the held-out rows; after Ctrl-C, the best so far.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing has been run then.
            FormulaError: a flow cannot have this dimension, or takes no context.
            FitError: the loss or its gradient was not finite 100 times in a row.
        """
        started = time.perf_counter()
        if distribute == "restarts":
            raise ValueError('distribute="restarts": a fit to data has one; use "draws", for rows')
        ranks, saved = Ranks.launched(distribute), self._saved
        spec = self.spec.shared(ranks)
        refuse_data(spec)
        check_callbacks(callbacks)
        check_compile(compile)
        data = read_data(x, context, weights)
        arguments = DataArguments(
            validation=validation,
            standardize=standardize,
            batch_size=batch_size,
            epochs=epochs,
            patience=patience,
            lr=lr,
            optimizer=optimizer,
            compile=compile,
        )
        if saved is None:
            running = data_fit(spec, data, arguments)
        else:
            running = resumed_data_fit(spec, data, arguments, saved)
        running.trainer.ranks = ranks
        return DensityFit.from_running(running, callbacks, progress, started)

    def starting_guide(
        self, target: Target | None = None, *, dim: int | None = None, seed: int = 0
    ) -> Guide:
        """The guide that the first restart of a fit starts from, where ``init=`` moves none.

        Args:
            target: what will be fitted, which has a dimension and perhaps a dtype.
            dim: d, where there is no target.
            seed: of the start, where there is none in ``NFVI(..., seed=)``.

        Raises:
            ValueError: no dimension, or one that differs from the target's; or ``NFVI("auto")``.
            FormulaError: a flow cannot have this dimension.

        Example:
            >>> NFVI("planar*8", seed=1).starting_guide(dim=2).dim
            2
        """
        if self.formula == AUTO:
            raise ValueError(
                'NFVI("auto") has no formula before it is fitted: pass one that has, or a guide'
            )
        known = {"the target": None if target is None else target.dim, "dim=": dim}
        size = common_dim(known)
        if size is None:
            raise ValueError("starting needs target= or dim=, since a formula has no dimension")
        spec = self.spec
        # The generator of nfvi.training.setup.build_trainer: this is the first restart's start.
        generator = torch.Generator().manual_seed(seed if self.seed is None else self.seed)
        own = None if target is None else getattr(target, "dtype", None)
        return spec.guide(size, spec.dtype_or(own), generator)
