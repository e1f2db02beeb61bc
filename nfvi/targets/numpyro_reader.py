"""What the sites of a NumPyro model are, read from a run of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS
from nfvi.targets.constants import constants_among
from nfvi.targets.jax_batches import jax_package
from nfvi.targets.numpyro_model import (
    NumPyroModel,
    NumPyroSite,
    Trace,
    Values,
    copied,
    run_traced,
    with_seed,
)
from nfvi.utils import process_wide

__all__ = ["read_numpyro"]

NO_NUMPYRO = "a NumPyro model needs NumPyro, the extra `jax`: pip install 'nfvi[jax]'"
SEED = 20
FACTOR = "a numpyro.factor term"
# Of a site that is one of two values at random, 1 in 128 is the same in all runs.
RUNS = 8


@dataclass(frozen=True)
class _Fact:
    """What a run says of a site whatever its values.

    Attributes:
        kind: ``"latent"``, ``"discrete"``, ``"observed"``, ``"factor"``, ``"deterministic"``,
            ``"param"`` or ``"plate"``.
        shape: of the value.
        free: of the numbers that a latent value is made from.
        dims: the names of its axes.
        taken: of a plate that draws its own subsample, how many of how many.
        reason: what makes the integral over latent sites no evidence, if anything.
    """

    kind: str
    shape: tuple[int, ...]
    free: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    taken: tuple[int, int] | None = None
    reason: str = ""


class _Run:
    """A model run in one compiled piece, as eager JAX compiles every operation by itself.

    Attributes:
        facts: what the first run found, by site.
        nesting: as of :class:`NumPyroModel`.
    """

    def __init__(
        self, name: str, model: Callable[..., Any], arguments: tuple[tuple[Any, ...], Values]
    ) -> None:
        import jax

        self._name, self._model, self._arguments = name, model, arguments
        self._compiled = jax.jit(self._values)
        self.facts: dict[str, _Fact] = {}
        self.nesting = 0

    def close(self) -> None:
        """Let go of what was compiled, with which JAX would keep the form of arrays, float32."""
        del self._compiled

    def __call__(self, seed: int, held: Values | None = None) -> Values:
        """The values of all sites; latent ones are drawn uniformly, on unconstrained space.

        Raises:
            TargetError: the model raised, or has a site that no flow can take.
        """
        import jax

        try:
            with process_wide():
                values = self._compiled(jax.random.PRNGKey(seed), held or {})
        except USER_ERRORS as error:
            if isinstance(error, TargetError):
                raise
            first = (str(error).strip().splitlines() or [""])[0]
            raise TargetError(
                f"the model {self._name!r} raised {type(error).__name__}: {first} Its arguments"
                " come after it, NumPyroTarget(model, X, y=y)"
            ) from error
        return dict(jax.tree.map(np.array, values))

    def _values(self, key: Any, held: Values) -> Values:
        from numpyro.handlers import substitute
        from numpyro.infer import init_to_uniform

        def start(site: Values) -> Any:
            return init_to_uniform(site) if site["value"] is None else None

        seeded = substitute(with_seed(self._model, key, held), substitute_fn=start)
        trace = run_traced(seeded, *self._arguments)
        facts = ((name, _fact(name, site)) for name, site in trace.items())
        self.facts = {name: fact for name, fact in facts if fact is not None}
        self.nesting = _nesting(trace)
        return {name: trace[name]["value"] for name in self.facts}


def _fact(key: str, site: Mapping[str, Any]) -> _Fact | None:
    kind = site["type"]
    if kind == "param":  # a tree of arrays, perhaps
        return _Fact(kind, ())
    shape = tuple(np.shape(site["value"]))
    if kind == "plate":
        size, taken = site["args"]
        return _Fact(kind, shape, taken=None if taken in (None, size) else (taken, size))
    if kind == "sample":
        return _sampled(key, site, shape)
    if kind == "deterministic":
        return _Fact(kind, shape, dims=_dims(key, site))
    return None


def _sampled(key: str, site: Mapping[str, Any], shape: tuple[int, ...]) -> _Fact:
    dims, reason = _dims(key, site), _reason(site)
    if site["is_observed"]:
        return _Fact("observed", shape, dims=dims, reason=reason)
    if site["fn"].support.is_discrete:
        _refuse_unmarked(key, site)
        return _Fact("discrete", shape, reason=reason)
    return _Fact("latent", shape, _unconstrained_shape(key, site, shape), dims, reason=reason)


def _reason(site: Mapping[str, Any]) -> str:
    from numpyro.distributions import ImproperUniform, Unit

    fn = site["fn"]
    while hasattr(fn, "base_dist") and not isinstance(fn, ImproperUniform | Unit):
        fn = fn.base_dist
    if isinstance(fn, ImproperUniform):
        return "an improper prior"
    if isinstance(fn, Unit):
        return FACTOR
    # A scale may be traced, and is then taken for one.
    scale = site["scale"]
    scaled = scale is not None and not (isinstance(scale, float | int) and scale == 1)
    return "a scaled log-density, as in a plate with subsample_size=" if scaled else ""


def _caveats(facts: Mapping[str, _Fact]) -> tuple[str, ...]:
    """Why the integral over the latent sites is no evidence, as for Pyro models."""
    found = [
        f"site {key!r} is {fact.reason}, so that Z is no evidence"
        for key, fact in facts.items()
        if fact.reason
    ]
    if not found and not any(fact.kind == "observed" for fact in facts.values()):
        found = ["the model has no data, so that Z is 1 whatever its fit says"]
    return tuple(found)


def _held(name: str, facts: Mapping[str, _Fact], values: Values) -> Values:
    """What a run draws for itself or takes from initial values, with a warning of each."""
    held = {}
    for key, fact in facts.items():
        if fact.kind == "param":
            warnings.warn(
                f"{name!r} has a parameter (numpyro.param: {key}); it keeps its initial value and"
                " is not learned: give it a prior with numpyro.sample if it should be",
                stacklevel=5,
            )
            held[key] = values[key]
        elif fact.taken is not None:
            taken, size = fact.taken
            warnings.warn(
                f"{name!r}: plate {key!r} draws its own subsample; the target keeps one, of {taken}"
                f" of {size} indices, so that log_prob is the same at each call. The posterior is"
                " that of this subsample: leave subsample_size= out for that of all the data",
                stacklevel=5,
            )
            held[key] = values[key]
    return held


def _placed(name: str, facts: Mapping[str, _Fact]) -> dict[str, NumPyroSite]:
    sites: dict[str, NumPyroSite] = {}
    start = 0
    for key, fact in facts.items():
        if fact.kind == "latent":
            stop = start + math.prod(fact.free)
            sites[key] = NumPyroSite(key, fact.shape, fact.free, start, stop)
            start = stop
    if not start:
        raise TargetError(
            f"the model {name!r} has no continuous latent site, so there is nothing to infer: it"
            " needs a numpyro.sample without obs="
        )
    return sites


def _random_sites(
    run: _Run, sites: Mapping[str, NumPyroSite], values: Values, held: Values
) -> set[str]:
    """The deterministic sites that depend on discrete ones, which are summed out."""
    if not run.nesting:
        return set()
    fixed = held | {key: values[key] for key in sites}
    first, *others = (run(SEED + i, fixed) for i in range(RUNS))
    return {k for other in others for k in first if not _equal(first[k], other[k])}


def _unconstrained_shape(
    key: str, site: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[int, ...]:
    from numpyro.distributions import Delta, biject_to

    if isinstance(site["fn"], Delta):
        raise TargetError(
            f"site {key!r} has a Delta distribution, which has no density: write"
            " numpyro.deterministic in its place"
        )
    try:
        return tuple(biject_to(site["fn"].support).inverse_shape(shape))
    except NotImplementedError as error:
        raise TargetError(
            f"site {key!r}: no smooth bijection leads from R^k to its support,"
            f" {site['fn'].support}; draw it on R^k or another support and map it with"
            " numpyro.deterministic"
        ) from error


def _refuse_unmarked(key: str, site: Mapping[str, Any]) -> None:
    kind = type(site["fn"]).__name__
    finite = site["fn"].has_enumerate_support
    if finite and site["infer"].get("enumerate") == "parallel":
        try:
            import funsor  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"site {key!r} is summed out by funsor, the extra `jax`: pip install 'nfvi[jax]'"
            ) from error
        return
    advice = (
        'mark it, infer={"enumerate": "parallel"}, and it is summed out, or write the marginal'
        " density, such as MixtureSameFamily"
        if finite
        else "its values are not finitely many, so that it cannot be summed out here; write the"
        " marginal density instead (for a Poisson of a Gamma rate, GammaPoisson)"
    )
    raise TargetError(
        f"site {key!r} ({kind}) is discrete and latent: {advice}. If it is data, check that obs="
        " gets it"
    )


def _dims(key: str, site: Mapping[str, Any]) -> tuple[str, ...]:
    """A plate's name for each axis that is one, and a number for the others."""
    shape = np.shape(site["value"])
    names = [f"{key}_dim_{axis}" for axis in range(len(shape))]
    event_dim = site["fn"].event_dim if site["type"] == "sample" else 0
    for frame in site["cond_indep_stack"]:
        axis = len(shape) - event_dim + frame.dim
        if axis >= 0 and shape[axis] == frame.size:
            names[axis] = frame.name
    return tuple(names)


def _nesting(trace: Trace) -> int:
    latent = [s for s in trace.values() if s["type"] == "sample" and not s["is_observed"]]
    if not any(site["fn"].support.is_discrete for site in latent):
        return 0
    frames = [f for site in trace.values() for f in site.get("cond_indep_stack", ())]
    return 1 + max((-frame.dim for frame in frames), default=0)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def read_numpyro(
    name: str, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> NumPyroModel:
    """Run a model and read its sites.

    Raises:
        ImportError: JAX or NumPyro is not installed.
        TargetError: the model raised, has no continuous latent site, or has discrete sites that
            are not marked for enumeration.
    """
    jax_package("NumPyroTarget")
    try:
        import numpyro  # noqa: F401
    except ImportError as error:
        raise ImportError(NO_NUMPYRO) from error
    arguments = copied((args, dict(kwargs)))
    run = _Run(name, model, arguments)
    values = run(SEED)
    held = _held(name, run.facts, values)
    sites = _placed(name, run.facts)
    random = _random_sites(run, sites, values, held)
    kept = [k for k, fact in run.facts.items() if fact.kind == "deterministic" and k not in random]
    observed = {
        k: values[k]
        for k, fact in run.facts.items()
        if fact.kind == "observed" and fact.reason != FACTOR
    }
    run.close()
    shown = (*sites, *kept, *observed)
    return NumPyroModel(
        model=model,
        args=arguments[0],
        kwargs=arguments[1],
        held=held,
        sites=sites,
        deterministic=tuple(kept),
        order=tuple(key for key in run.facts if key in sites or key in kept),
        dims={key: run.facts[key].dims for key in shown},
        observed=observed,
        constants=constants_among(model, arguments[0], arguments[1], observed, shown),
        nesting=run.nesting,
        caveats=_caveats(run.facts),
    )
