# SPDX-License-Identifier: MIT
"""Finite element spaces as tensors.

`spon.read_space` reads a space from DOLFINx once as arrays, which are evaluated, differentiated, saved and loaded
without FEniCSx. A field is a tensor (dofs, ...) of coefficients, batch axes last.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spon.archive import Reader, unpacks, write
from spon.sparse import SparseOperator


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """One finite element space on one mesh, with its strong conditions.

    A node carries `block_size` dofs, one for each component of a vector or tensor: dof = node · block_size + component.

    Args:
        family: "P", "DG", "RT" or "N1curl".
        cell: of the mesh, "interval", "triangle", ...
        degree: of the element, as in DOLFINx.
        block_size: components of a node; 1 for scalars, RT and N1curl.
        seminorm: the derivative in `stiffness`, "grad", "div" or "curl".
        volume: of the domain [length^d].
        cell_dofs: (cells, n), the nodes of each cell.
        points: (nodes, d), coordinates of the nodes [length]; for RT and N1curl the means of the points at which their
            functionals evaluate a field.
        neighbours: (pairs, 2), cells that share a facet; for DG only.
        mass: (dofs, dofs), ∫ φ_i·φ_j.
        stiffness: (dofs, dofs), ∫ ∇φ_i:∇φ_j, ∫ div φ_i div φ_j or ∫ curl φ_i·curl φ_j, cell by cell.
        integral: (dofs, components), ∫ φ_i of each component: of the block or, for RT and N1curl, of space.
        correction: (dofs, components), the smallest fields in L² with all homogeneous strong conditions, whose
            integral is one in one component and zero in the others; (dofs, 0) if the strong conditions determine the
            integral of some component.
        fixed: (dofs,) bool, dofs with Dirichlet values.
        lifting: (dofs,), these values; zero elsewhere.
        independent: (m,), dofs without master.
        tying: (dofs, m), all dofs from the independent ones.
    """

    family: str
    cell: str
    degree: int
    block_size: int
    seminorm: str
    volume: float
    cell_dofs: Tensor
    points: Tensor
    neighbours: Tensor
    mass: SparseOperator
    stiffness: SparseOperator
    integral: Tensor
    correction: Tensor
    fixed: Tensor
    lifting: Tensor
    independent: Tensor
    tying: SparseOperator

    @property
    def dofs(self) -> int:
        """Number of dofs."""
        return len(self.fixed)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Space":
        """A copy on another device or, its numbers, in another precision."""

        def moved(value):
            if isinstance(value, Tensor):
                return value.to(device, dtype if value.is_floating_point() else None)
            return value.to(device, dtype) if isinstance(value, SparseOperator) else value

        return Space(*(moved(getattr(self, field.name)) for field in dataclasses.fields(self)))

    def save(self, path: str | os.PathLike) -> None:
        """Write the space to one file, see `spon.load`."""
        write(path, "space", *pack(self))


@dataclass(frozen=True, slots=True, eq=False)
class MixedSpace:
    """A product of spaces, such as velocity × pressure, whose dofs are numbered together.

    Args:
        parts: the spaces, with their strong conditions.
        numbers: for each part (its dofs,), the numbers of its dofs among all.
    """

    parts: tuple["Space | MixedSpace", ...]
    numbers: tuple[Tensor, ...]

    @property
    def dofs(self) -> int:
        """Number of dofs of all parts."""
        return sum(part.dofs for part in self.parts)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Fields of the parts from a field (dofs, ...) of the product."""
        return tuple(x[n] for n in self.numbers)

    def join(self, fields: Sequence[Tensor]) -> Tensor:
        """The field (dofs, ...) of the product from fields of its parts."""
        return torch.cat(list(fields))[torch.cat(self.numbers).argsort()]

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "MixedSpace":
        """A copy on another device or, its numbers, in another precision."""
        parts = tuple(part.to(device, dtype) for part in self.parts)
        return MixedSpace(parts, tuple(n.to(device) for n in self.numbers))

    def save(self, path: str | os.PathLike) -> None:
        """Write the space to one file, see `spon.load`."""
        write(path, "space", *pack(self))


@unpacks("space")
def load_space(file: Reader) -> Space | MixedSpace:
    """Load a space from a file, on the CPU.

    Args:
        file: an open file; callers give its path.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds no space.
    """
    return unpack(file.header, file.tensors(""))


def pack(space: Space | MixedSpace) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A space as a header for JSON and named tensors, to be part of a file."""
    header: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    if isinstance(space, MixedSpace):
        header["parts"] = []
        for k, (part, numbers) in enumerate(zip(space.parts, space.numbers)):
            about, inner = pack(part)
            header["parts"].append(about)
            tensors |= {f"{k}.numbers": numbers} | {f"{k}.{name}": value for name, value in inner.items()}
        return header, tensors
    for field in dataclasses.fields(space):
        value = getattr(space, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif isinstance(value, SparseOperator):
            header[field.name] = list(value.shape)
            tensors |= {f"{field.name}.{part}": getattr(value, part) for part in ("pointers", "columns", "values")}
        else:
            header[field.name] = value
    return header, tensors


def unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> Space | MixedSpace:
    """The space that `pack` packed.

    Raises:
        KeyError: an entry is missing.
    """
    if "parts" in header:
        inner = [_below(tensors, str(k)) for k in range(len(header["parts"]))]
        numbers = tuple(part.pop("numbers") for part in inner)
        return MixedSpace(tuple(unpack(about, part) for about, part in zip(header["parts"], inner)), numbers)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Space):
        if field.type is SparseOperator:
            values[field.name] = SparseOperator(tuple(header[field.name]), **_below(tensors, field.name))
        else:
            values[field.name] = tensors[field.name] if field.type is Tensor else header[field.name]
    return Space(**values)


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(name + "."): value for key, value in tensors.items() if key.startswith(name + ".")}
