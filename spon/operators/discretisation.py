# SPDX-License-Identifier: MIT
"""What an operator network is built on: the output space, the coarse ones, and the matrices that connect them.

It is read from DOLFINx once; from then on it is tensors, as `spon.spaces`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from spon.spaces.quadrature import Points, read_levels
from spon.spaces.space import MixedSpace, Space, pack, unpack
from spon.sparse import SparseOperator

ENCODERS = ("interpolation", "integrals")


@dataclass(frozen=True, slots=True, eq=False)
class Discretisation:
    """Spaces and fixed matrices between their independent nodes.

    output: the space of the answer, with its strong conditions. coarse: spaces from finer to coarser.
    encoders: per input (nodes · components, input dofs), what the network sees of it at each node of the output.
    prolongations: (finer nodes, coarser nodes), from the coarsest but one of (output, *coarse) back to the output.
    velocity: the space of the answer if it is the curl of what the network predicts in `output`, else None.
    curl: (velocity dofs, output dofs), or None.
    others: further parts of the answer, if it is of a mixed space, whose first part is then `output`.
    carry: to each of them (nodes, output nodes), the values that a field of the output has there.
    join: (mixed dofs, dofs of all parts), the fields of the parts as one, or None.
    same: number of the first input that is in the space of the answer, or None.
    points: of the output and of the coarse spaces, or none. sights: per input (points · components, input dofs), its
    values at the output's points.
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
    sights: tuple[SparseOperator, ...] = ()

    @property
    def parts(self) -> tuple[Space, ...]:
        """The spaces that the network has values in: the output and, if that is mixed, all others."""
        return (self.output, *self.others)

    @property
    def answer(self) -> Space | MixedSpace:
        """The space of what the network returns."""
        if self.join is not None:
            return MixedSpace(self.parts, self.join.T.columns.split([part.dofs for part in self.parts]))
        return self.output if self.velocity is None else self.velocity

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Discretisation":
        """The same on another device or, its numbers, in another precision."""

        def moved(value):
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            return value.to(device, dtype) if isinstance(value, Space | SparseOperator | Points) else value

        return Discretisation(*(moved(getattr(self, name)) for name in self.__slots__))

    def pack(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """As what JSON knows and named tensors, to be part of a file."""
        header, tensors = {}, {}

        def add(name, value):
            if isinstance(value, tuple):
                return [add(f"{name}.{k}", v) for k, v in enumerate(value)]
            if isinstance(value, Space):
                about, inner = pack(value)
                tensors.update({f"{name}.{key}": tensor for key, tensor in inner.items()})
                return about
            if isinstance(value, Points):
                return {part: add(f"{name}.{part}", getattr(value, part)) for part in Points.__slots__}
            if isinstance(value, torch.Tensor):
                tensors[name] = value
                return None
            if isinstance(value, SparseOperator):
                tensors.update({f"{name}.{part}": getattr(value, part) for part in ("pointers", "columns", "values")})
                return list(value.shape)
            return value

        for name in self.__slots__:
            header[name] = add(name, getattr(self, name))
        return header, tensors

    @classmethod
    def unpack(cls, header: dict[str, Any], tensors) -> "Discretisation":
        """What was packed; `tensors` gives those below a name, by the rest of their names."""

        def space(name, about):
            return unpack(about, tensors(name + "."))

        def matrix(name, shape):
            return SparseOperator(tuple(shape), **tensors(name + "."))

        def points(name, about):
            read = tensors(name + ".")
            matrices = {part: about[part] and matrix(f"{name}.{part}", about[part]) for part in ("above", "below")}
            # "places" is what files of the last release call them.
            coordinates = read["coordinates" if "coordinates" in read else "places"]
            return Points(coordinates, read["weights"], matrix(f"{name}.fields", about["fields"]), **matrices)

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
    coarse: Sequence[Any] = (),
    encoder: str = "interpolation",
    points: bool = False,
) -> Discretisation:
    """Read function spaces of DOLFINx; for the arguments and errors see `spon.OperatorNetwork`.

    points: whether quadrature points are read too, of a Lagrange output.
    """
    from spon.spaces.read import family, read_space
    from spon.spaces.transfer import at_points, curl, evaluation, integrals, patch_means

    if encoder not in ENCODERS:
        raise ValueError(f"encoder = {encoder!r}, need one of {', '.join(map(repr, ENCODERS))}")
    space = read_space(output, bcs=bcs, periodic=periodic)
    others: list[Space] = []
    carry: list[SparseOperator] = []
    join = None
    if isinstance(space, MixedSpace):
        from meshes.compat import collapse

        if velocity is not None:
            raise ValueError("the output space is mixed, and a potential of a velocity is not: leave velocity out")
        order = torch.cat(space.numbers).argsort().numpy()
        join = SparseOperator.of(scipy.sparse.eye_array(len(order), format="csr")[order])
        output, (space, *others) = collapse(output.sub(0))[0], space.parts
        if not isinstance(space, Space) or space.family != "P" or any(isinstance(part, MixedSpace) for part in others):
            raise ValueError("the output space is mixed: its first part must be Lagrange, and none mixed again")
        for part in others:
            values = evaluation(output, part.points[nodes(part)].numpy()).scipy
            carry.append(SparseOperator.of(values[:: space.block_size, :: space.block_size] @ node_tying(space)))
    below: list[Space] = []
    for k, V in enumerate(coarse):
        level = read_space(V, periodic=periodic)
        if not isinstance(level, Space) or level.family != "P":
            raise ValueError(f"coarse[{k}] is not Lagrange, whose fields have a value at each finer node")
        below.append(level)
    prolongations = []
    for V, finer, coarser in zip(coarse, [space, *below], below):
        here, b = nodes(finer), coarser.block_size
        matrix = evaluation(V, finer.points[here].numpy(), reach=0.5).scipy[::b, ::b] @ node_tying(coarser)
        if matrix.shape[1] >= matrix.shape[0]:
            raise ValueError(f"a coarse space has {matrix.shape[1]} nodes, need fewer than {matrix.shape[0]}")
        if not (abs(matrix).sum(axis=0) > 0).all():
            raise ValueError(f"a coarse space of {matrix.shape[1]} nodes has some far from all finer ones")
        prolongations.append(SparseOperator.of(matrix))
    encoders = []
    for V in inputs:
        if encoder == "integrals":
            matrix = integrals(V, output).scipy
            components = scipy.sparse.eye_array(matrix.shape[0] // len(space.points))
            encoders.append(SparseOperator.of(scipy.sparse.kron(node_tying(space).T, components, "csr") @ matrix))
        elif family(V) == "P":
            encoders.append(evaluation(V, space.points[nodes(space)].numpy(), reach=0.5))
        else:
            # What jumps has no value at a node; its mean around it leaves no cell out.
            encoders.append(patch_means(V, output, node_tying(space)))
    answer = output if velocity is None else velocity
    levels: tuple[Points, ...] = ()
    sights: list[SparseOperator] = []
    if points:
        if space.family != "P":
            raise ValueError(f"the output is {space.family}, need Lagrange for fields that have slopes everywhere")
        if encoder != "interpolation":
            raise ValueError(f"encoder = {encoder!r}, but at points inputs are seen as they are: need 'interpolation'")
        levels, cells = read_levels([output, *coarse], [node_tying(level) for level in (space, *below)])
        sights = [at_points(V, output.mesh, cells, levels[0].coordinates.numpy()) for V in inputs]
    return Discretisation(
        space,
        tuple(below),
        tuple(encoders),
        tuple(prolongations),
        None if velocity is None else read_space(velocity),
        None if velocity is None else curl(output, velocity),
        tuple(others),
        tuple(carry),
        join,
        next((k for k, V in enumerate(inputs) if join is None and _same(V, answer)), None),
        levels,
        tuple(sights),
    )


def _same(V: Any, W: Any) -> bool:
    """Whether the dofs of two function spaces mean the same."""
    alike = V.mesh == W.mesh and V.ufl_element() == W.ufl_element()
    return alike and np.array_equal(V.dofmap.list, W.dofmap.list)


def nodes(space: Space) -> torch.Tensor:
    """The independent nodes of a space, in the order of its graph."""
    return space.independent[:: space.block_size] // space.block_size


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
