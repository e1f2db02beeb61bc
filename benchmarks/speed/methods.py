"""What is timed, by the names of the tables. A library is imported where it is made, not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.speed.clocks import Moment
    from benchmarks.speed.fitter import Fitter
    from benchmarks.speed.problems import Problem

__all__ = ["FITS", "FOURIER", "NUTS", "PACKAGES", "STEPS", "WHOLE", "WIDE", "Method"]

# Above 5 000 parameters a fit has two restarts by default, and eight below.
WIDE = "monotone(hidden=[32],terms=16)*2"
FOURIER = "scale-monotone(features=fourier(8),alternate=false)*2"
BOTH = ("pot1", "pot4")
PACKAGES = {
    "Pyro": ("pyro-ppl",),
    "NumPyro": ("numpyro", "jax"),
    "FlowJAX": ("flowjax", "jax"),
    "JAX": ("jax",),
    "nutpie": ("nutpie", "pymc"),
}
"""What a row names beside nfvi and torch, by how the name of its method begins."""
NUTS = ("nfvi.nuts (Pyro)", "NumPyro", "nutpie (PyMC, numba)")


@dataclass(frozen=True)
class Method:
    """A formula of a library.

    Attributes:
        make: a fitter of a problem on a device.
        problems: names; empty for all.
    """

    make: Callable[[Problem, str], Fitter]
    problems: tuple[str, ...] = ()

    def takes(self, problem: str) -> bool:
        """Whether it is timed on a problem."""
        return not self.problems or problem in self.problems


def _nfvi(formula: str, compile: Any = "trace", base: str = "normal") -> Callable[..., Fitter]:
    def make(problem: Problem, device: str) -> Fitter:
        from benchmarks.speed.fits_nfvi import NfviFitter

        return NfviFitter(problem, formula, compile, base, device)

    return make


def _pyro(flow: str) -> Callable[..., Fitter]:
    def make(problem: Problem, device: str) -> Fitter:
        from benchmarks.speed.fits_pyro import PyroFitter

        return PyroFitter(problem, flow, device)

    return make


def _numpyro(guide: str) -> Callable[..., Fitter]:
    def make(problem: Problem, _: str) -> Fitter:
        from benchmarks.speed.fits_numpyro import NumPyroFitter

        return NumPyroFitter(problem, guide)

    return make


def _flowjax(flow: str) -> Callable[..., Fitter]:
    def make(problem: Problem, _: str) -> Fitter:
        from benchmarks.speed.fits_flowjax import FlowJaxFitter

        return FlowJaxFitter(problem, flow)

    return make


def _jax(problem: Problem, _: str) -> Fitter:
    from benchmarks.speed.fits_jax import JaxFitter

    return JaxFitter(problem)


SCHOOLS = ("eight schools",)
FITS = {
    "nfvi auto": Method(_nfvi("auto")),
    "nfvi planar*8": Method(_nfvi("planar*8"), BOTH),
    "nfvi planar*8, eager": Method(_nfvi("planar*8", False), BOTH),
    "nfvi monotone*2": Method(_nfvi("monotone*2"), ("pot1", *SCHOOLS)),
    "nfvi monotone*2, eager": Method(_nfvi("monotone*2", False), ("pot1", *SCHOOLS)),
    "nfvi monotone*2, 16 terms": Method(_nfvi(WIDE), ("pot1",)),
    "nfvi monotone, Fourier": Method(_nfvi(FOURIER, base="laplace"), ("pot4",)),
    "nfvi realnvp*4": Method(_nfvi("realnvp*4"), SCHOOLS),
    "Pyro planar*8": Method(_pyro("planar*8")),
    "Pyro IAF*2": Method(_pyro("IAF*2")),
    "NumPyro BNAF": Method(_numpyro("BNAF")),
    "NumPyro IAF": Method(_numpyro("IAF")),
    "FlowJAX coupling splines*8": Method(_flowjax("coupling splines*8")),
    "FlowJAX BNAF": Method(_flowjax("BNAF")),
    "FlowJAX planar*8": Method(_flowjax("planar*8"), BOTH),
    "JAX by hand, planar*8": Method(_jax),
}


def _nfvi_steps(compile: Any) -> Callable[[int, int, str], list[Moment]]:
    def times(n: int, steps: int, device: str) -> list[Moment]:
        from benchmarks.speed.fits_nfvi import step_times

        return step_times(n, compile, steps, device)

    return times


def _pyro_steps(n: int, steps: int, device: str) -> list[Moment]:
    from benchmarks.speed.fits_pyro import step_times

    return step_times(n, steps, device)


def _flowjax_steps(n: int, steps: int, _: str) -> list[Moment]:
    from benchmarks.speed.fits_flowjax import step_times

    return step_times(n, steps)


def _jax_steps(n: int, steps: int, _: str) -> list[Moment]:
    from benchmarks.speed.fits_jax import step_times

    return step_times(n, steps)


STEPS: dict[str, Callable[[int, int, str], list[Moment]]] = {
    "nfvi, traced": _nfvi_steps("trace"),
    "nfvi, eager": _nfvi_steps(False),
    "Pyro": _pyro_steps,
    "FlowJAX": _flowjax_steps,
    "JAX by hand": _jax_steps,
}


WHOLE: dict[str, dict[str, int | None]] = {
    "pot1": {
        "nfvi auto": None,
        "nfvi monotone*2, 16 terms": None,
        "nfvi planar*8": None,
        "NumPyro BNAF": 10_000,
    },
    "eight schools": {"nfvi auto": None, "NumPyro NUTS": None},
}
"""Methods of whole processes on each target, with their steps; ``None`` for their default."""
