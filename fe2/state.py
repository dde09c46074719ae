# SPDX-License-Identifier: MIT
"""State rows: the numbers that a law keeps at a point, in fields with names."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StateField:
    """A field of a row.

    Attributes:
        columns: of the row.
        shape: that the field has at each point; () for a number.
    """

    columns: slice
    shape: tuple[int, ...]


class StateLayout:
    """The fields of a row, in their order.

        rve = StateLayout(strain=3, fluctuation=240)
        law = StateLayout(rve=rve, work=())
        law.view(state, "work")         # (n,)
        law.view(state, "rve")          # (n, 243), a row of the RVE
        law.view(state, "rve.strain")   # (n, 3), as is view(state, "strain"): only one field has this name

    Args:
        **fields: name → size, shape, or the layout of a row within the row.

    Attributes:
        size: numbers in a row.
        fields: name → `StateField`, also of the fields within fields, "rve.strain".
    """

    __slots__ = ("fields", "size")
    fields: dict[str, StateField]
    size: int

    def __init__(self, **fields: "int | tuple[int, ...] | StateLayout"):
        found, first = dict[str, StateField](), 0
        for name, what in fields.items():
            inner = what if isinstance(what, StateLayout) else None
            shape = (what.size,) if isinstance(what, StateLayout) else (what,) if isinstance(what, int) else what
            found[name] = StateField(slice(first, first + prod(shape)), shape)
            for part, field in inner.fields.items() if inner else ():
                columns = slice(first + field.columns.start, first + field.columns.stop)
                found[f"{name}.{part}"] = StateField(columns, field.shape)
            first += prod(shape)
        self.fields, self.size = found, first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StateLayout) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(tuple(self.fields))

    def __repr__(self) -> str:
        outer = (f"{name}={field.shape}" for name, field in self.fields.items() if "." not in name)
        return f"StateLayout({', '.join(outer)})"

    def __contains__(self, name: str) -> bool:
        return len(self._paths(name)) == 1

    def field(self, name: str) -> StateField:
        """The field of a name, "rve.strain", or of its end where only one field has this end, "strain".

        Raises:
            KeyError: no field has this name, or several have; the message lists them.
        """
        paths = self._paths(name)
        if len(paths) != 1:
            listed = ", ".join(paths or self.fields) or "none"
            raise KeyError(f"{'several fields' if paths else 'no field'} {name!r}: the fields are {listed}")
        return self.fields[paths[0]]

    def view(self, rows: Array, name: str) -> Array:
        """The field of a name in rows (..., size), as a view (..., *shape): what is written to it is in the rows.

        Raises:
            KeyError: no field has this name, or several have.
            ValueError: rows of another size.
        """
        if np.shape(rows)[-1:] != (self.size,):
            raise ValueError(f"rows have the shape {np.shape(rows)}, need (..., {self.size})")
        field = self.field(name)
        return rows[..., field.columns].reshape((*rows.shape[:-1], *field.shape))

    def entries(self, row: Any, name: str) -> list[Any]:
        """The numbers of a field, of a row that is no array, such as a UFL vector (size,)."""
        columns = self.field(name).columns
        return [row[i] for i in range(columns.start, columns.stop)]

    def rows(self, n: int, **values: npt.ArrayLike) -> Array:
        """New rows (n, size): values of fields, as `view` gives them or one for all rows, and zeros in the others."""
        out = np.zeros((n, self.size))
        for name, value in values.items():
            self.view(out, name)[...] = value
        return out

    def _paths(self, name: str) -> list[str]:
        if name in self.fields:
            return [name]
        return [path for path in self.fields if path.endswith(f".{name}")]


def layout_of(law: Any) -> StateLayout:
    """The layout of a law's or a material's rows; of one that has none it is a single field, "state"."""
    layout = getattr(law, "layout", None)
    return layout if layout is not None and layout.size == law.state_size else StateLayout(state=law.state_size)
