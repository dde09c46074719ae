# SPDX-License-Identifier: MIT
"""Operator networks among the functions and solvers of DOLFINx.

A network's answer is a function; it is also a good guess where an iterative solver begins, which then polishes it to
its tolerance. A learned preconditioner is a PETSc preconditioner:

    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(coupling.LearnedPC(network))

What does not fit is a PETSc.Error there, whose __cause__ says what it is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from dolfinx import fem
from petsc4py import PETSc

from meshes.compat import collapse
from spon import MixedSpace, Operator, Preconditioner, Space, SparseOperator
from spon.operators.discretisation import node_tying, nodes
from spon.spaces.read import family, is_mixed


class FieldOperator:
    """A trained network as a map from functions to a function.

    Args:
        network: on any device and in any precision.
        input: the function spaces of its inputs, or the one. output: that of its answer.

    Raises:
        ValueError: spaces with other numbers of dofs than the network's, or Lagrange ones whose nodes stand elsewhere.
    """

    def __init__(
        self, network: Operator, *, input: fem.FunctionSpace | Sequence[fem.FunctionSpace], output: fem.FunctionSpace
    ):
        self.inputs = list(input) if isinstance(input, Sequence) else [input]
        self.network, self.output = network, output
        sizes, wanted = [_dofs(V) for V in self.inputs], [m.shape[1] for m in network.discretisation.encoders]
        if sizes != wanted:
            raise ValueError(f"the inputs have {sizes} dofs, the network takes {wanted}")
        spaces = network.discretisation
        if _dofs(output) != spaces.answer.dofs:
            raise ValueError(f"the output has {_dofs(output)} dofs, the network's answer {spaces.answer.dofs}")
        answer = spaces.answer
        if is_mixed(output) != isinstance(answer, MixedSpace):
            raise ValueError("of the output and the network's answer, one is of a mixed space and one is not")
        if isinstance(answer, Space):
            answers = [(output, answer)]
        else:
            collapsed = [collapse(output.sub(k)) for k in range(output.num_sub_spaces)]
            if [n.tolist() for _, n in collapsed] != [n.tolist() for n in answer.numbers]:
                raise ValueError("the parts of the output have other dofs than those of the network's answer")
            answers = [(V, part) for (V, _), part in zip(collapsed, spaces.parts)]
        for V, part in answers:
            if part.family in ("P", "DG"):
                _same_places("the output", _places(V), part.points.numpy(), 1e-9)
        for k, (V, encoder) in enumerate(zip(self.inputs, spaces.encoders, strict=True)):
            if family(V) == "P":
                # Lagrange functions know the coordinates, and so does what the network sees of them.
                b = V.dofmap.bs
                matrix = encoder.scipy[::b, ::b]
                into = nodes(spaces.output)
                wanted = spaces.output.points[into].numpy()
                if not np.allclose(matrix.sum(axis=1), 1.0):  # it sees integrals
                    c = spaces.output.block_size
                    weights = node_tying(spaces.output).T @ spaces.output.mass.scipy[::c, ::c]
                    wanted = weights @ spaces.output.points.numpy() / weights.sum(axis=1)[:, None]
                    matrix = matrix / matrix.sum(axis=1)[:, None]
                # Curved cells know them but nearly.
                _same_places(f"input {k}", matrix @ _places(V), wanted, 1e-3)

    def __call__(self, *functions: fem.Function) -> fem.Function:
        """The answer to functions of the input spaces.

        Raises:
            ValueError: another number of functions, or functions of other spaces.
        """
        if [getattr(u, "function_space", None) for u in functions] != self.inputs:
            raise ValueError(f"got {len(functions)} functions, need one of each of the {len(self.inputs)} input spaces")
        scale = self.network.scale
        with torch.no_grad():
            columns = (torch.from_numpy(u.x.array[:, None]).to(scale) for u in functions)
            values = self.network(*columns)[:, 0]
        answer = fem.Function(self.output)
        answer.x.array[:] = values.cpu().numpy()
        return answer


class LearnedPC:
    """`spon.Preconditioner` as the context of a PETSc preconditioner of type "python", made anew for each matrix.

    Args:
        network: see `spon.Preconditioner`. *others: functions, its other inputs, whose values are read at each set-up.
    """

    def __init__(self, network: Operator, *others: fem.Function):
        self.network, self.others = network, others
        self._preconditioner: Preconditioner | None = None

    def setUp(self, pc: PETSc.PC) -> None:
        """Read the matrix of the solver."""
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
    """A matrix of PETSc on one rank as one of torch; raises ValueError for one that is spread, or is not stored so."""
    if matrix.comm.size > 1:
        raise ValueError(f"the matrix is spread over {matrix.comm.size} ranks, need one on PETSc.COMM_SELF")
    if matrix.type not in ("aij", "seqaij"):
        raise ValueError(f"the matrix is of the type {matrix.type!r}, need 'aij': matrix.convert('aij')")
    pointers, columns, values = matrix.getValuesCSR()
    return SparseOperator.of(scipy.sparse.csr_array((values, columns, pointers), shape=matrix.getSize()))


def _dofs(V: fem.FunctionSpace) -> int:
    return V.dofmap.index_map.size_local * V.dofmap.index_map_bs


def _places(V: fem.FunctionSpace) -> npt.NDArray[np.float64]:
    return V.tabulate_dof_coordinates()[:, : V.mesh.geometry.dim]


def _same_places(what: str, found: npt.NDArray, wanted: npt.NDArray, close: float) -> None:
    """Raise ValueError where points (n, d) are not the same, but for `close` times the size of all."""
    away = np.linalg.norm(found - wanted, axis=1)
    if not away.max() <= close * np.ptp(wanted):
        node = int(away.argmax())
        raise ValueError(
            f"{what} at node {node} is {away[node]:.3g} away from where the network has it: it was made for another "
            "mesh, or another numbering of it"
        )
