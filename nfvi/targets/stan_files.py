"""From what a user hands over to a compiled Stan model with its data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nfvi.errors import TargetError
from nfvi.targets.stan_builds import is_built_with_functions
from nfvi.targets.stan_held import HeldModel
from nfvi.targets.stan_httpstan import HttpstanModel
from nfvi.targets.stan_models import NO_STAN, REJECTED, BridgeModel, StanModel, short

__all__ = ["open_stan"]


def open_stan(model: Any, data: Any, name: str | None) -> StanModel:
    """The model behind what a user hands over.

    Args:
        model: a ``bridgestan.StanModel``, a model that ``stan.build`` made, the path of a compiled
            model of BridgeStan, or that of a ``.stan`` file.
        data: a mapping, or the path of a JSON file; ``None`` for none, or for a model that has its
            own.
        name: default that of the file, or of the model.

    Raises:
        ImportError: neither BridgeStan nor httpstan is installed.
        TargetError: the model, its program or its data cannot be used.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if kind == "bridgestan.model.StanModel" or hasattr(model, "log_density_gradient"):
        _refuse_data(data, kind)
        return BridgeModel(model)
    if kind == "stan.model.Model":
        _refuse_data(data, kind)
        return _of_pystan(model, name or "Stan model")
    if not isinstance(model, str | os.PathLike):
        raise TargetError(
            "StanTarget takes the path of a .stan file or of a compiled BridgeStan model, a"
            f" bridgestan.StanModel, or what stan.build(...) returned; got {kind}"
        )
    path = Path(model)
    if len(str(model).splitlines()) > 1 or not path.is_file():
        raise TargetError(
            f"there is no file {str(model)[:100]!r}; write the program to a file that ends in"
            " .stan, and give its path"
        )
    given = _plain_data(_read_data(data))
    if path.suffix != ".stan" or _bridge_can_build():
        return _bridge(path, given)
    if not _is_installed("httpstan"):
        raise ImportError(NO_STAN)
    return HeldModel(path.read_text(encoding="utf-8"), given, name or path.stem)


def _of_pystan(model: Any, name: str) -> HeldModel | HttpstanModel:
    """What ``stan.build`` returned, by our functions where nfvi had built the same program."""
    program, data = model.program_code, dict(model.data)
    kind = HeldModel if is_built_with_functions(program) else HttpstanModel
    return kind(program, data, name)


def _plain_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data as numbers and lists, from arrays, tensors and the like.

    Raises:
        TargetError: a value is not numeric.
    """
    plain = {}
    for key, value in data.items():
        value = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TargetError(f"data[{key!r}] is ragged: {error}") from error
        if array.dtype.kind == "b":
            array = array.astype(int)
        if array.dtype.kind not in "iuf":
            raise TargetError(
                f"data[{key!r}] must be numbers, got {array.dtype}; Stan takes whole and real"
                " numbers"
            )
        plain[key] = array.tolist()
    return plain


def _read_data(data: Any) -> Mapping[str, Any]:
    if data is None:
        return {}
    if isinstance(data, str | os.PathLike):
        data = json.loads(Path(data).read_text(encoding="utf-8"))
    if not isinstance(data, Mapping):
        raise TargetError(
            "data= is a dict of numbers and arrays, as data={'N': 8, 'y': y}, or the path of a JSON"
            f" file; got {type(data).__name__}"
        )
    return data


def _refuse_data(data: Any, kind: str) -> None:
    if data is not None:
        raise TargetError(f"a {kind} has its data already; leave data= out")


def _bridge(path: Path, data: Mapping[str, Any]) -> BridgeModel:
    try:
        import bridgestan
    except ImportError as error:
        raise ImportError(NO_STAN) from error
    text = json.dumps(data)
    # Threads take a lock in Stan's memory that must be built in.
    options = {"make_args": ["STAN_THREADS=True"]} if path.suffix == ".stan" else {}
    try:
        made = bridgestan.StanModel(os.fspath(path), text, capture_stan_prints=False, **options)
    except (*REJECTED, OSError) as error:
        raise TargetError(f"BridgeStan could not open {path.name!r}: {short(error)}") from error
    return BridgeModel(made)


def _bridge_can_build() -> bool:
    """Whether BridgeStan is installed with Stan's sources, which it would download otherwise."""
    if not _is_installed("bridgestan"):
        return False
    if os.environ.get("BRIDGESTAN"):
        return True
    import bridgestan

    home = Path.home() / ".bridgestan" / f"bridgestan-{bridgestan.__version__}"
    return (home / "Makefile").is_file()


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
