# SPDX-License-Identifier: MIT
"""Operator networks among the functions and solvers of DOLFINx.

A network's answer is a function; it is also a good guess where an iterative solver begins, which then polishes it to
its tolerance. A learned preconditioner is a PETSc preconditioner:

    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(coupling.LearnedPC(network))
"""

from collections.abc import Sequence

import scipy.sparse
import torch
from dolfinx import fem
from petsc4py import PETSc

from spon import Operator, Preconditioner, SparseOperator


class FieldOperator:
    """A trained network as a map from functions to a function.

    Args:
        network: in float64 on any device.
        input: the function spaces of its inputs, or the one. output: that of its answer.

    Raises:
        ValueError: spaces with other numbers of dofs than the network's, or an output whose nodes stand elsewhere.
    """

    def __init__(
        self, network: Operator, *, input: fem.FunctionSpace | Sequence[fem.FunctionSpace], output: fem.FunctionSpace
    ):
        self.inputs = list(input) if isinstance(input, Sequence) else [input]
        self.network, self.output = network, output
        sizes, wanted = [_dofs(V) for V in self.inputs], [m.shape[1] for m in network.discretisation.encoders]
        if sizes != wanted:
            raise ValueError(f"the inputs have {sizes} dofs, the network takes {wanted}")
        answer = network.discretisation.answer
        if _dofs(output) != answer.dofs:
            raise ValueError(f"the output has {_dofs(output)} dofs, the network's answer {answer.dofs}")
        if answer.family in ("P", "DG"):
            away = abs(output.tabulate_dof_coordinates()[:, : answer.points.shape[1]] - answer.points.numpy())
            size = float(answer.points.amax() - answer.points.amin())
            if not away.max() <= 1e-9 * size:
                node = int(away.max(axis=1).argmax())
                raise ValueError(
                    f"node {node} of the output stands {away.max():.3g} from where the network has it: it was made for "
                    "another mesh, or another numbering of it"
                )

    def __call__(self, *functions: fem.Function) -> fem.Function:
        """The answer to functions of the input spaces.

        Raises:
            ValueError: another number of functions, or functions of other spaces.
        """
        if [u.function_space for u in functions] != self.inputs:
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
        network: see `spon.Preconditioner`. others: functions, its other inputs, whose values are read at each set-up.
    """

    def __init__(self, network: Operator, others: Sequence[fem.Function] = ()):
        self.network, self.others = network, list(others)
        self._preconditioner: Preconditioner | None = None

    def setUp(self, pc: PETSc.PC) -> None:
        """Read the matrix of the solver."""
        _, matrix = pc.getOperators()
        others = (torch.from_numpy(u.x.array[:, None].copy()).to(self.network.scale) for u in self.others)
        self._preconditioner = Preconditioner(self.network, sparse(matrix).to(*_place(self.network)), *others)

    def apply(self, pc: PETSc.PC, residual: PETSc.Vec, out: PETSc.Vec) -> None:
        """out ← B residual."""
        assert self._preconditioner is not None  # PETSc sets up first
        with torch.no_grad():
            found = self._preconditioner(torch.from_numpy(residual.array_r[:, None].copy()).to(self.network.scale))
        out.array[:] = found[:, 0].cpu().numpy()


def sparse(matrix: PETSc.Mat) -> SparseOperator:
    """A matrix of PETSc on one rank as one of torch."""
    if matrix.comm.size > 1:
        raise ValueError(f"the matrix is spread over {matrix.comm.size} ranks, need one on PETSc.COMM_SELF")
    pointers, columns, values = matrix.getValuesCSR()
    return SparseOperator.of(scipy.sparse.csr_array((values, columns, pointers), shape=matrix.getSize()))


def _dofs(V: fem.FunctionSpace) -> int:
    return V.dofmap.index_map.size_local * V.dofmap.index_map_bs


def _place(network: Operator) -> tuple[torch.device, torch.dtype]:
    return network.scale.device, network.scale.dtype
