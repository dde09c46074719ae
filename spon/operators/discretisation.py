# SPDX-License-Identifier: MIT
"""Spaces of an operator network, output and coarse ones, and the matrices that connect them.

They are read from DOLFINx once and stored as tensors, as those of `spon.spaces`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used
import torch

from spon.operators.coarsening import CoarseGrids
from spon.spaces.quadrature import Points, read_levels
from spon.spaces.space import MixedSpace, Space, pack, unpack
from spon.sparse import SparseOperator

ENCODERS = ("interpolation", "integrals")
_REACH = 0.5  # distance of a node from another mesh, as at curved boundaries, in sizes of the nearest cell, at most
# Attributes → their names in files, which are those of the first release.
_FILE_NAMES = {"point_encoders": "sights", "coordinates": "places"}


@dataclass(frozen=True, slots=True, eq=False)
class Discretisation:
    """Spaces and fixed matrices between their independent nodes.

    Args:
        output: the space that the network predicts in, with its strong conditions.
        coarse: spaces from finer to coarser.
        encoders: per input (nodes · components, input dofs), its values at each node of the output.
        prolongations: (finer nodes, coarser nodes), from the last but one of (output, *coarse) back to the output.
        velocity: the space of the prediction if that is the curl of a field in `output`, else None.
        curl: (velocity dofs, output dofs), or None.
        others: further parts of the prediction if its space is mixed; the first part is then `output`.
        carry: for each of them (nodes, output nodes), the values of a field of the output at its nodes.
        join: (mixed dofs, dofs of all parts), the fields of the parts as one, or None.
        same: number of the first input that is in the space of the prediction, or None.
        points: quadrature points of the output and of the coarse spaces, or empty.
        point_encoders: per input (points · components, input dofs), its values at the output's points.
    """

    output: Space
    coarse: tuple[Space, ...]
    encoders: tuple[SparseOperator, ...]
    prolongations: tuple[SparseOperator, ...]
    velocity: Space | None = None
    curl: SparseOperator | None = None
    others: tuple[Space, ...] = ()
    carry: tuple[SparseOperator, ...] = ()
    join: SparseOperator | None = None
    same: int | None = None
    points: tuple[Points, ...] = ()
    point_encoders: tuple[SparseOperator, ...] = ()

    @property
    def parts(self) -> tuple[Space, ...]:
        """The spaces of the network's values: the output and, if that is mixed, all others."""
        return (self.output, *self.others)

    @property
    def answer(self) -> Space | MixedSpace:
        """The space of the prediction."""
        if self.join is not None:
            return MixedSpace(self.parts, self.join.T.columns.split([part.dofs for part in self.parts]))
        return self.output if self.velocity is None else self.velocity

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Discretisation:
        """A copy on another device or, its numbers, in another precision."""

        def moved(value):
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            return value.to(device, dtype) if isinstance(value, Space | SparseOperator | Points) else value

        return Discretisation(*(moved(getattr(self, name)) for name in self.__slots__))

    def pack(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """A header for JSON and named tensors, to be part of a file; names there are those of `_FILE_NAMES`."""
        header, tensors = {}, {}

        def add(name, value):
            if isinstance(value, tuple):
                return [add(f"{name}.{k}", v) for k, v in enumerate(value)]
            if isinstance(value, Space):
                about, inner = pack(value)
                tensors.update({f"{name}.{key}": tensor for key, tensor in inner.items()})
                return about
            if isinstance(value, Points):
                parts = {_FILE_NAMES.get(part, part): getattr(value, part) for part in Points.__slots__}
                return {part: add(f"{name}.{part}", inner) for part, inner in parts.items()}
            if isinstance(value, torch.Tensor):
                tensors[name] = value
                return None
            if isinstance(value, SparseOperator):
                tensors.update({f"{name}.{part}": getattr(value, part) for part in ("pointers", "columns", "values")})
                return list(value.shape)
            return value

        for name in self.__slots__:
            header[_FILE_NAMES.get(name, name)] = add(_FILE_NAMES.get(name, name), getattr(self, name))
        return header, tensors

    @classmethod
    def unpack(cls, header: dict[str, Any], tensors) -> Discretisation:
        """The discretisation that was packed.

        Args:
            header: from `pack`.
            tensors: name → the tensors below it, by the rest of their names.
        """

        def space(name, about):
            return unpack(about, tensors(name + "."))

        def matrix(name, shape):
            return SparseOperator(tuple(shape), **tensors(name + "."))

        def points(name, about):
            read = tensors(name + ".")
            matrices = {part: about[part] and matrix(f"{name}.{part}", about[part]) for part in ("above", "below")}
            return Points(read["places"], read["weights"], matrix(f"{name}.fields", about["fields"]), **matrices)

        return cls(
            space("output", header["output"]),
            tuple(space(f"coarse.{k}", about) for k, about in enumerate(header["coarse"])),
            tuple(matrix(f"encoders.{k}", shape) for k, shape in enumerate(header["encoders"])),
            tuple(matrix(f"prolongations.{k}", shape) for k, shape in enumerate(header["prolongations"])),
            header["velocity"] and space("velocity", header["velocity"]),
            header["curl"] and matrix("curl", header["curl"]),
            tuple(space(f"others.{k}", about) for k, about in enumerate(header["others"])),
            tuple(matrix(f"carry.{k}", shape) for k, shape in enumerate(header["carry"])),
            header["join"] and matrix("join", header["join"]),
            header["same"],
            tuple(points(f"points.{k}", about) for k, about in enumerate(header["points"])),
            tuple(matrix(f"sights.{k}", shape) for k, shape in enumerate(header["sights"])),
        )


def discretise(
    inputs: Sequence[Any],
    output: Any,
    *,
    bcs: Sequence[Any] = (),
    periodic: Sequence[int] = (),
    velocity: Any = None,
    coarse: Sequence[Any] | CoarseGrids = (),
    encoder: str = "interpolation",
    points: bool = False,
) -> Discretisation:
    """Read function spaces of DOLFINx.

    Args:
        inputs: see `spon.OperatorNetwork`.
        output: see `spon.OperatorNetwork`.
        bcs: see `spon.OperatorNetwork`.
        periodic: see `spon.OperatorNetwork`.
        velocity: see `spon.OperatorNetwork`.
        coarse: Lagrange spaces from finer to coarser, or the grids to make.
        encoder: see `spon.OperatorNetwork`.
        points: whether to read the quadrature points of a Lagrange output, too.

    Raises:
        ValueError: see `spon.OperatorNetwork`.
    """
    from spon.spaces.read import read_space
    from spon.spaces.transfer import at_points, curl

    if encoder not in ENCODERS:
        raise ValueError(f"encoder = {encoder!r}, need one of {', '.join(map(repr, ENCODERS))}")
    answer = output if velocity is None else velocity
    read, others = read_space(output, bcs=bcs, periodic=periodic), _Others()
    if isinstance(read, MixedSpace):
        if velocity is not None:
            raise ValueError("the output space is mixed, but a potential of a velocity must not be: leave velocity out")
        output, space, others = _parts(output, read)
    else:
        space = read
    given = coarse.spaces(output.mesh, space, periodic) if isinstance(coarse, CoarseGrids) else list(coarse)
    below = [_lagrange(V, f"coarse[{k}]", periodic) for k, V in enumerate(given)]
    levels: tuple[Points, ...] = ()
    point_encoders: list[SparseOperator] = []
    if points:
        if space.family != "P":
            raise ValueError(f"the output is {space.family}, need Lagrange for fields that have gradients everywhere")
        if encoder != "interpolation":
            raise ValueError(f"encoder = {encoder!r}: need 'interpolation' for inputs at points")
        levels, cells = read_levels([output, *given], [node_tying(level) for level in (space, *below)])
        point_encoders = [at_points(V, output.mesh, cells, levels[0].coordinates.numpy()) for V in inputs]
    return Discretisation(
        output=space,
        coarse=tuple(below),
        encoders=tuple(_encoder(V, output, space, encoder) for V in inputs),
        prolongations=tuple(map(_prolongation, given, [space, *below], below)),
        velocity=None if velocity is None else _unmixed(read_space(velocity)),
        curl=None if velocity is None else curl(output, velocity),
        others=others.spaces,
        carry=others.carry,
        join=others.join,
        same=next((k for k, V in enumerate(inputs) if others.join is None and _same(V, answer)), None),
        points=levels,
        point_encoders=tuple(point_encoders),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Others:
    """The other parts of a mixed output, see `Discretisation`."""

    spaces: tuple[Space, ...] = ()
    carry: tuple[SparseOperator, ...] = ()
    join: SparseOperator | None = None


def _parts(output: Any, mixed: MixedSpace) -> tuple[Any, Space, _Others]:
    """The first part of a mixed output, in DOLFINx and as tensors, and the others."""
    from meshes.compat import collapse
    from spon.spaces.transfer import evaluation

    order = torch.cat(mixed.numbers).argsort().numpy()
    join = SparseOperator.of(scipy.sparse.eye_array(len(order), format="csr")[order])
    V, parts = collapse(output.sub(0))[0], [part for part in mixed.parts if isinstance(part, Space)]
    if len(parts) < len(mixed.parts) or parts[0].family != "P":
        raise ValueError("the output space is mixed: its first part must be Lagrange, and no part mixed")
    first, *others = parts
    carry, b = [], first.block_size
    for part in others:
        values = evaluation(V, part.points[nodes(part)].numpy()).scipy
        carry.append(SparseOperator.of(values[::b, ::b] @ node_tying(first)))
    return V, first, _Others(tuple(others), tuple(carry), join)


def _unmixed(space: Space | MixedSpace) -> Space:
    if isinstance(space, MixedSpace):
        raise ValueError("the velocity is in a mixed space, need Raviart-Thomas")
    return space


def _lagrange(V: Any, name: str, periodic: Sequence[int]) -> Space:
    from spon.spaces.read import read_space

    space = read_space(V, periodic=periodic)
    if not isinstance(space, Space) or space.family != "P":
        raise ValueError(f"{name} is not Lagrange: need fields with a value at each finer node")
    return space


def _prolongation(V: Any, finer: Space, coarser: Space) -> SparseOperator:
    """(finer nodes, coarser nodes), the values of fields of V, read as `coarser`, at finer nodes."""
    from spon.spaces.transfer import evaluation

    here, b = nodes(finer), coarser.block_size
    matrix = evaluation(V, finer.points[here].numpy(), reach=_REACH).scipy[::b, ::b] @ node_tying(coarser)
    if matrix.shape[1] >= matrix.shape[0]:
        raise ValueError(f"a coarse space has {matrix.shape[1]} nodes, need fewer than {matrix.shape[0]}")
    if not (abs(matrix).sum(axis=0) > 0).all():
        raise ValueError(f"a coarse space of {matrix.shape[1]} nodes has nodes far from all finer ones")
    return SparseOperator.of(matrix)


def _encoder(V: Any, output: Any, space: Space, encoder: str) -> SparseOperator:
    """(nodes · components, input dofs), see `Discretisation.encoders`; `space` was read from `output`."""
    from spon.spaces.read import family
    from spon.spaces.transfer import evaluation, integrals, patch_means

    if encoder == "integrals":
        matrix = integrals(V, output).scipy
        components = scipy.sparse.eye_array(matrix.shape[0] // len(space.points))
        return SparseOperator.of(scipy.sparse.kron(node_tying(space).T, components, "csr") @ matrix)
    if family(V) == "P":
        return evaluation(V, space.points[nodes(space)].numpy(), reach=_REACH)
    # A field that jumps has no value at a node; its mean over the cells around the node is used.
    return patch_means(V, output, node_tying(space))


def _same(V: Any, W: Any) -> bool:
    """Whether two function spaces are equal for each dof."""
    alike = V.mesh == W.mesh and V.ufl_element() == W.ufl_element()
    return alike and np.array_equal(V.dofmap.list, W.dofmap.list)


def nodes(space: Space) -> torch.Tensor:
    """The independent nodes of a space, in the order of its graph."""
    return space.independent[:: space.block_size] // space.block_size


def node_coordinates(space: Space, lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Coordinates (nodes, d) of the independent nodes, from −1 to 1 in a box; zero along periodic axes.

    All nodes along a periodic axis are equivalent.

    Args:
        space: with its nodes tied along its periodic axes.
        lower: (d,) the smallest coordinates of the box [length].
        upper: (d,) the largest ones.
    """
    independent = space.points[nodes(space)]
    # `tying` has one entry per row, the number of the dof's master among the independent ones.
    away = independent[space.tying.columns[:: space.block_size] // space.block_size] - space.points
    periodic = away.abs().amax(0) > 1e-8 * (upper - lower)
    return torch.where(periodic, 0.0, 2 * (independent - lower) / (upper - lower) - 1)


def node_tying(space: Space) -> scipy.sparse.csr_array:
    """(nodes, independent nodes), as `Space.tying`."""
    b = space.block_size
    return scipy.sparse.csr_array(space.tying.scipy[::b, ::b])


def node_matrix(space: Space, matrix: SparseOperator) -> scipy.sparse.csr_array:
    """A matrix of the space for its independent nodes: the block of the first component."""
    b, tying = space.block_size, node_tying(space)
    return scipy.sparse.csr_array(tying.T @ matrix.scipy[::b, ::b] @ tying)


def scaled(matrix: scipy.sparse.csr_array, by: np.ndarray) -> scipy.sparse.csr_array:
    """Rows divided by positive numbers; those divided by zero are zero."""
    inverse = np.divide(1.0, by, out=np.zeros(len(by)), where=by > 0)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(inverse) @ matrix)
