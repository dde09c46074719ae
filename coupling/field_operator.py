# SPDX-License-Identifier: MIT
"""Operator networks as maps of DOLFINx functions and as preconditioners of PETSc.

The prediction is a function, which may serve as the initial guess of an iterative solver. A learned preconditioner is
used as a PETSc preconditioner:

    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(coupling.LearnedPC(network))

PETSc reports an error in it as a PETSc.Error, whose __cause__ is the error.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from dolfinx import fem
from petsc4py import PETSc

from meshes.compat import collapse
from spon import MixedSpace, OperatorNetwork, Preconditioner, Space, SparseOperator
from spon.operators.discretisation import Discretisation, node_tying, nodes
from spon.spaces.read import family, is_mixed

_SAME_MESH = 1e-9  # largest difference of equal coordinates, relative to the extent of the mesh
_CURVED = 1e-3  # the same for coordinates interpolated in curved cells, whose basis does not reproduce them


class FieldOperator:
    """A trained network as a map from functions to a function.

    Args:
        network: on any device and in any precision.
        input: the function space of its input, or a list of those of all inputs.
        output: the function space of its prediction.

    Raises:
        ValueError: spaces with other numbers of dofs than the network's, or Lagrange spaces with other nodes.
    """

    def __init__(
        self,
        network: OperatorNetwork,
        *,
        input: fem.FunctionSpace | Sequence[fem.FunctionSpace],
        output: fem.FunctionSpace,
    ):
        self.inputs = list(input) if isinstance(input, Sequence) else [input]
        self.network, self.output = network, output
        spaces = network.discretisation
        dofs, needed = [_dofs(V) for V in self.inputs], [m.shape[1] for m in spaces.encoders]
        if dofs != needed:
            raise ValueError(f"the inputs have {dofs} dofs, the network takes {needed}")
        _check_output(output, spaces)
        for k, (V, encoder) in enumerate(zip(self.inputs, spaces.encoders, strict=True)):
            if family(V) == "P":
                _check_input(f"input {k}", V, encoder, spaces.output)

    def __call__(self, *functions: fem.Function) -> fem.Function:
        """The prediction for functions of the input spaces.

        Raises:
            ValueError: another number of functions, or functions of other spaces.
        """
        if [getattr(u, "function_space", None) for u in functions] != self.inputs:
            raise ValueError(f"got {len(functions)} functions, need one of each of the {len(self.inputs)} input spaces")
        columns = (torch.from_numpy(u.x.array[:, None]).to(self.network.scale) for u in functions)
        prediction = fem.Function(self.output)
        with torch.no_grad():
            prediction.x.array[:] = self.network(*columns)[:, 0].cpu().numpy()
        return prediction


class LearnedPC:
    """`spon.Preconditioner` as the context of a PETSc preconditioner of type "python", made anew for each matrix.

    Args:
        network: see `spon.Preconditioner`.
        *others: functions of its other inputs, whose values are read at each set-up.
    """

    def __init__(self, network: OperatorNetwork, *others: fem.Function):
        self.network, self.others = network, others
        self._preconditioner: Preconditioner | None = None

    def setUp(self, pc: PETSc.PC) -> None:
        """Take the matrix of the solver."""
        _, matrix = pc.getOperators()
        others = (torch.from_numpy(u.x.array[:, None].copy()).to(self.network.scale) for u in self.others)
        self._preconditioner = Preconditioner(
            self.network, sparse_operator(matrix).to(self.network.scale.device, self.network.scale.dtype), *others
        )

    def apply(self, pc: PETSc.PC, residual: PETSc.Vec, out: PETSc.Vec) -> None:
        """out ← B residual."""
        assert self._preconditioner is not None  # PETSc sets up first
        with torch.no_grad():
            found = self._preconditioner(torch.from_numpy(residual.array_r[:, None].copy()).to(self.network.scale))
        out.array[:] = found[:, 0].cpu().numpy()


def sparse_operator(matrix: PETSc.Mat) -> SparseOperator:
    """A PETSc matrix as a sparse torch tensor.

    Args:
        matrix: of type "aij", on one rank.

    Raises:
        ValueError: a matrix on several ranks, or of another type.
    """
    if matrix.comm.size > 1:
        raise ValueError(f"the matrix is spread over {matrix.comm.size} ranks, need one on PETSc.COMM_SELF")
    if matrix.type not in ("aij", "seqaij"):
        raise ValueError(f"the matrix is of the type {matrix.type!r}, need 'aij': matrix.convert('aij')")
    pointers, columns, values = matrix.getValuesCSR()
    return SparseOperator.of(scipy.sparse.csr_array((values, columns, pointers), shape=matrix.getSize()))


def _check_output(output: fem.FunctionSpace, spaces: Discretisation) -> None:
    """Raise ValueError for an output whose dofs are not those of a network's prediction."""
    answer = spaces.answer
    if _dofs(output) != answer.dofs:
        raise ValueError(f"the output has {_dofs(output)} dofs, the network predicts {answer.dofs}")
    if is_mixed(output) != isinstance(answer, MixedSpace):
        raise ValueError("either the output or the network's prediction is in a mixed space, need both or neither")
    if isinstance(answer, Space):
        pairs = [(output, answer)]
    else:
        collapsed = [collapse(output.sub(k)) for k in range(output.num_sub_spaces)]
        if [n.tolist() for _, n in collapsed] != [n.tolist() for n in answer.numbers]:
            raise ValueError("the parts of the output have other dofs than those of the network's prediction")
        pairs = [(V, part) for (V, _), part in zip(collapsed, spaces.parts)]
    for V, part in pairs:
        if part.family in ("P", "DG"):
            _check_coordinates("the output", _coordinates(V), part.points.numpy(), _SAME_MESH)


def _check_input(name: str, V: fem.FunctionSpace, encoder: SparseOperator, output: Space) -> None:
    """Raise ValueError for a Lagrange space unless an encoder maps its coordinates to those of the output."""
    b = V.dofmap.bs
    matrix = encoder.scipy[::b, ::b]
    expected = output.points[nodes(output)].numpy()
    if not np.allclose(matrix.sum(axis=1), 1.0):  # integrals against the basis of the output
        c = output.block_size
        weights = node_tying(output).T @ output.mass.scipy[::c, ::c]
        expected = weights @ output.points.numpy() / weights.sum(axis=1)[:, None]
        matrix = matrix / matrix.sum(axis=1)[:, None]
    _check_coordinates(name, matrix @ _coordinates(V), expected, _CURVED)


def _dofs(V: fem.FunctionSpace) -> int:
    return V.dofmap.index_map.size_local * V.dofmap.index_map_bs


def _coordinates(V: fem.FunctionSpace) -> npt.NDArray[np.float64]:
    return V.tabulate_dof_coordinates()[:, : V.mesh.geometry.dim]


def _check_coordinates(name: str, found: npt.NDArray, expected: npt.NDArray, tolerance: float) -> None:
    """Raise ValueError for points (n, d) that differ by more than `tolerance` times the extent of all."""
    away = np.linalg.norm(found - expected, axis=1)
    if not away.max() <= tolerance * np.ptp(expected):
        node = int(away.argmax())
        raise ValueError(
            f"{name} at node {node} is {away[node]:.3g} away from the network's node: it was made for another mesh, or "
            "another numbering of it"
        )
