"""The ``pm.Data`` of a PyMC model: new values, checked, that it holds for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import shape_text

__all__ = [
    "Containers",
    "NewData",
    "holding",
    "is_shared",
    "new_data",
    "read_containers",
]

Values = Mapping[str, np.ndarray]
# A model's containers can hold one thing at a time.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Containers:
    """What the containers of a model hold, and the dimensions that a model can stretch.

    Attributes:
        values: name of a ``pm.Data`` -> what it holds.
        dims: name of a ``pm.Data`` -> names of its dimensions, ``None`` for one without.
        lengths: name of a dimension that no container measures -> its length.
        labels: name of a dimension -> the labels along it, ``None`` without.
        observed: names of those that hold data of an observed variable and nothing else.
    """

    values: Values
    dims: Mapping[str, Sequence[str | None]]
    lengths: Mapping[str, int]
    labels: Mapping[str, tuple[Any, ...] | None]
    observed: frozenset[str]

    def length(self, dim: str) -> int | None:
        """How long a dimension is; ``None`` where its length cannot change."""
        if dim in self.lengths:
            return self.lengths[dim]
        return next(
            (
                self.values[name].shape[dims.index(dim)]
                for name, dims in self.dims.items()
                if dim in dims
            ),
            None,
        )


@dataclass(frozen=True)
class NewData:
    """What the containers shall hold, checked.

    Attributes:
        after: the values, lengths and labels.
        changed: names of containers and dimensions that are others than before.
    """

    after: Containers
    changed: frozenset[str]


def read_containers(model: Any, constant: Sequence[str]) -> Containers:
    """What a model holds now.

    Args:
        model: a ``pm.Model``.
        constant: names of the containers that the model reads; the others are observed alone.
    """
    shared = _shared(model)
    dims = {name: tuple(model.named_vars_to_dims.get(name) or ()) for name in shared}
    return Containers(
        values={name: np.array(variable.get_value()) for name, variable in shared.items()},
        dims={name: own or (None,) * shared[name].ndim for name, own in dims.items()},
        lengths={
            dim: int(length.get_value())
            for dim, length in model.dim_lengths.items()
            if is_shared(length)
        },
        labels={dim: None if x is None else tuple(x) for dim, x in model.coords.items()},
        observed=frozenset(set(shared) - set(constant)),
    )


@contextmanager
def holding(model: Any, wanted: Containers) -> Iterator[None]:
    """A model whose containers hold what is wanted, and then again what they held before.

    One thread at a time. An error within leaves the model as it was, too.
    """
    with _LOCK:
        before = read_containers(model, ())
        try:
            _fill(model, wanted)
            yield
        finally:
            _fill(model, before)


def new_data(
    known: Containers,
    data: Mapping[str, Any] | None,
    coords: Mapping[str, Sequence[Any]] | None,
    name: str,
) -> NewData:
    """New values of containers and new labels, beside those that stay.

    Where a dimension has another length and no new labels, they are 0, 1, … A container that holds
    data of an observed variable alone is stretched with its dimensions.

    Args:
        known: what the model was fitted with.
        data: name of a container -> its new values.
        coords: name of a dimension -> the labels along it.
        name: what messages call the model.

    Raises:
        TypeError: ``data`` or ``coords`` is no dict.
        TargetError: a name is not there, a number of dimensions or a kind of number is another
            one, or lengths do not fit; the message lists the containers.
    """
    for argument, given in (("data", data), ("coords", coords)):
        if not (given is None or isinstance(given, Mapping)):
            raise TypeError(f"{argument}= takes a dict by name; got {type(given).__name__}")
    data, coords = dict(data or {}), dict(coords or {})
    if unknown := [key for key in data if key not in known.values]:
        raise TargetError(f"data= names {_quoted(unknown)}; {_containers_of(known, name)}")
    if unknown := [key for key in coords if key not in known.labels]:
        raise TargetError(
            f"coords= names {_quoted(unknown)}; the dimensions of {name!r} are"
            f" {_quoted(known.labels) or 'without names'}"
        )
    values = {key: _converted(key, value, known) for key, value in data.items()}
    lengths = _new_lengths(known, values, coords)
    for key in known.observed - set(values):
        values[key] = _stretched(known.values[key], known.dims[key], lengths)
    _check_lengths(known, values, lengths)
    labels = {dim: tuple(x) for dim, x in coords.items()}
    for dim, length in lengths.items():
        if known.labels[dim] is not None and length != known.length(dim):
            labels.setdefault(dim, tuple(range(length)))
    after = replace(
        known,
        values={**known.values, **values},
        lengths={dim: lengths.get(dim, length) for dim, length in known.lengths.items()},
        labels={**known.labels, **labels},
    )
    changed = {key for key, x in after.values.items() if not np.array_equal(x, known.values[key])}
    changed |= {dim for dim, own in after.labels.items() if own != known.labels[dim]}
    changed |= {dim for dim, length in after.lengths.items() if length != known.lengths[dim]}
    return NewData(after, frozenset(changed))


def is_shared(variable: Any) -> bool:
    """Whether this is a shared variable of PyTensor."""
    from pytensor.compile.sharedvalue import SharedVariable

    return isinstance(variable, SharedVariable)


def _shared(model: Any) -> dict[str, Any]:
    """The ``pm.Data`` of a model, by name."""
    return {variable.name: variable for variable in model.data_vars if is_shared(variable)}


def _fill(model: Any, wanted: Containers) -> None:
    for name, variable in _shared(model).items():
        if name in wanted.values:
            variable.set_value(wanted.values[name])
    for dim, length in model.dim_lengths.items():
        if dim in wanted.lengths:
            length.set_value(np.asarray(wanted.lengths[dim]))
    model.coords.update(wanted.labels)


def _converted(name: str, value: Any, known: Containers) -> np.ndarray:
    old = known.values[name]
    found = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if found.ndim != old.ndim:
        raise TargetError(
            f"data= has {found.ndim} dimensions for {name!r}, whose shape is"
            f" {shape_text(old.shape)}; only lengths can change"
        )
    if not np.can_cast(found.dtype, old.dtype, "same_kind"):
        raise TargetError(f"data= has {found.dtype} for {name!r}, which holds {old.dtype}")
    return found.astype(old.dtype)


def _new_lengths(
    known: Containers,
    values: Values,
    coords: Mapping[str, Sequence[Any]],
) -> dict[str, int]:
    """The length of each dimension that new values or labels measure."""
    found = {dim: {f"coords={dim!r}": len(labels)} for dim, labels in coords.items()}
    for name, value in values.items():
        for dim, length in zip(known.dims[name], value.shape, strict=True):
            if dim is not None:
                found.setdefault(dim, {})[f"data={name!r}"] = length
    for dim, by in found.items():
        if len(set(by.values())) > 1:
            each = ", ".join(f"{length} by {what}" for what, length in by.items())
            raise TargetError(f"the dimension {dim!r} has two lengths: {each}")
    lengths = {dim: next(iter(by.values())) for dim, by in found.items()}
    for dim, length in lengths.items():
        labels = known.labels[dim]
        if known.length(dim) is None and labels is not None and len(labels) != length:
            raise TargetError(
                f"the dimension {dim!r} is {len(labels)} long in the model and cannot change; got"
                f" {length}"
            )
    return lengths


def _stretched(
    value: np.ndarray, dims: Sequence[str | None], lengths: Mapping[str, int]
) -> np.ndarray:
    """Data that nothing reads, in their new shape."""
    pairs = zip(dims, value.shape, strict=True)
    shape = tuple(old if dim is None else lengths.get(dim, old) for dim, old in pairs)
    return value if shape == value.shape else np.zeros(shape, value.dtype)


def _check_lengths(known: Containers, values: Values, lengths: Mapping[str, int]) -> None:
    for name in set(known.values) - set(values):
        for dim, old in zip(known.dims[name], known.values[name].shape, strict=True):
            if dim is not None and lengths.get(dim, old) != old:
                raise TargetError(
                    f"the dimension {dim!r} is {lengths[dim]} long now, and {name!r} has {old}"
                    f" along it; pass it by data= as well"
                )


def _containers_of(known: Containers, name: str) -> str:
    """The containers of a model, for messages."""
    if not known.values:
        return f"{name!r} has no pm.Data, so that its data cannot be others"
    each = (f"{key!r} of shape {shape_text(x.shape)}" for key, x in known.values.items())
    return f"the pm.Data of {name!r} are {', '.join(each)}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
