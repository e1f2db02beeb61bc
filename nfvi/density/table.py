"""Tables of data: what their columns are called and hold, and draws as a table like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from nfvi.utils import check_entries, record_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Categories", "Table", "columns_of", "places_of"]

HALF = 0.5
ENTRIES: dict[str, Any] = dict.fromkeys(
    ("dtypes", "labels", "levels", "categories"), tuple[Any, ...] | None
)


@dataclass(frozen=True)
class Categories:
    """The numbers that a categorical column chooses from.

    Attributes:
        values: in their order.
        dtype: the name of their dtype.
        ordered: whether their order means something.
    """

    values: tuple[Any, ...]
    dtype: str
    ordered: bool

    def nearest(self, values: np.ndarray) -> pd.Categorical:
        """The category that is nearest to each value (n)."""
        import pandas as pd

        categories = pd.Index(self.values, dtype=self.dtype)
        numbers = np.asarray(categories, np.float64)
        order = np.argsort(numbers)
        middles = (numbers[order][1:] + numbers[order][:-1]) / 2
        codes = order[np.searchsorted(middles, values)]
        dtype = pd.CategoricalDtype(categories, ordered=self.ordered)
        return pd.Categorical.from_codes(codes, dtype=dtype)


@dataclass(frozen=True)
class Table:
    """What a table is like, beside its numbers.

    Attributes:
        columns: the names of the columns as text, by which tables are matched.
        dtypes: the names of their dtypes, as pandas knows them; ``None`` for float64.
        labels: the names as they were, where some are no text: numbers, or tuples of several
            levels.
        levels: what the levels of the names are called, where they have names.
        categories: for each column ``None``, or what it chooses from; ``None`` where no column is
            categorical.
    """

    columns: tuple[str, ...]
    dtypes: tuple[str, ...] | None = None
    labels: tuple[Any, ...] | None = None
    levels: tuple[Any, ...] | None = None
    categories: tuple[Categories | None, ...] | None = None

    @classmethod
    def of(cls, x: Any) -> Table | None:
        """What a table is like; ``None`` for what has no named columns."""
        columns = columns_of(x)
        if columns is None:
            return None
        dtypes = getattr(x, "dtypes", None)
        if not hasattr(x, "iloc"):  # not of pandas: the dtypes of NumPy that are called alike
            return cls(columns, None if dtypes is None else tuple(map(_numpy_name, dtypes)))
        labels, levels = tuple(map(_plain, x.columns)), tuple(map(_plain, x.columns.names))
        categories = tuple(map(_categories, x.dtypes))
        return cls(
            columns,
            tuple(map(str, x.dtypes)),
            None if all(isinstance(label, str) for label in labels) else labels,
            None if levels == (None,) else levels,
            categories if any(categories) else None,
        )

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Table | None:
        """From the settings of a fit, with those of :meth:`as_settings`; ``None`` for no table.

        Raises:
            ValueError: a value is of another type, or there are not as many as columns.
        """
        if settings["columns"] is None:
            return None
        columns = tuple(settings["columns"])
        # Earlier versions kept the dtypes alone.
        given = settings.get("table") or {"dtypes": settings.get("dtypes")}
        found = check_entries(given, {}, ENTRIES, "settings.table")
        for name in ("dtypes", "labels", "categories"):
            if found.get(name) is not None and len(found[name]) != len(columns):
                raise ValueError(
                    f"its entry settings.table.{name} must have {len(columns)} values, as many as"
                    " there are columns"
                )
        if found.get("categories") is not None:
            place = "settings.table.categories"
            found["categories"] = tuple(
                None if one is None else record_of(Categories, one, place)
                for one in found["categories"]
            )
        return cls(columns, *map(found.get, ENTRIES))

    def as_settings(self) -> dict[str, Any]:
        """Name -> what a fit keeps of it beside ``columns``, in lists as JSON has them."""
        return {name: _listed(getattr(self, name)) for name in ENTRIES}

    def frame(self, draws: Tensor) -> pd.DataFrame:
        """Draws (n, d), or (n, m, d) at m contexts, as a table like this one.

        Whole numbers and truth values are rounded to, within the range of their dtype, and of
        categories the nearest is taken. Columns of any objects become float64.

        Returns:
            A row for each draw; for several contexts one for each draw at each of them, with an
            index of two levels, ``draw`` and ``context``.

        Raises:
            ValueError: pandas cannot make a dtype here.
        """
        import pandas as pd

        values = draws.detach().double().cpu().numpy()
        index = None
        if values.ndim > 2:
            places = [range(size) for size in values.shape[:-1]]
            index = pd.MultiIndex.from_product(places, names=["draw", "context"])
        rows = values.reshape(-1, len(self.columns))
        made = {i: self._column(i, column) for i, column in enumerate(rows.T)}
        table = pd.DataFrame(made).set_axis(self._labels(), axis=1)
        return table if index is None else table.set_axis(index, axis=0)

    def _column(self, i: int, values: np.ndarray) -> pd.Series:
        """One column (n) in its dtype."""
        import pandas as pd

        known = None if self.categories is None else self.categories[i]
        name = "float64" if self.dtypes is None else self.dtypes[i]
        if name in ("object", "category"):  # of a fit of an earlier version, without its categories
            name = "float64"
        try:
            if known is not None:
                return pd.Series(known.nearest(values))
            dtype = pd.api.types.pandas_dtype(name)
            return pd.Series(_rounded(values, dtype)).astype(dtype)
        except (TypeError, ValueError, ImportError) as error:
            raise ValueError(
                f"column {self.columns[i]!r} of the data had the dtype {name!r}, which pandas"
                f" cannot make here ({error}); to_dataframe() gives floats"
            ) from error

    def _labels(self) -> pd.Index:
        import pandas as pd

        labels = self.columns if self.labels is None else self.labels
        if any(isinstance(label, list | tuple) for label in labels):
            return pd.MultiIndex.from_tuples(map(tuple, labels), names=self.levels)
        return pd.Index(list(labels), name=None if self.levels is None else self.levels[0])


def columns_of(x: Any) -> tuple[str, ...] | None:
    """The names of the columns of a table as text; ``None`` for an array or a tensor."""
    columns = getattr(x, "column_names", None)  # of Arrow, whose ``columns`` are their values
    columns = getattr(x, "columns", None) if columns is None else columns
    return None if columns is None else tuple(map(str, columns))


def places_of(x: Any, columns: Sequence[str] | None, name: str = "x") -> list[int] | None:
    """Where in a table the columns of the data are; ``None`` where it has them in their order.

    Args:
        x: a table; of an array, columns have no names to be told apart by.
        columns: those of the data, or ``None`` where they had no names.
        name: what messages call x.

    Raises:
        ValueError: a column is missing, or there is another one.
    """
    there = columns_of(x)
    if there is None or columns is None or list(there) == list(columns):
        return None
    missing = [column for column in columns if column not in there]
    others = [column for column in there if column not in columns]
    if missing or others:
        said = [f"lacks {_quoted(missing)}"] if missing else []
        said += [f"has also {_quoted(others)}"] if others else []
        raise ValueError(
            f"{name} {' and '.join(said)}: the columns of the data were {_quoted(columns)}; pass"
            " these, in any order"
        )
    if len(there) != len(columns) or len(set(there)) != len(there):
        raise ValueError(
            f"{name} has the columns {_quoted(there)}, some of them twice: pass those of the data"
            " in their order"
        )
    return [there.index(column) for column in columns]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _plain(label: Any) -> Any:
    """A name or number as JSON holds it; what is neither becomes text."""
    if isinstance(label, tuple):
        return tuple(map(_plain, label))
    if isinstance(label, np.generic):
        label = label.item()
    return label if label is None or isinstance(label, str | int | float) else str(label)


def _listed(value: Any) -> Any:
    """Tuples and records as lists and dicts."""
    if isinstance(value, Categories):
        return {name: _listed(one) for name, one in asdict(value).items()}
    return list(map(_listed, value)) if isinstance(value, tuple) else value


def _numpy_name(dtype: Any) -> str:
    """The dtype of NumPy that is called like another one, or else float64."""
    name = str(dtype).lower()
    name = "bool" if name == "boolean" else name
    try:
        return name if np.dtype(name).kind in "fiub" else "float64"
    except TypeError:
        return "float64"


def _categories(dtype: Any) -> Categories | None:
    values = getattr(dtype, "categories", None)
    if values is None:
        return None
    return Categories(tuple(map(_plain, values)), str(values.dtype), bool(dtype.ordered))


def _rounded(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Values (n) as whole numbers or truth values where those are what a dtype of pandas holds."""
    if dtype.kind == "b":
        rounded: np.ndarray = values >= HALF
        return rounded
    if dtype.kind not in "iu":
        return values
    plain = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))
    limits = np.iinfo(plain)
    most = float(limits.max)
    if most > limits.max:  # of 64 bits, whose largest number a float rounds up
        most = float(np.nextafter(most, 0))
    whole: np.ndarray = np.clip(np.rint(values), float(limits.min), most).astype(plain)
    return whole
